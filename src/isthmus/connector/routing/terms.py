"""What the operator agreed with one peer about routes: who tells whom, which prefixes, and how many."""

from dataclasses import dataclass
from typing import Final, final

from isthmus.errors import ConfigError
from isthmus.ilp.address import is_valid, is_valid_prefix

# Routes of one peer. A neighbour that announces more is not believed further; a full table takes about 60 MB.
RECEIVED_MAX: Final = 100_000
RECEIVED_LIMIT: Final = 1_000_000
# Routes of all peers together.
TOTAL_MAX: Final = 1_000_000
PREFERENCE_MAX: Final = 100
FILTER_MAX: Final = 10_000


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class RouteTerms:
    """An empty filter lets everything pass; a prefix in one covers all that lies under it."""

    send: bool = False  # tell the peer what we reach, when it asks
    receive: bool = False  # ask the peer what it reaches, and use it
    transit: bool = True  # tell it also what we reach over peers and parents; a parent is never told
    send_only: tuple[str, ...] = ()
    send_not: tuple[str, ...] = ()
    receive_only: tuple[str, ...] = ()
    receive_not: tuple[str, ...] = ()
    received_max: int = RECEIVED_MAX
    preference: int = 0  # the higher is taken, whatever the relations and the paths are
    speaker: str = ""  # the only address that may speak here; "" for a child's own, and for others any

    def check(self, key: str) -> None:
        """Raise ConfigError if these terms can't work."""
        if not 1 <= self.received_max <= RECEIVED_LIMIT:
            raise ConfigError(f"{key}.max", f"{self.received_max}", f"Use 1 to {RECEIVED_LIMIT}")
        if abs(self.preference) > PREFERENCE_MAX:
            raise ConfigError(f"{key}.preference", f"{self.preference}", f"Use -{PREFERENCE_MAX} to {PREFERENCE_MAX}")
        if self.speaker and not is_valid(self.speaker):
            raise ConfigError(f"{key}.speaker", "it is no ILP address", "Use the peer's address, or leave it out")
        for name in ("send_only", "send_not", "receive_only", "receive_not"):
            prefixes: tuple[str, ...] = getattr(self, name)
            if len(prefixes) > FILTER_MAX:
                raise ConfigError(f"{key}.{name}", f"{len(prefixes)} of them", f"Keep at most {FILTER_MAX}")
            for prefix in prefixes:
                if not prefix or not is_valid_prefix(prefix):
                    raise ConfigError(f"{key}.{name}", f"{prefix!r} is no address prefix", "Use for example 'test.bob'")


NO_ROUTES: Final = RouteTerms()


@final
class PrefixFilter:
    """Which prefixes pass: those under one of `only`, if there are any, and under none of `never`."""

    __slots__ = ("_never", "_only")

    def __init__(self, only: tuple[str, ...], never: tuple[str, ...]) -> None:
        self._only: Final = frozenset(only)
        self._never: Final = frozenset(never)

    def passes(self, prefix: str) -> bool:
        """Segment by segment: as many look-ups as the prefix has segments."""
        if self._never and _is_under(prefix, self._never):
            return False
        return not self._only or _is_under(prefix, self._only)


def _is_under(prefix: str, listed: frozenset[str]) -> bool:
    while prefix:
        if prefix in listed:
            return True
        prefix = prefix[: max(0, prefix.rfind("."))]
    return False
