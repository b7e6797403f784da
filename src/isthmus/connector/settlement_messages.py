"""Messages between the two engines of an account: `peer.settle` (RFC 0038, "Exchanging Messages").

A message is the data of a Prepare of amount 0, its answer that of the Fulfill. The kernel carries them between the
peers and the engines and understands nothing of it. It has no books and no journal: what engines promise each other,
they keep.
"""

from typing import TYPE_CHECKING, Final, final

from isthmus.connector.events import (
    Inbound,
    Outbound,
    SendSettlementMessage,
    SettlementMessage,
    SettlementMessageAnswered,
    SettlementMessageReply,
)
from isthmus.connector.lane import Lane, Question
from isthmus.errors import CodecError, plain
from isthmus.ilp.codes import ErrorCode
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import (
    DATA_BYTES_MAX,
    Fulfill,
    Prepare,
    PrepareView,
    Reject,
    decode_prepare,
    decode_reply,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)

if TYPE_CHECKING:
    from isthmus.connector.switch import Switch

SETTLE_DESTINATION: Final = "peer.settle"
# The condition that the RFC prints, of which no fulfillment is known; some peers may send it (SE-13, X-3).
PRINTED_CONDITION: Final = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
# How long an engine may take over an answer.
MESSAGE_MS: Final = 30_000
# Of one account, each direction, without an answer; beyond it T03, and a problem for our own engine.
MESSAGES_MAX: Final = 16


@final
class SettlementMessages:
    """Messages of peers that wait for our engines' answers."""

    __slots__ = ("_last", "_waiting")

    def __init__(self) -> None:
        self._last = 0
        self._waiting: Final[dict[int, tuple[Lane, Inbound, int]]] = {}  # by token: and until when (mono)

    def take(self, switch: "Switch", lane: Lane, inbound: Inbound, view: PrepareView) -> None:
        """A peer's message: to our engine, if the account has one (SE-12)."""
        wait_ms = min(view.expires_at - switch.wall, MESSAGE_MS)
        if view.amount != 0 or view.condition not in (PEER_CONDITION, PRINTED_CONDITION):
            switch.refuse(lane, inbound, "F00", "a settlement message has amount 0 and the condition of peer.*")
            return
        if wait_ms <= 0:
            switch.refuse(lane, inbound, "R00", "the settlement message has expired")
            return
        if not lane.terms.settle.engine:
            switch.refuse(lane, inbound, "F01", "this account has no settlement engine here")
            return
        self._forget_expired(switch.mono)
        if sum(1 for waiting, _, _ in self._waiting.values() if waiting is lane) >= MESSAGES_MAX:
            switch.refuse(lane, inbound, "T03", "too many settlement messages wait for an answer")
            return
        try:
            data = decode_prepare(inbound.packet).data
        except CodecError as error:
            switch.refuse(lane, inbound, "F01", f"the settlement message doesn't parse: {error}")
            return
        self._last += 1
        self._waiting[self._last] = (lane, inbound, switch.mono + wait_ms)
        switch.effects.append(SettlementMessage(lane.id, data, self._last, wait_ms))

    def reply(self, switch: "Switch", event: SettlementMessageReply) -> None:
        """Our engine's answer. One that comes too late, or twice, has nobody to go to."""
        self._forget_expired(switch.mono)
        found = self._waiting.pop(event.token, None)
        if found is None:
            return
        lane, inbound, _ = found
        if event.code:
            reject = encode_reject(Reject(event.code, SETTLE_DESTINATION, event.message))  # SE-12
            switch.count_reject(lane, event.code)
            switch.send_free(lane, Outbound(inbound.session, inbound.request_id, reject))
            return
        answer = encode_fulfill(Fulfill(PEER_FULFILLMENT, event.data[:DATA_BYTES_MAX]))
        # After all that the engine had us book before: an answer may promise what rests on it.
        switch.send_after_all(lane, Outbound(inbound.session, inbound.request_id, answer))

    def _forget_expired(self, now: int) -> None:
        waiting = self._waiting
        for token in [token for token, (_, _, until) in waiting.items() if until <= now]:
            del waiting[token]


@final
class MessageQuestion(Question):
    """Waits for the answer of the peer's engine."""

    __slots__ = ("token", "until")

    def __init__(self, token: int, until: int) -> None:
        self.token: Final = token
        self.until: Final = until

    def take_answer(self, switch: "Switch", packet: bytes) -> None:
        try:
            reply = decode_reply(packet)
        except CodecError as error:
            answer = SettlementMessageAnswered(self.token, b"", ErrorCode.T00_INTERNAL_ERROR, f"no ILP reply: {error}")
        else:
            if isinstance(reply, Fulfill):
                answer = SettlementMessageAnswered(self.token, reply.data)
            else:
                answer = SettlementMessageAnswered(self.token, b"", reply.code, plain(reply.message, 500))
        switch.effects.append(answer)

    def refused(self, switch: "Switch", code: str, why: str) -> None:
        switch.effects.append(SettlementMessageAnswered(self.token, b"", code, why))


def send_message(switch: "Switch", event: SendSettlementMessage) -> None:
    """Our engine's message to the peer's. It leaves after all that the engine has had booked before.

    Where no answer comes, nobody tells: whoever asked has a deadline of his own, `MESSAGE_MS` or less.
    """
    lane = switch.lanes.get(event.account)
    problem = _problem(switch, lane, event.data)
    request_id = None if lane is None or problem else lane.take_request_id()
    if lane is None or request_id is None:
        why = problem or "the session is being renewed"
        switch.effects.append(SettlementMessageAnswered(event.token, b"", "T01", why))
        return
    lane.questions[request_id] = MessageQuestion(event.token, switch.mono + MESSAGE_MS)
    message = Prepare(0, switch.wall + MESSAGE_MS, PEER_CONDITION, SETTLE_DESTINATION, event.data)
    switch.send_after_all(lane, Outbound(lane.session, request_id, encode_prepare(message)))


def _problem(switch: "Switch", lane: Lane | None, data: bytes) -> str:
    if lane is None or lane.closed:
        return "there is no such account"
    if not lane.up:
        return "the link is down"
    if len(data) > DATA_BYTES_MAX:
        return f"a message has at most {DATA_BYTES_MAX} bytes"
    asked = {key: one for key, one in lane.questions.items() if isinstance(one, MessageQuestion)}
    for request_id in [key for key, one in asked.items() if one.until <= switch.mono]:
        lane.questions.pop(request_id).refused(switch, "R00", "the peer's engine doesn't answer")
        del asked[request_id]
    return "too many settlement messages wait for an answer" if len(asked) >= MESSAGES_MAX else ""
