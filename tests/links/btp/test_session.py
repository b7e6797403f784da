"""The session machine: every state meets every event; the conformance rows of BTP by name."""

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.events import AccountId, Inbound, Log, Now, Outbound, Undelivered
from isthmus.links.btp import codec
from isthmus.links.btp.codec import BtpError, BtpMessage, BtpResponse, BtpTransfer, ProtocolData
from isthmus.links.btp.orders import Answered, Asked, Close, Output, Ping, Ready
from isthmus.links.btp.session import (
    ASKED_MAX,
    AUTH_REQUEST_ID,
    LINK_REQUEST_ID_MIN,
    SESSION_ENTRY,
    Admission,
    Credentials,
    Phase,
    Refusal,
    Session,
    Timing,
)

ALICE = AccountId("alice")
OURS, THEIRS, FALLBACK, OLD = b"o" * 16, b"t" * 16, b"f" * 16, b"x" * 16
PREPARE, FULFILL, REJECT = b"\x0c" + bytes(99), b"\x0d" + bytes(40), b"\x0e" + bytes(30)
TIMING = Timing()
CLAIM = "claims"  # a registered sub-protocol


def now(ms: int = 0) -> Now:
    return Now(1_700_000_000_000 + ms, 5_000 + ms)


class OneDoor:
    """Admits one token; remembers who asked."""

    def __init__(self, hold_ms: int = 0) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.hold_ms = hold_ms

    def admit(self, username: str, token: bytes) -> Admission | Refusal | None:
        self.asked.append((username, token))
        good = sha256(token).digest() == sha256(b"secret").digest()
        if good:
            return Admission(ALICE, OURS)
        return Refusal(self.hold_ms) if self.hold_ms else None


def a_server(door: OneDoor | None = None) -> Session:
    session = Session.server(door or OneDoor(), fallback_session=FALLBACK, now=now(), subprotocols=(CLAIM,))
    assert session.opened() == Output()
    return session


def a_client(username: str = "") -> Session:
    return Session.client(
        ALICE,
        Credentials("secret", username),
        own_session=OURS,
        fallback_session=FALLBACK,
        now=now(),
        subprotocols=(CLAIM,),
    )


def auth(token: bytes | None = b"secret", *more: ProtocolData, session: bytes | None = None) -> bytes:
    entries = [ProtocolData("auth", 0, b"")]
    if token is not None:
        entries.append(ProtocolData("auth_token", 1, token))
    if session is not None:
        entries.append(ProtocolData(SESSION_ENTRY, 0, session))
    return codec.encode(BtpMessage(7, [*entries, *more]))


def ready_server(session: bytes | None = None) -> Session:
    server = a_server()
    server.receive([auth(session=session)], now())
    assert server.phase is Phase.READY
    return server


def ready_client(session: bytes | None = None) -> Session:
    client = a_client()
    client.opened()
    entries = [] if session is None else [ProtocolData(SESSION_ENTRY, 0, session)]
    client.receive([codec.encode(BtpResponse(AUTH_REQUEST_ID, entries))], now())
    assert client.phase is Phase.READY
    return client


def ended() -> Session:
    session = ready_server()
    session.end()
    return session


def errors(out: Output) -> list[BtpError]:
    return [packet for frame in out.frames if isinstance(packet := codec.decode(frame), BtpError)]


def closes(out: Output) -> list[Close]:
    return [order for order in out.orders if isinstance(order, Close)]


def message(*entries: ProtocolData, request_id: int = 9) -> bytes:
    return codec.encode(BtpMessage(request_id, list(entries)))


def response(*entries: ProtocolData, request_id: int = 9) -> bytes:
    return codec.encode(BtpResponse(request_id, list(entries)))


ILP = ProtocolData("ilp", 0, PREPARE)
AN_ERROR = codec.encode(BtpError(9, "F00", "NotAcceptedError", 1_700_000_000_001))
A_TRANSFER = codec.encode(BtpTransfer(9, 5, []))
TWICE = bytes.fromhex("06000000090d") + b"\x01\x02" + b"\x01a\x00\x00" + b"\x01a\x00\x00" + bytes(3)

# --- every state meets every event -----------------------------------------------------------------------------------

