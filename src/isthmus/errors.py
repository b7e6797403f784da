"""The errors that isthmus raises. What a peer can cause is a value (a Reject, a status), not one of these."""

STRANGER_CHARS_MAX = 200


def plain(text: str, chars_max: int = STRANGER_CHARS_MAX) -> str:
    """What a stranger said, fit to be shown and kept: no control characters (terminals obey them), and not long."""
    cut = text if len(text) <= chars_max else text[: chars_max - 1] + "…"
    return "".join(one if one.isprintable() else "?" for one in cut)


class IsthmusError(Exception):
    """The root: every error that a caller of isthmus may want to catch."""


class CodecError(IsthmusError):
    """Bytes from outside do not parse. Decoders raise this and nothing else, whatever the bytes."""

    def __init__(self, field: str, offset: int, problem: str) -> None:
        super().__init__(f"{field} at byte {offset}: {problem}")
        self.field = field
        self.offset = offset
        self.problem = problem


class ConfigError(IsthmusError):
    """A setting can't be used. `key` names it, `remedy` says what to do; the CLI exits with status 2."""

    def __init__(self, key: str, problem: str, remedy: str, *, line: int | None = None) -> None:
        where = key if line is None else f"line {line}: {key}"
        super().__init__(f"{where}: {problem}. {remedy}")
        self.key = key
        self.problem = problem
        self.remedy = remedy
        self.line = line


def not_installed(key: str, library: str | None, extra: str) -> ConfigError:
    """What `key` asks for needs a library that comes with an extra of the package."""
    return ConfigError(key, f"{library} is not installed", f"Install it: pip install 'isthmus[{extra}]'")


class LinkError(IsthmusError):
    """A link is down, was refused, or timed out."""


class JournalError(IsthmusError):
    """The journal is full, corrupt, locked by another process, or this writer is stale."""


class LedgerError(IsthmusError):
    """A ledger or a settlement engine refused, or can't be reached."""
