"""The page about mutants, from the table of what caught each."""

from typing import Any, Final

PAGE: Final = "docs/mutants.md"

_HEAD: Final = """\
# Proof that the proof can fail

A simulator that never finds anything may be one that can't. So the code is broken on purpose: each mutant is a small
patch (`tests/mutants`), applied to a copy of the source, and must be found by the audit of a simulated network, or by
the trace of a node's system calls. What an exception in a node shows counts only because the simulator reports it.

- `make mutants` tries each on the seed that is recorded for it, and the whole code on all these seeds. CI runs it.
- `make mutants-search` looks for the first seed that catches each, from seed 1 on: the table says after how many.
  Interrupted, it goes on where it was, as long as neither source nor patch has changed.

A patch that no longer applies, a mutant that its seed no longer catches, and a finding in the whole code fail it.

Three breaks are known that no seed from 1 to 300 catches, and so are no mutants here: a peer that can't take a report
of outcomes just now, taken for one that takes none; Prepares that have been open for long, not asked about as long as
the link stays; and ranges of a report that hold what was voided, but nothing open. A fourth, an engine's step that is
answered before it is durable, is caught by no seed of `--settle` from 1 to 60.

| mutant | what it breaks | caught by | first seen as |
|---|---|---|---|
"""


def page(table: dict[str, Any]) -> str:
    """The whole page."""
    lines = [
        f"| {name} | {row['breaks']} | {_by(row)} | {', '.join(row['findings'])} |\n" for name, row in table.items()
    ]
    seeds = sorted(row["seed"] for row in table.values() if row["seed"])
    middle = seeds[len(seeds) // 2] if seeds else 0
    tail = f"\n{len(table)} mutants; half of those that the simulator catches need {middle} seeds or fewer.\n"
    return _HEAD + "".join(lines) + tail


def _by(row: dict[str, Any]) -> str:
    if not row["seed"]:
        return "trace of system calls"
    return f"simulator, seed {row['seed']}" + (f" of `--{row['networks']}`" if "networks" in row else "")