STATES: dict[str, Callable[[], Session]] = {
    "server waits for auth": a_server,
    "client waits for admission": a_client,
    "server ready": ready_server,
    "client ready": ready_client,
    "ended": ended,
}
FRAMES: dict[str, bytes] = {
    "prepare in a message": codec.encode_ilp(codec.MESSAGE, 9, PREPARE),
    "fulfill in a response": codec.encode_ilp(codec.RESPONSE, 9, FULFILL),
    "reject in a response": codec.encode_ilp(codec.RESPONSE, 9, REJECT),
    "prepare in a response": codec.encode_ilp(codec.RESPONSE, 9, PREPARE),
    "fulfill in a message": codec.encode_ilp(codec.MESSAGE, 9, FULFILL),
    "ilp and company": message(ILP, ProtocolData("custom", 2, b"{}")),
    "ilp as company": message(ProtocolData("custom", 2, b"{}"), ILP),
    "empty ilp in a message": codec.encode_ilp(codec.MESSAGE, 9, b""),
    "empty ilp in a response": codec.encode_ilp(codec.RESPONSE, 9, b""),
    "junk ilp in a message": codec.encode_ilp(codec.MESSAGE, 9, b"\x63junk"),
    "empty message": message(),
    "custom message": message(ProtocolData("custom", 2, b"{}")),
    "registered sub-protocol": message(ProtocolData(CLAIM, 0, b"c")),
    "auth": auth(),
    "empty response": response(),
    "error": AN_ERROR,
    "transfer": A_TRANSFER,
    "a name twice": TWICE,
    "garbage": b"\xff\x00garbage",
    "nothing": b"",
}
# What a ready session does: packets, failures, error codes, orders.
READY_DOES: dict[str, tuple[int, int, list[str], list[type]]] = {
    "prepare in a message": (1, 0, [], []),
    "fulfill in a response": (1, 0, [], []),
    "reject in a response": (1, 0, [], []),
    "prepare in a response": (1, 0, [], []),
    "fulfill in a message": (1, 0, [], []),
    "ilp and company": (1, 0, [], []),
    "ilp as company": (0, 0, ["F00"], []),
    "empty ilp in a message": (0, 0, ["F01"], []),
    "empty ilp in a response": (0, 0, [], []),
    "junk ilp in a message": (0, 0, ["F01"], []),
    "empty message": (0, 0, ["F00"], []),
    "custom message": (0, 0, ["F00"], []),
    "registered sub-protocol": (0, 0, [], [Asked]),
    "auth": (0, 0, ["F00"], []),
    "empty response": (0, 0, [], []),
    "error": (0, 1, [], []),
    "transfer": (0, 0, ["F00"], []),
    "a name twice": (0, 0, [], [Log]),
    "garbage": (0, 0, [], [Log]),
    "nothing": (0, 0, [], [Log]),
}


@pytest.mark.parametrize("state", ["server ready", "client ready"])
@pytest.mark.parametrize("frame", list(FRAMES))
def test_a_ready_session_meets_every_frame(state: str, frame: str) -> None:
    """BTP-2, BTP-4, BTP-9, BTP-10, BTP-11, X-2, P-13. Unreadable and unexpected frames get no reply."""
    session = STATES[state]()
    out = session.receive([FRAMES[frame]], now(1))
    packets, failures, codes, orders = READY_DOES[frame]
    assert len(out.packets) == packets and len(out.failures) == failures
    assert [error.code for error in errors(out)] == codes and len(out.frames) == len(codes)
    assert all(error.request_id == 9 or frame == "auth" for error in errors(out))
    assert [type(order) for order in out.orders] == orders
    assert session.phase is Phase.READY


@pytest.mark.parametrize("frame", [name for name in FRAMES if name != "auth"])
def test_before_auth_a_server_answers_anything_else_with_an_error_and_closes(frame: str) -> None:
    """BTP-6. A name twice, a Transfer, an ILP packet before auth: none reaches the kernel."""
    session = a_server()
    out = session.receive([FRAMES[frame], auth()], now(1))
    assert [error.name for error in errors(out)] in (["NotAcceptedError"], ["InvalidFieldsError"])
    assert len(closes(out)) == 1 and not out.packets and not out.failures
    assert session.phase is Phase.ENDED and session.wakes_at() is None


@pytest.mark.parametrize("frame", list(FRAMES))
def test_before_admission_a_client_ignores_what_is_not_the_answer(frame: str) -> None:
    """BTP-7, BTP-9."""
    session = a_client()
    session.opened()
    assert session.receive([FRAMES[frame]], now(1)) == Output()
    assert session.phase is Phase.AUTHENTICATING


