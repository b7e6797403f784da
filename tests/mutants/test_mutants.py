"""The patches of this folder, the table and the page belong together. `make mutants` says whether each is caught."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOT, SIMULATOR, TABLE, Mutant, MutantError, mutants, mutated
from tests.mutants.page import PAGE, page

KNOWN = mutants()
NAMES = "F821,F822,F823,E9"  # undefined names, and what is no Python


def test_there_are_as_many_mutants_as_were_promised() -> None:
    assert len(KNOWN) >= 25


def test_the_table_has_each_mutant_with_what_caught_it() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert {name: row["breaks"] for name, row in table.items()} == {mutant.name: mutant.breaks for mutant in KNOWN}
    for mutant in KNOWN:
        assert table[mutant.name]["findings"]
        assert (table[mutant.name]["seed"] > 0) is (mutant.catcher == SIMULATOR)


def test_the_page_is_written_from_the_table() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(table), "make mutants-search writes both"


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@needs_git
@pytest.mark.parametrize("mutant", KNOWN, ids=lambda mutant: mutant.name)
def test_each_patch_applies_and_names_only_what_there_is(mutant: Mutant) -> None:
    """A mutant that breaks by a name that is nowhere would be caught by anything."""
    changed = re.findall(r"^\+\+\+ b/src/(\S+)", mutant.patch.read_text(encoding="utf-8"), re.MULTILINE)
    assert changed
    with mutated(mutant) as copy:
        command = [
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--no-cache",
            "--quiet",
            "--select",
            "F821,F822,F823,E9",
            *changed,
        ]
        done = subprocess.run([sys.executable, *command], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@needs_git
def test_a_patch_that_does_not_apply_is_named(tmp_path: Path) -> None:
    patch = tmp_path / "gone.patch"
    patch.write_text(KNOWN[0].patch.read_text(encoding="utf-8").replace("\n ", "\n no longer there "))
    with (
        pytest.raises(MutantError, match=r"gone\.patch no longer applies to src"),
        mutated(Mutant("gone", "", SIMULATOR, patch)),
    ):
        pass
