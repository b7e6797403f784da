"""The kinds of values in a configuration: amounts, rates, spreads, durations, secrets, addresses of all sorts.

Exact from the first character: amounts and rates are text or integers, never floats.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, final

from isthmus.ilp import address as ilp_address
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Bad, Incomplete, Source, describe
from isthmus.node.rates.paths import JsonPath, parse_path

_DECIMAL: Final = re.compile(r"[0-9]{1,60}(\.[0-9]{1,60})?", re.ASCII)
_FRACTION: Final = re.compile(r"([0-9]{1,60})\s*/\s*([0-9]{1,60})", re.ASCII)
_SPREAD: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(%|bp)", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,12})\s*(ms|s|min|h)", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_MS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}

SECRET_BYTES_MAX: Final = 65_536
FROM_PARENT: Final = "from parent"
JUMP_LIMIT: Final = 10


@final
class Secret:
    """Text that no log, error or `repr` shows."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def sha256(self) -> str:
        """Hex, as configurations and verifiers hold a token."""
        return sha256(self._text.encode()).hexdigest()

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@final
@dataclass(slots=True, frozen=True)
class Endpoint:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- kinds -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Text:
    """A string; with `options`, one of those."""

    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return " or ".join(f'`"{option}"`' for option in self.options) or "string"

    def read(self, value: object, source: Source, path: KeyPath) -> str:
        words = " or ".join(f'"{option}"' for option in self.options) or "a string"
        if not isinstance(value, str):
            raise Bad(f"a string is needed, not {describe(value)}", f"Write {words}.")
        if self.options and value not in self.options:
            raise Bad(f"{value!r} is not known here", f"Write {words}.")
        if not value:
            raise Bad("is empty", f"Write {words}.")
        return value


@dataclass(slots=True, frozen=True)
class Integer:
    minimum: int
    maximum: int
    label = "integer"

    def read(self, value: object, source: Source, path: KeyPath) -> int:
        if type(value) is not int:
            raise Bad(f"an integer is needed, not {describe(value)}", f"Write a number, {self._range()}.")
        if not self.minimum <= value <= self.maximum:
            raise Bad(f"{value} is out of range", f"Write a number {self._range()}.")
        return value

    def _range(self) -> str:
        return f"from {self.minimum} to {self.maximum}"


@dataclass(slots=True, frozen=True)
class Boolean:
    label = "boolean"

    def read(self, value: object, source: Source, path: KeyPath) -> bool:
        if not isinstance(value, bool):
            raise Bad(f"true or false is needed, not {describe(value)}", "Write true or false, without quotes.")
        return value


@dataclass(slots=True, frozen=True)
class Amount:
    """A decimal number in the asset's own units, kept as text until the scale is known; None for "unlimited"."""

    may_be_unlimited: bool = True

    @property
    def label(self) -> str:
        return 'amount or `"unlimited"`' if self.may_be_unlimited else "amount"

    def read(self, value: object, source: Source, path: KeyPath) -> str | None:
        if self.may_be_unlimited and value == "unlimited":
            return None
        if type(value) is int and value >= 0:
            return str(value)
        remedy = 'Write it as a string in units of the asset: "0.5".'
        if not isinstance(value, str):
            raise Bad(f"an amount is a string, not {describe(value)}", remedy)
        number = value.partition(" ")[0]
        if _DECIMAL.fullmatch(number) is None:
            raise Bad(f"{value!r} is not an amount", remedy)
        return value


@dataclass(slots=True, frozen=True)
class SignedAmount:
    """As `Amount`, and it may be below zero: the sign stays in the text."""

    label = "amount, or one below zero"

    def read(self, value: object, source: Source, path: KeyPath) -> str:
        if type(value) is int:
            return str(value)
        text = value.strip() if isinstance(value, str) else value
        is_negative = isinstance(text, str) and text.startswith("-")
        found = Amount(may_be_unlimited=False).read(text[1:] if is_negative else text, source, path)  # type: ignore[index]
        return f"-{found}" if is_negative else f"{found}"


