"""A development chain by others (Foundry's anvil), and what tests do to it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Self

import coincurve

from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.ledgers.evm.fees import GWEI, Fee
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, hexed, word
from isthmus.ledgers.evm.rpc import Node, NodeRefusedError
from isthmus.ledgers.evm.transactions import Call, sign_call

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
PROGRAM = HERE / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
ETHER = 10**18
FEE = Fee(100 * GWEI, GWEI)
START_SECONDS = 60.0


def missing() -> str | None:
    """Why these tests can't run here; None if they can."""
    if shutil.which("node") is None:
        return "Node 20 isn't installed (Debian, Ubuntu: apt-get install nodejs npm), then `make ledgers`"
    if not PROGRAM.exists():
        return "anvil isn't installed, or not for this system: `make ledgers` installs it"
    return None


@cache
def test_contracts() -> dict[str, Any]:
    """The tokens of contracts/Tokens.sol, compiled."""
    out = HERE / "node_modules" / "tokens.json"
    source = HERE / "contracts" / "Tokens.sol"
    if not out.exists() or out.stat().st_mtime < source.stat().st_mtime:
        draft = out.with_suffix(f".{os.getpid()}")
        subprocess.run(["node", str(ROOT / "tools" / "contract.mjs"), "--tests", str(draft)], check=True, timeout=120)
        draft.rename(out)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def a_key(number: int) -> Key:
    """A key that has no other use. Each number is another."""
    return Key(coincurve.PrivateKey.from_int(0x1D00_0000 + number).secret)


class Anvil:
    """A running chain. Blocks are made on demand (`mine`), or with each transaction while `automine`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, chain_id: int) -> None:
        self.process = process
        self.port = port
        self.chain_id = chain_id
        self.url = f"http://127.0.0.1:{port}"
        self.node = Node(self.url)
        self._nonces: dict[str, int] = {}
        self._state: Path | None = None
        self._drain: asyncio.Task[bytes]

    @classmethod
    async def start(cls, *, chain_id: int = 31337, port: int = 0, state: Path | None = None) -> Self:
        """Without a port, one of the system's choice. With a file for its state it can be started again."""
        process, port = await cls._begin(chain_id, port, state)
        anvil = cls(process, port, chain_id)
        anvil._state = state
        anvil._drain_output()
        return anvil

    @staticmethod
    async def _begin(chain_id: int, port: int, state: Path | None) -> tuple[asyncio.subprocess.Process, int]:
        options = ("--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id), "--accounts", "1")
        kept = () if state is None else ("--state", str(state))
        process = await asyncio.create_subprocess_exec(
            str(PROGRAM), *options, *kept, "--order", "fifo",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, limit=1 << 20,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, "anvil ended before it listened"
                if line.startswith("Listening on "):
                    return process, int(line.strip().rpartition(":")[2])

    def _drain_output(self) -> None:
        assert self.process.stdout is not None
        self._drain = asyncio.create_task(self.process.stdout.read(-1))

    async def stop(self) -> None:
        await self.node.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._drain

    async def start_again(self) -> None:
        """Stop it in order, and start it from what it has written: blocks stay, transactions that wait are gone.

        It writes only as it ends: killed, it would have lost its chain, which no chain's node does.
        """
        self.process.send_signal(signal.SIGINT)
        await self.process.wait()
        await self._drain
        self.process, _ = await self._begin(self.chain_id, self.port, self._state)
        self._drain_output()

    async def rpc(self, method: str, *params: object) -> Any:
        return await self.node.call(method, *params)

    async def receipt(self, transaction: str) -> dict[str, Any]:
        """Once it is in a block."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                found: dict[str, Any] | None = await self.rpc("eth_getTransactionReceipt", transaction)
                if found is not None:
                    return found
                await asyncio.sleep(0.002)

    async def raw_of(self, sender: str, nonce: int) -> bytes:
        """The signed bytes of a transaction that is in a block."""
        for number in range(await self.height(), -1, -1):
            block = await self.rpc("eth_getBlockByNumber", hex(number), True)
            for one in block["transactions"]:
                if (one["from"], int(one["nonce"], 16)) == (sender, nonce):
                    return bytes.fromhex((await self.rpc("eth_getRawTransactionByHash", one["hash"]))[2:])
        raise AssertionError(f"no transaction {nonce} of {sender}")

    async def fund(self, *keys: Key, amount: int = 1_000 * ETHER) -> None:
        for key in keys:
            await self.rpc("anvil_setBalance", key.address, hex(amount))

    async def mine(self, blocks: int = 1, seconds: int | None = None) -> None:
        """Make blocks, the first of them so many seconds after the last."""
        if seconds is not None:
            await self.rpc("evm_increaseTime", seconds)
        await self.rpc("anvil_mine", hex(blocks))

    async def balance(self, address: str) -> int:
        return int(await self.rpc("eth_getBalance", address, "latest"), 16)

    async def time(self) -> int:
        return int((await self.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)

    async def height(self) -> int:
        return int(await self.rpc("eth_blockNumber"), 16)

    async def send(self, key: Key, call: Call) -> dict[str, Any]:
        """Sign, submit, wait for the block (with automine: at once); the receipt. NodeRefusedError if it reverts."""
        nonce = int(await self.rpc("eth_getTransactionCount", key.address, "pending"), 16)
        signed = sign_call(call, chain_id=self.chain_id, nonce=nonce, fee=FEE, secret=key.secret)
        receipt = await self.receipt(await self.rpc("eth_sendRawTransaction", hexed(signed.raw)))
        if int(receipt["status"], 16) != 1:
            raise NodeRefusedError("anvil", 3, "execution reverted")
        return receipt

    async def deploy(self, key: Key, bytecode: str) -> str:
        """The new contract's address."""
        question = {"from": key.address, "data": bytecode, "gas": hex(5_000_000)}
        await self.rpc("anvil_impersonateAccount", key.address)
        found = await self.rpc("eth_sendTransaction", question)
        await self.rpc("anvil_stopImpersonatingAccount", key.address)
        receipt = await self.receipt(found)
        assert int(receipt["status"], 16) == 1
        return str(receipt["contractAddress"])

    async def deploy_channels(self, key: Key) -> str:
        """Our contract, as on any chain."""
        call = Call(to=contract.DEPLOYER, data=contract.deployment(), gas=contract.GAS_DEPLOY_MAX)
        await self.send(key, call)
        return contract.address()

    async def deploy_test(self, key: Key, name: str) -> str:
        return await self.deploy(key, test_contracts()[name]["bytecode"])

    async def view(self, to: str, data: bytes) -> bytes:
        return bytes.fromhex((await self.rpc("eth_call", {"to": to, "data": hexed(data)}, "latest"))[2:])

    async def channel(self, terms: ChannelTerms) -> tuple[int, int, int]:
        words = await self.view(contract.address(), contract.channels(terms.id))
        return tuple(int.from_bytes(words[at : at + 32], "big") for at in (0, 32, 64))  # type: ignore[return-value]


def mint(to: str, amount: int) -> bytes:
    return contract.selector("mint(address,uint256)") + word(to) + word(amount)


def some_terms(
    sender: Key, receiver: Key, *, token: str = NO_ADDRESS, delay: int = 3600, salt: int = 1
) -> ChannelTerms:
    return ChannelTerms(sender.address, receiver.address, token, delay, word(salt))
