"""Stateless addresses, connections made and dropped on demand, receipts end to end."""

import hmac
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import PREPARE, Fulfill, Prepare, Reject
from isthmus.stream.connection import Connection
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import ReceiptArrived, SendFulfill, SendPrepare, SendReject
from isthmus.stream.packet import StreamMoney, StreamPacket, StreamReceipt, decode_packet, encode_packet
from isthmus.stream.receipt import decode_receipt, verify_receipt
from isthmus.stream.server import (
    LINGER_MS,
    ConnectionAccepted,
    ConnectionDropped,
    Recollection,
    Server,
)
from isthmus.stream.settings import Settings
from isthmus.stream.tokens import TAG_BYTES_MAX, Invitation, Tokens
from isthmus.stream.verifier import ReceiptVerifier, Verdict

BASE = "test.bob"
SERVER_SECRET = bytes(range(100, 132))


class Shop:
    """A server, and packets for it."""

    def __init__(
        self,
        *,
        recall: Callable[[bytes], Recollection | None] | None = None,
        connections_max: int = 1_024,
        settings: Settings | None = None,
    ) -> None:
        self.rng = random.Random(7)
        self.server = Server(
            SERVER_SECRET,
            settings or Settings(address=BASE, asset=Asset("EUR", 2)),
            random_bytes=self.rng.randbytes,
            recall=recall,
            connections_max=connections_max,
        )
        self.now = 1_000
        self.request = 0
        self.news: list[ConnectionAccepted | ConnectionDropped] = []

    def prepare(self, invitation: Invitation, amount: int, sequence: int = 1, stream_id: int = 1) -> Prepare:
        keys = Keys(invitation.shared_secret)
        text = encode_packet(StreamPacket(PREPARE, sequence, 0, [StreamMoney(stream_id, 1)]))
        data = keys.encrypt(text, self.rng.randbytes(12))
        return Prepare(amount, 1_700_000_000_000, keys.condition(data), invitation.address, data)

    def give(self, prepare: Prepare) -> Fulfill | Reject | None:
        self.request += 1
        self.server.prepare_received(self.request, prepare, self.now, self.now + 5_000)
        answer: Fulfill | Reject | None = None
        for _, order in self.server.poll(self.now):
            if isinstance(order, SendFulfill):
                answer = order.fulfill
            elif isinstance(order, SendReject):
                answer = order.reject
            elif isinstance(order, ConnectionAccepted | ConnectionDropped):
                self.news.append(order)
        return answer

    def pay(self, invitation: Invitation, amount: int = 5, sequence: int = 1, stream_id: int = 1) -> Fulfill | Reject:
        answer = self.give(self.prepare(invitation, amount, sequence, stream_id))
        assert answer is not None
        return answer


def test_the_secret_follows_from_the_address_alone() -> None:
    """STREAM-26, STREAM-27: nothing is stored before the first packet; another process with the secret serves it."""
    invitation = Shop().server.invite()
    assert invitation.address.startswith(BASE + ".")
    assert len(invitation.shared_secret) == 32
    other = Shop()
    assert len(other.server) == 0
    assert isinstance(other.pay(invitation), Fulfill)
    assert len(other.server) == 1


def test_each_invitation_is_different() -> None:
    """STREAM-26."""
    server = Shop().server
    invitations = [server.invite() for _ in range(50)]
    assert len({invitation.address for invitation in invitations}) == 50
    assert len({invitation.shared_secret for invitation in invitations}) == 50


def test_strangers_create_nothing() -> None:
    """STREAM-9, X-7: F06 for new connections, too; JS answers F02."""
    shop = Shop()
    invitation = shop.server.invite()
    wrong = replace(invitation, shared_secret=bytes(32))
    for address in (invitation.address, BASE, BASE + ".x", BASE + ".short.a", "test.bobby.x", BASE + "." + "A" * 300):
        answer = shop.pay(replace(wrong, address=address))
        assert isinstance(answer, Reject)
        assert (answer.code, answer.data, answer.message) == ("F06", b"", "")
    assert len(shop.server) == 0


