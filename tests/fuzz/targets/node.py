"""Bytes from two peers into a whole node on virtual time: the real kernel behind the real BTP sessions.

The input is a program: each byte chooses what happens next, the bytes after it choose the details. Peers send frames
of any kind, some sound, some damaged, some raw; the disk lags; links fall; clocks jump; the process dies and replays.

Whatever is sent: nothing is raised, the books are sound after every step, and an auditor who sees only the wire finds
that each Prepare of the node's own leaves once, that each request of a peer is answered once, by a Fulfill only if
the next hop gave the preimage in time, and that the node owes no peer more than the sum of what that peer fulfilled.
In the end faults stop: nothing remains reserved, and replay gives the books that were live.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from isthmus.connector.events import AccountId, AppendFailed, LinkBlocked, LinkWritable
from isthmus.ilp import ildcp, packet
from isthmus.ilp.outcomes import OUTCOMES_DESTINATION, OutcomesReport, encode_answer, encode_report
from isthmus.ilp.packet import Fulfill, Prepare, Reject
from isthmus.links.btp import codec as btp
from isthmus.links.btp.session import Phase
from tests.fuzz.registry import Target
from tests.fuzz.targets.program import Input
from tests.fuzz.targets.world import NAMES, RECEIVABLE, WALL, Peer, World

STEPS_MAX: Final = 120
SECRETS: Final = tuple(sha256(b"secret %d" % n).digest() for n in range(4))
CONDITIONS: Final = tuple(sha256(secret).digest() for secret in SECRETS)
AMOUNTS: Final = (0, 1, 1_000, 40_000, 900_000, RECEIVABLE, 2**63, 2**64 - 1)
LEFT_MS: Final = (6_000, 3_000, 1_200, 1_000, 0, -1, 40_000, 10**11)
PAUSES_MS: Final = (1, 20, 401, 1_000, 1_999, 5_000, 15_001, 61_000)
JUMPS_MS: Final = (-(10**9), -5_000, 5_000, 10**9)
PLACES: Final = (
    "test.node.ann.x",
    "test.node.ben.x",
    "test.node",
    "test.other",
    "peer.config",
    "peer.x",
    "g.far",
    OUTCOMES_DESTINATION,
)
CODES: Final = ("F99", "T04", "F08", "X42", "T01", "R00", "F02", "T00")


def fuzz_node(data: bytes) -> None:
    choices = Input(data)
    world = World()
    for peer in world.peers.values():
        world.connect(peer)
    for _ in range(STEPS_MAX):
        if not choices.more:
            break
        step(world, choices)
        world.check()
    world.end()


def step(world: World, choices: Input) -> None:
    """One byte: the low bits say what, the high bit who."""
    first = choices.byte()
    peer = world.peers[NAMES[first >> 7]]
    kind = first & 0x0F
    if kind < 6:
        world.receive(peer, [a_frame(world, peer, kind, choices) for _ in range(1 + (first >> 4 & 3))])
    elif kind == 6:
        world.receive(peer, [choices.bytes(choices.byte())])
    elif kind == 7:
        frame = bytearray(a_frame(world, peer, first >> 4 & 3, choices))
        frame[choices.byte() % len(frame)] ^= 1 << (choices.byte() & 7)
        world.receive(peer, [bytes(frame)])
    elif kind < 10:
        world.wait(PAUSES_MS[first >> 4 & 7])
    elif kind < 12:
        world.commit(1 if first & 0x10 else len(world.pending))
    elif kind == 12:
        world.connect(peer) if first & 0x10 else world.disconnect(peer)
    elif kind == 13:
        happen(world, peer, choices)
    elif kind == 14:
        world.connect_rawly(peer, [choices.bytes(choices.byte()) for _ in range(1 + (first >> 4 & 1))])
    elif world.pending and first & 0x10:
        world.handle(AppendFailed(world.pending[0].sequence, "the disk is full"))
        world.crash()
    else:
        world.crash()


def happen(world: World, peer: Peer, choices: Input) -> None:
    """What befalls a link or a clock."""
    what = choices.byte()
    account = AccountId(peer.name)
    kind = what & 3
    if kind == 0:
        world.handle(LinkBlocked(account) if what & 4 else LinkWritable(account))
    elif kind == 1:
        peer.answers_pings = bool(what & 4)
    elif kind == 2:
        world.wall_offset += JUMPS_MS[what >> 2 & 3]
        world.handle()
    else:
        session = peer.session
        if session is not None and session.phase is Phase.READY:
            session.blocked(world.now()) if what & 4 else session.writable()


def a_frame(world: World, peer: Peer, kind: int, choices: Input) -> bytes:
    """A frame as a peer might send it: a request, an answer to one of the node's, or something else."""
    detail = choices.byte()
    if kind < 2:
        return _request(world, peer, detail, choices)
    asked = peer.was_asked[-1 - (detail >> 4) % len(peer.was_asked)] if peer.was_asked else (1, CONDITIONS[0], 0, 0)
    request, condition = asked[:2]
    if kind == 4:
        code = "F00" if detail & 1 else "T00"
        return btp.encode(btp.BtpError(request, code, "NotAcceptedError", WALL, b"", []))
    if kind == 5:
        return _about_outcomes(world, peer, detail, choices)
    right = condition in CONDITIONS and detail & 7
    fulfillment = SECRETS[CONDITIONS.index(condition)] if right else bytes([detail]) * 32
    reply: Fulfill | Reject = Fulfill(fulfillment, bytes(detail & 8))
    if kind == 3:
        reply = Reject(CODES[detail & 7], "test.far", "no")
    ilp = packet.encode(reply)
    if detail & 8:
        entries = [btp.ProtocolData("ilp", 0, ilp), btp.ProtocolData("isthmus_session", 0, bytes([detail]) * 16)]
        return btp.encode(btp.BtpResponse(request, entries))
    return btp.encode_ilp(btp.RESPONSE, request, ilp)


