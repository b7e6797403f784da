"""The pairing of requests and replies, on virtual time (RFC 0035)."""

from hashlib import sha256
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.links.http.session import (
    LATE_MS,
    RETRY_MS_MIN,
    SKEW_MS,
    Deliver,
    IncomingRequests,
    NotTaken,
    OutgoingRequests,
    ReplyDelivery,
    Take,
    code_for_status,
    format_uuid,
    parse_uuid,
    request_key,
)

SESSION = bytes(range(16))
KEY = bytes(16)
FULFILL = b"\x0dfulfill"
REJECT = b"\x0ereject"


def requests(*, asynchronous: bool = False, ends_at: int = 1_000) -> tuple[OutgoingRequests, bytes]:
    outgoing = OutgoingRequests(asynchronous=asynchronous)
    return outgoing, outgoing.open(SESSION, 7, ends_at)


# --- Request-Id -------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
def test_request_ids_are_uuids_of_version_4(session: bytes, request_id: int) -> None:
    """HTTP-2: the same leg has the same id for ever, and its text reads back."""
    key = request_key(session, request_id)
    uuid = UUID(bytes=key)
    assert uuid.version == 4 and uuid.variant == RFC_4122
    assert format_uuid(key) == str(uuid)
    assert parse_uuid(str(uuid)) == parse_uuid(str(uuid).upper()) == key
    digest = sha256(session + request_id.to_bytes(4, "big")).digest()
    assert key[9:] == digest[9:16] and key[:6] == digest[:6]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42ee09c8a6de4ae38a474732b0cbb07b",
        "42ee09c8-a6de-4ae3-8a47-4732b0cbb07",
        "42ee09c8-a6de-4ae3-8a47-4732b0cbb07b\n",
        "{42ee09c8-a6de-4ae3-8a47-4732b0cbb07b}",
        "g2ee09c8-a6de-4ae3-8a47-4732b0cbb07b",
        "42ee-09c8a6de-4ae3-8a47-4732b0cbb07b",
        "٤2ee09c8-a6de-4ae3-8a47-4732b0cbb07b",
    ],
)
def test_other_texts_are_no_request_id(text: str) -> None:
    """HTTP-2, P-2."""
    assert parse_uuid(text) is None


# --- our Prepares -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [FULFILL, REJECT])
def test_a_synchronous_reply_is_delivered(packet: bytes) -> None:
    """HTTP-10, X-1: 200 with the packet as body, also for rejects."""
    outgoing, key = requests()
    assert outgoing.responded(key, 200, packet, 10) == Deliver(SESSION, 7, packet, True)
    assert len(outgoing) == 0


def test_an_asynchronous_reply_comes_by_its_own_request() -> None:
    """HTTP-3, HTTP-4: 202 first, the reply's POST gets 200."""
    outgoing, key = requests(asynchronous=True)
    assert outgoing.responded(key, 202, None, 10) is None
    assert outgoing.replied(key, FULFILL, 20) == (200, Deliver(SESSION, 7, FULFILL, True))


def test_a_reply_may_overtake_the_202() -> None:
    """HTTP-4: whatever the response says then, the reply stands."""
    for status in (202, 400, 500):
        outgoing, key = requests(asynchronous=True)
        assert outgoing.replied(key, FULFILL, 20)[0] == 200
        assert outgoing.responded(key, status, None, 30) is None
        assert outgoing.not_connected(key, "no") is None


def test_only_the_first_reply_counts() -> None:
    """HTTP-5, HTTP-7: a second one gets 400 and has no effect, in either mode."""
    for asynchronous in (False, True):
        outgoing, key = requests(asynchronous=asynchronous)
        assert outgoing.replied(key, REJECT, 20)[0] == 200
        assert outgoing.replied(key, FULFILL, 21) == (400, None)
        assert outgoing.responded(key, 200, FULFILL, 22) is None


def test_a_reply_to_an_unknown_request_is_refused() -> None:
    """HTTP-5."""
    outgoing, _ = requests()
    assert outgoing.replied(bytes(16), FULFILL, 20) == (400, None)


