"""What one claim costs by itself: signing it, verifying it, writing it down. Nothing of links, engines or nodes.

    python -m bench.claim_costs [--claims 2000]

Microseconds of processor time (all threads); of what is written down, the time by the clock too, since that is mostly
the disk's. Beside it what `tweetnacl`, with which `ilp-plugin-xrp-paychan` signs and verifies, takes in Node.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from bench.js_process import INTEROP
from bench.sections import number, table
from isthmus.connector.events import AccountId, Append, Durable, Effect, Event, LinkUp, Now, SettlementStep
from isthmus.connector.kernel import Kernel
from isthmus.connector.settling import SettleTerms
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, TableEvent, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.journal.sqlite import SqliteJournal
from isthmus.ledgers.evm import claims as evm
from isthmus.ledgers.evm.octets import NO_ADDRESS
from isthmus.ledgers.xrp.hashes import claim_message
from isthmus.ledgers.xrp.network import PayChan
from isthmus.ledgers.xrp.signatures import SigningKey, verify
from isthmus.settlement.evm.incoming import Incoming as EvmIncoming
from isthmus.settlement.xrp.incoming import Incoming as XrpIncoming
from tests.ledgers.evm.anvil import a_key

CLAIMS: Final = 2_000
REPEATS: Final = 5
WALL_MS: Final = 1_800_000_000_000
PEER: Final = AccountId("peer")
CHANNEL: Final = "AB" * 32
TOGETHER: Final = 100  # claims of as many accounts, say, that one commit makes durable
# A claim's message is 44 bytes, as for `ilp-plugin-xrp-paychan`.
NACL: Final = """
const nacl = require('tweetnacl')
const pair = nacl.sign.keyPair.fromSeed(Buffer.alloc(32, 7))
const message = Buffer.alloc(44, 1)
const rounds = Number(process.argv[1])
const signature = nacl.sign.detached(message, pair.secretKey)
const best = (work) => {
  let found = Infinity
  for (let repeat = 0; repeat < 5; repeat++) {
    const start = process.cpuUsage()
    for (let round = 0; round < rounds; round++) work()
    const used = process.cpuUsage(start)
    found = Math.min(found, (used.user + used.system) / rounds)
  }
  return found
}
const sign = best(() => nacl.sign.detached(message, pair.secretKey))
const verify = best(() => nacl.sign.detached.verify(message, signature, pair.publicKey))
console.log(JSON.stringify({ sign, verify }))
"""


def best_us(work: Callable[[int], Any], claims: int) -> float:
    """Processor time of one call: the best of some series, since what disturbs only adds."""
    found = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        for total in range(1, claims + 1):
            work(total)
        found = min(found, time.process_time() - start)
    return found / claims * 1e6


def evm_costs(claims: int) -> dict[str, float]:
    """ECDSA over the typed data's digest, by `coincurve`; the signer's address is recovered from the signature."""
    sender, receiver = a_key(21), a_key(22)
    channel = evm.ChannelTerms(sender.address, receiver.address, NO_ADDRESS, 86_400, bytes(32)).id
    domain = evm.Domain(31_337, "0x" + "11" * 20)
    signature = evm.sign(domain.claim_digest(channel, 1), sender.private)
    assert evm.signer(domain.claim_digest(channel, 1), signature) == sender.address
    return {
        "sign": best_us(lambda total: evm.sign(domain.claim_digest(channel, total), sender.private), claims),
        "verify": best_us(lambda _: evm.signer(domain.claim_digest(channel, 1), signature), claims),
    }


def xrp_costs(kind: CryptoAlgorithm, claims: int) -> dict[str, float]:
    """By `cryptography`."""
    key = SigningKey.from_seed(encode_seed(bytes(16), kind))
    signature = key.sign(claim_message(CHANNEL, 1))
    assert verify(claim_message(CHANNEL, 1), signature, key.public_key)
    return {
        "sign": best_us(lambda total: key.sign(claim_message(CHANNEL, total)), claims),
        "verify": best_us(lambda _: verify(claim_message(CHANNEL, 1), signature, key.public_key), claims),
    }


def nacl_costs(claims: int) -> dict[str, float] | None:
    """Of the plugin's library; None without Node or its packages."""
    if shutil.which("node") is None or not (INTEROP / "node_modules" / "tweetnacl").is_dir():
        return None
    # Fewer are enough: each takes milliseconds.
    command = ("node", "-e", NACL, str(max(20, claims // 20)))
    done = subprocess.run(command, cwd=INTEROP, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# --- written down ----------------------------------------------------------------------------------------------------


def evm_record() -> Callable[[int], bytes]:
    """What is kept of a channel to us whose highest claim is of this total."""
    terms = evm.ChannelTerms(a_key(21).address, a_key(22).address, NO_ADDRESS, 86_400, bytes(32))
    signature = bytes(64)
    return lambda total: EvmIncoming(terms=terms, claim=total, signature=signature, credited=total).encode()


def xrp_record() -> Callable[[int], bytes]:
    key = SigningKey.from_seed(encode_seed(bytes(16), CryptoAlgorithm.ED25519))
    seen = PayChan(
        id=CHANNEL,
        source=key.address,
        destination=key.address,
        public_key=key.public_key,
        settle_delay=86_400,
        amount=10**9,
        balance=0,
    )
    fresh = XrpIncoming.of(seen, 1)
    signature = key.sign(claim_message(CHANNEL, 1)).hex()

    return lambda total: replace(fresh, claim=total, signature=signature).encode()


class Books:
    """A kernel with one account that an engine settles, and its journal on a disk."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.kernel = Kernel(bytes(32))
        self.journal = SqliteJournal(path)
        self.journal.start(self._on_durable, self._on_failed)
        self.durable: asyncio.Queue[int] = asyncio.Queue()
        self.token = 0

    def _on_durable(self, sequence: int) -> None:
        self.loop.call_soon_threadsafe(self.durable.put_nowait, sequence)

    def _on_failed(self, _: int, problem: str) -> None:
        raise SystemExit(problem)

    async def open(self) -> None:
        terms = AccountTerms(
            id=PEER,
            asset=Asset("ETH", 9),
            relation="peer",
            receivable_max=10**18,
            payable_max=10**18,
            settle=SettleTerms(engine="ledger"),
        )
        tables = Tables("test.node", {PEER: terms}, RouteTable({}), RateTable({}))
        self.kernel.opened(Now(WALL_MS, 0))
        await self.handle([TablesChanged(tables), LinkUp(PEER, is_other=True)])

    async def handle(self, events: Sequence[Event | TableEvent]) -> None:
        """Until all that they lead to is durable."""
        effects: list[Effect] = list(self.kernel.handle(events, Now(WALL_MS, 0)))
        while effects:
            appended = [one for one in effects if isinstance(one, Append)]
            for one in appended:
                self.journal.submit(one.sequence, one.record, one.summary)
            effects = []
            for _ in appended:
                effects += self.kernel.handle([Durable(await self.durable.get())], Now(WALL_MS, 0))

    def credit(self, total: int, record: bytes) -> SettlementStep:
        """One unit more, and the claim that brought it, in one step."""
        self.token += 1
        return SettlementStep(PEER, self.token, credits=[(1, 9, "", "claim")], kept=[(b"in/channel", record)])


async def storing(record: Callable[[int], bytes], claims: int, together: int) -> tuple[float, float]:
    """Processor time and time by the clock for one claim: encoded, booked, committed with others."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        books = Books(Path(folder) / "journal.db")
        await books.open()
        cpu, start = time.process_time(), time.perf_counter()
        for first in range(1, claims + 1, together):
            events: list[Event] = [books.credit(total, record(total)) for total in range(first, first + together)]
            await books.handle(events)
        done = time.process_time() - cpu, time.perf_counter() - start
        books.journal.close()
    count = -(-claims // together) * together
    return done[0] / count * 1e6, done[1] / count * 1e6


async def costs(claims: int) -> str:
    """As a table."""
    rows = []
    kinds: list[tuple[str, dict[str, float] | None, Callable[[int], bytes] | None]] = [
        ("EVM (secp256k1, typed data)", evm_costs(claims), evm_record()),
        ("XRP, Ed25519", xrp_costs(CryptoAlgorithm.ED25519, claims), xrp_record()),
        ("XRP, secp256k1", xrp_costs(CryptoAlgorithm.SECP256K1, claims), xrp_record()),
        ("tweetnacl in Node (ilp-plugin-xrp-paychan)", nacl_costs(claims), None),
    ]
    for name, found, record in kinds:
        if found is None:
            continue
        stored = ["-", "-"]
        if record is not None:
            for at, together in enumerate((1, TOGETHER)):
                cpu, wall = await storing(record, claims, together)
                stored[at] = f"{number(cpu)} ({number(wall)})"
        rows.append([name, number(found["sign"]), number(found["verify"]), *stored])
    head = ["µs a claim", "sign", "verify", "store, a commit each", f"store, {TOGETHER} in a commit"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=CLAIMS)
    print(asyncio.run(costs(parser.parse_args().claims)))


if __name__ == "__main__":
    main()
