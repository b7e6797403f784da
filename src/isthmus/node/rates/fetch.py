"""Fetching one source once: a GET or a read of a file, bounded in time and size. What comes is judged elsewhere."""

import asyncio
import os
import stat
from collections.abc import Sequence
from typing import Final, Protocol, final

import aiohttp
from yarl import URL

from isthmus.errors import ConfigError
from isthmus.links.http.client import describe, read_limited
from isthmus.node.config_model import FileFetch, HttpFetch, RateSource
from isthmus.node.rates.answers import Answer, read_ecb, read_file, read_json
from isthmus.node.rates.exact import AnswerError
from isthmus.node.tls import client_context

BODY_BYTES_MAX: Final = 1024 * 1024
FILE_MS_MAX: Final = 10_000  # a folder on a network may hang
AGE_S_MAX: Final = 10**9
PROBLEM_CHARS_MAX: Final = 300


class Fetcher(Protocol):
    """One source. Used by one task at a time."""

    async def fetch(self, wanted: Sequence[str], wall_ms: int) -> Answer:
        """What it says now. AnswerError if it says nothing that can be used."""

    async def close(self) -> None: ...


def fetcher_for(source: RateSource) -> Fetcher:
    fetch = source.fetch
    return FileFetcher(fetch) if isinstance(fetch, FileFetch) else HttpFetcher(fetch)


@final
class FileFetcher:
    """A file is read when it is another one than before, or has another size or time."""

    def __init__(self, settings: FileFetch) -> None:
        self._path: Final = settings.path
        self._known: tuple[int, int, int] | None = None
        self._answer: Answer

    async def fetch(self, wanted: Sequence[str], wall_ms: int) -> Answer:
        try:
            async with asyncio.timeout(FILE_MS_MAX / 1000):
                found = await asyncio.to_thread(self._read)
        except TimeoutError:
            raise AnswerError(f"{self._path} can't be read within {FILE_MS_MAX // 1000} s") from None
        except OSError as error:
            self._known = None
            raise AnswerError(f"{self._path}: {error.strerror or error}") from None
        if found is not None:
            body, known, changed_ms = found
            self._known = None
            answer = read_file(body, is_toml=self._path.suffix == ".toml")
            self._known = known
            own = answer.as_of_ms is not None
            self._answer = answer if own else Answer(answer.quotes, min(changed_ms, wall_ms))
        return self._answer

    async def close(self) -> None:
        pass

    def _read(self) -> tuple[bytes, tuple[int, int, int], int] | None:
        """Its bytes, what it is known by, and when it was changed; None if it is known."""
        # A pipe must not hang us, nor a device flood us.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise AnswerError(f"{self._path} is no file")
            known = (status.st_ino, status.st_size, status.st_mtime_ns)
            if known == self._known:
                return None
            with open(descriptor, "rb", closefd=False) as file:
                body = file.read(BODY_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
        if len(body) > BODY_BYTES_MAX:
            raise AnswerError(f"{self._path} is longer than {BODY_BYTES_MAX} bytes")
        return body, known, status.st_mtime_ns // 1_000_000


@final
class HttpFetcher:
    """One GET a fetch, over a connection of its own. Follows no redirects, keeps no cookies, decompresses nothing."""

    def __init__(self, settings: HttpFetch) -> None:
        self._settings: Final = settings
        self._http: aiohttp.ClientSession | None = None

    async def fetch(self, wanted: Sequence[str], wall_ms: int) -> Answer:
        body, age_ms = await self._get()
        form = self._settings.form
        answer = read_ecb(body, wanted) if form is None else read_json(body, form, wanted)
        if answer.as_of_ms is None and age_ms:
            return Answer(answer.quotes, wall_ms - age_ms, answer.problems)
        return answer

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def _get(self) -> tuple[bytes, int]:
        """The body, and for how long a cache on the way has had it (ms)."""
        settings = self._settings
        headers = {"Accept": "application/xml, text/xml" if settings.form is None else "application/json"}
        # What isn't compressed can't be larger than it looks.
        headers["Accept-Encoding"] = "identity"
        url = URL(settings.url)
        if settings.key is not None and settings.key_header is not None:
            headers[settings.key_header] = settings.key.reveal()
        elif settings.key is not None and settings.key_query is not None:
            url = url.update_query({settings.key_query: settings.key.reveal()})
        try:
            async with asyncio.timeout(settings.timeout_ms / 1000):
                return await self._read(url, headers)
        except TimeoutError:
            raise AnswerError(f"no whole answer within {settings.timeout_ms} ms") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host that is no name
            raise AnswerError(self._without_key(describe(error), url)) from None

    async def _read(self, url: URL, headers: dict[str, str]) -> tuple[bytes, int]:
        async with self._session().get(url, headers=headers, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                host = _host_of(response.headers.get("Location", ""), url)
                raise AnswerError(f"it answers {response.status} and sends us to {host}: configure the URL that holds")
            if response.status != 200:
                raise AnswerError(f"it answers {response.status}")
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                raise AnswerError(f"its answer is compressed ({encoding[:20]!r}), which we didn't ask for")
            body = await read_limited(response.content, BODY_BYTES_MAX)
            if body is None:
                raise AnswerError(f"its answer is longer than {BODY_BYTES_MAX} bytes")
            return body, _age_ms(response.headers.get("Age", ""))

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            try:
                context = client_context(self._settings.tls)
            except ConfigError as error:
                raise AnswerError(str(error)) from None
            # A proxy of the environment's could change what we trade at: aiohttp asks for none unless told to.
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1, force_close=True, ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._http

    def _without_key(self, text: str, url: URL) -> str:
        """Libraries put URLs into their errors, and operators put keys into URLs."""
        key = self._settings.key
        hidden = [str(url), url.raw_query_string, url.query_string]
        if key is not None:
            hidden += [key.reveal(), str(URL("").update_query({"k": key.reveal()}))[3:]]
        for form in filter(None, hidden):
            text = text.replace(form, "…")
        return text[:PROBLEM_CHARS_MAX]


def _host_of(location: str, url: URL) -> str:
    """Where a redirect leads, without what a stranger might want to see in our log."""
    try:
        host = url.join(URL(location[:2_000])).host
    except ValueError:
        host = None
    return repr(host)[:80] if host else "nowhere"


def _age_ms(text: str) -> int:
    """RFC 9111 §5.1."""
    return min(int(text), AGE_S_MAX) * 1000 if text.isascii() and text.isdecimal() and len(text) <= 12 else 0