@pytest.mark.parametrize("frame", list(FRAMES))
def test_an_ended_session_does_nothing(frame: str) -> None:
    session = ended()
    assert session.receive([FRAMES[frame]], now(1)) == Output()
    assert session.tick(now(10**9)) == Output()
    assert session.wakes_at() is None and session.ask([], now()) is None


@pytest.mark.parametrize("state", list(STATES))
def test_timers_and_back_pressure_meet_every_state(state: str) -> None:
    session = STATES[state]()
    before = session.phase
    session.blocked(now())
    session.blocked(now(5))
    session.writable()
    session.pause()
    session.resume(now(1))
    assert session.tick(now(1)) == Output()
    assert session.phase is before
    session.end()
    assert session.phase is Phase.ENDED


@given(st.lists(st.binary(max_size=80), max_size=8), st.sampled_from(list(STATES)), st.integers(0, 60_000))
def test_no_frames_crash_a_session(frames: list[bytes], state: str, later: int) -> None:
    """BTP-9. Any bytes: a value, an error or nothing."""
    session = STATES[state]()
    session.receive(frames, now(1))
    session.tick(now(later))
    session.wakes_at()


@given(st.sampled_from(list(FRAMES)), st.integers(0, 200), st.integers(0, 255), st.sampled_from(list(STATES)))
def test_no_damaged_frame_crashes_a_session(frame: str, place: int, value: int, state: str) -> None:
    """BTP-9."""
    damaged = bytearray(FRAMES[frame])
    if damaged:
        damaged[place % len(damaged)] = value
    session = STATES[state]()
    out = session.receive([bytes(damaged), bytes(damaged[:place])], now(1))
    assert len(out.frames) <= 2


# --- authentication --------------------------------------------------------------------------------------------------


def test_the_first_packet_of_a_client_is_auth() -> None:
    """BTP-5. auth is primary, of type 0 and empty; auth_token is text; auth_username only if there is one."""
    out = a_client("al").opened()
    packet = codec.decode(out.frames[0])
    assert isinstance(packet, BtpMessage) and len(out.frames) == 1
    assert packet.protocol_data == [
        ProtocolData("auth", 0, b""),
        ProtocolData("auth_token", 1, b"secret"),
        ProtocolData("auth_username", 1, b"al"),
        ProtocolData(SESSION_ENTRY, 0, OURS),
    ]
    plain = codec.decode(a_client().opened().frames[0])
    assert "auth_username" not in [entry.name for entry in plain.protocol_data]


def test_an_empty_token_is_present_all_the_same() -> None:
    """BTP-5."""
    session = Session.client(ALICE, Credentials(""), own_session=b"", fallback_session=FALLBACK, now=now())
    packet = codec.decode(session.opened().frames[0])
    assert packet.protocol_data == [ProtocolData("auth", 0, b""), ProtocolData("auth_token", 1, b"")]


def test_success_is_a_response_with_the_same_request_id() -> None:
    """BTP-6."""
    door = OneDoor()
    server = a_server(door)
    out = server.receive([auth(b"secret", ProtocolData("auth_username", 1, b"al"))], now(1))
    assert codec.decode(out.frames[0]) == BtpResponse(7, [])
    assert out.orders == [Ready(ALICE, is_isthmus=False)] and len(out.frames) == 1
    assert door.asked == [("al", b"secret")] and server.account == ALICE


@pytest.mark.parametrize(
    "first",
    [
        auth(b"guessed"),
        auth(b""),
        auth(None),
        codec.encode(BtpMessage(7, [ProtocolData("auth", 0, b"x"), ProtocolData("auth_token", 1, b"secret")])),
        codec.encode(BtpMessage(7, [ProtocolData("auth", 2, b""), ProtocolData("auth_token", 1, b"secret")])),
        codec.encode(BtpMessage(7, [ProtocolData("auth_token", 1, b"secret"), ProtocolData("auth", 0, b"")])),
        codec.encode(BtpResponse(7, [ProtocolData("auth", 0, b""), ProtocolData("auth_token", 1, b"secret")])),
    ],
)
def test_bad_credentials_get_an_error_and_a_close(first: bytes) -> None:
    """BTP-5, BTP-6."""
    server = a_server()
    out = server.receive([first], now(1))
    assert [error.request_id for error in errors(out)] == [7]
    assert len(closes(out)) == 1 and server.phase is Phase.ENDED
    assert b"secret" not in out.frames[0] and b"guessed" not in out.frames[0]