def _about_outcomes(world: World, peer: Peer, detail: int, choices: Input) -> bytes:
    """A report of the peer's own, or an answer to the node's; sometimes with any bytes for its data."""
    if detail & 1:
        peer.request += 1
        ilp = _report(world, peer, detail, choices)
        return btp.encode_ilp(btp.MESSAGE, peer.request, ilp)
    request, asked = peer.reports[-1 - (detail >> 5) % len(peer.reports)] if peer.reports else (1, [])
    if detail & 2:
        fulfilled = [(one, SECRETS[(detail >> 3) + one & 3]) for one in asked]
        ilp = encode_answer(fulfilled)
    elif detail & 4:
        ilp = packet.encode(Fulfill(ildcp.PEER_FULFILLMENT, choices.bytes(detail)))
    else:
        ilp = packet.encode(Reject(CODES[detail >> 3 & 7], "", "no"))
    return btp.encode_ilp(btp.RESPONSE, request, ilp)


def _report(world: World, peer: Peer, detail: int, choices: Input) -> bytes:
    expires_at = world.now().wall_ms + 5_000
    if detail & 2:
        data = choices.bytes(detail)
        return packet.encode_prepare(Prepare(0, expires_at, ildcp.PEER_CONDITION, OUTCOMES_DESTINATION, data))
    back = choices.byte()
    watermark = max(0, peer.request - (back & 7))
    near = range(max(1, peer.request - 8), peer.request + 1)
    voided = [one for one in near if one <= watermark and back >> 3 & 1 << one % 3]
    asked = [one for one in near if one > watermark]
    session = peer.session_id if detail & 4 else bytes([detail]) * 16
    return encode_report(OutcomesReport(session, watermark, voided, asked, []), expires_at)


def _request(world: World, peer: Peer, detail: int, choices: Input) -> bytes:
    """A Prepare: towards the other peer most often, with an id of its own most often."""
    more = choices.byte()
    other = PLACES[1 if peer.name == "ann" else 0]
    place = PLACES[more >> 4 & 7] if more & 8 else other
    condition = ildcp.PEER_CONDITION if place == "peer.config" else CONDITIONS[more & 3]
    left = LEFT_MS[detail >> 3 & 7]
    prepare = Prepare(AMOUNTS[detail & 7], world.now().wall_ms + left, condition, place, b"")
    if not detail & 0x80 or not more & 4:
        peer.request += 1
    return btp.encode_ilp(btp.MESSAGE, peer.request, packet.encode_prepare(prepare))


def seeds_node() -> Iterator[bytes]:
    pay = bytes((0x00, 0x03, 0x00, 0x0A))  # ann asks for 40,000 to ben; the disk writes
    fulfil = bytes((0x82, 0x01, 0x0A))
    yield pay + fulfil
    yield pay + bytes((0x83, 0x00, 0x0A))
    yield pay + bytes((0x59, 0x48)) + fulfil
    yield pay + bytes((0x0F,)) + bytes((0x9C, 0x1C)) + fulfil
    yield bytes((0x30, 3, 0, 3, 1, 3, 2, 3, 3, 0x0A)) + fulfil * 2 + bytes((0x0F,))
    yield bytes((0x00, 0x00, 0x48, 0x0A)) + bytes((0x00, 0x02, 0x28, 0x0A))
    yield bytes((0x06, 12)) + b"\x06\0\0\0\x07\x06\x01\x01\x01a\0\0"
    yield pay + bytes((0x84, 0x01, 0x0A)) + pay + bytes((0x85, 0x01, 0x8D, 0x04, 0x0D, 0x02)) + fulfil
    yield bytes((0x0E, 9)) + b"\x06\0\0\0\x07\x02\x01\x00" + bytes((0x9C, 0x6A, 0x69))
    # Paid, void at ann; a crash with a Prepare on its way, which ben, asked about it, has fulfilled.
    yield pay + fulfil + bytes((0x05, 0x05, 0x38, 0x0A)) + pay
    yield pay + bytes((0x0F, 0x9C, 0x1C, 0x08, 0x0A, 0x85, 0x0A, 0x0A, 0x28, 0x0A))
    yield bytes((0x80, 0x03, 0x03, 0x8A, 0x17, 0x01, 3, 0, 0x1F)) + pay + fulfil


TARGETS: Final[dict[str, Target]] = {
    "node": Target(
        fuzz_node,
        seeds_node,
        (b"\x00\x03\x00\x0a", b"\x82\x01\x0a", b"\x0f", b"\x49"),
        size_max=400,
        stateful=True,
    )
}
