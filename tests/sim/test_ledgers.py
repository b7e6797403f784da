"""Simulated ledgers: what they do, and that their faults are what they should be."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import pytest

from isthmus.errors import LedgerError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.bank.client import BankAwayError, BankRefusedError
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.chain import Chain
from isthmus.ledgers.evm.claims import ChannelTerms, sign
from isthmus.ledgers.evm.fees import Fee
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS
from isthmus.ledgers.evm.transactions import Call, Signed, sign_call
from isthmus.settlement.bank.records import checked_page
from isthmus.sim.agenda import Agenda, Timers
from isthmus.sim.bank import FUNDS, BankHolder, SimBank
from isthmus.sim.chain import BLOCK_MS, CHAIN_ID, ChainWay, SimChain, read_transaction
from isthmus.sim.loop import AgendaLoop

T = TypeVar("T")
ALICE, BOB = Key(bytes(31) + b"\x01"), Key(bytes(31) + b"\x02")


class Bench:
    """A loop on an agenda; `do` runs a coroutine to its end."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.timers = Timers(self.agenda)
        self.loop = AgendaLoop(self.agenda, self.timers, lambda text: None)

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def whole() -> T:
            return await work()

        task = self.loop.create_task(whole())
        while not task.done():
            assert self.agenda.step()
        found: T = task.result()
        return found

    def wait(self, ms: int) -> None:
        self.do(lambda: asyncio.sleep(ms / 1000))


# --- the bank


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def bank(bench: Bench) -> SimBank:
    bank = SimBank(bench.agenda, "bank", Random(1), Asset("USD", 2))
    bank.open("alice")
    bank.open("bob")
    return bank


def body(amount: int, to: str = "bob") -> bytes:
    return json.dumps({"to": to, "amount": str(amount), "reference": "r"}).encode()


def test_a_key_moves_money_once(bench: Bench, bank: SimBank) -> None:
    alice = BankHolder(bank, "alice", bench.loop)
    first = bench.do(lambda: alice.transfer("k", body(5)))
    assert bench.do(lambda: alice.transfer("k", body(5))) == first
    with pytest.raises(BankRefusedError, match="another transfer"):
        bench.do(lambda: alice.transfer("k", body(6)))
    assert (bank.balance("alice"), bank.balance("bob")) == (FUNDS - 5, FUNDS + 5)
    assert bank.moved("alice", "bob", "r") == 5


def test_what_is_asked_of_a_bank_that_answers_late_is_done(bench: Bench, bank: SimBank) -> None:
    bank.lates[1] = 100
    alice = BankHolder(bank, "alice", bench.loop)
    with pytest.raises(BankAwayError):
        bench.do(lambda: alice.transfer("k", body(5)))
    assert bank.moved("alice", "bob", "r") == 5


def test_what_a_process_asked_is_done_though_it_dies(bench: Bench, bank: SimBank) -> None:
    alice = BankHolder(bank, "alice", bench.loop)
    bench.loop.create_task(alice.transfer("k", body(5)))
    bench.agenda.step()  # the task has begun, and asked
    bench.timers.is_alive = False
    bench.loop.die()
    while bench.agenda.step():
        pass
    assert bank.moved("alice", "bob", "r") == 5


def test_a_bank_that_is_away_does_nothing(bench: Bench, bank: SimBank) -> None:
    bank.away = 1
    alice = BankHolder(bank, "alice", bench.loop)
    with pytest.raises(BankAwayError):
        bench.do(lambda: alice.transfer("k", body(5)))
    assert bank.transfers == {}


def test_a_transfer_that_is_shown_twice_is_put_right_and_the_statement_adds_up(bench: Bench, bank: SimBank) -> None:
    bank.doubles = 1
    alice, bob = (BankHolder(bank, name, bench.loop) for name in ("alice", "bob"))
    bench.do(lambda: alice.transfer("k", body(5)))
    bench.wait(10_000)
    _, entries = bench.do(lambda: bob.statement(0))
    assert [entry.amount for entry in checked_page(entries, 0, FUNDS)] == [5, 5, -5]
    assert entries[0].transfer == entries[1].transfer
    assert bank.balance("bob") == FUNDS + 5


def test_a_voided_key_stays_void(bench: Bench, bank: SimBank) -> None:
    bank.voids = 1
    alice = BankHolder(bank, "alice", bench.loop)
    for _ in range(2):
        with pytest.raises(BankRefusedError, match="voided"):
            bench.do(lambda: alice.transfer("k", body(5)))
    bench.do(lambda: alice.transfer("other", body(5)))
    with pytest.raises(BankRefusedError, match="used"):
        bench.do(lambda: alice.void("other"))


# --- the chain


