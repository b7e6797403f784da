"""A ping to a neighbour: the question for configuration (RFC 0031), whose answer of any kind shows that packets pass.

A parent fulfils it, and tells the asset and scale that it counts in; a peer rejects it under its own address. Amount 0,
no books, no journal.
"""

from typing import Final, final

from isthmus.connector.events import Outbound, Ping, Ponged
from isthmus.connector.lane import Lane, Question
from isthmus.connector.switch import Switch
from isthmus.errors import CodecError, plain
from isthmus.ilp.ildcp import REQUEST_MS, decode_response, encode_request
from isthmus.ilp.packet import Fulfill, decode_reply

# Without an answer yet, of one account; beyond it the oldest is forgotten.
PINGS_MAX: Final = 8


@final
class PingQuestion(Question):
    """Waits for one answer."""

    __slots__ = ("_asked_at", "_token")

    def __init__(self, token: int, asked_at: int) -> None:
        self._token: Final = token
        self._asked_at: Final = asked_at

    def take_answer(self, switch: Switch, packet: bytes) -> None:
        took_ms = switch.mono - self._asked_at
        try:
            reply = decode_reply(packet)
            if isinstance(reply, Fulfill):
                told = decode_response(reply.data)
                answer = Ponged(self._token, took_ms, "", told.address, told.asset_code, told.asset_scale)
            else:
                answer = Ponged(self._token, took_ms, reply.code, plain(reply.triggered_by, 1_023))
        except CodecError as error:
            answer = Ponged(self._token, took_ms, problem=f"the answer doesn't parse: {error}")
        switch.effects.append(answer)

    def refused(self, switch: Switch, code: str, why: str) -> None:
        switch.effects.append(Ponged(self._token, 0, problem=why))


def take_ping(switch: Switch, event: Ping) -> None:
    """Ask the neighbour, or say why that can't be."""
    lane = switch.lanes.get(event.account)
    if lane is None or lane.closed:
        switch.effects.append(Ponged(event.token, 0, problem="there is no such account"))
        return
    request_id = lane.take_request_id() if lane.up else None
    if request_id is None:
        why = "the link is down" if not lane.up else "the session is being renewed"
        switch.effects.append(Ponged(event.token, 0, problem=why))
        return
    _forget_oldest(lane)
    lane.questions[request_id] = PingQuestion(event.token, switch.mono)
    switch.send_free(lane, Outbound(lane.session, request_id, encode_request(switch.wall + REQUEST_MS)))


def _forget_oldest(lane: Lane) -> None:
    pings = [request_id for request_id, one in lane.questions.items() if isinstance(one, PingQuestion)]
    for request_id in pings[: max(0, len(pings) - PINGS_MAX + 1)]:
        del lane.questions[request_id]
