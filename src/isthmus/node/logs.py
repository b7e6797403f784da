"""Structured logs: lines for people on a terminal, JSON objects everywhere else.

The pure core says what deserves a line by `Log` effects; the shell logs by the same logger. Fields never hold
secrets: nothing here could tell one from other text.
"""

import contextlib
import logging
import sys
import traceback
from typing import Final, TextIO, cast

import structlog

from isthmus.connector.events import Log


def set_up(
    *, level: str = "info", form: str = "auto", stream: TextIO | None = None
) -> structlog.typing.FilteringBoundLogger:
    """The process's logger. `form` is "auto" (JSON unless on a terminal), "json" or "text"."""
    out = stream if stream is not None else sys.stderr
    as_json = form == "json" or (form == "auto" and not out.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(cast(TextIO, _Spilling(out))),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(LibraryHandler(logger))
    return logger


class _Spilling:
    """A stream for lines that may be lost: a full disk or a closed pipe behind the log must not stop the node."""

    def __init__(self, out: TextIO) -> None:
        self._out: Final = out

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._out.flush()


def write(logger: structlog.typing.FilteringBoundLogger, log: Log) -> None:
    """One `Log` effect of the kernel as a line."""
    logger.log(_LEVELS[log.level], log.event, **log.fields)


class LibraryHandler(logging.Handler):
    """What libraries log by Python's `logging`, as lines of ours: one each, and no traceback over many lines.

    A stranger's broken HTTP request is no error of ours: whoever can connect could fill the log with it.
    """

    def __init__(self, logger: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger: Final = logger

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        level = record.levelno
        fields = {"logger": record.name, "problem": record.getMessage()}
        if error is not None:
            fields["error"] = " ".join(f"{type(error).__name__}: {error}".split())
            if type(error).__module__ == _STRANGERS_ERRORS:
                level = logging.DEBUG
            else:
                fields["trace"] = "".join(traceback.format_exception(error))
        self._logger.log(level, "library", **fields)


_STRANGERS_ERRORS: Final = "aiohttp.http_exceptions"
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
