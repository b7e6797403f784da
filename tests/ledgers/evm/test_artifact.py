"""The committed contract: our calls are those of its ABI, and its code is told from another's."""

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.ledgers.evm.octets import NO_ADDRESS, keccak256, word
from tests.ledgers.evm.anvil import a_key

TERMS = ChannelTerms(a_key(1).address, a_key(2).address, NO_ADDRESS, 3600, word(1))
SIGNATURE = bytes(64)


def kind_of(field: dict[str, object]) -> str:
    if field["type"] != "tuple":
        return str(field["type"])
    components = field["components"]
    assert isinstance(components, list)
    return "(" + ",".join(kind_of(one) for one in components) + ")"


def test_calls_are_those_of_the_abi() -> None:
    known = {
        keccak256(f"{one['name']}({','.join(map(kind_of, one['inputs']))})".encode())[:4]: one["name"]
        for one in contract.artifact()["abi"]
        if one["type"] == "function"
    }
    calls = {
        "open": contract.open_channel(TERMS, 1)[0],
        "topUp": contract.top_up(TERMS, 1)[0],
        "claim": contract.claim(TERMS, 1, SIGNATURE),
        "release": contract.release(TERMS, 1, SIGNATURE),
        "close": contract.close(TERMS, 1, SIGNATURE),
        "startClose": contract.start_close(TERMS),
        "finish": contract.finish(TERMS),
        "channels": contract.channels(TERMS.id),
    }
    for name, data in calls.items():
        assert known[data[:4]] == name
        assert len(data) % 32 == 4


def test_nobody_owns_the_contract_and_nobody_changes_it() -> None:
    functions = {one["name"] for one in contract.artifact()["abi"] if one["type"] == "function"}
    known = {"open", "topUp", "claim", "release", "close", "startClose", "finish"}
    assert functions == known | {"channels", "channelId", "domainSeparator"}


def test_one_other_byte_is_another_contract() -> None:
    code = bytearray.fromhex(contract.artifact()["runtime"][2:])
    assert contract.is_ours(bytes(code))
    start, length = contract.artifact()["immutables"][0]
    code[start : start + length] = b"\x07" * length
    assert contract.is_ours(bytes(code))
    code[start - 1] ^= 1
    assert not contract.is_ours(bytes(code))
    assert not contract.is_ours(b"")
