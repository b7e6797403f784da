"""Where each key of a TOML text stands. The standard parser tells values but not lines."""

import tomllib
from typing import Any, Final, TypeAlias

KeyPath: TypeAlias = tuple[str, ...]

# A value that spans more lines than this (a mistake, most likely) ends the search: finding where it ends takes time
# by the square of them. Keys after it are told by the line of a table before it.
VALUE_LINES_MAX: Final = 1_000


def locate(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each table header and key. Keys of an inline table stand on the line of the table.

    `text` must be valid TOML.
    """
    # Not `splitlines`: it also breaks at characters that may stand within a string.
    lines = text.replace("\r\n", "\n").split("\n")
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
        end, value = _read_value(lines, number - 1)
        if value is None:
            break  # what follows can't be told from the rest of the value
        _note(found, value, table, number)
        number = end
    return found


def line_of(found: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of a key, or of the innermost table around it that has one (for a key that is missing)."""
    for size in range(len(path), 0, -1):
        if path[:size] in found:
            return found[path[:size]]
    return None


def _read_value(lines: list[str], start: int) -> tuple[int, dict[str, Any] | None]:
    """The index after the last line of the value that starts on line `start`, and the value; None if it is too long."""
    for end in range(start + 1, min(len(lines), start + VALUE_LINES_MAX) + 1):
        try:
            return end, tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
    return start, None


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
