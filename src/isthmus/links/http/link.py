"""`HttpLink`: one account's ILP-over-HTTP link (RFC 0035).

Our Prepares and asynchronous replies go out by `client.py`. What the peer POSTs to us arrives by `server.py`, which
authenticates it and calls `receive`. Pairing is done in `session.py`; nothing here decides about money.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Coroutine
from ssl import SSLContext
from typing import Final, Protocol, final

from yarl import URL

from isthmus.connector.events import SESSION_BYTES, AccountId, Inbound, Now, Outbound, Undelivered
from isthmus.errors import CodecError
from isthmus.ilp.packet import (
    FULFILL,
    PREPARE,
    REJECT,
    Fulfill,
    Reject,
    decode_reply,
    encode_fulfill,
    encode_reject,
    view_prepare,
)
from isthmus.links.http.auth import Credentials
from isthmus.links.http.client import HttpClient, NoAnswer, NotConnected
from isthmus.links.http.session import (
    Deliver,
    IncomingRequests,
    Known,
    NotTaken,
    OutgoingRequests,
    ReplyDelivery,
    Take,
    format_leg,
    format_uuid,
    request_key,
)
from isthmus.links.http.settings import Answer, HttpSettings, IncomingMode, OutgoingMode, Post
from isthmus.links.http.urls import allowed_callback, check_url
from isthmus.links.port import LinkOwner

# A packet's expiry bounds our memory of it only up to here: a peer may write any year into it.
HOLD_MS_MAX: Final = 120_000
# An unknown expiry (a reply that fell due across a restart): the usual hold time.
REPLY_MS: Final = 30_000
# Replies have connections of their own, so that no Prepare holds them up.
DELIVERIES_MAX: Final = 64
# Requests that may wait for the same reply: the first and a few repetitions.
WAITERS_MAX: Final = 4
SWEEP_MS: Final = 1_000
PROBE_MS_FIRST: Final = 250
PROBE_MS_MAX: Final = 2_000  # a peer that is back is found while packets from before still live
CLOSE_MS_MAX: Final = 2_000


class HttpOwner(LinkOwner, Protocol):
    """Of a link by HTTP, where a request may come again."""

    def fulfillment(self, account: AccountId, session: bytes, request_id: int) -> bytes | None:
        """Of a Prepare whose Fulfill was handed to the link before; None if it isn't kept any longer."""


