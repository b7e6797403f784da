"""What becomes of a peer's Prepare (design, "The switch"): each rule refuses it, or leaves it to the next.

The order: duplicates; parse and size; packet rate; `peer.*`; expiry margin; maximum packet amount; route; exchange
rate; balances on both sides and value in flight; value per second; can the link take it. Nothing is changed before
the last rule but the packet-rate bucket, which counts refused packets too.
"""

from typing import Final

from isthmus.connector.books import OUTCOMES_MAX
from isthmus.connector.events import AccountId, CloseLink, Inbound, Outbound
from isthmus.connector.lane import HOPS_MAX, RENEW_SESSION_AT, Hop, Lane
from isthmus.connector.legs import IncomingLeg, OutgoingLeg
from isthmus.connector.outcomes import fulfil_again
from isthmus.connector.protocols import ECHO_ANSWER, echo_source, peer_request
from isthmus.connector.switch import Switch
from isthmus.errors import CodecError
from isthmus.ilp.address import is_valid
from isthmus.ilp.packet import (
    AMOUNT_MAX,
    Prepare,
    PrepareView,
    encode_amount_too_large,
    encode_prepare,
    patch_prepare,
    view_prepare,
)

_PEER: Final = b"peer."
_NO_LIQUIDITY: Final = ("T04", "no liquidity towards the next hop")
_TOO_MUCH_IN_FLIGHT: Final = ("T04", "too much value is in flight to the next hop")
# Hops that one packet is tried with in turn, where our accounts with them have no room for it.
HOPS_TRIED_MAX: Final = 4


def take_prepare(switch: Switch, lane: Lane, inbound: Inbound) -> None:
    """Forward a Prepare, answer it, or refuse it."""
    key = (inbound.session, inbound.request_id)
    if key in lane.account.received:
        switch.duplicates += 1  # the first one will be answered (BTP-8, HTTP-7)
        return
    answered = lane.account.fulfilled.get(key)
    if answered is not None:
        switch.duplicates += 1
        fulfil_again(switch, lane, inbound, answered)
        return
    try:
        view = view_prepare(inbound.packet, switch.timestamps)
    except CodecError as error:
        switch.refuse(lane, inbound, "F01", f"the Prepare doesn't parse: {error}")  # ILP-12
        return
    bucket = lane.packets
    if bucket is not None:
        if not bucket.has(1, switch.mono):
            switch.refuse(lane, inbound, "T05", "too many packets a minute")
            return
        bucket.take(1)
    destination = view.destination
    hop = lane.hops.get(destination)
    if hop is None and destination.startswith(_PEER):
        peer_request(switch, lane, inbound, view)
        return
    told = lane.account.acknowledged
    if told and 0 < inbound.request_id <= told.get(inbound.session, 0):
        switch.refuse(lane, inbound, "F00", "its sender has said already that this Prepare is decided")
        return
    # What is left after the time that we need to pass a Fulfill on, capped by the time that we hold money (CONN-9).
    hold = view.expires_at - switch.wall - lane.margin_ms
    if hold <= 0:
        expired = hold + lane.margin_ms <= 0
        switch.refuse(lane, inbound, "R02", "the Prepare has expired" if expired else "too little time is left")
        return
    if hold > lane.hold_ms_max:
        hold = lane.hold_ms_max
    if view.amount > lane.packet_amount_max:
        _too_large(switch, lane, inbound, view.amount, lane.packet_amount_max)
        return
    if hop is None:
        hop = _first_hop(switch, lane, inbound, view, hold)
        if hop is None:
            return
    forward(switch, lane, inbound, view, hop, hold, "")


