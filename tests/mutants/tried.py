"""What a search for seeds has tried, kept until it is over: one that was interrupted goes on from there.

The simulator runs the same for a seed and a source, so what it said stays true as long as neither source nor patch
changes. Whatever else is in the file is forgotten.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.campaigns import keep

Row: TypeAlias = dict[str, Any]


class Tried:
    """By mutant and stretch of seeds: the verdict, in JSON."""

    def __init__(self, file: Path, source: Path) -> None:
        self._file: Final = file
        self._source: Final = _digest(source)
        self._rows: Final[dict[str, Row]] = {}
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["source"] == self._source:
                self._rows.update(kept["rows"])

    def __len__(self) -> int:
        return len(self._rows)

    def said(self, patch: Path, first: int, last: int) -> Row | None:
        """What an earlier sitting found; None if it didn't try these."""
        return self._rows.get(_key(patch, first, last))

    def add(self, patch: Path, first: int, last: int, verdict: Row) -> None:
        self._rows[_key(patch, first, last)] = verdict
        self._file.parent.mkdir(parents=True, exist_ok=True)
        keep(self._file, json.dumps({"source": self._source, "rows": self._rows}, ensure_ascii=False).encode())

    def over(self) -> None:
        """The search is at its end: the next one finds everything anew."""
        self._file.unlink(missing_ok=True)


def _key(patch: Path, first: int, last: int) -> str:
    return f"{patch.stem} {sha256(patch.read_bytes()).hexdigest()[:16]} {first}-{last}"


def _digest(source: Path) -> str:
    """Of all files of Python below."""
    found = sha256()
    for path in sorted(source.rglob("*.py")):
        octets = path.read_bytes()
        found.update(f"{path.relative_to(source)} {len(octets)}\n".encode() + octets)
    return found.hexdigest()
