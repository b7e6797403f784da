"""Lines of the log: their form, that libraries keep it too, and that nothing hangs on them."""

import errno
import io
import json
import logging
from typing import Any

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from isthmus.connector.events import Log
from isthmus.node import logs


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def lines() -> Any:
    """Logs to a file that is no terminal; gives what was written, parsed."""
    before = list(logging.getLogger().handlers)

    def start(level: str = "info") -> Any:
        stream = io.StringIO()
        logger = logs.set_up(level=level, stream=stream)
        return logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    yield start
    logging.getLogger().handlers[:] = before


def test_one_json_object_a_line_with_level_and_time(lines: Any) -> None:
    logger, written = lines()
    logs.write(logger, Log("warning", "late_fulfill", {"account": "bob", "amount": "18446744073709551615"}))
    logs.write(logger, Log("debug", "too quiet", {}))
    (line,) = written()
    assert (line["event"], line["level"], line["amount"]) == ("late_fulfill", "warning", str(2**64 - 1))
    assert line["timestamp"].endswith("Z")


def test_what_a_library_logs_is_one_line_too(lines: Any) -> None:
    _, written = lines()
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("some.library").exception("it failed")
    logging.getLogger("some.library").info("not for operators")
    (line,) = written()
    assert (line["event"], line["level"], line["logger"]) == ("library", "error", "some.library")
    assert (line["problem"], line["error"]) == ("it failed", "ValueError: two lines")
    assert "Traceback" in line["trace"]


def test_a_strangers_broken_request_is_no_error_of_ours(lines: Any) -> None:
    for level, expected in (("info", 0), ("debug", 1)):
        _, written = lines(level)
        try:
            raise BadHttpMessage("Invalid character in Content-Length")
        except BadHttpMessage:
            logging.getLogger("aiohttp.server").exception("Error handling request from 127.0.0.1")
        assert len(written()) == expected


def test_set_up_again_does_not_double_the_lines(lines: Any) -> None:
    lines()
    _, written = lines()
    logging.getLogger("some.library").error("once")
    assert len(written()) == 1


def test_a_log_that_can_not_be_written_stops_nothing(lines: Any) -> None:
    """The disk behind it is full, or the pipe was closed: the kernel's turn goes on."""
    logs.set_up(form="json", stream=FullDisk()).error("halted", problem="none")
    out = io.StringIO()
    logger = logs.set_up(form="json", stream=out)
    out.close()
    logger.info("stopped")