def test_a_late_reply_is_refused_and_recorded() -> None:
    """HTTP-5, P-12: the peer must know that it did not count; the owner lists it. On the bound and one past it."""
    for now, status in ((1_000 + SKEW_MS - 1, 200), (1_000 + SKEW_MS, 400)):
        outgoing, key = requests(asynchronous=True)
        assert outgoing.replied(key, FULFILL, now) == (status, Deliver(SESSION, 7, FULFILL, status == 200))


def test_a_request_is_forgotten_some_time_after_its_expiry() -> None:
    """HTTP-5: the table is bounded by what is in flight."""
    outgoing, key = requests()
    for now, left in ((1_000 + LATE_MS - 1, 1), (1_000 + LATE_MS, 0)):
        outgoing.sweep(now)
        assert len(outgoing) == left
    assert outgoing.replied(key, FULFILL, 99_999) == (400, None)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "F00"), (401, "T01"), (403, "T01"), (404, "T01"), (405, "T01"), (413, "F00"), (422, "F00"), (429, "T03")],
)
def test_a_4xx_was_certainly_not_taken(status: int, code: str) -> None:
    """HTTP-8, X-1: in both modes, with a fitting code."""
    for asynchronous in (False, True):
        outgoing, key = requests(asynchronous=asynchronous)
        effect = outgoing.responded(key, status, None, 10)
        assert isinstance(effect, NotTaken) and (effect.request_id, effect.code) == (7, code)
        assert outgoing.replied(key, FULFILL, 20) == (400, None)
    assert code_for_status(status) == code


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_synchronous_5xx_says_nothing(status: int) -> None:
    """HTTP-8: the peer may have taken the Prepare; a reply that comes in time still counts."""
    outgoing, key = requests()
    assert outgoing.responded(key, status, None, 10) is None
    assert outgoing.replied(key, FULFILL, 20)[0] == 200


@pytest.mark.parametrize(("status", "certain"), [(500, True), (503, True), (301, True), (502, False), (504, False)])
def test_an_asynchronous_non_202_was_not_taken_unless_a_proxy_speaks(status: int, certain: bool) -> None:
    """HTTP-8: 5xx is T00."""
    outgoing, key = requests(asynchronous=True)
    effect = outgoing.responded(key, status, None, 10)
    assert (isinstance(effect, NotTaken) and effect.code == "T00") is certain


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_2xx_without_reply_was_taken(status: int, asynchronous: bool) -> None:
    """HTTP-8, HTTP-10: a peer that answers in the other mode than agreed still took the Prepare."""
    outgoing, key = requests(asynchronous=asynchronous)
    assert outgoing.responded(key, status, None, 10) is None
    assert outgoing.replied(key, FULFILL, 20)[0] == 200


def test_a_refused_connection_was_not_taken() -> None:
    """HTTP-8."""
    outgoing, key = requests()
    assert outgoing.not_connected(key, "refused") == NotTaken(7, "T01", "refused")
    assert outgoing.not_connected(key, "refused") is None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("responded"), st.sampled_from([200, 202, 204, 301, 400, 429, 500, 502])),
            st.tuples(st.just("reply in body"), st.just(200)),
            st.tuples(st.just("replied"), st.just(0)),
            st.tuples(st.just("not connected"), st.just(0)),
            st.tuples(st.just("sweep"), st.integers(0, 20_000)),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_each_request_has_at_most_one_outcome(events: list[tuple[str, int]], asynchronous: bool) -> None:
    """HTTP-7: whatever comes, in whatever order."""
    outgoing, key = requests(asynchronous=asynchronous)
    outcomes: list[object] = []
    for name, number in events:
        if name == "responded":
            outcomes.append(outgoing.responded(key, number, None, 10))
        elif name == "reply in body":
            outcomes.append(outgoing.responded(key, 200, FULFILL, 10))
        elif name == "replied":
            outcomes.append(outgoing.replied(key, REJECT, 10)[1])
        elif name == "not connected":
            outcomes.append(outgoing.not_connected(key, "no"))
        else:
            outgoing.sweep(number)
    assert len([outcome for outcome in outcomes if outcome is not None]) <= 1


# --- the peer's Prepares ----------------------------------------------------------------------------------------------


