"""The writer thread's slice: asked for where that is possible, and never in the way."""

import os
import sys
import threading

from isthmus.journal.scheduling import ask_for_short_slices


def test_asking_changes_neither_policy_nor_niceness_of_the_thread() -> None:
    """It is a request for latency, not for a larger share."""
    seen: list[tuple[bool, int, int]] = []

    def ask() -> None:
        asked = ask_for_short_slices()
        policy = os.sched_getscheduler(0) if sys.platform == "linux" else 0
        seen.append((asked, policy, os.getpriority(os.PRIO_PROCESS, 0)))

    before = (os.sched_getscheduler(0) if sys.platform == "linux" else 0, os.getpriority(os.PRIO_PROCESS, 0))
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    ((asked, policy, nice),) = seen
    assert isinstance(asked, bool)
    assert (policy, nice) == before