def test_packets_behind_auth_in_one_read_are_taken() -> None:
    """interledger-rs does not await the auth Response (X-9)."""
    out = a_server().receive([auth(), FRAMES["prepare in a response"]], now(1))
    assert [packet.account for packet in out.packets] == [ALICE]


def test_a_server_waits_for_auth_no_longer_than_ten_seconds() -> None:
    """BTP-6, BTP-7."""
    server = a_server()
    assert server.wakes_at() == now(TIMING.auth_ms).mono_ms
    assert server.tick(now(TIMING.auth_ms - 1)) == Output()
    out = server.tick(now(TIMING.auth_ms))
    assert [error.code for error in errors(out)] == ["F00"] and len(closes(out)) == 1


def test_a_client_closes_when_its_auth_is_not_answered() -> None:
    """BTP-7."""
    client = a_client()
    client.opened()
    out = client.tick(now(TIMING.auth_ms))
    assert not out.frames and len(closes(out)) == 1 and not closes(out)[0].refused


@pytest.mark.parametrize(("code", "refused"), [("F00", True), ("F01", True), ("T00", False)])
def test_a_refusal_ends_a_client_and_tells_if_it_is_final(code: str, refused: bool) -> None:
    """BTP-14. The Error's data may be invalid UTF-8 (P-14)."""
    client = a_client()
    client.opened()
    error = BtpError(AUTH_REQUEST_ID, code, codec.ERROR_NAMES[code], 1, b"\xff\xfe no")
    out = client.receive([codec.encode(error)], now(1))
    assert [close.refused for close in closes(out)] == [refused]
    assert "secret" not in closes(out)[0].why and code in closes(out)[0].why


def test_an_unreadable_answer_to_auth_ends_a_client() -> None:
    """BTP-7."""
    client = a_client()
    client.opened()
    out = client.receive([b"\x01" + AUTH_REQUEST_ID.to_bytes(4, "big") + b"\x80"], now(1))
    assert len(closes(out)) == 1 and not out.frames


def test_our_errors_have_a_time_that_all_peers_read() -> None:
    """OER-15, BTP-13, BTP-3. Three decimals, the last not zero, on a millisecond that ends in zero."""
    out = a_server().receive([A_TRANSFER], Now(1_700_000_000_000, 5_000))
    assert b"20231114221320.001Z" in out.frames[0]
    error = errors(out)[0]
    assert codec.ERROR_NAMES[error.code] == error.name and len(error.data) <= 200


def test_credentials_are_not_printed() -> None:
    assert "secret" not in repr(Credentials("secret", "al"))


# --- wire identity ---------------------------------------------------------------------------------------------------


def test_two_isthmus_peers_exchange_session_ids() -> None:
    """Each announces its own in a secondary entry of auth and of its answer."""
    server = a_server()
    out = server.receive([auth(session=THEIRS)], now(1))
    assert codec.decode(out.frames[0]) == BtpResponse(7, [ProtocolData(SESSION_ENTRY, 0, OURS)])
    assert server.is_isthmus and server.peer_session == THEIRS
    client = ready_client(session=THEIRS)
    assert client.is_isthmus and client.peer_session == THEIRS


@pytest.mark.parametrize("entry", [None, b"short", b"much too long for one"])
def test_other_peers_get_a_session_of_the_connection(entry: bytes | None) -> None:
    for session in (ready_server(entry), ready_client(entry)):
        out = session.receive([FRAMES["prepare in a message"], FRAMES["fulfill in a response"]], now(3))
        assert out.packets == [
            Inbound(ALICE, FALLBACK, 9, PREPARE, now(3).mono_ms),
            Inbound(ALICE, b"", 9, FULFILL, now(3).mono_ms),
        ]


def test_replies_of_an_isthmus_peer_carry_our_session() -> None:
    session = ready_server(THEIRS)
    named = response(ProtocolData("ilp", 0, REJECT), ProtocolData(SESSION_ENTRY, 0, OLD))
    out = session.receive([FRAMES["prepare in a message"], FRAMES["fulfill in a response"], named], now(3))
    assert [packet.session for packet in out.packets] == [THEIRS, OURS, OLD]


