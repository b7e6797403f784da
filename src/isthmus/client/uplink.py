"""The first question to a connector: who we are to it, and what we both count in (ILDCP, RFC 0031).

Asked over a bare BTP connection before there are books: an account's asset is fixed for ever when it is opened, so it
must be known first. Later the kernel asks again on every connection.
"""

import asyncio
import os
from pathlib import Path
from typing import Final, final

from isthmus.client.tables import UPLINK
from isthmus.connector.events import SESSION_BYTES, AccountId, Inbound, Outbound, Undelivered
from isthmus.errors import CodecError, LinkError
from isthmus.ilp.ildcp import PEER_FULFILLMENT, IldcpResponse, decode_response, encode_request
from isthmus.ilp.packet import PREPARE, Reject, decode_reply
from isthmus.links.btp.client import BtpClient
from isthmus.runtime import clock

CONNECT_MS: Final = 15_000
# A connector that refuses connections may be starting; longer than this we don't wait for one.
REFUSED_MS: Final = 2_000
ANSWER_MS: Final = 15_000  # a parent answers at once; RFC 0031 would allow a minute
_REQUEST_ID: Final = 1


@final
class _Questioner:
    """Implements `links.port.LinkOwner` for one question."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def inbound(self, packets: list[Inbound]) -> None:
        for packet in packets:
            is_reply = bool(packet.packet) and packet.packet[0] != PREPARE
            if is_reply and packet.request_id == _REQUEST_ID and not self.answer.done():
                self.answer.set_result(packet.packet)

    def undelivered(self, failures: list[Undelivered]) -> None:
        if failures and not self.answer.done():
            self.answer.set_exception(LinkError(f"the connector doesn't take our question: {failures[0].message}"))

    def link_up(self, account: AccountId) -> None: ...

    def link_down(self, account: AccountId, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(LinkError(f"the connector hung up: {why}"))

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return clock.mono_ms()


async def ask_connector(
    url: str, *, token: str | None = None, ca_file: str | Path | None = None, allow_insecure: bool = False
) -> IldcpResponse:
    """Our address and asset, by the connector's word. Raises LinkError, or ConfigError for a bad URL."""
    owner = _Questioner()
    link = BtpClient(
        UPLINK,
        url,
        owner,
        session=os.urandom(SESSION_BYTES),
        token=token,
        ca_file=ca_file,
        allow_insecure=allow_insecure,
    )
    await link.start()
    try:
        await wait_up(link)
        request = encode_request(clock.system_now().wall_ms + ANSWER_MS)
        link.write([Outbound(link.session, _REQUEST_ID, request)])
        async with asyncio.timeout(ANSWER_MS / 1000):
            return _read(await owner.answer)
    except TimeoutError:
        raise LinkError("the connector doesn't answer the question for our address (ILDCP)") from None
    finally:
        if not owner.answer.done():
            owner.answer.cancel()
        await link.close()


async def wait_up(link: BtpClient) -> None:
    """Wait for the first connection. LinkError with the reason if there is none in time."""
    try:
        await link.wait_up(REFUSED_MS)
    except LinkError:
        if link.last_failure is not None:
            raise
        await link.wait_up(CONNECT_MS - REFUSED_MS)


def _read(packet: bytes) -> IldcpResponse:
    try:
        reply = decode_reply(packet)
        if isinstance(reply, Reject):
            raise LinkError(f"the connector gives us no address: {reply.code} {reply.message[:200]}")
        if reply.fulfillment != PEER_FULFILLMENT:
            raise LinkError("the connector's answer to ILDCP has a wrong fulfillment")
        return decode_response(reply.data)
    except CodecError as error:
        raise LinkError(f"the connector's answer to ILDCP doesn't parse: {error}") from error
