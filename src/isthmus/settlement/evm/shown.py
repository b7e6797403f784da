"""Channels on an EVM chain as people see them. Pure."""

from collections.abc import Mapping

from isthmus.ilp.asset import Asset
from isthmus.ledgers.evm.chain import CLOSED, ChannelState
from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.ledgers.evm.octets import hexed
from isthmus.settlement.channels import IN, OUT, Channel
from isthmus.settlement.evm.incoming import Incoming
from isthmus.settlement.evm.outgoing import Outgoing
from isthmus.settlement.promises import Phase


def ours(state: Outgoing, terms: ChannelTerms, newest: ChannelState, unit: Asset) -> Channel:
    """By which we pay."""
    closing = state.phase is Phase.ENDING or newest.closing_at not in (0, CLOSED)
    return Channel(
        id=hexed(terms.id),
        direction=OUT,
        state="closing" if closing else state.phase.value,
        unit=unit,
        capacity=state.deposited,
        can_send=state.left,
        paid=state.signed,
        redeemed=newest.claimed,
        ends_at=_ends_at(newest),
        delay_s=terms.settle_delay,
        text=f"{state.needed} units wait for more funds" if state.needed else "",
    )


def theirs(record: Incoming, confirmed: ChannelState, newest: ChannelState, unit: Asset) -> Channel:
    """By which the peer pays us."""
    is_closing = record.is_agreed or newest.closing_at != 0
    return Channel(
        id=record.name,
        direction=IN,
        state="closing" if is_closing else "open",
        unit=unit,
        capacity=confirmed.deposited,
        can_receive=0 if is_closing else max(0, confirmed.deposited - record.claim),
        paid=record.claim,
        redeemed=newest.claimed,
        ends_at=_ends_at(newest),
        delay_s=record.terms.settle_delay,
        text="its end is agreed" if record.is_agreed else "",
    )


def described(begin: str, record: Incoming, confirmed: ChannelState, newest: ChannelState) -> Mapping[str, str]:
    """One of the peer's, in words of `describe` that begin so; amounts in the ledger's units."""
    return {
        f"{begin}_channel": record.name,
        f"{begin}_deposited": str(confirmed.deposited),
        f"{begin}_claim": str(record.claim),
        f"{begin}_redeemed": str(newest.claimed),
        f"{begin}_closing_at": str(newest.closing_at or "no"),
    }


def _ends_at(state: ChannelState) -> int | None:
    return None if state.closing_at in (0, CLOSED) else state.closing_at * 1_000