def forward(
    switch: Switch,
    lane: Lane,
    inbound: Inbound,
    view: PrepareView,
    hop: Hop,
    hold: int,
    echo_to: str,
    tried: tuple[AccountId, ...] = (),
) -> None:
    """Reserve both legs and send the Prepare on; `echo_to` is the address of an echo's answer, else empty.

    `tried`: hops that had no liquidity for this very packet, of which nothing was written anywhere.
    """
    amount = view.amount
    if amount > hop.amount_max:
        _too_large(switch, lane, inbound, amount, hop.amount_max)
        return
    spread = rounding = 0
    outgoing_amount = amount
    if not hop.identity:
        exact = amount * hop.net
        denominator = hop.denominator
        outgoing_amount = exact // denominator
        if outgoing_amount == 0 and amount > 0:
            switch.refuse(lane, inbound, "R01", "the amount becomes zero after the exchange")  # refused, never raised
            return
        mid = amount * hop.mid
        spread = (mid - exact) // denominator
        rounding = mid // denominator - outgoing_amount - spread
    target = hop.lane
    problem = _lacks(switch, lane, target, amount, outgoing_amount)
    if problem is not None:
        other = None if echo_to else _hop_with_more(switch, lane, view.destination, target, problem, tried)
        if other is None:
            switch.refuse(lane, inbound, problem[0], problem[1])
        else:
            forward(switch, lane, inbound, view, other, hold, "", (*tried, target.id))
        return
    request_id = target.take_request_id()
    if request_id is None:
        switch.refuse(lane, inbound, "T01", "the session with the next hop is being renewed")
        return
    if request_id >= RENEW_SESSION_AT and not target.renewing:
        target.renewing = True
        switch.effects.append(CloseLink(target.id, "the session's request ids are used up"))
    # Decided. From here on nothing fails.
    amounts = lane.amounts
    if amounts is not None:
        amounts.take(amount)
    books = switch.books
    leg_id = books.last_leg + 1
    wall, mono = switch.wall, switch.mono
    expires_at = wall + hold
    deadline = mono + hold
    incoming = IncomingLeg(
        leg_id,
        lane.account,
        amount,
        view.expires_at,
        view.condition,
        inbound.session,
        inbound.request_id,
        mono + view.expires_at - wall,
    )
    outgoing = OutgoingLeg(
        leg_id + 1,
        target.account,
        outgoing_amount,
        spread,
        rounding,
        expires_at,
        view.condition,
        target.session,
        request_id,
        incoming,
        deadline,
        inbound.read_at,
        view.destination,
    )
    books.reserve(incoming, outgoing)
    switch.wheel.add(outgoing)
    if deadline < switch.first_deadline:
        switch.first_deadline = deadline
    if inbound.note:
        switch.note(inbound.note)
    packet = (
        _echo_packet(outgoing_amount, expires_at, view.condition, echo_to)
        if echo_to
        else patch_prepare(view, outgoing_amount, expires_at, switch.timestamps)  # ILP-6
    )
    frames = target.frames
    if not frames:
        switch.frame_lanes.append(target)
    frames.append(Outbound(target.session, request_id, packet))


def _hop_with_more(
    switch: Switch, lane: Lane, destination: bytes, target: Lane, problem: tuple[str, str], tried: tuple[AccountId, ...]
) -> Hop | None:
    """Another hop for a packet that our account with this one has no room for; None without any."""
    if problem not in (_NO_LIQUIDITY, _TOO_MUCH_IN_FLIGHT):  # compiled, tuples have no identity
        return None
    switch.router.hop_scarce(switch, destination, target.id, b"")
    if not switch.router.splits or len(tried) >= HOPS_TRIED_MAX:
        return None
    other = find_next_hop(switch, destination)
    if other is None or other is lane or other is target or other.id in tried:
        return None
    return _hop_between(switch, lane, other)


def _lacks(switch: Switch, lane: Lane, target: Lane, amount: int, outgoing_amount: int) -> tuple[str, str] | None:
    """Why the accounts or the link can't take this packet now: code and message; None if they can."""
    source_account = lane.account
    target_account = target.account
    if amount:  # zero moves no money and needs no room for it (P-11)
        reserved = source_account.reserved_incoming + amount
        if source_account.balance + source_account.loss.balance + reserved > lane.receivable_max:
            return "T04", "the account's balance with us would exceed its limit"  # CONN-4
        if reserved > lane.in_flight_max:
            return "T04", "too much value of the account is in flight"
        reserved = target_account.reserved_outgoing + outgoing_amount
        if reserved - target_account.balance > target.payable_max:
            return _NO_LIQUIDITY
        if reserved > target.in_flight_max:
            return _TOO_MUCH_IN_FLIGHT
        bucket = lane.amounts
        if bucket is not None and not bucket.has(amount, switch.mono):
            return "T04", "too much value in a short time"
    if len(source_account.received) >= lane.legs_max:
        return "T03", "too many packets of the account are in flight"
    if len(target_account.sent) >= target.legs_max:
        return "T03", "too many packets to the next hop are in flight"
    if len(source_account.fulfilled) >= OUTCOMES_MAX or len(target_account.unsaid) >= OUTCOMES_MAX:
        return "T03", "too many outcomes wait to be acknowledged by a peer"
    if not target.up:
        return "T01", "the link to the next hop is down"
    if target.blocked:
        return "T02", "the next hop takes no more packets for now"
    return None


def _too_large(switch: Switch, lane: Lane, inbound: Inbound, amount: int, maximum: int) -> None:
    """F08 with the largest amount that would pass, in units of the incoming account (ILP-15, ILP-16, P-8)."""
    data = encode_amount_too_large(amount, min(maximum, AMOUNT_MAX))
    switch.refuse(lane, inbound, "F08", "the amount is too large", data)


# --- routes ----------------------------------------------------------------------------------------------------------


def _first_hop(switch: Switch, lane: Lane, inbound: Inbound, view: PrepareView, hold: int) -> Hop | None:
    """The way of the first packet to this destination; None if it was answered."""
    if lane.disabled:  # it has no hops remembered: new terms forget them
        switch.refuse(lane, inbound, "T03", "the account takes no packets for now")
        return None
    if view.destination == switch.tables.address.encode("ascii"):
        _answer_echo(switch, lane, inbound, view, hold)
        return None
    return _resolve(switch, lane, inbound, view.destination)