def test_a_repeated_prepare_is_not_new() -> None:
    """HTTP-7: it waits for the same reply, and gets the same reply again."""
    incoming = IncomingRequests()
    take, known = incoming.prepare(KEY, b"prepare", 1_000, None)
    assert take is Take.NEW and known is not None
    assert incoming.prepare(KEY, b"prepare", 1_000, None) == (Take.REPEATED, known)
    assert incoming.reply(KEY, FULFILL) is known
    assert incoming.prepare(KEY, b"prepare", 1_000, None) == (Take.ANSWERED, known)
    assert known.reply == FULFILL
    assert incoming.reply(KEY, REJECT) is None and known.reply == FULFILL


def test_another_packet_under_a_known_id_is_refused() -> None:
    """HTTP-7."""
    incoming = IncomingRequests()
    incoming.prepare(KEY, b"prepare", 1_000, None)
    assert incoming.prepare(KEY, b"other", 1_000, None) == (Take.CONFLICT, None)


def test_nothing_is_forgotten_before_its_expiry() -> None:
    """HTTP-7: at the bound new Prepares are refused, and expiries make room."""
    incoming = IncomingRequests(known_max=2)
    for number in range(2):
        assert incoming.prepare(bytes([number]), b"p", 1_000 + number, None)[0] is Take.NEW
    assert incoming.prepare(b"x", b"p", 5_000, None) == (Take.FULL, None)
    assert incoming.prepare(bytes([0]), b"p", 5_000, None)[0] is Take.REPEATED
    for now, left in ((999, 2), (1_000, 1)):
        incoming.sweep(now)
        assert len(incoming) == left
    assert incoming.prepare(b"x", b"p", 5_000, None)[0] is Take.NEW


def test_old_answers_are_dropped_but_their_ids_stay_known() -> None:
    """HTTP-7: the bytes kept are bounded, on the bound and one past it."""
    incoming = IncomingRequests(kept_reply_bytes_max=20)
    kept: list[list[bytes | None]] = []
    for number, size in ((1, 10), (2, 10), (3, 1)):
        incoming.prepare(bytes([number]), b"p", 1_000, None)
        incoming.reply(bytes([number]), bytes(size))
        again = [incoming.prepare(bytes([earlier]), b"p", 1_000, None) for earlier in range(1, number + 1)]
        assert all(take is Take.ANSWERED for take, _ in again)
        kept.append([known.reply for _, known in again if known is not None])
    assert kept == [[bytes(10)], [bytes(10), bytes(10)], [None, bytes(10), bytes(1)]]


@pytest.mark.parametrize("packet, fulfilled", [(FULFILL, True), (REJECT, False)])
def test_whether_a_dropped_answer_was_a_fulfill_stays_known(packet: bytes, fulfilled: bool) -> None:
    """HTTP-8: "not taken" must not be said of what was paid."""
    incoming = IncomingRequests(kept_reply_bytes_max=0)
    incoming.prepare(KEY, b"p", 1_000, None)
    incoming.reply(KEY, packet)
    known = incoming.prepare(KEY, b"p", 1_000, None)[1]
    assert known is not None and (known.answered, known.fulfilled, known.reply) == (True, fulfilled, None)


def test_a_reply_to_an_unknown_prepare_has_nobody_to_go_to() -> None:
    """HTTP-7."""
    incoming = IncomingRequests()
    assert incoming.reply(KEY, FULFILL) is None
    incoming.prepare(KEY, b"p", 1_000, None)
    incoming.forget(KEY)
    assert incoming.reply(KEY, FULFILL) is None and len(incoming) == 0


# --- delivering our replies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 202, 204, 400, 401, 404, 429])
def test_delivery_stops_at_any_2xx_or_4xx(status: int) -> None:
    """HTTP-6."""
    assert ReplyDelivery(KEY, "https://b.example/", FULFILL, 30_000).result(status, 0) is None


@pytest.mark.parametrize("status", [None, 500, 503, 302])
@pytest.mark.parametrize("left_ms", [500, 1_000, 30_000])
def test_delivery_is_tried_several_times_before_the_expiry(status: int | None, left_ms: int) -> None:
    """HTTP-6: with growing delays, and never after the expiry."""
    delivery = ReplyDelivery(KEY, "https://b.example/", FULFILL, left_ms)
    now = 0
    waits: list[int] = []
    while (wait_ms := delivery.result(status, now)) is not None:
        waits.append(wait_ms)
        now += wait_ms
        assert now < left_ms
    assert len(waits) >= 3
    assert waits[1] >= RETRY_MS_MIN
    assert len(waits) < 40
