"""Starts processes quickly: it has imported everything, and forks.

    python -m tests.crash.nursery

reads lines of JSON from its standard input, `{"name", "kind", "arguments", "environment", "log"}`, forks a child for
each and answers `{"started", "pid"}`; when a child has ended it says `{"ended", "pid", "status"}` (negative: the
signal). Each child is a process of its own, dies by itself, and is killed if the nursery ends.

The kinds: `isthmus` runs a command line of ours, `payer` a wallet that pays and is paid without end.
"""

import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any, Final, NoReturn

import isthmus.cli.books
import isthmus.cli.node
import isthmus.node.runtime  # imported before the fork: a child needs them all
import isthmus.runtime.replay  # noqa: F401
from isthmus.cli.main import main
from tests.crash import killpoints, payer

POLL_S: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1


def serve() -> None:
    """Until the standard input ends."""
    gc.collect()
    gc.freeze()
    names: dict[int, str] = {}
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    unread = b""
    while True:
        if waiting.select(POLL_S):
            read = os.read(sys.stdin.fileno(), 65_536)
            if not read:
                break
            *lines, unread = (unread + read).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = _fork(request)
                names[pid] = request["name"]
                _say({"started": request["name"], "pid": pid})
        _reap(names)
    for pid in names:
        os.kill(pid, signal.SIGKILL)


def _reap(names: dict[int, str]) -> None:
    while names:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in names:
            _say({"ended": names.pop(pid), "pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _be_born(request)
    return pid


def _be_born(request: dict[str, Any]) -> NoReturn:
    """In the child: its own session, standard files and environment, then its work."""
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number, opened in ((0, nothing), (1, log), (2, log)):
            os.dup2(opened, number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        os.environ |= request["environment"]
        killpoints.arm(request["environment"])
        if request["kind"] == "payer":
            status = payer.main(request["arguments"])
        else:
            main(request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing of the child may go on in the nursery's code
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
