"""The order of things: commit before send, batches, fairness, back pressure, bad journals, clocks, drain, crashes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import (
    AccountId,
    Append,
    AppendFailed,
    CloseLink,
    Drain,
    Drained,
    Durable,
    Effect,
    Halt,
    Inbound,
    LinkDown,
    LinkUp,
    Log,
    Note,
    Noted,
    Now,
    Release,
)
from isthmus.connector.kernel import APPEND_SLOW_MS, APPENDS_MAX, Kernel
from isthmus.connector.legs import NEVER_SENT
from isthmus.connector.record import NoteEntry, Void, decode_record
from isthmus.connector.tables import RateTable, RouteTable, Tables, TablesChanged
from isthmus.errors import CodecError, ConfigError
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import FULFILL, PREPARE, REJECT, Reject, decode

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE = AccountId("alice")
BOB = AccountId("bob")


def appends(effects: list[Effect]) -> list[Append]:
    return [effect for effect in effects if isinstance(effect, Append)]


def releases(effects: list[Effect]) -> list[Release]:
    return [effect for effect in effects if isinstance(effect, Release)]


def logged(effects: list[Effect]) -> list[str]:
    return [effect.event for effect in effects if isinstance(effect, Log)]


# --- commit before send -----------------------------------------------------------------------------------------------


def test_no_frame_leaves_before_its_event_is_durable(node: "Node") -> None:
    """CONN-3, P-6: Prepare, Fulfill and Reject alike."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    assert node.frames == {}
    node.commit()
    request_id = node.taken("bob").request_id
    node.fulfil("bob", request_id)
    assert node.frames == {}
    node.commit()
    assert node.taken("alice").packet[0] == FULFILL
    node.prepare("alice", "test.node.bob.x")
    node.commit()
    node.reject("bob", node.taken("bob").request_id)
    assert node.frames == {}
    node.commit()
    assert node.taken("alice").packet[0] == REJECT


def test_a_refusal_without_event_leaves_at_once(node: "Node") -> None:
    """ILP-21: also past frames that wait for their commit."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    node.prepare("alice", "test.elsewhere")
    assert node.rejected("alice").code == "F02"
    assert node.take("bob") == []


def test_what_arrives_together_is_one_batch_and_one_write_for_each_account(node: "Node") -> None:
    """CONN-15: replies are decided before Prepares, whatever their order in the read."""
    node.prepare("alice", "test.node.bob.x")
    ours = node.taken("bob").request_id
    answer = Inbound(BOB, b"", ours, b"\x0d\x21" + bytes(range(32)) + b"\x00", node.mono)
    prepares = [node.inbound("alice", "test.node.bob.x") for _ in range(5)]
    effects = node.tell(*prepares, answer, *[node.inbound("bob", "test.node.alice.x") for _ in range(3)])
    assert len(appends(effects)) == 1
    written = {release.account: [frame.packet[0] for frame in release.frames] for release in releases(effects)}
    assert written == {"alice": [FULFILL, *[PREPARE] * 3], "bob": [PREPARE] * 5}
    record = decode_record(node.records[-1])
    assert type(record[0]).__name__ == "Post"


def test_a_freed_limit_serves_the_prepare_of_the_same_read(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-15: replies first."""
    node = make_node(make_terms("alice", in_flight_max=100), make_terms("bob"))
    node.prepare("alice", "test.node.bob.x", 100)
    ours = node.taken("bob").request_id
    answer = Inbound(BOB, b"", ours, b"\x0d\x21" + bytes(range(32)) + b"\x00", node.mono)
    node.tell(node.inbound("alice", "test.node.bob.x", 100), answer)
    assert node.taken("bob").packet[0] == PREPARE


def test_commits_overlap_with_work_but_at_most_two(node: "Node") -> None:
    """CONN-15: while two appends are under way, what is decided gathers in the next batch."""
    node.durable = False
    for _ in range(6):
        node.prepare("alice", "test.node.bob.x")
    assert len(node.undurable) == APPENDS_MAX
    assert not node.kernel.at_boundary()
    node.commit()
    assert len(node.undurable) == APPENDS_MAX
    assert len(decode_record(node.records[-1])) == 2 * 4
    node.commit()
    node.commit()
    assert len(node.take("bob")) == 6