def _resolve(switch: Switch, lane: Lane, inbound: Inbound, destination: bytes) -> Hop | None:
    """The way to the destination, remembered for the next packet; None after a Reject."""
    address = destination.decode("latin-1")
    if not is_valid(address):
        switch.refuse(lane, inbound, "F01", "the destination is no ILP address")
        return None
    tables = switch.tables
    if not tables.allows(address):
        switch.refuse(lane, inbound, "F02", "addresses of this kind are not carried here")  # ADDR-5 to ADDR-7
        return None
    found = _find_way(switch, destination)
    if found is None:
        switch.refuse(lane, inbound, "F02", "no route to the destination")
        return None
    prefix, target = found
    is_divided = switch.router.is_divided(prefix)
    if target.disabled:
        switch.refuse(lane, inbound, "T01", "the account of the next hop takes no packets for now")
        return None
    if target is lane and is_divided:
        target = next(iter(switch.router.others(switch, prefix, lane.id)), lane)
    if target is lane:
        switch.refuse(lane, inbound, "F02", "the route leads back to where the packet came from")  # P-15
        return None
    hop = _hop_between(switch, lane, target) or _hop_that_exchanges(switch, lane, prefix, target)
    if hop is None:
        _not_exchanged(switch, lane, inbound, target)
        return None
    if is_divided:
        return hop
    if len(lane.hops) >= HOPS_MAX:
        lane.hops.clear()
    lane.hops[destination] = hop
    return hop


def _hop_that_exchanges(switch: Switch, lane: Lane, prefix: bytes, target: Lane) -> Hop | None:
    """Where the rate to the next hop is stopped, or there is none: another one that reaches the prefix."""
    for other in switch.router.others(switch, prefix, target.id):
        hop = None if other is lane else _hop_between(switch, lane, other)
        if hop is not None:
            return hop
    return None


def find_next_hop(switch: Switch, destination: bytes) -> Lane | None:
    """The lane that a valid destination's packets go to; None without a route."""
    found = _find_way(switch, destination)
    return None if found is None else found[1]


def _find_way(switch: Switch, destination: bytes) -> tuple[bytes, Lane] | None:
    """The same, with the prefix that it goes by."""
    tables = switch.tables
    found = switch.router.find(switch, destination)
    if found is None:
        return None
    prefix, account = found
    own = tables.address.encode("ascii")
    # What lies under our address and has no route of its own is nowhere: sent on, it would come back (P-15).
    if own and len(prefix) < len(own) and (destination == own or destination.startswith(own + b".")):
        return None
    lane = switch.lanes.get(account)
    return None if lane is None or lane.closed else (prefix, lane)


def _not_exchanged(switch: Switch, lane: Lane, inbound: Inbound, target: Lane) -> None:
    """F02 where we never exchange; T01 where the rate is not to be trusted now.

    T01: "there is a route, and for now it can't be taken". Senders try again later, and connectors before us take
    another way if they have one. T04 would make both try smaller amounts, which meet the same.
    """
    source, destination = lane.terms.asset.code, target.terms.asset.code
    why = switch.tables.rates.stopped_why(source, destination)
    if why is None:
        switch.refuse(lane, inbound, "F02", "these two assets are not exchanged here")
    else:
        switch.refuse(lane, inbound, "T01", f"{source} is not exchanged for {destination} now: {why}")


def _hop_between(switch: Switch, lane: Lane, target: Lane) -> Hop | None:
    hop = lane.pairs.get(target.account.index)
    if hop is None:
        conversion = switch.tables.rates.conversion(lane.terms, target.terms)
        if conversion is None:
            return None
        lane.pairs[target.account.index] = hop = Hop(target, conversion)
    return hop


# --- the echo --------------------------------------------------------------------------------------------------------


def _answer_echo(switch: Switch, lane: Lane, inbound: Inbound, view: PrepareView, hold: int) -> None:
    """A Prepare to our own address: answered by a Prepare if it is a harmless echo request, else F01 (CONN-18)."""
    source = echo_source(inbound.packet)
    if source is None:
        switch.refuse(lane, inbound, "F01", "nothing is received at this address")
        return
    guarded = find_next_hop(switch, source.encode("ascii")) is not lane or not switch.tables.allows(source)
    if guarded or view.amount > lane.terms.echo_amount_max:
        switch.refuse(lane, inbound, "F02", "an echo goes only to where its request came from, with a small amount")
        return
    hop = _hop_between(switch, lane, lane)
    if hop is None or not hop.identity:
        # The amount comes back as it went out: a spread would make the answer's condition unpayable.
        switch.refuse(lane, inbound, "F02", "no echo on this account")
        return
    forward(switch, lane, inbound, view, hop, hold, source)


def _echo_packet(amount: int, expires_at: int, condition: bytes, destination: str) -> bytes:
    return encode_prepare(Prepare(amount, expires_at, condition, destination, ECHO_ANSWER))
