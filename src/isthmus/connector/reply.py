"""What becomes of our own Prepares: Fulfills, Rejects, what was never sent, and silence until the expiry.

The side that sent a Prepare decides it, by its own clock: a valid Fulfill read before the outgoing deadline posts both
legs; everything else voids them, for good. A reply that doesn't parse says nothing: the peer may still fulfil in time,
so the leg waits for its expiry (BTP-18).
"""

from hashlib import sha256
from typing import Final

from isthmus.connector.books import DEAF
from isthmus.connector.events import Inbound, Outbound, Undelivered
from isthmus.connector.lane import Lane
from isthmus.connector.legs import EXPIRED, NEVER_SENT, REJECTED, UNDELIVERED, UNSAID, WRONG_FULFILLMENT, OutgoingLeg
from isthmus.connector.outcomes import note_fulfilled
from isthmus.connector.routing.records import SAMPLE
from isthmus.connector.routing.rests import FAILURES
from isthmus.connector.switch import Switch
from isthmus.errors import CodecError
from isthmus.ilp.packet import FULFILL, REJECT, fulfillment_of, reject_code_of

# Outgoing legs have every second number: one in `SAMPLE` of them is looked at.
_SAMPLED: Final = 2 * SAMPLE - 1


def take_reply(switch: Switch, lane: Lane, inbound: Inbound) -> None:
    """A Fulfill or Reject that came on an account; what answers none of its open legs changes nothing."""
    leg = lane.account.sent.get(inbound.request_id)
    if leg is None or (inbound.session and inbound.session != leg.session) or leg.id > switch.released_leg:
        _take_stray(switch, lane, inbound)
        return
    if inbound.read_at >= leg.deadline:
        expire(switch, leg)
        _take_stray(switch, lane, inbound)
        return
    packet = inbound.packet
    kind = packet[0] if packet else 0
    try:
        if kind == FULFILL:
            fulfillment = fulfillment_of(packet)
            if sha256(fulfillment).digest() == leg.condition:
                _fulfil(switch, lane, leg, inbound, fulfillment)
            else:
                void(switch, leg, WRONG_FULFILLMENT, "F05", "the next hop's fulfillment is wrong")  # ILP-11
                switch.warn(lane, "wrong_fulfillment", {"request_id": inbound.request_id})
            return
        if kind == REJECT:
            code = reject_code_of(packet)
            if code in FAILURES:
                switch.router.hop_failed(switch, leg, packet)
            elif code == "T04":
                switch.router.hop_scarce(switch, leg.destination, leg.account.name, packet)
            elif code == "F99":
                switch.router.hop_refused(leg, switch.mono)
            _relay_reject(switch, lane, leg, inbound, code)
            return
        problem = "not an ILP reply"
    except CodecError as error:
        problem = str(error)
    switch.malformed += 1
    switch.warn(lane, "malformed_reply", {"request_id": inbound.request_id, "problem": problem})


def _fulfil(switch: Switch, lane: Lane, leg: OutgoingLeg, inbound: Inbound, fulfillment: bytes) -> None:
    switch.wheel.discard(leg)
    incoming = leg.incoming
    upstream = switch.by_index[incoming.account.index]
    # Of another implementation on BTP nothing is kept: it asks for nothing. Over HTTP it may repeat a request.
    is_kept = not upstream.is_local and (not upstream.is_other or incoming.request_id == 0)
    switch.books.post(leg, fulfillment if is_kept else b"")
    if inbound.note:
        switch.note(inbound.note)
    if lane.account.hearing != DEAF:
        lane.reporter.decided(switch, leg)
    if is_kept:
        note_fulfilled(switch, upstream, incoming)
    upstream.fulfilled += 1
    waited = inbound.read_at - leg.started_at
    index = switch.latency_index
    switch.latency[index[waited] if 0 <= waited < len(index) else (-1 if waited > 0 else 0)] += 1
    switch.latency_sum_ms += waited
    if leg.id & _SAMPLED == 0:
        switch.router.hop_fulfilled(leg, waited, switch.mono)
    switch.posted.append(incoming)
    if incoming.deadline < switch.first_posted_deadline:
        switch.first_posted_deadline = incoming.deadline
    frames = upstream.frames
    if not frames:
        switch.frame_lanes.append(upstream)
    frames.append(Outbound(incoming.session, incoming.request_id, inbound.packet))