def test_one_durable_covers_all_batches_before_it(node: "Node") -> None:
    """CONN-3."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    node.prepare("alice", "test.node.bob.x")
    effects = node.kernel.handle([Durable(node.kernel.sequence)], node.now())
    assert [len(release.frames) for release in releases(effects)] == [2]


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_an_account_has_its_part_of_a_batch_and_no_more(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-15: Prepares are taken from each account in turn."""
    node = make_node(make_terms("alice", prepares_per_batch_max=3), make_terms("carol"), make_terms("bob"))
    node.durable = False
    flood = [node.inbound("alice", "test.node.bob.a") for _ in range(7)]
    node.tell(*flood, node.inbound("carol", "test.node.bob.c"))
    first = decode_record(node.undurable[0].record)
    assert len(first) == 2 * (3 + 1)
    second = decode_record(node.undurable[1].record)
    assert len(second) == 2 * 3
    assert len(node.undurable) == 2  # the seventh waits in the open batch
    node.durable = True
    node.tell()
    assert len(node.take("bob")) == 8


def test_above_the_inbox_prepares_are_refused_without_books(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-15, ILP-22: T03; replies are always read."""
    node = make_node(make_terms("alice", inbox_max=4), make_terms("bob"))
    appended = len(node.records)
    node.tell(*[node.inbound("alice", "test.node.bob.x") for _ in range(5)])
    assert node.rejected("alice").code == "T03"
    assert len(node.take("bob")) == 4
    assert len(node.records) == appended + 1


def test_a_call_decides_a_bounded_number_of_prepares(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-15: the rest goes on at once in the next call."""
    names = [f"a{number}" for number in range(9)]
    node = make_node(*[make_terms(name) for name in names], routes={}, up=False)
    events = [node.inbound(name, "test.elsewhere") for name in names for _ in range(1_000)]
    node.tell(*events)
    assert sum(len(frames) for frames in node.frames.values()) == 8_192
    assert node.kernel.wakes_at() == node.mono
    node.tell()
    assert sum(len(frames) for frames in node.frames.values()) == 9_000
    assert node.kernel.wakes_at() is None


# --- links and time between the decision and the commit ---------------------------------------------------------------


def test_a_prepare_whose_link_went_down_before_its_commit_is_never_sent(node: "Node") -> None:
    """BTP-18: T01 at once, since no byte was handed to the link."""
    node.durable = False
    asked = node.prepare("alice", "test.node.bob.x")
    node.prepare("bob", "test.node.alice.x")
    node.tell(LinkDown(BOB, "gone"))
    node.durable = True
    node.tell()
    assert node.take("bob") == []
    frames = node.take("alice")
    assert [frame.packet[0] for frame in frames] == [PREPARE, REJECT]
    reject = decode(frames[1].packet)
    assert isinstance(reject, Reject)
    assert (frames[1].request_id, reject.code) == (asked, "T01")
    voids = [entry for entry in decode_record(node.records[-1]) if isinstance(entry, Void)]
    assert [entry.reason for entry in voids] == [NEVER_SENT, NEVER_SENT]


def test_a_prepare_that_no_byte_was_written_of_goes_out_on_the_next_connection(node: "Node") -> None:
    """BTP-18."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    node.tell(LinkDown(BOB, "gone"))
    node.tell(LinkUp(BOB))
    node.commit()
    assert node.taken("bob").packet[0] == PREPARE


def test_a_prepare_that_expired_before_its_commit_is_not_sent(node: "Node") -> None:
    """ILP-10, P-6."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x", left_ms=1_100)
    node.wait(200)
    node.durable = True
    node.tell()
    assert node.take("bob") == []
    assert node.rejected("alice").code == "R00"
    assert node.in_flight() == 0


def test_the_wall_clock_may_jump(node: "Node") -> None:
    """CONN-16: used once per Prepare; deadlines are monotonic."""
    node.prepare("alice", "test.node.bob.x", left_ms=5_000)
    ours = node.taken("bob").request_id
    node.wall += 86_400_000
    node.wait(3_999)
    assert node.take("alice") == []
    node.wall -= 10 * 86_400_000
    node.fulfil("bob", ours)
    assert node.taken("alice").packet[0] == FULFILL


def test_a_clock_that_was_behind_holds_no_longer_than_the_maximum(node: "Node") -> None:
    """CONN-9."""
    node.prepare("alice", "test.node.bob.x", left_ms=86_400_000)
    node.wait(30_008)
    assert node.rejected("alice").code == "R00"


# --- slow and failing journals ----------------------------------------------------------------------------------------


