"""Exact conversion between an account's units and a ledger's. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

CARRIED: Final = b"carried"  # among what an engine keeps of an account


def carried_of(kept: Mapping[bytes, bytes]) -> int:
    """What is carried to the next settlement, in units of the account."""
    return int(kept.get(CARRIED, b"0"))


def carry(amount: int) -> tuple[bytes, bytes]:
    """The same, to be kept."""
    return CARRIED, str(amount).encode() if amount else b""


@final
@dataclass(slots=True, frozen=True)
class Converter:
    """Between units of an account and those of the ledger. What is less than one of the ledger's is carried."""

    asset_scale: int
    decimals: int  # of the ledger's unit

    def to_ledger(self, units: int, carried: int = 0) -> tuple[int, int]:
        """The ledger's units for these and what was carried before, and what is carried on (units of the account).

        What is carried may be below zero after a failure (`carried_back`); then the rest of it is, too.
        """
        total = units + carried
        if total < 0:
            return 0, total
        if self.decimals >= self.asset_scale:
            return total * 10 ** (self.decimals - self.asset_scale), 0
        amount, rest = divmod(total, 10 ** (self.asset_scale - self.decimals))
        return amount, rest

    def whole_units(self, amount: int) -> tuple[int, int]:
        """Whole units of the account in an amount of the ledger, and that many in the ledger's units."""
        if self.decimals <= self.asset_scale:
            return amount * 10 ** (self.asset_scale - self.decimals), amount
        size = 10 ** (self.decimals - self.asset_scale)
        return amount // size, amount - amount % size

    def carried_back(self, units: int, amount: int, carried: int) -> int:
        """What is carried once a payment of this amount, which `to_ledger` made of these units, can't happen any more.

        The units are owed again, whole; so what it took of what was carried comes back, and what it added goes.
        """
        if self.decimals >= self.asset_scale:
            return carried
        unit: int = 10 ** (self.asset_scale - self.decimals)
        return carried + amount * unit - units