def test_an_answer_to_an_older_session_names_it() -> None:
    """BTP-18. Request ids begin again with each session of an isthmus peer: the id alone could be another's."""
    session = ready_server(THEIRS)
    frames = session.encode([Outbound(THEIRS, 3, FULFILL), Outbound(OLD, 3, FULFILL), Outbound(OURS, 4, PREPARE)])
    assert codec.ilp_fast(frames[0]) == (codec.RESPONSE, 3, FULFILL)
    assert codec.decode(frames[1]) == BtpResponse(
        3, [ProtocolData("ilp", 0, FULFILL), ProtocolData(SESSION_ENTRY, 0, OLD)]
    )
    assert codec.ilp_fast(frames[2]) == (codec.MESSAGE, 4, PREPARE)


def test_an_answer_to_another_implementation_is_plain_whatever_its_session() -> None:
    """BTP-18: JS matches by id, not by socket."""
    frames = ready_server().encode([Outbound(OLD, 3, REJECT)])
    assert codec.ilp_fast(frames[0]) == (codec.RESPONSE, 3, REJECT)


def test_ilp_travels_in_messages_and_responses() -> None:
    """BTP-1, BTP-10. A Reject is a Response, never a BTP Error. A frame above 255 bytes has a longer prefix (X-5)."""
    frames = ready_client().encode(
        [Outbound(OURS, 1, PREPARE), Outbound(FALLBACK, 2, FULFILL), Outbound(FALLBACK, 3, REJECT + bytes(300))]
    )
    assert [frame[0] for frame in frames] == [codec.MESSAGE, codec.RESPONSE, codec.RESPONSE]
    assert frames[2][5:8] == b"\x82" + (len(frames[2]) - 8).to_bytes(2, "big")


# --- errors, transfers, sub-protocols --------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "ilp_code"), [("T00", "T01"), ("F00", "T00"), ("F08", "T00")])
def test_a_btp_error_says_that_our_prepare_was_not_taken(code: str, ilp_code: str) -> None:
    """BTP-10, BTP-13, BTP-18, P-13. It is not relayed as an ILP Reject of that code."""
    frame = codec.encode(BtpError(4, code, "Some\u00e9Name", 1, b"\xff"))
    out = ready_client().receive([frame], now(1))
    assert len(out.failures) == 1 and isinstance(out.failures[0], Undelivered)
    assert (out.failures[0].request_id, out.failures[0].code) == (4, ilp_code)
    assert code in out.failures[0].message


def test_a_transfer_is_refused_and_books_nothing() -> None:
    """BTP-12."""
    out = ready_server().receive([A_TRANSFER], now(1))
    assert [error.name for error in errors(out)] == ["NotAcceptedError"]
    assert not out.packets and not out.orders


def test_unreadable_frames_are_logged_once_a_connection() -> None:
    """BTP-9. JS closes on them (X-9); we don't."""
    session = ready_server()
    out = session.receive([b"\xff"] * 50, now(1))
    assert [type(order) for order in out.orders] == [Log] and not out.frames
    assert session.receive([b"\xff"], now(2)) == Output()
    assert len(session.receive([FRAMES["prepare in a message"]], now(3)).packets) == 1


def test_a_registered_sub_protocol_is_asked_and_answered() -> None:
    """BTP-9, BTP-11."""
    session = ready_server()
    out = session.receive([FRAMES["registered sub-protocol"]], now(1))
    assert out.orders == [Asked(9, [ProtocolData(CLAIM, 0, b"c")])]
    assert codec.decode(session.answer(9, [])) == BtpResponse(9, [])
    refusal = codec.decode(session.refuse(9, "F00", "no", now(1)))
    assert isinstance(refusal, BtpError) and refusal.request_id == 9


def test_requests_of_the_link_have_ids_of_their_own() -> None:
    """BTP-8. Unique among those in flight, and never those of the kernel's Prepares."""
    session = ready_client()
    asked = [session.ask([ProtocolData(CLAIM, 0, b"")], now(i)) for i in range(ASKED_MAX + 1)]
    ids = [request[0] for request in asked if request is not None]
    assert len(ids) == len(set(ids)) == ASKED_MAX and asked[-1] is None
    assert all(LINK_REQUEST_ID_MIN < request_id <= codec.REQUEST_ID_MAX for request_id in ids)