def _relay_reject(switch: Switch, lane: Lane, leg: OutgoingLeg, inbound: Inbound, code: str) -> None:
    """Pass the Reject on unchanged, `triggeredBy` included (ILP-6)."""
    switch.count_relayed(lane, code)
    incoming = leg.incoming
    _void_both(switch, leg, REJECTED)
    upstream = switch.by_index[incoming.account.index]
    switch.count_reject(upstream, code)
    switch.send(upstream, Outbound(incoming.session, incoming.request_id, inbound.packet))


def void(switch: Switch, leg: OutgoingLeg, reason: int, code: str, message: str) -> None:
    """Void both legs and tell the peer who sent us the Prepare."""
    _void_both(switch, leg, reason)
    switch.reject_leg(leg.incoming, code, message)


def expire(switch: Switch, leg: OutgoingLeg) -> None:
    """The outgoing expiry has come without a valid answer (ILP-10)."""
    if leg.id > switch.released_leg:
        void(switch, leg, NEVER_SENT, "R00", "the Prepare was not sent in time")
        return
    switch.router.hop_failed(switch, leg, b"")
    void(switch, leg, EXPIRED, "R00", "the next hop didn't answer in time")


def never_sent(switch: Switch, leg: OutgoingLeg) -> None:
    """The link went down before the Prepare was handed to it: nobody can fulfil it."""
    void(switch, leg, NEVER_SENT, "T01", "the link to the next hop is down")


def take_undelivered(switch: Switch, lane: Lane, event: Undelivered) -> None:
    """The link knows that the peer didn't take our Prepare: reject at once instead of waiting (BTP-18, HTTP-8)."""
    leg = lane.account.sent.get(event.request_id)
    if leg is None or leg.id > switch.released_leg:
        switch.foreign += 1
        return
    code = event.code if len(event.code) == 3 and event.code.isascii() else "T00"
    switch.count_relayed(lane, code)
    void(switch, leg, UNDELIVERED, code, event.message)


def _void_both(switch: Switch, leg: OutgoingLeg, reason: int) -> None:
    switch.wheel.discard(leg)
    switch.books.void_outgoing(leg, reason)
    switch.books.void_incoming(leg.incoming, reason)
    lane = switch.by_index[leg.account.index]
    if reason in UNSAID:
        if lane.account.hearing != DEAF:
            lane.reporter.decided(switch, leg)
        if reason != UNDELIVERED:
            lane.remember_expired(leg)
    elif lane.account.hearing != DEAF:
        lane.reporter.ended(switch, leg)


def _take_stray(switch: Switch, lane: Lane, inbound: Inbound) -> None:
    """A reply to nothing that is open: ignored for balances; a late Fulfill is recorded (P-12)."""
    leg = lane.expired.get(inbound.request_id)
    if leg is None or (inbound.session and inbound.session != leg.session):
        switch.foreign += 1
        return
    try:
        is_late = sha256(fulfillment_of(inbound.packet)).digest() == leg.condition
    except CodecError:
        is_late = False
    if not is_late:
        switch.foreign += 1
        return
    del lane.expired[inbound.request_id]
    switch.late += 1
    ms_late = max(0, inbound.read_at - leg.deadline)
    switch.books.late_fulfill(lane.account, leg.session, leg.request_id, leg.amount, ms_late)
    text = f"fulfilled {ms_late} ms after the expiry; request {leg.request_id} of session {leg.session.hex()}"
    switch.singles.append(("late", lane.id, leg.amount, text))
    switch.warn(lane, "late_fulfill", {"amount": str(leg.amount), "ms_late": ms_late})
