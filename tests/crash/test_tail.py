"""The rows of a campaign that was interrupted are taken up where they are whole."""

import json
from pathlib import Path

from tests.crash.tail import Tail


def row(sequence: int, entry: str, leg: int) -> str:
    return json.dumps({"sequence": sequence, "entry": entry, "direction": "incoming", "leg": leg}) + "\n"


def test_rows_go_on_after_the_last_batch_that_is_surely_whole(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    whole = row(7, "reserve", 1) + row(7, "reserve", 2) + row(8, "post", 1)
    rows.write_text(whole + row(9, "post", 2) + row(9, "reserve", 3)[:20])
    tail = Tail("node", tmp_path / "no.db", rows)
    tail.start()
    tail.close()
    assert rows.read_text() == whole
    assert tail.first_wanted == 9
    assert tail.open_legs == {2}


def test_nothing_is_taken_up_where_nothing_was(tmp_path: Path) -> None:
    tail = Tail("node", tmp_path / "no.db", tmp_path / "rows.jsonl")
    tail.start()
    tail.close()
    assert (tail.first_wanted, tail.open_legs) == (1, set())
