"""Lines of the log: their form, and that nothing hangs on them."""

import errno
import io
import json

from isthmus.connector.events import Log
from isthmus.node import logs


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_fact_of_the_kernel_is_one_json_object() -> None:
    out = io.StringIO()
    logs.write(logs.set_up(form="json", stream=out), Log("warning", "late_fulfill", {"account": "bob", "ms_late": 3}))
    line = json.loads(out.getvalue())
    assert (line["level"], line["event"], line["account"], line["ms_late"]) == ("warning", "late_fulfill", "bob", 3)


def test_a_log_that_can_not_be_written_stops_nothing() -> None:
    """The disk behind it is full, or the pipe was closed: the kernel's turn goes on."""
    logs.set_up(form="json", stream=FullDisk()).error("halted", problem="none")
    out = io.StringIO()
    logger = logs.set_up(form="json", stream=out)
    out.close()
    logger.info("stopped")