class Network:
    """A chain, and a client of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.chain = SimChain(bench.agenda, "chain", Random(2))
        way = ChainWay(self.chain, bench.loop)
        self.client = Chain(["http://chain"], CHAIN_ID, node_at=lambda _: way)

    def send(self, key: Key, nonce: int, data: bytes = b"", *, to: str = "", value: int = 0) -> Signed:
        call = Call(to=to or self.chain.domain.contract, value=value, data=data, gas=100_000)
        signed = sign_call(call, chain_id=CHAIN_ID, nonce=nonce, fee=Fee(0, 0), secret=key.secret)
        assert self.bench.do(lambda: self.client.submit(signed.raw)) == ""
        return signed

    def succeeded(self, signed: Signed) -> bool | None:
        receipt = self.bench.do(lambda: self.client.receipt(signed.hash))
        return None if receipt is None else receipt.succeeded

    def blocks(self, count: int) -> None:
        self.bench.wait(count * BLOCK_MS)

    def state(self, terms: ChannelTerms) -> tuple[int, int, int]:
        async def ask() -> tuple[int, int, int]:
            head = await self.client.head()
            state = await self.client.channel(self.chain.domain.contract, terms.id, head.number)
            return state.deposited, state.claimed, state.closing_at

        return self.bench.do(ask)


@pytest.fixture
def network(bench: Bench) -> Network:
    return Network(bench)


TERMS = ChannelTerms(ALICE.address, BOB.address, NO_ADDRESS, 60, bytes(32))


def test_coins_move_in_a_block_and_a_nonce_is_used_once(network: Network) -> None:
    signed = network.send(ALICE, 0, to=BOB.address, value=7)
    assert network.succeeded(signed) is None
    network.blocks(6)
    assert network.succeeded(signed) is True
    assert network.chain.moved(ALICE.address, BOB.address) == 7
    refused = network.bench.do(lambda: network.client.submit(signed.raw))
    assert "already known" in refused


def test_a_reorganisation_takes_a_transaction_away_and_it_comes_again(network: Network) -> None:
    signed = network.send(ALICE, 0, to=BOB.address, value=7)
    network.blocks(6)
    height = network.chain.head.number
    before = network.chain.blocks[1:]
    network.chain.reorganise(height)
    assert network.chain.head.number == height + 1
    assert all(old.hash != new.hash for old, new in zip(before, network.chain.blocks[1:], strict=False))
    assert network.succeeded(signed) is None
    network.blocks(20)
    assert network.succeeded(signed) is True
    assert network.chain.moved(ALICE.address, BOB.address) == 7


def test_a_reorganisation_may_put_another_transaction_in_its_place(network: Network) -> None:
    signed = network.send(ALICE, 0, to=BOB.address, value=7)
    network.blocks(6)
    other = sign_call(Call(to=ALICE.address, value=7), chain_id=CHAIN_ID, nonce=0, fee=Fee(0, 0), secret=ALICE.secret)
    network.chain.reorganise(6, instead=[read_transaction(other.raw)])
    network.blocks(20)
    assert network.succeeded(signed) is None
    assert network.chain.moved(ALICE.address, BOB.address) == 0


def test_what_nodes_forget_is_sent_again_by_its_sender_or_never_comes(network: Network) -> None:
    signed = network.send(ALICE, 0, to=BOB.address, value=7)
    network.chain.forget()
    network.blocks(6)
    assert network.succeeded(signed) is None
    assert not network.bench.do(lambda: network.client.knows(signed.hash))
    network.bench.do(lambda: network.client.submit(signed.raw))
    network.blocks(6)
    assert network.succeeded(signed) is True


def test_a_channels_whole_life(network: Network) -> None:
    """As in `IsthmusChannels.sol`: opened, filled, claimed, and ended with the receiver's signature."""
    domain = network.chain.domain
    data, value = contract.open_channel(TERMS, 100)
    network.send(ALICE, 0, data, value=value)
    network.blocks(6)
    assert network.state(TERMS) == (100, 0, 0)
    data, value = contract.top_up(TERMS, 50)
    network.send(ALICE, 1, data, value=value)
    network.blocks(6)
    claim = sign(domain.claim_digest(TERMS.id, 120), ALICE.private)
    network.send(BOB, 0, contract.claim(TERMS, 120, claim))
    network.blocks(6)
    assert network.state(TERMS) == (150, 120, 0)
    assert network.chain.coins(BOB.address) == 120
    close = sign(domain.close_digest(TERMS.id, 130), BOB.private)
    network.send(ALICE, 2, contract.close(TERMS, 130, close))
    network.blocks(6)
    assert network.state(TERMS) == (0, 130, 2**32 - 1)
    assert (network.chain.coins(ALICE.address), network.chain.coins(BOB.address)) == (-130, 130)
    assert network.chain.coins(domain.contract) == 0


def test_a_dispute_gives_the_receiver_its_time(network: Network) -> None:
    data, value = contract.open_channel(TERMS, 100)
    network.send(ALICE, 0, data, value=value)
    network.blocks(6)
    network.send(ALICE, 1, contract.start_close(TERMS))
    network.blocks(6)
    early = network.send(ALICE, 2, contract.finish(TERMS))
    network.blocks(6)
    assert network.succeeded(early) is False
    claim = sign(network.chain.domain.claim_digest(TERMS.id, 80), ALICE.private)
    network.send(BOB, 0, contract.claim(TERMS, 80, claim))
    network.blocks(60)
    network.send(BOB, 1, contract.finish(TERMS))
    network.blocks(6)
    assert network.chain.coins(BOB.address) == 80
    assert network.chain.coins(network.chain.domain.contract) == 0


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("another's channel", contract.start_close(TERMS)),
        ("no signature", contract.claim(TERMS, 10, bytes(64))),
        ("a signature of the receiver's", contract.claim(TERMS, 10, sign(bytes(32), BOB.private))),
        ("no function", bytes(4)),
    ],
)
def test_what_the_contract_refuses_changes_nothing(network: Network, what: str, data: bytes) -> None:
    opening, value = contract.open_channel(TERMS, 100)
    network.send(ALICE, 0, opening, value=value)
    network.blocks(6)
    signed = network.send(BOB, 0, data)
    network.blocks(6)
    assert network.succeeded(signed) is False
    assert network.state(TERMS) == (100, 0, 0)
    with pytest.raises(LedgerError, match="revert"):
        network.bench.do(lambda: network.client.gas(BOB.address, network.chain.domain.contract, 0, data))
