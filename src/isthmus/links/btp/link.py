"""An account's link over many connections: which one carries it now, and the answers that outlive them (BTP-18)."""

from collections.abc import Callable
from typing import Final, TypeAlias

from isthmus.connector.events import AccountId, Log, Outbound, Undelivered
from isthmus.links.btp.answers import Answers
from isthmus.links.btp.channel import Channel
from isthmus.links.btp.codec import BtpError, ProtocolData
from isthmus.links.btp.orders import Answered, Asked, Ready
from isthmus.links.btp.websocket import GOING_AWAY, NORMAL
from isthmus.links.port import LinkOwner

_PREPARE: Final = 12

# What a registered sub-protocol says to a peer's request: entries for a Response, or a BTP error code with words.
SubprotocolReply: TypeAlias = list[ProtocolData] | tuple[str, str]
Subprotocol: TypeAlias = Callable[[AccountId, list[ProtocolData]], SubprotocolReply]
AnswerTo: TypeAlias = Callable[[list[ProtocolData] | BtpError | None], None]


def no_log(fact: Log) -> None:
    """For callers that want none."""


class BtpLink:
    """The part that client and server share. Implements `links.port.Link` and `channel.ChannelOwner`.

    `session` is our own session id, announced on each connection: set it before the next one to renew it.
    """

    def __init__(
        self,
        account: AccountId,
        owner: LinkOwner,
        *,
        session: bytes,
        on_log: Callable[[Log], None] = no_log,
        subprotocols: dict[str, Subprotocol] | None = None,
    ) -> None:
        self.account = account
        self.session = session
        self.peer_is_isthmus = False  # as it showed on the newest connection
        self.answers = Answers()
        self.subprotocols: Final[dict[str, Subprotocol]] = subprotocols if subprotocols is not None else {}
        self._owner: Final = owner
        self._on_log: Final = on_log
        self._channel: Channel | None = None
        self._is_blocked = False
        self._is_paused = False
        self._is_closed = False
        self._waiting: dict[int, AnswerTo] = {}

    @property
    def is_up(self) -> bool:
        return self._channel is not None

    # --- links.port.Link ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. Whether the peer is there, the owner learns by `link_up`."""

    def write(self, frames: list[Outbound]) -> None:
        channel = self._channel
        now = self._owner.mono_ms()
        if channel is None:
            self._write_while_down(frames, now)
        else:
            self.answers.written(frames, now, channel.write(frames))

    def pause_reading(self) -> None:
        self._is_paused = True
        if self._channel is not None:
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        if self._channel is not None:
            self._channel.resume_reading()

    def reset(self, why: str) -> None:
        """Drop the present connection; a client dials again."""
        if self._channel is not None:
            self._channel.close(NORMAL, why)

    async def close(self) -> None:
        """End for good: a peer that comes back meanwhile is sent away."""
        self._is_closed = True
        channel = self._channel
        self.reset("closing")
        if channel is not None:
            await channel.flushed()  # a Fulfill among it is money

    def take_over(self, earlier: "BtpLink") -> None:
        """Take the answers that may be needed again from the account's earlier link, before the first connection."""
        self.answers = earlier.answers

    # --- sub-protocols ------------------------------------------------------------------------------------------

    def ask(self, protocol_data: list[ProtocolData], on_answer: AnswerTo) -> bool:
        """Send a Message of a sub-protocol. `on_answer` comes once: entries, an error, or None without an answer.

        False, and no callback: no connection is up, or too many are unanswered.
        """
        request_id = None if self._channel is None else self._channel.ask(protocol_data)
        if request_id is None:
            return False
        self._waiting[request_id] = on_answer
        return True

    # --- channel.ChannelOwner -----------------------------------------------------------------------------------

    def ready(self, channel: Channel, order: Ready) -> None:
        """The newest authenticated connection wins; requests that came by the older stay valid."""
        channel.owner = self
        if self._is_closed:
            channel.close(GOING_AWAY, "closing")
            return
        older = self._channel
        self._channel = channel
        self.peer_is_isthmus = order.is_isthmus
        if older is not None:
            self._log("info", "btp.replaced", why="a newer connection of the account was authenticated")
            older.retire(NORMAL, "replaced by a newer connection")
        if self._is_blocked:
            self._is_blocked = False
            self._owner.writable(self.account)
        if self._is_paused:
            channel.pause_reading()
        again = self.answers.take(self._owner.mono_ms(), knows_sessions=order.is_isthmus)
        if again:
            self.answers.written(again, self._owner.mono_ms(), channel.write(again))
        self._log("info", "btp.up", peer="isthmus" if order.is_isthmus else "other", answers_sent_again=len(again))
        self._owner.link_up(self.account)

    def asked(self, channel: Channel, order: Asked) -> None:
        handler = self.subprotocols[order.protocol_data[0].name]
        reply = handler(self.account, order.protocol_data)
        assert channel.session is not None
        if isinstance(reply, tuple):
            channel.write_frames([channel.session.refuse(order.request_id, reply[0], reply[1], channel.now())])
        else:
            channel.write_frames([channel.session.answer(order.request_id, reply)])

    def answered(self, channel: Channel, order: Answered) -> None:
        on_answer = self._waiting.pop(order.request_id, None)
        if on_answer is not None:
            on_answer(order.answer)

    def blocked(self, channel: Channel) -> None:
        if channel is self._channel and not self._is_blocked:
            self._is_blocked = True
            self._owner.blocked(self.account)

    def writable(self, channel: Channel) -> None:
        if channel is self._channel and self._is_blocked:
            self._is_blocked = False
            self._owner.writable(self.account)

    def ended(self, channel: Channel, why: str, refused: bool) -> None:
        if channel is self._channel:
            self._channel = None
            if self._is_blocked:
                self._is_blocked = False
                self._owner.writable(self.account)  # there is no buffer any more
            self._log("info", "btp.down", why=why)
            self._owner.link_down(self.account, why)

    def log(self, fact: Log) -> None:
        self._on_log(fact)

    # --- inside -------------------------------------------------------------------------------------------------

    def _write_while_down(self, frames: list[Outbound], now: int) -> None:
        failures: list[Undelivered] = []
        for frame in frames:
            if frame.packet[0] == _PREPARE:
                # Not a byte of it left, so it certainly was not taken (BTP-18).
                failures.append(Undelivered(self.account, frame.request_id, "T01", "the link to the next hop is down"))
            else:
                self.answers.keep(frame, now)
        if failures:
            self._owner.undelivered(failures)

    def _log(self, level: str, event: str, **fields: str | int) -> None:
        self._on_log(Log(level, event, {"account": str(self.account), **fields}))