@final
class HttpLink:
    """One account's way to its peer by HTTP. Implements `links.port.Link`."""

    def __init__(
        self,
        account: AccountId,
        owner: HttpOwner,
        settings: HttpSettings,
        credentials: Credentials,
        *,
        now: Callable[[], Now],
        ssl_context: SSLContext | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.account = account
        self._owner = owner
        self._settings = settings
        self._now = now
        self._entropy = entropy
        settings.check()
        callback_base = settings.peer_callback_url or settings.url
        self._callback_origin = (
            check_url("peer_callback_url", callback_base, allow_insecure=settings.allow_insecure)
            if callback_base is not None
            else None
        )
        self._url = URL(settings.url) if settings.url is not None else None
        self._client = HttpClient(credentials, now=now, ssl_context=ssl_context)
        self._outgoing = OutgoingRequests(asynchronous=settings.outgoing is OutgoingMode.ASYNC)
        self._incoming = IncomingRequests()
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._retries: set[asyncio.TimerHandle] = set()
        self._prepares: deque[tuple[bytes, str | None, bytes, int]] = deque()  # key, leg, packet, mono expiry
        self._posting = 0
        self._deliveries: deque[ReplyDelivery] = deque()
        self._delivering = 0
        self._waiters: dict[bytes, list[asyncio.Future[bytes | None]]] = {}
        self._arrived: list[Inbound] = []
        self._up: bool | None = None  # not known yet
        self._blocked = False
        self._paused = False
        self._closed = False
        self._sweep_at = 0

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Return at once; `link_up` follows when the peer can be reached."""
        await self._client.start()
        if self._url is None:
            self._up = True
            self._owner.link_up(self.account)
            self._set_blocked(True)  # for good: there is nowhere to send a Prepare to
        else:
            self._probe = asyncio.create_task(self._probe_until_up(self._url))

    async def close(self) -> None:
        """Give replies a moment to be delivered, then drop what is left."""
        if self._closed:
            return
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSE_MS_MAX / 1000
        while self._delivering and (left := until - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for retry in self._retries:
            retry.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._leave_waiters()
        await self._client.close()

    def reset(self, why: str) -> None:
        """The owner gives this connection up: the peer's waiting requests get no reply, and we look for it anew."""
        self._leave_waiters()
        self._went_down(why)

    def pause_reading(self) -> None:
        """Answer Prepares T03 (503 in asynchronous mode) until resumed. Replies are always taken."""
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False

    def restore(self, legs: list[tuple[bytes, int, int]]) -> None:
        """Our legs (session, request id, mono expiry) that replay found open: their replies are still taken."""
        for session, request_id, ends_at in legs:
            self._outgoing.open(session, request_id, ends_at)

    def _went_down(self, why: str) -> None:
        if self._url is None or self._closed:
            return
        self._tell_down(why)
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_up(self._url))

    async def _probe_until_up(self, url: URL) -> None:
        wait_ms = PROBE_MS_FIRST
        while (why := await self._client.reachable(url)) is not None:
            self._tell_down(why)
            # Jitter, so that a restarted peer isn't asked by everybody at once.
            await asyncio.sleep(wait_ms / 1000 * random.uniform(0.5, 1.0))
            wait_ms = min(wait_ms * 2, PROBE_MS_MAX)
        self._up = True
        self._owner.link_up(self.account)

    def _tell_down(self, why: str) -> None:
        if self._up is not False:
            self._up = False
            self._owner.link_down(self.account, why)

    # --- frames out -----------------------------------------------------------------------------------------------

    def write(self, frames: list[Outbound]) -> None:
        now = self._now()
        self._sweep(now.mono_ms)
        refused: list[Undelivered] = []
        for frame in frames:
            if frame.packet[0] != PREPARE:
                self._write_reply(frame, now.mono_ms)
            elif self._url is None or self._closed:
                refused.append(Undelivered(self.account, frame.request_id, "T01", "this account has no URL"))
            elif len(self._prepares) >= self._settings.queue_max:
                refused.append(Undelivered(self.account, frame.request_id, "T03", "too many requests are waiting"))
            else:
                ends_at = now.mono_ms + max(0, view_prepare(frame.packet).expires_at - now.wall_ms)
                key = self._outgoing.open(frame.session, frame.request_id, ends_at)
                self._prepares.append((key, format_leg(frame.session, frame.request_id), frame.packet, ends_at))
        if refused:
            self._owner.undelivered(refused)
        self._pump()

    def _write_reply(self, frame: Outbound, now_ms: int) -> None:
        # Without an Isthmus-Leg the kernel knows the Prepare by its Request-Id and 0.
        key = request_key(frame.session, frame.request_id) if frame.request_id else frame.session
        known = self._incoming.reply(key, frame.packet)
        if known is not None and known.callback is None:
            self._wake(key, frame.packet)
            return
        url = self._settings.peer_callback_url if known is None else known.callback
        # Unknown, with an agreed callback URL: the Prepare came before a restart.
        if url is not None and (known is not None or self._settings.incoming is not IncomingMode.SYNC):
            ends_at = now_ms + REPLY_MS if known is None else known.ends_at
            self._deliveries.append(ReplyDelivery(key, url, frame.packet, ends_at))

    def _pump(self) -> None:
        while self._deliveries and self._delivering < DELIVERIES_MAX:  # also while we close: a Fulfill is money
            self._delivering += 1
            self._spawn(self._deliver(self._deliveries.popleft()))
        while (
            self._prepares
            and self._url is not None
            and self._posting < self._settings.concurrency_max
            and not self._closed
        ):
            self._posting += 1
            self._spawn(self._post_prepare(self._url, *self._prepares.popleft()))
        if self._url is not None:
            if len(self._prepares) >= self._settings.queue_max // 4:
                self._set_blocked(True)
            elif len(self._prepares) <= self._settings.queue_max // 16:
                self._set_blocked(False)

    def _set_blocked(self, blocked: bool) -> None:
        if blocked != self._blocked:
            self._blocked = blocked
            (self._owner.blocked if blocked else self._owner.writable)(self.account)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post_prepare(self, url: URL, key: bytes, leg: str | None, packet: bytes, ends_at: int) -> None:
        try:
            left_ms = ends_at - self._now().mono_ms
            if left_ms <= 0:
                return  # it waited too long: the owner has rejected it at its expiry
            outcome = await self._client.post_prepare(
                url,
                packet,
                format_uuid(key),
                leg=leg,
                timeout_ms=left_ms + self._settings.grace_ms,
                callback_url=self._settings.callback_url,
                asynchronous=self._settings.outgoing is OutgoingMode.ASYNC,
            )
            if isinstance(outcome, NotConnected):
                self._went_down(outcome.why)
                # Why, with host and port, is for our log: upstream has no business with our neighbours' addresses.
                self._tell(self._outgoing.not_connected(key, "the next hop can't be reached"))
            elif isinstance(outcome, NoAnswer):
                # No answer is no outcome: the expiry decides, for the peer may fulfill in time (HTTP-8). If it has
                # started anew, an isthmus is asked once it is reached again.
                if outcome.is_broken:
                    self._went_down(outcome.why)
            else:
                now_ms = self._now().mono_ms
                self._tell(self._outgoing.responded(key, outcome.status, outcome.reply, now_ms))
        finally:
            self._posting -= 1
            self._pump()

    def _tell(self, effect: Deliver | NotTaken | None) -> None:
        if isinstance(effect, Deliver):
            read_at = self._owner.mono_ms()
            self._arrive(Inbound(self.account, effect.session, effect.request_id, effect.packet, read_at))
        elif isinstance(effect, NotTaken):
            self._owner.undelivered([Undelivered(self.account, effect.request_id, effect.code, effect.message)])

    async def _deliver(self, delivery: ReplyDelivery) -> None:
        try:
            outcome = await self._client.post_reply(URL(delivery.url), delivery.packet, format_uuid(delivery.key))
        finally:
            self._delivering -= 1
        status = None if isinstance(outcome, NotConnected | NoAnswer) else outcome.status
        wait_ms = delivery.result(status, self._now().mono_ms)
        if wait_ms is not None:
            self._retry_in(wait_ms, delivery)
        self._pump()

    def _retry_in(self, wait_ms: int, delivery: ReplyDelivery) -> None:
        def again() -> None:
            self._retries.discard(timer)
            self._deliveries.append(delivery)
            self._pump()

        timer = asyncio.get_running_loop().call_later(wait_ms / 1000, again)
        self._retries.add(timer)

    # --- frames in ------------------------------------------------------------------------------------------------

    async def receive(self, post: Post) -> Answer:
        """One authenticated POST of the peer. In synchronous mode this returns when its reply is there."""
        kind = post.packet[0] if post.packet else None
        if kind == PREPARE:
            return await self._receive_prepare(post)
        if kind in (FULFILL, REJECT):
            return self._receive_reply(post)
        return Answer(400, problem="the body is not an ILP packet")

    def _receive_reply(self, post: Post) -> Answer:
        if post.request_id is None:
            return Answer(400, problem="a Fulfill or Reject needs the Request-Id of its Prepare")
        try:
            decode_reply(post.packet)
        except CodecError as error:
            return Answer(400, problem=str(error))
        status, deliver = self._outgoing.replied(post.request_id, post.packet, self._now().mono_ms)
        self._tell(deliver)
        return Answer(status, problem="no Prepare with this Request-Id waits for a reply")

    async def _receive_prepare(self, post: Post) -> Answer:
        now = self._now()
        self._sweep(now.mono_ms)
        try:
            expires_at = view_prepare(post.packet).expires_at
        except CodecError as error:
            return Answer(400, problem=str(error))
        asynchronous = self._is_asynchronous(post)
        callback = None
        if asynchronous:
            callback, problem = self._callback_of(post)
            if problem:
                return Answer(400, problem=problem)
        key = post.request_id if post.request_id is not None else self._entropy(SESSION_BYTES)
        leg = (key, 0) if post.leg is None else post.leg
        if (self._paused or self._closed) and not self._incoming.is_known(key):
            return self._busy(leg, asynchronous)
        ends_at = now.mono_ms + min(max(0, expires_at - now.wall_ms), HOLD_MS_MAX)
        take, known = self._incoming.prepare(key, post.packet, ends_at, callback)
        if take is Take.FULL:
            return self._busy(leg, asynchronous)
        if known is None:
            return Answer(400, problem="this Request-Id belongs to another packet")
        if take is Take.NEW:
            self._arrive(Inbound(self.account, *leg, post.packet, self._owner.mono_ms()))
        if known.callback is not None:
            return Answer(202, preference_applied=post.respond_async)
        if known.answered:
            return self._answer_again(known, leg)
        answer = await self._reply_for(key, ends_at - now.mono_ms)
        if post.request_id is None:
            self._incoming.forget(key)  # nobody can ask for it again
        return answer

    def _is_asynchronous(self, post: Post) -> bool:
        if self._settings.incoming is IncomingMode.ANY:
            return post.respond_async or post.callback_url is not None
        return self._settings.incoming is IncomingMode.ASYNC

    def _callback_of(self, post: Post) -> tuple[str | None, str]:
        """Where the reply goes, or what is wrong with the request (HTTP-2, HTTP-13)."""
        if post.request_id is None:
            return None, "asynchronous mode needs a Request-Id"
        if post.callback_url is None:
            url = self._settings.peer_callback_url
            return url, "" if url is not None else "asynchronous mode needs a Callback-Url"
        if self._callback_origin is None or not allowed_callback(
            post.callback_url, self._callback_origin, allow_insecure=self._settings.allow_insecure
        ):
            return None, "this Callback-Url was not agreed upon"
        return post.callback_url, ""

    def _busy(self, leg: tuple[bytes, int], asynchronous: bool) -> Answer:
        """T03 where the body can say so; 503 is certain only in asynchronous mode (HTTP-8)."""
        fulfillment = self._owner.fulfillment(self.account, *leg)
        if fulfillment is not None:  # taken and paid before we knew it here
            return _paid(None if asynchronous else fulfillment)
        if asynchronous:
            return Answer(503, problem="too many packets are waiting")
        return Answer(200, encode_reject(Reject("T03", "", "too many packets are waiting")))

    def _answer_again(self, known: Known, leg: tuple[bytes, int]) -> Answer:
        """The reply that we gave before. A 4xx says that nothing was taken (HTTP-8): never to what we paid."""
        if known.reply is not None:
            return Answer(200, known.reply)
        if not known.fulfilled:
            return Answer(400, problem="this Request-Id was answered before, with a Reject")
        return _paid(self._owner.fulfillment(self.account, *leg))

    async def _reply_for(self, key: bytes, left_ms: int) -> Answer:
        """Hold the request open until its reply is there, a little beyond its expiry at most."""
        waiters = self._waiters.setdefault(key, [])
        if len(waiters) >= WAITERS_MAX:
            return Answer(429, problem="this Request-Id is being waited for already")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bytes | None] = loop.create_future()
        waiters.append(waiter)
        timer = loop.call_later((left_ms + self._settings.grace_ms) / 1000, _give_up, waiter)
        try:
            reply = await waiter
        finally:
            timer.cancel()
            self._remove_waiter(key, waiter)
        return Answer(504, problem="no reply came before the expiry") if reply is None else Answer(200, reply)

    def _remove_waiter(self, key: bytes, waiter: "asyncio.Future[bytes | None]") -> None:
        waiters = self._waiters.get(key)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[key]

    def _wake(self, key: bytes, reply: bytes | None) -> None:
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(reply)

    def _leave_waiters(self) -> None:
        for key in list(self._waiters):
            self._wake(key, None)

    def _arrive(self, packet: Inbound) -> None:
        """Hand over with whatever else arrives in this turn of the loop."""
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._arrived.append(packet)

    def _hand_over(self) -> None:
        packets = self._arrived
        self._arrived = []
        self._owner.inbound(packets)

    def _sweep(self, now_ms: int) -> None:
        if now_ms >= self._sweep_at:
            self._sweep_at = now_ms + SWEEP_MS
            self._outgoing.sweep(now_ms)
            self._incoming.sweep(now_ms)


def _paid(fulfillment: bytes | None) -> Answer:
    """The answer to a Prepare that we fulfilled before; 504, which says nothing about it, without its fulfillment."""
    if fulfillment is None:
        return Answer(504, problem="this Prepare was fulfilled before, and that can't be told again here")
    return Answer(200, encode_fulfill(Fulfill(fulfillment)))


def _give_up(waiter: "asyncio.Future[bytes | None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