def test_a_sub_protocol_request_ends_once() -> None:
    """BTP-9, BTP-15. By a Response, an Error, its deadline, or the end of the connection."""
    session = ready_client()
    ids = []
    for _ in range(4):
        asked = session.ask([ProtocolData(CLAIM, 0, b"")], now())
        assert asked is not None
        ids.append(asked[0])
    entry = ProtocolData(CLAIM, 0, b"yes")
    error = BtpError(ids[1], "F00", "NotAcceptedError", 1_700_000_000_001)
    answers = [response(entry, request_id=ids[0]), codec.encode(error)]
    out = session.receive(answers + answers[:1], now(1))
    assert out.orders == [Answered(ids[0], [entry]), Answered(ids[1], error)]
    # An ILP reply under such an id is an ILP reply: what the peer answers to us is for the kernel to judge.
    assert len(session.receive([codec.encode_ilp(codec.RESPONSE, ids[2], FULFILL)], now(2)).packets) == 1
    late = session.tick(now(TIMING.ask_ms))
    assert [order for order in late.orders if isinstance(order, Answered)] == [
        Answered(ids[2], None),
        Answered(ids[3], None),
    ]
    again = session.ask([], now(TIMING.ask_ms))
    assert again is not None and session.end().orders == [Answered(again[0], None)]


def test_ids_of_the_link_begin_again_within_their_range() -> None:
    """BTP-8."""
    session = ready_client()
    session._last_asked = codec.REQUEST_ID_MAX
    asked = session.ask([], now())
    assert asked is not None and asked[0] == LINK_REQUEST_ID_MIN + 1


# --- keep-alive and stalls -------------------------------------------------------------------------------------------


def test_an_idle_peer_is_pinged_and_a_dead_one_closed() -> None:
    session = ready_server()
    idle = TIMING.ping_after_ms
    assert session.wakes_at() == now(idle).mono_ms
    assert session.tick(now(idle - 1)) == Output()
    assert session.tick(now(idle)).orders == [Ping()]
    assert session.tick(now(idle + 1)) == Output()
    assert session.wakes_at() == now(idle + TIMING.pong_ms).mono_ms
    out = session.tick(now(idle + TIMING.pong_ms))
    assert [close.at_once for close in closes(out)] == [True] and session.phase is Phase.ENDED


def test_anything_that_comes_proves_that_the_peer_lives() -> None:
    """BTP-15. A pong is a read without messages."""
    session = ready_client()
    session.tick(now(TIMING.ping_after_ms))
    session.receive([], now(TIMING.ping_after_ms + 1))
    assert session.tick(now(TIMING.ping_after_ms + TIMING.pong_ms)) == Output()
    assert session.wakes_at() == now(2 * TIMING.ping_after_ms + 1).mono_ms


def test_a_peer_that_we_do_not_read_is_not_taken_for_dead() -> None:
    session = ready_server()
    session.tick(now(TIMING.ping_after_ms))
    session.pause()
    assert session.wakes_at() is None and session.tick(now(10**6)) == Output()
    session.resume(now(10**6))
    assert session.wakes_at() == now(10**6 + TIMING.ping_after_ms).mono_ms


def test_a_peer_that_takes_nothing_is_closed_after_a_bounded_stall() -> None:
    session = ready_server()
    session.blocked(now(100))
    session.receive([], now(100 + TIMING.stall_ms - 1))
    assert session.tick(now(100 + TIMING.stall_ms - 1)) == Output()
    assert [close.at_once for close in closes(session.tick(now(100 + TIMING.stall_ms)))] == [True]


def test_a_peer_that_takes_its_answers_in_time_stays() -> None:
    session = ready_server()
    session.blocked(now(100))
    session.writable()
    session.receive([], now(TIMING.stall_ms))
    assert session.tick(now(100 + TIMING.stall_ms)) == Output()


def test_a_refusal_that_is_held_back_comes_in_its_time_and_takes_no_second_try() -> None:
    """BTP-6, P-16: wrong credentials again and again from one address."""
    session = a_server(OneDoor(hold_ms=1_000))
    wrong = codec.encode(BtpMessage(7, [ProtocolData("auth", 0, b""), ProtocolData("auth_token", 1, b"guess")]))
    right = codec.encode(BtpMessage(8, [ProtocolData("auth", 0, b""), ProtocolData("auth_token", 1, b"secret")]))
    assert session.receive([wrong, right], now(5)) == Output()
    assert session.receive([right], now(6)) == Output()
    assert session.wakes_at() == now(1_005).mono_ms
    assert session.tick(now(1_004)) == Output()
    out = session.tick(now(1_005))
    answer = codec.decode(out.frames[0])
    assert isinstance(answer, BtpError) and (answer.request_id, answer.code) == (7, "F00")
    assert out.orders == [Close(1008, "wrong credentials, too often from this address")]
    assert session.phase is Phase.ENDED