@dataclass(slots=True, frozen=True)
class Duration:
    """Milliseconds, written with a unit."""

    minimum_ms: int
    maximum_ms: int
    label = "duration"

    def read(self, value: object, source: Source, path: KeyPath) -> int:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            shown = repr(value) if isinstance(value, str) else describe(value)
            raise Bad(f"{shown} is not a duration", 'Write a number and a unit (ms, s, min, h): "30 s".')
        duration_ms = int(match[1]) * _MS[match[2]]
        if not self.minimum_ms <= duration_ms <= self.maximum_ms:
            bounds = f"from {duration_text(self.minimum_ms)} to {duration_text(self.maximum_ms)}"
            raise Bad(f"{value!r} is out of range", f"Write a duration {bounds}.")
        return duration_ms


def duration_text(duration_ms: int) -> str:
    """The shortest way to write a duration: 30000 is "30 s"."""
    for unit in ("h", "min", "s"):
        if duration_ms and duration_ms % _MS[unit] == 0:
            return f"{duration_ms // _MS[unit]} {unit}"
    return f"{duration_ms} ms"


@dataclass(slots=True, frozen=True)
class Rate:
    """Units of one asset for one unit of another, exactly."""

    label = "rate"

    def read(self, value: object, source: Source, path: KeyPath) -> Fraction:
        remedy = 'Write it as a string: "64250.5" or "1/3".'
        if type(value) is int and value > 0:
            return Fraction(value)
        if not isinstance(value, str):
            raise Bad(f"a rate is a string, not {describe(value)}", remedy)
        text = value.strip()
        if match := _FRACTION.fullmatch(text):
            above, below = int(match[1]), int(match[2])
            if above == 0 or below == 0:
                raise Bad(f"{value!r} is not above zero", remedy)
            return Fraction(above, below)
        if _DECIMAL.fullmatch(text) is None:
            raise Bad(f"{value!r} is not a rate", remedy)
        if not Fraction(text):
            raise Bad(f"{value!r} is not above zero", remedy)
        return Fraction(text)


@dataclass(slots=True, frozen=True)
class Spread:
    """The part of a converted amount that we keep: per cent or basis points."""

    label = "spread"

    def read(self, value: object, source: Source, path: KeyPath) -> Fraction:
        remedy = 'Write per cent or basis points: "0.2 %" or "20 bp".'
        if not isinstance(value, str):
            raise Bad(f"a spread is a string, not {describe(value)}", remedy)
        match = _SPREAD.fullmatch(value.strip())
        if match is None:
            raise Bad(f"{value!r} is not a spread", remedy)
        spread = Fraction(match[1]) / (100 if match[2] == "%" else 10_000)
        if spread >= 1:
            raise Bad(f"{value!r} would keep everything", remedy)
        return spread


@dataclass(slots=True, frozen=True)
class Jump:
    """How far a rate may move at once, as a part of what it was: per cent."""

    label = "per cent"

    def read(self, value: object, source: Source, path: KeyPath) -> Fraction:
        match = _SPREAD.fullmatch(value.strip()) if isinstance(value, str) else None
        jump = Fraction(0) if match is None else Fraction(match[1]) / (100 if match[2] == "%" else 10_000)
        if not 0 < jump <= JUMP_LIMIT:
            shown = repr(value) if isinstance(value, str) else describe(value)
            raise Bad(f"{shown} is not a part of a rate", f'Write per cent, up to {JUMP_LIMIT * 100} %: "10 %".')
        return jump


@dataclass(slots=True, frozen=True)
class SecretText:
    """Inline text, `{ file = "…" }` (without its last line break), or `{ env = "…" }`."""

    label = "secret"

    def read(self, value: object, source: Source, path: KeyPath) -> Secret:
        remedy = 'Write the text itself, { file = "path" } or { env = "NAME" }.'
        if isinstance(value, str):
            text = value
        elif isinstance(value, dict) and len(value) == 1 and isinstance(value.get("file"), str):
            text = _read_secret_file(source.folder / value["file"])
        elif isinstance(value, dict) and len(value) == 1 and isinstance(value.get("env"), str):
            name = value["env"]
            if name not in source.environment:
                raise Bad(f"the environment variable {name} is not set", f"Set {name} for this process.")
            text = source.environment[name]
        else:
            raise Bad("is not a secret", remedy)
        if not text.strip():
            raise Bad("is empty", remedy)
        return Secret(text)


