"""A search that was interrupted goes on, as long as what it tried is still what there is."""

from pathlib import Path

import pytest

from tests.mutants.tried import Tried

VERDICT = {"name": "one", "seed": 3, "findings": [{"kind": "loss", "text": "…"}], "problem": ""}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    (tmp_path / "one.patch").write_text("breaks: a\n")
    tried = Tried(tmp_path / "build" / "search.json", tmp_path / "src")
    tried.add(tmp_path / "one.patch", 1, 4, VERDICT)
    return tmp_path


def again(place: Path) -> Tried:
    return Tried(place / "build" / "search.json", place / "src")


def test_what_was_tried_is_known_in_the_next_sitting(place: Path) -> None:
    assert again(place).said(place / "one.patch", 1, 4) == VERDICT
    assert again(place).said(place / "one.patch", 5, 8) is None


@pytest.mark.parametrize("changed", ["src/a.py", "src/b.py", "one.patch"])
def test_of_another_source_or_patch_nothing_is_known(place: Path, changed: str) -> None:
    (place / changed).write_text("a = 2\n")
    assert again(place).said(place / "one.patch", 1, 4) is None


def test_after_the_end_everything_is_searched_anew(place: Path) -> None:
    again(place).over()
    assert not again(place)
