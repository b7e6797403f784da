"""Hashes, against values that others computed."""

from hypothesis import given
from hypothesis import strategies as st
from xrpl.core.binarycodec import encode_for_signing_claim

from isthmus.ledgers.xrp.hashes import account_index, channel_index, claim_message, transaction_id


def test_the_genesis_account_lies_where_all_networks_have_it() -> None:
    index = "2B6AC232AA4C4BE41BF49D2459FA4A0347E1B543A4C92FCEE0821C0201E2E9A8"
    assert account_index("rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh") == index


def test_a_channel_has_the_id_that_its_users_compute() -> None:
    channel = channel_index("rf1BiGeXwwQoi8Z2ueFYTEXSwuJYfV2Jpn", "rsA2LpzuawewSBQXkiju3YQTMzW13pAAdW", 10)
    # By npm ilp-plugin-xrp-paychan-shared 4.1.0, computeChannelId.
    assert channel == "DC85F7AEDB7DC7A3D09C72A2E4E0923D1C6D5CBB9AFF0F295B5F36A552C5E26C"


@given(channel=st.binary(min_size=32, max_size=32), drops=st.integers(1, 10**17))
def test_a_claim_is_signed_over_the_bytes_that_xrpl_py_signs(channel: bytes, drops: int) -> None:
    text = channel.hex().upper()
    assert claim_message(text, drops).hex().upper() == encode_for_signing_claim({"channel": text, "amount": str(drops)})


def test_a_transaction_has_its_published_id() -> None:
    """The example of xrpl.org's page on `submit`."""
    blob = (
        "1200002280000000240000016861D4838D7EA4C6800000000000000000000000000055534400000000004B4E9C06F24296074F7B"
        "C48F92A97916C6DC5EA9684000000000002710732103AB40A0490F9B7ED8DF29D246BF2D6269820A0EE7742ACDD457BEA7C7D0"
        "931EDB7446304402200E5C2DD81FDF0BE9AB2A8D797885ED49E804DBF28E806604D878756410CA98B102203349581946B0DDA0"
        "6B36B35DBC20EDA27552C1F167BCF5C6ECFF49C6A46F858081144B4E9C06F24296074F7BC48F92A97916C6DC5EA983143E9D4A"
        "2B8AA0780F682D136F7A56D6724EF53754"
    )
    expected = "4D5D90890F8D49519E4151938601EF3D0B30B16CD6A519D9C99102C9FA77F7E0"
    assert transaction_id(bytes.fromhex(blob)) == expected