@dataclass(slots=True, frozen=True)
class KeptSecret:
    """As `SecretText`, but never in the configuration itself."""

    label = "secret, in a file or the environment"

    def read(self, value: object, source: Source, path: KeyPath) -> Secret:
        if isinstance(value, str):
            raise Bad("a secret of others stands in this file", 'Write { file = "path" } or { env = "NAME" }.')
        secret = SecretText().read(value, source, path)
        text = secret.reveal().strip()
        if not text.isascii() or not text.isprintable():
            raise Bad("is not a line of ASCII", "Keep only the key there.")
        return Secret(text)


@dataclass(slots=True, frozen=True)
class PathInJson:
    """The place of a value in a JSON document."""

    label = "JSON path"

    def read(self, value: object, source: Source, path: KeyPath) -> JsonPath:
        remedy = 'Write it like "result.XXBTZUSD.c[0]".'
        if not isinstance(value, str):
            raise Bad(f"a string is needed, not {describe(value)}", remedy)
        try:
            return parse_path(value)
        except ValueError as error:
            raise Bad(f"{value[:60]!r} is no place in JSON: {error}", remedy) from None


def _read_secret_file(path: Path) -> str:
    try:
        if path.stat().st_size > SECRET_BYTES_MAX:
            raise Bad(f"{path} is too large for a secret", "Name the file that holds the secret.")
        return path.read_text().rstrip("\r\n")
    except OSError as error:
        raise Bad(f"{path}: {error.strerror}", "Name a file that this user can read.") from None
    except UnicodeDecodeError:
        raise Bad(f"{path} is not text", "Name the file that holds the secret.") from None


@dataclass(slots=True, frozen=True)
class Sha256:
    """A SHA-256 in hex."""

    label = "SHA-256 in hex"

    def read(self, value: object, source: Source, path: KeyPath) -> str:
        if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
            raise Bad("is not a SHA-256 in hex", "Take it from `printf %s TOKEN | sha256sum`: 64 hex digits.")
        return value.lower()


@dataclass(slots=True, frozen=True)
class FilePath:
    """A path, relative to the folder of the configuration."""

    must_exist: bool = True
    label = "path"

    def read(self, value: object, source: Source, path: KeyPath) -> Path:
        if not isinstance(value, str) or not value:
            raise Bad(f"a path is a string, not {describe(value)}", "Write a path, relative to this file's folder.")
        try:
            full = source.folder / Path(value).expanduser()
        except RuntimeError:
            raise Bad(f"{value!r} names the home of nobody here", "Write the path in full.") from None
        if self.must_exist and not full.is_file():
            raise Bad(f"there is no file {full}", "Name an existing file; paths are relative to this file's folder.")
        return full


@dataclass(slots=True, frozen=True)
class Listen:
    """HOST:PORT."""

    label = "`host:port`"

    def read(self, value: object, source: Source, path: KeyPath) -> Endpoint:
        remedy = 'Write it as "127.0.0.1:7768", or "[::1]:7768".'
        if not isinstance(value, str):
            raise Bad(f"a string is needed, not {describe(value)}", remedy)
        host, colon, port = value.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise Bad(f"{value!r} is not an address and a port", remedy)
        return Endpoint(host, int(port))


@dataclass(slots=True, frozen=True)
class IlpAddress:
    """An ILP address, or None for "from parent"."""

    label = 'ILP address or `"from parent"`'

    def read(self, value: object, source: Source, path: KeyPath) -> str | None:
        if value == FROM_PARENT:
            return None
        if not isinstance(value, str) or not ilp_address.is_valid(value):
            raise Bad(f"{value!r} is not an ILP address", 'Write one like "test.alice", or "from parent".')
        if ilp_address.scheme_of(value) == "peer":
            raise Bad("peer.* is never an address of its own", 'Write one like "test.alice", or "from parent".')
        return value


@dataclass(slots=True, frozen=True)
class Mapped:
    """A table whose names are free, each holding the same kind. One that isn't whole stands as None."""

    each: Any  # Kind
    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Bad(f"a table is needed, not {describe(value)}", "Write names and values below a [header].")
        found: dict[str, Any] = {}
        for name, item in value.items():
            try:
                found[name] = self.each.read(item, source, (*path, name))
            except Bad as bad:
                source.problem((*path, name), bad.problem, bad.remedy)
            except Incomplete:
                found[name] = None
        return found
