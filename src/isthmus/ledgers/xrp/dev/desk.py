"""What a request is answered from, and how its parameters are read: addresses, ledgers, pages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from xrpl.core.addresscodec import is_valid_classic_address

from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.faults import Code, Fault, invalid, missing
from isthmus.ledgers.xrp.dev.ledger import DevLedger, Header
from isthmus.ledgers.xrp.dev.store import Store
from isthmus.ledgers.xrp.dev.views import View

T = TypeVar("T")

API_VERSIONS: Final = (1, 2)
PAGE_DEFAULT: Final = 200
PAGE_MAX: Final = 400
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}")
_INDEX_DIGITS_MAX: Final = 10


@dataclass(slots=True)
class Desk:
    """The ledger, its history, and what the process knows of itself."""

    ledger: DevLedger
    store: Store
    started_at: int  # seconds, of the clock that `now` reads
    now: int  # seconds since 2000-01-01, with what the ledger's clock was set ahead

    @property
    def complete_ledgers(self) -> str:
        """The range of closed ledgers that are kept, as clients parse it."""
        first, last = self.store.first_index(), self.ledger.last.index
        return str(first) if first == last else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the name of its command, its parameters, and the API's version that it is made in."""

    command: str
    params: Mapping[str, Any]
    version: int

    def get(self, name: str, kind: type[T]) -> T | None:
        """A parameter of that type, or None; a Fault for any other type."""
        value = self.params.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise invalid(name)
        return value

    def flag(self, name: str) -> bool:
        """A parameter that is true or not there."""
        return bool(self.get(name, bool))

    def address(self, name: str, *, code: Code = Code.ACCOUNT_MALFORMED) -> str:
        """An address that must be there."""
        if self.params.get(name) is None:
            raise missing(name)
        return checked_address(self.params[name], code)

    def hash(self, name: str) -> str | None:
        """64 hexadecimal digits in upper case, or None."""
        text = self.get(name, str)
        if text is None:
            return None
        if not _HASH.fullmatch(text):
            raise invalid(name)
        return text.upper()

    def limit(self, *, default: int = PAGE_DEFAULT, most: int = PAGE_MAX) -> int:
        """How many things the answer may hold; more than is allowed means as many as are."""
        limit = self.get("limit", int)
        if limit is None:
            return default
        if limit < 1:
            raise invalid("limit")
        return min(limit, most)


def checked_address(text: object, code: Code = Code.ACCOUNT_MALFORMED) -> str:
    """A classic address, or a Fault with that code."""
    if not isinstance(text, str) or len(text) > 64 or not is_valid_classic_address(text):
        raise Fault(code)
    return text


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ledger that a request asks of. `header` is None for the open one."""

    view: View
    header: Header | None
    open_index: int

    @property
    def place(self) -> Fields:
        """How an answer names it."""
        if self.header is None:
            return {"ledger_current_index": self.open_index, "validated": False}
        return {
            "ledger_hash": self.header.hash.hex().upper(),
            "ledger_index": self.header.index,
            "validated": True,
        }


def choose(desk: Desk, request: Request, *, default: str = "current") -> Chosen:
    """The ledger that `ledger_hash`, `ledger_index` or the older `ledger` name."""
    params = request.params
    name = params.get("ledger_hash", params.get("ledger_index", params.get("ledger")))
    if name is None:
        name = default
    header = _header(desk, name, by_hash=params.get("ledger_hash") is not None)
    if header is None:
        return Chosen(desk.ledger.open, None, desk.ledger.index)
    is_last = header.index == desk.ledger.last.index
    view: View = desk.ledger.closed if is_last else desk.store.at(header.index)
    return Chosen(view, header, desk.ledger.index)


def _header(desk: Desk, name: object, *, by_hash: bool) -> Header | None:
    """The header of a closed ledger, or None for the open one."""
    if by_hash or (isinstance(name, str) and _HASH.fullmatch(name)):
        if not isinstance(name, str) or not _HASH.fullmatch(name):
            raise Fault(Code.INVALID_PARAMS, "ledgerHashMalformed")
        return _found(desk.store.header_by_hash(bytes.fromhex(name)))
    if name == "current":
        return None
    if name in ("validated", "closed"):
        return desk.ledger.last
    if isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= _INDEX_DIGITS_MAX:
        name = int(name)
    if not isinstance(name, int) or isinstance(name, bool) or not 0 <= name < 2**32:
        raise Fault(Code.INVALID_PARAMS, "ledgerIndexMalformed")
    return None if name == desk.ledger.index else _found(desk.store.header(name))


def _found(header: Header | None) -> Header:
    if header is None:
        raise Fault(Code.LEDGER_NOT_FOUND)
    return header
