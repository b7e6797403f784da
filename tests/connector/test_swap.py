"""New tables with the settings that they were made from: journaled together, answered when durable, refused whole."""

from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector import state as books_state
from isthmus.connector.events import AccountId, Inbound, TablesTaken
from isthmus.connector.record import SETTING_BYTES_MAX, SETTING_KEY_BYTES_MAX, SettingChanged, decode_record
from isthmus.connector.replay import Replay
from isthmus.connector.tables import RateTable, RouteTable, Tables, TablesChanged
from isthmus.errors import CodecError

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE, BOB = AccountId("alice"), AccountId("bob")


def answers(effects: list[Any]) -> list[TablesTaken]:
    return [effect for effect in effects if isinstance(effect, TablesTaken)]


def settings_of(record: bytes) -> list[SettingChanged]:
    return [entry for entry in decode_record(record) if isinstance(entry, SettingChanged)]


def test_settings_are_journaled_with_the_tables_made_from_them(node: "Node") -> None:
    changed = Tables("test.node", node.tables.accounts, RouteTable({"": BOB}), RateTable({}))
    told = answers(node.tell(TablesChanged(changed, [(b"route:default", b"bob")], [(BOB, "the default")], token=7)))
    assert told == [TablesTaken(7, "")]
    assert [type(entry).__name__ for entry in decode_record(node.records[-1])] == ["TermsChanged", "SettingChanged"]
    assert node.kernel.books.settings == {b"route:default": b"bob"}
    # The same again changes nothing, and is answered.
    before = len(node.records)
    assert answers(node.tell(TablesChanged(changed, [(b"route:default", b"bob")], token=8))) == [TablesTaken(8, "")]
    assert len(node.records) == before
    node.tell(TablesChanged(changed, [(b"route:default", b"")], token=9))
    assert settings_of(node.records[-1]) == [SettingChanged(b"route:default", b"")]
    assert not node.kernel.books.settings


def test_refused_tables_leave_no_setting(node: "Node", make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node.prepare("alice", "test.node.bob.x")
    without = make_node(make_terms("bob")).tables
    (told,) = answers(node.tell(TablesChanged(without, [(b"account:alice", b"{}")], token=3)))
    assert told.token == 3 and "accounts.alice" in told.problem
    assert node.kernel.tables is node.tables and not node.kernel.books.settings


@pytest.mark.parametrize(
    "settings, is_taken",
    [
        ([(b"k" * SETTING_KEY_BYTES_MAX, b"v" * SETTING_BYTES_MAX)], True),
        ([(b"k" * (SETTING_KEY_BYTES_MAX + 1), b"v")], False),
        ([(b"", b"v")], False),
        ([(b"k", b"v" * (SETTING_BYTES_MAX + 1))], False),
        (
            [(b"%d" % one, b"v" * SETTING_BYTES_MAX) for one in range(257)],
            False,
        ),
    ],
)
def test_settings_are_bounded(node: "Node", settings: list[tuple[bytes, bytes]], is_taken: bool) -> None:
    (told,) = answers(node.tell(TablesChanged(node.tables, settings, token=1)))
    assert bool(told.problem) is not is_taken
    assert bool(node.kernel.books.settings) is is_taken


def test_settings_are_part_of_the_state_and_of_replay(node: "Node") -> None:
    """Books without settings are written as before there were any."""
    before = books_state.encode_state(node.kernel.books)
    assert before[0] == 2
    node.tell(TablesChanged(node.tables, [(b"b", b"2"), (b"a", b"1")]))
    state = books_state.encode_state(node.kernel.books)
    assert state[0] == 3
    loaded = books_state.decode_state(state)
    assert loaded.settings == {b"a": b"1", b"b": b"2"}
    Replay(loaded).apply(b"\x01" + b"\x13\x01a\x00\x00\x00\x00" + b"\x13\x01b\x00\x00\x00\x00")
    assert books_state.encode_state(loaded) == before
    with pytest.raises(CodecError, match="another way"):
        books_state.decode_state(bytes((3,)) + before[1:] + bytes(4))


def test_a_disabled_account_takes_and_is_sent_no_new_packets(
    node: "Node", make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """What is in flight ends as ever; the terms say so, and tables in which nothing is disabled don't."""
    node.prepare("alice", "test.node.bob.x", request_id=1)
    sent = node.taken("bob")
    off = make_node(make_terms("alice"), make_terms("bob", disabled=True)).tables
    node.tell(TablesChanged(off))
    assert b"disabled" in off.encode() and b"disabled" not in node.tables.encode()
    node.prepare("alice", "test.node.bob.x", request_id=2)
    assert node.rejected("alice").code == "T01"
    node.prepare("bob", "test.node.alice.x", request_id=1)
    assert node.rejected("bob").code == "T03"
    node.prepare("bob", "test.node", request_id=2)
    assert node.rejected("bob").code == "T03"
    node.fulfil("bob", sent.request_id)
    assert node.kernel.books.peers[BOB].balance < 0
    node.tell(TablesChanged(node.tables))
    node.prepare("alice", "test.node.bob.x", request_id=3)
    assert node.taken("bob").request_id == sent.request_id + 1


def test_a_disabled_accounts_neighbour_may_still_report_outcomes(
    node: "Node", make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """Else an account could never be drained (design: outcomes are told, all the time)."""
    from isthmus.ilp.outcomes import OutcomesReport, encode_report

    off = make_node(make_terms("alice"), make_terms("bob", disabled=True)).tables
    node.tell(TablesChanged(off))
    packet = encode_report(OutcomesReport(b"session of peers", 1, [], [], []), node.wall + 5_000)
    node.tell(Inbound(BOB, b"session of peers", 2**31, packet, node.mono))
    assert node.taken("bob").packet[0] == 13
