"""Journals that released code wrote replay in every later version (docs/journal.md, "The format").

`golden/N` is never written again. A version that adds kinds of entries adds a folder, by `golden_books.py`.
"""

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

from isthmus.cli.books_replay import TRANSFER_KINDS
from isthmus.connector import record as r
from isthmus.connector import state as books_state
from isthmus.connector.kernel import Kernel
from isthmus.connector.legs import VOID_REASONS
from isthmus.connector.octets import Reader
from isthmus.connector.settling import CONFIRMED, FAILED, TAKEN
from isthmus.journal.reader import JournalReader
from isthmus.journal.record import encode_envelope, first_digest, next_digest
from isthmus.journal.sqlite import SqliteJournal
from tests.journal import golden_books

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(GOLDEN.iterdir())
NEWEST = FOLDERS[-1]


def expected(folder: Path) -> dict[str, Any]:
    loaded = json.loads((folder / "expected.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one of them, brought to today's schema as a node does when it starts."""
    folder = tmp_path / "golden"
    shutil.copytree(request.param, folder)
    SqliteJournal(folder / "journal.db").close()
    return folder


def test_a_golden_journal_replays_to_the_recorded_digests(golden: Path) -> None:
    """After every batch; and what replay writes is what it read, which `Replay` compares byte by byte."""
    known = expected(golden)
    kernel = Kernel(bytes(32))
    with JournalReader(golden / "journal.db") as reader:
        assert reader.journal_id.hex() == known["journal_id"]
        batches = list(reader.read_from(1))
    assert [(one.sequence, one.record.hex()) for one in batches] == [
        (one["sequence"], one["record"]) for one in known["batches"]
    ]
    for batch, told in zip(batches, known["batches"], strict=True):
        kernel.replay(batch.sequence, batch.record)
        kernel.books.check()
        assert kernel.digest().hex() == told["books"], batch.sequence
        if batch.sequence == known["checkpoint"]["sequence"]:
            assert kernel.state().hex() == known["checkpoint"]["state"]


def test_a_golden_checkpoint_and_what_follows_give_the_recorded_digest(golden: Path) -> None:
    known = expected(golden)
    with JournalReader(golden / "journal.db") as reader:
        checkpoint = reader.load_checkpoint()
        assert checkpoint is not None
        assert (checkpoint.sequence, checkpoint.state.hex()) == tuple(known["checkpoint"].values())
        kernel = Kernel(bytes(32))
        kernel.load_state(checkpoint.state)
        assert kernel.state() == checkpoint.state
        for batch in reader.read_from(checkpoint.sequence + 1):
            kernel.replay(batch.sequence, batch.record)
    assert kernel.sequence == known["batches"][-1]["sequence"] > checkpoint.sequence
    assert kernel.digest().hex() == known["batches"][-1]["books"]


def test_a_golden_journals_envelopes_are_what_this_code_writes(golden: Path) -> None:
    """Also the chain of digests over them."""
    known = expected(golden)
    journal_id = bytes.fromhex(known["journal_id"])
    with JournalReader(golden / "journal.db") as reader:
        stored = {envelope.sequence: data for envelope, data in reader.envelopes_from(1)}
    digest = first_digest(journal_id, 0)
    for batch in known["batches"]:
        envelope = encode_envelope(journal_id, 0, batch["sequence"], bytes.fromhex(batch["record"]))
        assert stored[batch["sequence"]] == envelope
        digest = next_digest(digest, envelope)
        assert digest.hex() == batch["chain"]


def test_a_golden_journal_goes_on_where_it_ends(golden: Path) -> None:
    """A node of this version appends to it, and takes checkpoints of it."""
    known = expected(golden)
    kernel = Kernel(bytes(32))
    journal = SqliteJournal(golden / "journal.db")
    for batch in journal.read_from(1):
        kernel.replay(batch.sequence, batch.record)
    assert journal.last_sequence == len(known["batches"])
    journal.save_checkpoint(kernel.sequence, kernel.state())
    journal.close()
    with JournalReader(golden / "journal.db") as reader:
        assert reader.load_checkpoint() == (kernel.sequence, kernel.state())
        assert reader.periods() and reader.singles()


def test_todays_code_writes_the_newest_golden_journal(tmp_path: Path) -> None:
    """The program that made it still makes it: records, digests and state alike."""
    golden_books.write(tmp_path / "again")
    assert expected(tmp_path / "again") == expected(NEWEST)


def test_the_newest_golden_journal_has_every_kind_of_entry() -> None:
    """Whoever adds a kind is told here to add a golden journal."""
    entries = [entry for one in expected(NEWEST)["batches"] for entry in r.decode_record(bytes.fromhex(one["record"]))]
    assert {type(entry) for entry in entries} == set(get_args(r.Entry))
    assert {entry.reason for entry in entries if isinstance(entry, r.Void)} == set(VOID_REASONS)
    assert {entry.kind for entry in entries if isinstance(entry, r.Transfer)} == set(TRANSFER_KINDS)
    assert {entry.state for entry in entries if isinstance(entry, r.SettlementMoved)} >= {TAKEN, FAILED, CONFIRMED}
    assert {entry.ended for entry in entries if isinstance(entry, r.Confirmed)} == {0, 1}


def test_a_golden_checkpoint_has_something_of_everything() -> None:
    """Open legs both ways, outcomes of each kind, keys, amounts at risk."""
    reader = Reader(bytes.fromhex(expected(NEWEST)["checkpoint"]["state"]))
    reader.uint(8, "sequence")
    books = books_state.decode_state(reader.octets(8, "books"))
    peers = list(books.peers.values())
    for name in ("received", "sent", "fulfilled", "acknowledged", "session", "sessions", "unsaid"):
        assert any(getattr(account, name) for account in peers), name
    assert {account.hearing for account in peers} == {0, 1, 2}
    assert (
        books.transfer_keys
        and books.at_risk
        and books.terms
        and books.settings
        and books.doubts.legs
        and any(account.settling and account.settling.open for account in peers)
        and any(account.settling and account.settling.credited for account in peers)
        and any(account.settling and account.settling.engine for account in peers)
        and any(account.settling and account.settling.leftover for account in peers)
        and any(account.late_count for account in peers)
    )
