"""Records that engines keep: decoded once, and never otherwise than the journal has them."""

from isthmus.connector.events import AccountId
from isthmus.settlement.decoded import RECORDS_MAX, Decoded

BOB = AccountId("bob")


def test_a_record_is_decoded_once_and_anew_when_other_bytes_are_kept() -> None:
    decoded: list[bytes] = []

    def decode(data: bytes) -> str:
        decoded.append(data)
        return data.decode()

    records = Decoded(decode)
    assert [records.of(BOB, b"in/1", b"one") for _ in range(3)] == ["one"] * 3
    records.put(BOB, b"in/1", b"two", "two")
    assert records.of(BOB, b"in/1", b"two") == "two"
    assert decoded == [b"one"]
    assert records.of(BOB, b"in/1", b"one") == "one", "the step with the second was not booked"
    assert records.of(AccountId("carol"), b"in/1", b"three") == "three"
    assert decoded == [b"one", b"one", b"three"]


def test_no_more_are_remembered_than_the_bound() -> None:
    records = Decoded(bytes.decode)
    for number in range(RECORDS_MAX + 1):
        records.put(BOB, b"%d" % number, b"kept", "kept")
    assert len(records._known) == 1
