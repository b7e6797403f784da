"""Reads a parsed TOML document by a declared schema, and collects every problem instead of stopping at the first.

The schema is data, so that the configuration reference is made from what is really read. What the keys of a node mean
is declared in `config_schema`; what they are turned into, in `config`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from isthmus.errors import ConfigError
from isthmus.node.config_lines import KeyPath, line_of


class Bad(Exception):
    """A value that can't be used: what is wrong with it, and what to write instead. Becomes a ConfigError."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class Incomplete(Exception):
    """A table isn't whole; what is wrong inside was reported."""


@dataclass(slots=True)
class Source:
    """One document being read: where its files are relative to, its lines, and what was found wrong so far."""

    folder: Path
    lines: dict[KeyPath, int]
    environment: Mapping[str, str]
    problems: list[ConfigError] = field(default_factory=list)

    def problem(self, path: KeyPath, problem: str, remedy: str) -> None:
        self.problems.append(ConfigError(key_text(path), problem, remedy, line=line_of(self.lines, path)))


class Kind(Protocol):
    """What a key may hold."""

    @property
    def label(self) -> str:
        """A word or two for the reference."""

    def read(self, value: object, source: Source, path: KeyPath) -> Any:
        """The value as the program wants it; raises Bad, or Incomplete after reporting what is wrong inside."""


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(slots=True, frozen=True)
class Key:
    """One key of a section: its name, what it holds, the default, and a sentence or two for the reference."""

    name: str
    kind: Kind
    doc: str
    default: Any = REQUIRED
    default_text: str = ""  # for the reference, where the default doesn't speak for itself


Section: TypeAlias = tuple[Key, ...]


def read_section(section: Section, value: object, source: Source, path: KeyPath) -> dict[str, Any]:
    """All keys of a table, defaults filled in. A key that is missing or wrong is reported and left out."""
    if not isinstance(value, dict):
        raise Bad(f"a table is needed, not {describe(value)}", f"Write it as [{key_text(path)}] and its keys below.")
    known = {key.name: key for key in section}
    for name in value:
        if name not in known:
            source.problem((*path, name), "no such key", _nearest(name, list(known)))
    found: dict[str, Any] = {}
    for key in section:
        here = (*path, key.name)
        if key.name not in value:
            if key.default is REQUIRED:
                source.problem(here, "missing", f"Add it: {key.doc}")
            else:
                found[key.name] = key.default
            continue
        try:
            found[key.name] = key.kind.read(value[key.name], source, here)
        except Bad as bad:
            source.problem(here, bad.problem, bad.remedy)
        except Incomplete:
            continue
    return found


def _built(build: Any, section: Section, found: dict[str, Any]) -> Any:
    if len(found) < len(section):
        raise Incomplete
    return build(**found)


@dataclass(slots=True, frozen=True)
class Table:
    """A table with keys of its own; `build` makes a value of them."""

    section: Section
    build: Any = dict

    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> Any:
        return _built(self.build, self.section, read_section(self.section, value, source, path))


@dataclass(slots=True, frozen=True)
class Choice:
    """A table whose key `tag` says which other keys it has."""

    tag: str
    options: dict[str, tuple[Section, Any]]

    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            raise Bad(f"a table is needed, not {describe(value)}", f'Write it as {{ {self.tag} = "…", … }}.')
        words = " or ".join(f'"{option}"' for option in self.options)
        chosen = value.get(self.tag)
        if chosen is None:
            raise Bad(f"{self.tag} is missing", f"Set {self.tag} to {words}.")
        if not isinstance(chosen, str) or chosen not in self.options:
            source.problem((*path, self.tag), f"{chosen!r} is not known here", f"Use {words}.")
            raise Incomplete
        section, build = self.options[chosen]
        rest = {name: each for name, each in value.items() if name != self.tag}
        return _built(build, section, read_section(section, rest, source, path))


def describe(value: object) -> str:
    """A TOML value's type in words."""
    names = {bool: "a boolean", int: "an integer", float: "a number with a point", str: "a string", list: "an array"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")


def key_text(path: KeyPath) -> str:
    """A path as it would be written in TOML: `accounts.bob.limits`, quoted where it must be."""
    return ".".join(part if part.replace("-", "_").isidentifier() else f'"{part}"' for part in path) or "(file)"


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Known here: {', '.join(known)}."
