/* Faults on demand, between a process and the C library. The folder $FAULTS says which are on, now:
   a file "fsync" makes fsync and fdatasync fail with EIO, "dns" makes name look-ups fail, "slow-dns" makes them wait
   until it is gone, and "clock" holds seconds to add to the wall clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int path_of(const char *name, char *path, size_t size) {
  const char *folder = getenv("FAULTS");
  return folder && snprintf(path, size, "%s/%s", folder, name) < (int)size;
}

static int is_on(const char *name) {
  char path[4096];
  int before = errno;
  int found = path_of(name, path, sizeof path) && access(path, F_OK) == 0;
  errno = before;
  return found;
}

int fsync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  if (is_on("fsync")) { errno = EIO; return -1; }
  return real(file);
}

int fdatasync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  if (is_on("fsync")) { errno = EIO; return -1; }
  return real(file);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
      (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
  if (hints && hints->ai_flags & AI_NUMERICHOST) return real(node, service, hints, found);
  while (is_on("slow-dns")) usleep(10000);
  if (is_on("dns")) return EAI_AGAIN;
  return real(node, service, hints, found);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, now);
  char path[4096];
  if (status == 0 && clock == CLOCK_REALTIME && is_on("clock") && path_of("clock", path, sizeof path)) {
    FILE *file = fopen(path, "r");
    long seconds = 0;
    if (file) {
      if (fscanf(file, "%ld", &seconds) == 1) now->tv_sec += seconds;
      fclose(file);
    }
  }
  return status;
}