def test_a_slow_append_stops_new_prepares_until_it_ends(node: "Node") -> None:
    """CONN-15, ILP-22: T03; replies are taken all the while."""
    node.prepare("alice", "test.node.bob.x")
    ours = node.taken("bob").request_id
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    effects = node.wait(APPEND_SLOW_MS)
    node.prepare("alice", "test.node.bob.x")
    assert node.take("alice") == []
    assert logged(effects) == []
    effects = node.wait(1)
    assert logged(effects) == ["journal_slow"]
    node.prepare("alice", "test.node.bob.x")
    assert node.rejected("alice").code == "T03"
    node.fulfil("bob", ours)
    node.durable = True
    effects = node.tell()
    assert "journal_recovered" in logged(effects)
    assert [frame.packet[0] for frame in node.take("alice")] == [FULFILL]
    node.take("bob")
    node.prepare("alice", "test.node.bob.x")
    assert node.taken("bob").packet[0] == PREPARE


def test_waiting_prepares_are_refused_when_the_journal_stalls(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-15: they would only wait on."""
    node = make_node(make_terms("alice", prepares_per_batch_max=1), make_terms("bob"))
    node.durable = False
    node.tell(*[node.inbound("alice", "test.node.bob.x") for _ in range(5)])
    node.wait(APPEND_SLOW_MS + 1)
    assert [frame.packet[0] for frame in node.take("alice")] == [REJECT, REJECT]


def test_a_failed_append_ends_everything(node: "Node") -> None:
    """P-6: nothing that rests on it may leave, and nothing is rolled back."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    sequence = node.kernel.sequence
    free = node.inbound("alice", "test.elsewhere")
    effects = node.kernel.handle([free, AppendFailed(sequence, "disk full"), Durable(sequence)], node.now())
    assert effects == [Halt("disk full")]
    assert node.kernel.handle([Durable(sequence), free], node.now()) == []
    assert node.kernel.wakes_at() is None


# --- notes ------------------------------------------------------------------------------------------------------------


class Notebook:
    """An application that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[bytes] = []

    def apply(self, note: bytes) -> None:
        self.notes.append(note)

    def encode_state(self) -> bytes:
        return b"|".join(self.notes)

    def load_state(self, state: bytes) -> None:
        self.notes = state.split(b"|") if state else []


def test_a_note_is_answered_once_it_is_durable(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-3: a grant is durable before the packets that rest on it."""
    notebook = Notebook()
    node = make_node(make_terms("alice"), application=notebook)
    node.durable = False
    assert not any(isinstance(effect, Noted) for effect in node.tell(Note(b"grant", 7)))
    assert Noted(7) in node.commit()
    assert notebook.notes == [b"grant"]


def test_a_packets_note_is_journaled_with_it_or_not_at_all(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-3: a receiver's credit is in the batch that posts its Fulfill."""
    notebook = Notebook()
    node = make_node(make_terms("alice"), make_terms("bob"), application=notebook)
    node.prepare("alice", "test.node.bob.x", note=b"sent")
    ours = node.taken("bob").request_id
    node.prepare("alice", "test.elsewhere", note=b"refused")
    node.fulfil("bob", ours, note=b"credit")
    node.fulfil("bob", ours, note=b"again")
    assert notebook.notes == [b"sent", b"credit"]
    entries = decode_record(node.records[-1])
    assert [type(entry).__name__ for entry in entries] == ["Post", "Fulfilled", "NoteEntry"]
    assert entries[2] == NoteEntry(b"credit")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_tables_are_journaled_when_they_change_and_only_then(node: "Node") -> None:
    """CONN-2: an account's asset is fixed by its first appearance."""
    before = len(node.records)
    node.tell(TablesChanged(node.tables))
    assert len(node.records) == before
    changed = Tables("test.node", node.tables.accounts, RouteTable({"": BOB}), RateTable({}))
    node.tell(TablesChanged(changed))
    assert [type(entry).__name__ for entry in decode_record(node.records[-1])] == ["TermsChanged"]
    assert node.kernel.books.terms == changed.encode()


def test_tables_that_contradict_the_books_are_refused(
    node: "Node", make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """CONN-2."""
    other = make_node(make_terms("alice", asset=Asset("USD", 6)), make_terms("bob")).tables
    with pytest.raises(ConfigError, match=r"accounts.alice.asset"):
        node.kernel.check_tables(other)
    assert logged(node.tell(TablesChanged(other))) == ["tables_refused"]
    assert node.kernel.tables is node.tables


def test_an_account_with_a_balance_or_packets_in_flight_can_not_go(
    node: "Node", make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """CONN-2."""
    without = make_node(make_terms("bob"))
    node.prepare("alice", "test.node.bob.x")
    with pytest.raises(ConfigError, match="missing"):
        node.kernel.check_tables(without.tables)
    node.reject("bob", node.taken("bob").request_id)
    node.take("alice")
    effects = node.tell(TablesChanged(without.tables))
    assert [effect.account for effect in effects if isinstance(effect, CloseLink)] == ["alice"]
    node.prepare("alice", "test.node.bob.x")
    assert node.rejected("alice").code == "T03"
    node.prepare("bob", "test.node.alice.x")
    assert node.rejected("bob").code == "F02"
    node.tell(TablesChanged(node.tables))


# --- drain ------------------------------------------------------------------------------------------------------------


def test_a_drain_lets_what_is_in_flight_end(node: "Node") -> None:
    """ILP-22: new Prepares get T03."""
    node.prepare("alice", "test.node.bob.x")
    ours = node.taken("bob").request_id
    assert Drained() not in node.tell(Drain())
    node.prepare("alice", "test.node.bob.x")
    assert node.rejected("alice").code == "T03"
    node.durable = False
    assert Drained() not in node.fulfil("bob", ours)
    assert Drained() in node.commit()
    node.durable = True
    assert Drained() not in node.tell()
    node.prepare("alice", "test.node.bob.x")
    assert [frame.packet[0] for frame in node.take("alice")] == [FULFILL, REJECT]


def test_a_drain_of_an_idle_node_ends_at_once(node: "Node") -> None:
    assert Drained() in node.tell(Drain())


# --- after a crash ----------------------------------------------------------------------------------------------------


def test_a_crash_forgets_what_was_not_durable_and_nothing_else(node: "Node") -> None:
    """CONN-3: nobody saw evidence of what is gone."""
    node.prepare("alice", "test.node.bob.x", 10)
    ours = node.taken("bob").request_id
    node.fulfil("bob", ours)
    node.durable = False
    node.prepare("alice", "test.node.bob.x", 20)
    after = node.restarted()
    assert (after.balance("alice"), after.balance("bob"), after.in_flight()) == (10, -10, 0)


def test_open_legs_wait_for_their_answer_after_a_crash(node: "Node") -> None:
    """BTP-18, CONN-1: never sent again; a Fulfill within the hold counts."""
    asked = node.prepare("alice", "test.node.bob.x", left_ms=20_000)
    ours = node.taken("bob")
    after = node.restarted()
    assert after.kernel.open_requests(BOB) == [(ours.session, ours.request_id, after.mono + 19_000)]
    after.tell(LinkUp(ALICE), LinkUp(BOB))
    assert after.take("bob") == []
    after.fulfil("bob", ours.request_id, session=ours.session)
    answer = after.taken("alice")
    assert (answer.request_id, answer.session, after.balance("alice")) == (asked, b"session of peers", 100)


def test_open_legs_expire_after_a_crash(node: "Node") -> None:
    """ILP-10: also those whose time ran out while the node was down."""
    node.prepare("alice", "test.node.bob.x", left_ms=20_000)
    node.take("bob")
    node._go(node.mono + 60_000)
    after = node.restarted()
    after.tell()
    assert after.rejected("alice").code == "R00"


def test_a_hold_ends_after_a_crash_even_if_the_clock_was_set_back(node: "Node") -> None:
    """CONN-9, CONN-16: no longer than the longest hold of the tables that were in force."""
    node.prepare("alice", "test.node.bob.x", left_ms=20_000)
    node.wall -= 86_400_000
    after = node.restarted()
    after.wait(29_999)
    assert after.take("alice") == []
    after.wait(9)
    assert after.rejected("alice").code == "R00"


# --- checkpoints and replay -------------------------------------------------------------------------------------------


def test_a_checkpoint_and_what_follows_give_the_same_books(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-3: with open legs in it."""
    notebook = Notebook()
    node = make_node(make_terms("alice"), make_terms("bob"), application=notebook)
    for _ in range(3):
        node.prepare("alice", "test.node.bob.x", note=b"n")
    frames = node.take("bob")
    node.fulfil("bob", frames[0].request_id)
    state = node.kernel.state()
    sequence = node.kernel.sequence
    node.reject("bob", frames[1].request_id)
    node.fulfil("bob", frames[2].request_id)
    loaded_notes = Notebook()
    loaded = Kernel(b"\x02" * 32, loaded_notes)
    loaded.load_state(state)
    assert loaded.sequence == sequence
    assert loaded.state() == state
    for number, record in enumerate(node.records, 1):
        loaded.replay(number, record)  # those in the checkpoint are skipped
    assert loaded.digest() == node.kernel.digest()
    assert loaded_notes.notes == [b"n"] * 3


def test_replay_refuses_gaps_and_damage(node: "Node") -> None:
    """CONN-3."""
    fresh = Kernel(bytes(32))
    with pytest.raises(CodecError, match="batch 2 after batch 0"):
        fresh.replay(2, node.records[0])
    with pytest.raises(CodecError):
        fresh.replay(1, node.records[0][:-1])
    with pytest.raises(CodecError):
        Kernel(bytes(32)).load_state(node.kernel.state() + b"\x00")


def test_the_digest_tells_books_apart(node: "Node", digest: Callable[[Kernel], bytes]) -> None:
    """CONN-3."""
    before = node.kernel.digest()
    assert before == digest(node.kernel)
    node.prepare("alice", "test.node.bob.x")
    assert node.kernel.digest() != before


def test_the_kernel_is_deterministic(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-16: the same events at the same times give the same effects."""

    def effects() -> list[Effect]:
        node = make_node(make_terms("alice"), make_terms("bob"))
        for amount in range(5):
            node.prepare("alice", "test.node.bob.x", amount)
        node.fulfil("bob", 2)
        node.wait(40_000)
        return node.effects

    assert effects() == effects()


def test_nothing_happens_before_the_tables() -> None:
    kernel = Kernel(bytes(32))
    kernel.opened(Now(1, 1))
    assert kernel.handle([LinkUp(ALICE), Inbound(ALICE, bytes(16), 1, b"\x0c\x00", 1)], Now(2, 2)) == []


def test_the_summary_tells_what_a_batch_did(node: "Node") -> None:
    """P-12: sums per account, and what is kept one by one."""
    for _ in range(3):
        node.prepare("alice", "test.node.bob.x", 100)
    node.prepare("alice", "test.elsewhere")
    frames = node.take("bob")
    effects = node.tell(
        *[
            Inbound(BOB, b"", frame.request_id, b"\x0d\x21" + bytes(range(32)) + b"\x00", node.mono)
            for frame in frames[:2]
        ]
    )
    summary = appends(effects)[0].summary
    rows = {
        one.account: (one.incoming, one.outgoing, one.incoming_packets, one.outgoing_packets, one.balance)
        for one in summary.movements
    }
    assert rows == {"alice": (200, 0, 2, 0, 200), "bob": (0, 200, 0, 2, -200)}
    assert dict(summary.internal)["clearing:USD:9"] == 0
    rejected = appends(node.reject("bob", frames[2].request_id))[0].summary.movements
    assert [(one.account, one.rejected_packets) for one in rejected] == [("alice", 1)]


def test_counters_by_account_and_code(node: "Node") -> None:
    """CONN-15: what monitoring reads."""
    node.prepare("alice", "test.elsewhere")
    node.prepare("alice", "test.node.bob.x")
    node.reject("bob", node.taken("bob").request_id, "T04")
    node.prepare("alice", "test.node.bob.x")
    node.fulfil("bob", node.taken("bob").request_id)
    alice, bob = node.kernel.switch.lanes[ALICE], node.kernel.switch.lanes[BOB]
    assert (alice.fulfilled, alice.rejected, bob.relayed) == (1, {"F02": 1, "T04": 1}, {"T04": 1})


def test_codes_that_a_peer_invents_share_a_counter(node: "Node") -> None:
    """ILP-18: else a peer could make the metrics grow without end."""
    for code in ("Z01", "Z02", "F09"):
        node.prepare("alice", "test.node.bob.x")
        node.reject("bob", node.taken("bob").request_id, code)
    assert node.kernel.switch.lanes[ALICE].rejected == {"other": 3}
    assert node.kernel.switch.lanes[BOB].relayed == {"other": 3}


def test_a_peer_can_not_fill_the_log(node: "Node") -> None:
    """CONN-15: one line a second for each account."""
    node.prepare("alice", "test.node.bob.x")
    ours = node.taken("bob").request_id
    lines = [line for _ in range(5) for line in logged(node.reply("bob", ours, b"\x0d\x00"))]
    assert lines == ["malformed_reply"]