def test_segments_after_the_token_belong_to_the_sender() -> None:
    """STREAM-27."""
    shop = Shop()
    invitation = shop.server.invite()
    assert isinstance(shop.pay(replace(invitation, address=invitation.address + ".extra")), Fulfill)


def test_a_tag_comes_back_with_the_connection() -> None:
    shop = Shop()
    invitation = shop.server.invite(tag=b"invoice 17")
    assert isinstance(shop.pay(invitation), Fulfill)
    accepted = shop.news[0]
    assert isinstance(accepted, ConnectionAccepted)
    assert accepted.tag == b"invoice 17"
    assert "invoice" not in invitation.address


def test_tokens_are_bounded_and_authenticated() -> None:
    """RCPT-6: a token that carries something is encrypted; only ours open."""
    tokens = Tokens(SERVER_SECRET, random.Random(3).randbytes)
    invitation = tokens.invite(BASE, tag=b"t" * TAG_BYTES_MAX, receipt_nonce=bytes(16), receipt_secret=bytes(32))
    token = invitation.address.removeprefix(BASE + ".")
    says = tokens.read(token)
    assert says is not None
    assert (says.tag, says.receipt_nonce, says.receipt_secret) == (b"t" * TAG_BYTES_MAX, bytes(16), bytes(32))
    assert tokens.read(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    assert tokens.read(token[:30]) is None
    assert tokens.read("ä" * 40) is None
    assert Tokens(bytes(32), random.Random(3).randbytes).read(token) is None
    with pytest.raises(ValueError, match="tag"):
        tokens.invite(BASE, tag=b"t" * (TAG_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="together"):
        tokens.invite(BASE, receipt_nonce=bytes(16))
    with pytest.raises(ValueError, match="16 bytes"):
        tokens.invite(BASE, receipt_nonce=bytes(15), receipt_secret=bytes(32))
    with pytest.raises(ValueError, match="together"):
        Settings(receipt_secret=bytes(32))


@pytest.mark.parametrize("rest", [b"\x00x", b"\x00" + bytes(47), b"\x00" + bytes(49), b"\x81\x81" + b"t" * 129])
def test_a_token_holds_a_whole_receipt_or_none(rest: bytes) -> None:
    """RCPT-6: half a nonce under our key was taken for a whole one, and made receipts that nobody can check."""
    keys = Keys(hmac.digest(SERVER_SECRET, b"isthmus_stream_token", "sha256"))
    token = urlsafe_b64encode(keys.encrypt(b"\x01" + rest, bytes(12))).rstrip(b"=").decode()
    assert Tokens(SERVER_SECRET, random.Random(3).randbytes).read(token) is None


def test_the_number_of_connections_is_bounded_and_the_longest_idle_goes() -> None:
    shop = Shop(connections_max=3)
    invitations = [shop.server.invite() for _ in range(4)]
    for invitation in invitations[:3]:
        shop.now += 1
        shop.pay(invitation)
    shop.now += 1
    shop.pay(invitations[0], sequence=2)
    shop.pay(invitations[3])
    assert len(shop.server) == 3
    dropped = [order.connection for order in shop.news if isinstance(order, ConnectionDropped)]
    assert [connection.settings.address for connection in dropped] == [invitations[1].address]


def test_a_server_full_of_busy_connections_refuses_for_now() -> None:
    """T99: the sender may try again."""
    shop = Shop(connections_max=1, settings=Settings(address=BASE, ask=True))
    assert shop.give(shop.prepare(shop.server.invite(), 5)) is None  # held
    answer = shop.pay(shop.server.invite())
    assert isinstance(answer, Reject)
    assert answer.code == "T99"


def test_idle_connections_are_dropped_and_come_again_from_what_is_recalled() -> None:
    book: dict[bytes, Recollection] = {}
    shop = Shop(recall=book.get)
    invitation = shop.server.invite()
    shop.pay(invitation, 7)
    connection = shop.server.connections()[0]
    book[connection.settings.connection_id] = Recollection([(1, 7)], [(1, b"", 7)], 0, 500)
    assert shop.server.wakes_at() == 1_000 + 120_000
    shop.now += 120_000
    shop.server.poll(shop.now)
    assert len(shop.server) == 0
    assert isinstance(shop.pay(invitation, 5, sequence=2), Fulfill)
    again = shop.server.connections()[0]
    assert again is not connection
    assert again.settings.connection_id == connection.settings.connection_id
    assert again.received == 12
    assert again.next_number == 500
    assert isinstance(shop.pay(invitation, 7, sequence=1), Reject)  # already credited


def test_a_closed_connection_lingers_and_is_forgotten() -> None:
    shop = Shop()
    shop.pay(shop.server.invite())
    shop.server.connections()[0].close()
    shop.server.touch(shop.server.connections()[0])
    shop.server.poll(shop.now)
    assert len(shop.server) == 1
    shop.now += LINGER_MS
    shop.server.poll(shop.now)
    assert len(shop.server) == 0


def test_held_money_of_a_server_expires_by_its_own_timer() -> None:
    shop = Shop(settings=Settings(address=BASE, ask=True))
    assert shop.give(shop.prepare(shop.server.invite(), 5)) is None
    assert shop.server.wakes_at() == shop.now + 5_000
    shop.now += 5_000
    rejects = [order for _, order in shop.server.poll(shop.now) if isinstance(order, SendReject)]
    assert len(rejects) == 1


# --- receipts --------------------------------------------------------------------------------------------------------


def receipts_of(invitation: Invitation, answer: Fulfill | Reject) -> list[StreamReceipt]:
    packet = decode_packet(Keys(invitation.shared_secret).decrypt(answer.data))
    return [frame for frame in packet.frames if isinstance(frame, StreamReceipt)]


def test_each_fulfill_of_an_enabled_connection_has_a_receipt_and_rejects_have_none() -> None:
    """RCPT-4: totals grow per stream."""
    shop = Shop()
    verifier = ReceiptVerifier(bytes(32), shop.rng.randbytes)
    nonce, secret = verifier.issue()
    invitation = shop.server.invite(receipt_nonce=nonce, receipt_secret=secret)
    assert invitation.receipts_enabled
    totals = []
    for sequence in range(1, 4):
        frames = receipts_of(invitation, shop.pay(invitation, 100, sequence))
        receipt = verify_receipt(frames[0].receipt, secret)
        assert (receipt.nonce, receipt.stream_id) == (nonce, 1)
        totals.append(receipt.total_received)
    assert totals == [100, 200, 300]
    frames = receipts_of(invitation, shop.pay(invitation, 50, 4, stream_id=3))
    assert verify_receipt(frames[0].receipt, secret).total_received == 50
    refused = shop.pay(invitation, 5, 4, stream_id=3)  # a used sequence
    assert isinstance(refused, Reject)
    assert receipts_of(invitation, refused) == []


def test_streams_above_255_have_no_receipt() -> None:
    """RCPT-9."""
    shop = Shop(settings=Settings(address=BASE, stream_id_max=1_000))
    invitation = shop.server.invite(receipt_nonce=bytes(16), receipt_secret=bytes(32))
    assert len(receipts_of(invitation, shop.pay(invitation, 5, 1, stream_id=255))) == 1
    assert receipts_of(invitation, shop.pay(invitation, 5, 2, stream_id=257)) == []


def test_the_sender_keeps_the_receipt_that_proves_most() -> None:
    """RCPT-4: replies come in any order; the sender hands on the newest."""
    shop = Shop()
    invitation = shop.server.invite(receipt_nonce=b"n" * 16, receipt_secret=b"s" * 32)
    client = Connection(
        Settings(), invitation.shared_secret, random_bytes=shop.rng.randbytes, peer_address=invitation.address
    )
    client.set_minimum_rate(Fraction(1))
    stream_id = client.open_stream()
    assert stream_id is not None
    client.send_total(stream_id, 5_000)

    replies: list[tuple[int, Fulfill | Reject]] = []
    news: list[ReceiptArrived] = []
    for _ in range(20):
        orders = client.poll(shop.now)
        for order in orders:
            if isinstance(order, SendPrepare):
                amount = order.amount
                if amount > 1_000:
                    replies.append(
                        (order.number, Reject("F08", "", "", (amount).to_bytes(8, "big") + (1_000).to_bytes(8, "big")))
                    )
                    continue
                answer = shop.give(order.prepare(1_700_000_000_000))
                assert answer is not None
                replies.append((order.number, answer))
            elif isinstance(order, ReceiptArrived):
                news.append(order)
        shop.now += 10
        for number, answer in reversed(replies):
            client.reply_received(number, answer, shop.now)
        replies.clear()
    assert decode_receipt(client.receipt(stream_id)).total_received == 5_000
    assert [decode_receipt(order.receipt).total_received for order in news] == [5_000]


def test_the_verifier_credits_differences_once() -> None:
    """RCPT-5: a higher total adds the difference; older and equal ones add nothing."""
    shop = Shop()
    verifier = ReceiptVerifier(bytes(32), shop.rng.randbytes)
    nonce, secret = verifier.issue()
    invitation = shop.server.invite(receipt_nonce=nonce, receipt_secret=secret)
    receipts = [receipts_of(invitation, shop.pay(invitation, 100, sequence))[0].receipt for sequence in (1, 2, 3)]
    first = verifier.verify(receipts[1])
    assert (first.verdict, first.amount, first.total, first.stream_id) == (Verdict.CREDITED, 200, 200, 1)
    assert verifier.verify(receipts[0]).verdict is Verdict.STALE
    assert verifier.verify(receipts[1]).verdict is Verdict.STALE
    assert verifier.verify(receipts[2]).amount == 100
    other = receipts_of(invitation, shop.pay(invitation, 30, 4, stream_id=3))[0].receipt
    assert verifier.verify(other).amount == 30


def test_the_verifier_checks_the_signature_before_it_believes_anything() -> None:
    """RCPT-5, P-16."""
    shop = Shop()
    verifier = ReceiptVerifier(bytes(32), shop.rng.randbytes)
    nonce, secret = verifier.issue()
    invitation = shop.server.invite(receipt_nonce=nonce, receipt_secret=secret)
    good = receipts_of(invitation, shop.pay(invitation, 100))[0].receipt
    for at in range(58):
        bad = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]
        assert verifier.verify(bad).verdict in (Verdict.MALFORMED, Verdict.UNKNOWN, Verdict.FORGED)
    for bad in (b"", good[:57], good + b"x"):
        assert verifier.verify(bad).verdict is Verdict.MALFORMED
    assert verifier.verify(good).amount == 100


def test_nonces_are_unique_and_the_secret_is_not_in_the_address() -> None:
    """RCPT-6."""
    rng = random.Random(5)
    verifier = ReceiptVerifier(bytes(32), rng.randbytes)
    issued = [verifier.issue() for _ in range(20)]
    assert len({nonce for nonce, _ in issued}) == len({secret for _, secret in issued}) == 20
    nonce, secret = issued[0]
    address = Shop().server.invite(receipt_nonce=nonce, receipt_secret=secret).address
    token = address.removeprefix(BASE + ".")
    raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert secret not in raw
    assert nonce not in raw


def test_the_verifiers_store_is_bounded() -> None:
    """RCPT-5: the connection longest without a receipt is forgotten, and credited no more."""
    shop = Shop()
    verifier = ReceiptVerifier(bytes(32), shop.rng.randbytes, connections_max=2)
    issued = [verifier.issue() for _ in range(3)]
    assert len(verifier) == 2
    answers = []
    for nonce, secret in issued:
        invitation = shop.server.invite(receipt_nonce=nonce, receipt_secret=secret)
        answers.append(receipts_of(invitation, shop.pay(invitation, 10))[0].receipt)
    assert [verifier.verify(receipt).verdict for receipt in answers] == [
        Verdict.UNKNOWN,
        Verdict.CREDITED,
        Verdict.CREDITED,
    ]
    verifier.restore(issued[0][0], {1: 4})
    assert verifier.verify(answers[0]).amount == 6
    with pytest.raises(ValueError, match="seed"):
        ReceiptVerifier(b"short", shop.rng.randbytes)
