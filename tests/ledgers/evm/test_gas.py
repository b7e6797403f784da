"""Gas of each operation, beside the contracts that Machinomy published (machinomy.json says where they come from)."""

import json
import re
from typing import Any

import pytest

from isthmus.ledgers.evm import contract, tokens
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, sign
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, keccak256, word
from isthmus.ledgers.evm.transactions import Call
from tests.ledgers.evm.anvil import ETHER, HERE, ROOT, Anvil, a_key, mint, some_terms

pytestmark = pytest.mark.ledger

ALICE, BOB = a_key(1), a_key(2)
GAS = 1_000_000


async def used(anvil: Anvil, key: Key, to: str, data: bytes, value: int = 0) -> int:
    receipt = await anvil.send(key, Call(to=to, data=data, value=value, gas=GAS))
    return int(receipt["gasUsed"], 16)


class Ours:
    """What the operations cost here. `growth` gas is for the first and the later claims."""

    def __init__(self, anvil: Anvil, token: str) -> None:
        self.anvil = anvil
        self.token = token
        self.at = contract.address()
        self.salt = 0

    def terms(self) -> ChannelTerms:
        self.salt += 1
        return some_terms(ALICE, BOB, token=self.token, salt=self.salt)

    def signature(self, terms: ChannelTerms, amount: int) -> bytes:
        return sign(Domain(self.anvil.chain_id, self.at).claim_digest(terms.id, amount), ALICE.private)

    async def open(self, amount: int = 1000) -> tuple[ChannelTerms, int]:
        terms = self.terms()
        data, value = contract.open_channel(terms, amount)
        return terms, await used(self.anvil, ALICE, self.at, data, value)

    async def table(self) -> dict[str, int]:
        found: dict[str, int] = {}
        terms, _ = await self.open()  # balances that were zero are no longer
        terms, found["open"] = await self.open()
        data, value = contract.top_up(terms, 500)
        found["top-up"] = await used(self.anvil, ALICE, self.at, data, value)
        found["first claim, the channel stays"] = await used(
            self.anvil, BOB, self.at, contract.claim(terms, 10, self.signature(terms, 10))
        )
        found["claim, the channel stays"] = await used(
            self.anvil, BOB, self.at, contract.claim(terms, 20, self.signature(terms, 20))
        )
        found["claim that closes"] = await used(
            self.anvil, BOB, self.at, contract.release(terms, 700, self.signature(terms, 700))
        )
        terms, _ = await self.open()
        digest = Domain(self.anvil.chain_id, self.at).close_digest(terms.id, 700)
        found["cooperative close by the sender"] = await used(
            self.anvil, ALICE, self.at, contract.close(terms, 700, sign(digest, BOB.private))
        )
        terms, _ = await self.open()
        found["start of a close"] = await used(self.anvil, ALICE, self.at, contract.start_close(terms))
        await self.anvil.mine(seconds=4000)
        found["end after the delay"] = await used(self.anvil, ALICE, self.at, contract.finish(terms))
        return found


class Machinomys:
    """The same operations there."""

    def __init__(self, anvil: Anvil, at: str, token: str) -> None:
        self.anvil = anvil
        self.at = at
        self.token = token
        self.salt = 0

    def call(self, signature: str, *words: bytes) -> bytes:
        return contract.selector(signature) + b"".join(words)

    async def open(self) -> tuple[bytes, int]:
        self.salt += 1
        channel = keccak256(word(self.salt))
        if self.token == NO_ADDRESS:
            data = self.call("open(bytes32,address,uint256)", channel, word(BOB.address), word(100))
            return channel, await used(self.anvil, ALICE, self.at, data, 1000)
        words = (channel, word(BOB.address), word(100), word(self.token), word(1000))
        data = self.call("open(bytes32,address,uint256,address,uint256)", *words)
        return channel, await used(self.anvil, ALICE, self.at, data)

    def signature(self, channel: bytes, amount: int) -> bytes:
        token = b"" if self.token == NO_ADDRESS else bytes.fromhex(self.token[2:])
        digest = keccak256(bytes.fromhex(self.at[2:]) + channel + word(amount) + token)
        raw = ALICE.private.sign_recoverable(keccak256(b"\x19Ethereum Signed Message:\n32" + digest), hasher=None)
        return raw[:64] + bytes([raw[64] + 27])

    async def table(self) -> dict[str, int]:
        found: dict[str, int] = {}
        await self.open()
        channel, found["open"] = await self.open()
        if self.token == NO_ADDRESS:
            deposit = self.call("deposit(bytes32)", channel), 500
        else:
            deposit = self.call("deposit(bytes32,uint256)", channel, word(500)), 0
        found["top-up"] = await used(self.anvil, ALICE, self.at, *deposit)
        signature = self.signature(channel, 700)
        words = (channel, word(700), word(96), word(65), signature + bytes(31))
        found["claim that closes"] = await used(
            self.anvil, BOB, self.at, self.call("claim(bytes32,uint256,bytes)", *words)
        )
        channel, _ = await self.open()
        found["start of a close"] = await used(self.anvil, ALICE, self.at, self.call("startSettling(bytes32)", channel))
        await self.anvil.mine(200)
        found["end after the delay"] = await used(self.anvil, ALICE, self.at, self.call("settle(bytes32)", channel))
        return found


async def measured(anvil: Anvil, *, tokens_too: bool) -> tuple[dict[str, int], dict[str, int]]:
    await anvil.fund(ALICE, BOB)
    await anvil.deploy_channels(ALICE)
    theirs: dict[str, Any] = json.loads((HERE / "machinomy.json").read_text())
    name = "TokenUnidirectional" if tokens_too else "Unidirectional"
    at = await anvil.deploy(ALICE, theirs[name]["bytecode"])
    token = NO_ADDRESS
    if tokens_too:
        token = await anvil.deploy_test(ALICE, "Token")
        for key in (ALICE, BOB):
            await used(anvil, key, token, mint(key.address, ETHER))
        for spender in (contract.address(), at):
            await used(anvil, ALICE, token, tokens.approve(spender, tokens.ALLOWANCE_ALL))
    return await Ours(anvil, token).table(), await Machinomys(anvil, at, token).table()


@pytest.mark.parametrize("tokens_too", [False, True], ids=["coins", "tokens"])
async def test_no_operation_costs_more_than_machinomys_and_the_page_has_the_figures(
    anvil: Anvil, tokens_too: bool
) -> None:
    ours, theirs = await measured(anvil, tokens_too=tokens_too)
    page = (ROOT / "docs" / "evm.md").read_text()
    for name, gas in ours.items():
        there = theirs.get(name)
        assert there is None or gas <= there, f"{name}: {gas} against {there}"
        row = f"| {name} | {gas:,} | {'—' if there is None else f'{there:,}'} |"
        assert re.search(re.escape(row), page), f"docs/evm.md lacks: {row}"
