"""What neighbours ask each other and nobody else: `peer.*` requests (amount 0, answered at once), and the echo's data.

ILDCP (RFC 0031) both ways is here; outcomes and settlement messages have modules of their own (`outcomes.py`,
`settlement_messages.py`), and routes a package (`routing`).
"""

from typing import Final, final

from isthmus.connector.events import AddressLearned, Inbound, Outbound
from isthmus.connector.lane import Lane, Question
from isthmus.connector.outcomes import take_report
from isthmus.connector.settlement_messages import SETTLE_DESTINATION
from isthmus.connector.switch import Switch
from isthmus.errors import CodecError
from isthmus.ilp.address import ADDRESS_BYTES_MAX, is_valid
from isthmus.ilp.ccp import CONTROL_DESTINATION, UPDATE_DESTINATION
from isthmus.ilp.ildcp import (
    CONFIG_DESTINATION,
    PEER_CONDITION,
    PEER_FULFILLMENT,
    REQUEST_MS,
    IldcpResponse,
    decode_response,
    encode_request,
    encode_response,
)
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION
from isthmus.ilp.packet import Fulfill, PrepareView, decode_prepare, decode_reply
from isthmus.oer import read_var_octets_max

_CONFIG: Final = CONFIG_DESTINATION.encode("ascii")
_OUTCOMES: Final = OUTCOMES_DESTINATION.encode("ascii")
_ROUTE_CONTROL: Final = CONTROL_DESTINATION.encode("ascii")
_ROUTE_UPDATE: Final = UPDATE_DESTINATION.encode("ascii")
_SETTLE: Final = SETTLE_DESTINATION.encode("ascii")

# The wait before the parent is asked again: doubles from the first to the last, for as long as it doesn't answer.
RETRY_MS_FIRST: Final = 1_000
RETRY_MS_MAX: Final = 60_000

# CONN-18: the data of an echo request is this, 0, and the source address.
ECHO_PREFIX: Final = b"ECHOECHOECHOECHO"
ECHO_REQUEST: Final = 0
ECHO_ANSWER: Final = ECHO_PREFIX + b"\x01"


def peer_request(switch: Switch, lane: Lane, inbound: Inbound, view: PrepareView) -> None:
    """Answer a `peer.*` Prepare; F01 for protocols that we don't know (CONN-17). It is never forwarded (ADDR-5)."""
    if view.destination == _OUTCOMES:
        take_report(switch, lane, inbound, view)
        return
    if view.destination in (_ROUTE_CONTROL, _ROUTE_UPDATE):
        switch.router.take_request(switch, lane, inbound, view)
        return
    if view.destination == _SETTLE:
        switch.settlement_messages.take(switch, lane, inbound, view)
        return
    if view.destination != _CONFIG:
        switch.refuse(lane, inbound, "F01", "this peer protocol is not known here")
        return
    terms = lane.terms
    if view.amount != 0 or view.condition != PEER_CONDITION:
        switch.refuse(lane, inbound, "F00", "a request for configuration has amount 0 and the condition of peer.*")
    elif view.expires_at <= switch.wall:
        switch.refuse(lane, inbound, "F00", "the request for configuration has expired")
    elif not terms.ildcp_server or not terms.child_address:
        switch.refuse(lane, inbound, "F00", "this account is not a child's, or has no address yet")  # ILDCP-4, ILDCP-6
    else:
        answer = encode_response(IldcpResponse(terms.child_address, terms.asset.scale, terms.asset.code))
        # No event: the same question gets the same answer, also after a crash.
        switch.send_free(lane, Outbound(inbound.session, inbound.request_id, answer))


def echo_source(packet: bytes) -> str | None:
    """The address that an echo request wants its answer at; None if the Prepare is no echo request (CONN-18)."""
    try:
        data = decode_prepare(packet).data
        at = len(ECHO_PREFIX)
        if not data.startswith(ECHO_PREFIX) or len(data) <= at or data[at] != ECHO_REQUEST:
            return None
        source, _ = read_var_octets_max(data, at + 1, "source address", ADDRESS_BYTES_MAX)
    except CodecError:
        return None
    address = source.decode("latin-1")
    return address if is_valid(address) else None


@final
class ParentQuestion(Question):
    """Asks one parent for our address, again after a refusal or silence, and anew on every connection (ILDCP-7)."""

    __slots__ = ("_tries", "_waits_until", "lane", "request_id")

    def __init__(self, lane: Lane) -> None:
        self.lane: Final = lane
        self.request_id = 0  # of the question under way; 0 between two
        self._tries = 0
        self._waits_until: int | None = None  # monotonic ms: for the answer, or before the next try

    def wakes_at(self) -> int | None:
        return self._waits_until

    def link_up(self, now: int) -> None:
        self._tries = 0
        self._stop()
        self._waits_until = now

    def link_down(self) -> None:
        self._stop()
        self._waits_until = None

    def _stop(self) -> None:
        if self.request_id:
            self.lane.questions.pop(self.request_id, None)
            self.request_id = 0

    def tick(self, switch: Switch) -> None:
        """Ask, if it is time to."""
        if self._waits_until is None or switch.mono < self._waits_until:
            return
        if self.request_id:
            self._again(switch, "the parent doesn't answer")
            return
        request_id = self.lane.take_request_id()
        if request_id is None:
            self._waits_until = switch.mono + RETRY_MS_FIRST
            return
        self.request_id = request_id
        self.lane.questions[request_id] = self
        self._waits_until = switch.mono + REQUEST_MS
        request = encode_request(switch.wall + REQUEST_MS)
        switch.send_free(self.lane, Outbound(self.lane.session, request_id, request))

    def take_answer(self, switch: Switch, packet: bytes) -> None:
        """The parent's reply: an address, or a reason to ask again later (PEER-4, ILDCP-5)."""
        self.request_id = 0
        try:
            reply = decode_reply(packet)
            if not isinstance(reply, Fulfill):
                self._again(switch, f"the parent refuses: {reply.code} {reply.message[:200]}")
            elif reply.fulfillment != PEER_FULFILLMENT:
                self._again(switch, "the parent's Fulfill is not that of peer.*")
            else:
                found = decode_response(reply.data)
                self._waits_until = None
                learned = AddressLearned(self.lane.id, found.address, found.asset_code, found.asset_scale)
                switch.effects.append(learned)
        except CodecError as error:
            self._again(switch, f"the parent's answer doesn't parse: {error}")

    def refused(self, switch: Switch, code: str, why: str) -> None:
        """The question didn't reach the parent."""
        self.request_id = 0
        self._again(switch, why)

    def _again(self, switch: Switch, why: str) -> None:
        self._stop()
        self._waits_until = switch.mono + min(RETRY_MS_MAX, RETRY_MS_FIRST << min(self._tries, 6))
        self._tries += 1
        switch.log("warning", "address_not_learned", {"account": self.lane.id, "problem": why})
