"""Where each key of a TOML text stands. The standard parser tells values but not lines."""

import tomllib
from typing import Any, Final, TypeAlias

KeyPath: TypeAlias = tuple[str, ...]

# A value that spans more lines than this (a mistake, most likely) gets the line that it starts on, as all do.
VALUE_LINES_MAX: Final = 1_000


def locate(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each table header and key. Keys of an inline table stand on the line of the table.

    `text` must be valid TOML.
    """
    lines = text.splitlines()
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            is_array = line.startswith("[[")
            table = _only_path(tomllib.loads(line))
            if is_array:
                # Elements of an array of tables are numbered, as the reader numbers them.
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            found.setdefault(table, number)
            continue
        end = _end_of_value(lines, number - 1)
        _note(found, tomllib.loads("\n".join(lines[number - 1 : end])), table, number)
        number = end
    return found


def line_of(found: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of a key, or of the innermost table around it that has one (for a key that is missing)."""
    for size in range(len(path), 0, -1):
        if path[:size] in found:
            return found[path[:size]]
    return None


def _end_of_value(lines: list[str], start: int) -> int:
    """The index after the last line of the value that starts on line `start`."""
    for end in range(start + 1, min(len(lines), start + VALUE_LINES_MAX) + 1):
        try:
            tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
        return end
    return start + 1


def _only_path(parsed: dict[str, Any]) -> KeyPath:
    """The path to the table that one header opens."""
    path: list[str] = []
    level: Any = parsed
    while isinstance(level, dict) and level:
        name, level = next(iter(level.items()))
        path.append(name)
    return tuple(path)


def _note(found: dict[KeyPath, int], parsed: dict[str, Any], table: KeyPath, number: int) -> None:
    for name, value in parsed.items():
        path = (*table, name)
        found.setdefault(path, number)
        if isinstance(value, dict):
            _note(found, value, path, number)
