"""Structured logs: lines for people on a terminal, JSON objects everywhere else.

The pure core says what deserves a line by `Log` effects; the shell logs by the same logger. Fields never hold
secrets: nothing here could tell one from other text.
"""

import contextlib
import sys
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


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
