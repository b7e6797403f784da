"""A Bitcoin simnet of one's own: btcd, and lnds with channels between them. Real programs, in a folder, on loopback."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from isthmus.errors import LedgerError
from isthmus.ledgers.lightning.lnd import Lnd, LndSettings
from tests.ports import free_port

ROOT: Final = Path(__file__).parents[3]
START_S_MAX: Final = 90
BLOCKS_FIRST: Final = 400  # SegWit is active, and coins have matured
CHANNEL_SAT: Final = 5_000_000


def programs() -> Path:
    """The folder with lnd and btcd; builds them if need be. RuntimeError says what is missing."""
    found = subprocess.run([ROOT / "tools" / "lnd"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise RuntimeError(found.stderr.strip().splitlines()[-1])
    return Path(found.stdout.strip())


def why_not() -> str:
    """Why no simnet can run here; "" if one can. Builds nothing."""
    if os.environ.get("ISTHMUS_LND") or shutil.which("go"):
        return ""
    return "lnd is built by Go 1.25.10 or later, which isn't here (or set ISTHMUS_LND)"


class Node:
    """One lnd."""

    def __init__(self, simnet: "Simnet", name: str) -> None:
        self._simnet: Final = simnet
        self.name: Final = name
        self.folder: Final = simnet.folder / name
        self.peer_port: Final = free_port()
        self.rpc_port: Final = free_port()
        self.rest_port: Final = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self.lnd: Lnd | None = None

    @property
    def settings(self) -> LndSettings:
        macaroon = self.folder / "data/chain/bitcoin/simnet/admin.macaroon"
        return LndSettings(f"https://127.0.0.1:{self.rest_port}", self.folder / "tls.cert", macaroon)

    @property
    def api(self) -> Lnd:
        assert self.lnd is not None
        return self.lnd

    async def start(self, *, is_first: bool = False) -> None:
        """Until it answers, and knows the newest block; a chain without blocks is never up to date."""
        self.folder.mkdir(exist_ok=True)
        options = [
            f"--lnddir={self.folder}",
            "--bitcoin.simnet",
            "--bitcoin.node=btcd",
            f"--btcd.rpchost=127.0.0.1:{self._simnet.rpc_port}",
            f"--btcd.rpccert={self._simnet.folder / 'rpc.cert'}",
            "--btcd.rpcuser=u",
            "--btcd.rpcpass=p",
            "--noseedbackup",
            "--accept-keysend",
            f"--listen=127.0.0.1:{self.peer_port}",
            # Else its announcement says that it has no address, and the other forgets where it can be dialled.
            f"--externalip=127.0.0.1:{self.peer_port}",
            f"--rpclisten=127.0.0.1:{self.rpc_port}",
            f"--restlisten=127.0.0.1:{self.rest_port}",
            "--store-final-htlc-resolutions",
            "--trickledelay=50",
            "--minbackoff=1s",
            "--maxbackoff=2s",
            "--debuglevel=error",
            "--nobootstrap",
        ]
        log = (self.folder / "out.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            self._simnet.programs / "lnd", *options, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self.lnd = Lnd(self.settings)
        await self._simnet.until(self._answers if is_first else self._is_ready, f"lnd {self.name} is ready")

    async def _is_ready(self) -> bool:
        return await self._answers() and bool((await self.api.get("/v1/getinfo"))["synced_to_chain"])

    async def _answers(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError(f"lnd {self.name} has ended: {(self.folder / 'out.log').read_text()[-2_000:]}")
        if not self.settings.macaroon.exists():
            return False
        return bool(await self.api.get("/v1/getinfo"))

    async def kill(self, number: int = signal.SIGKILL) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await process.wait()
        if self.lnd is not None:
            await self.lnd.close()
            self.lnd = None

    def lncli(self, *arguments: str) -> list[str]:
        return [
            str(self._simnet.programs / "lncli"),
            "--network=simnet",
            f"--lnddir={self.folder}",
            f"--rpcserver=127.0.0.1:{self.rpc_port}",
            *arguments,
        ]


class Simnet:
    """`async with Simnet(folder) as net`: Alice and Bob have a channel, funded on both sides."""

    def __init__(self, folder: Path) -> None:
        self.programs: Final = programs()
        self.folder: Final = folder
        self.rpc_port: Final = free_port()
        self._listen_port: Final = free_port()
        self._btcd: asyncio.subprocess.Process | None = None
        self.alice: Final = Node(self, "alice")
        self.bob: Final = Node(self, "bob")

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in (self.alice, self.bob):
            await node.kill()
        await self._stop_btcd()

    async def _start(self) -> None:
        await self._start_btcd("")
        await self.alice.start(is_first=True)
        address = (await self.alice.api.get("/v1/newaddress"))["address"]
        await self._stop_btcd()
        await self._start_btcd(address)
        await self.mine(BLOCKS_FIRST)
        await self.bob.start()
        await self.until(self._is_rich, "the coins are Alice's")
        await self.open_channel()

    async def _is_rich(self) -> bool:
        info = await self.alice.api.get("/v1/getinfo")
        balance = await self.alice.api.get("/v1/balance/blockchain")
        return bool(info["synced_to_chain"]) and int(balance["confirmed_balance"]) > 2 * CHANNEL_SAT

    async def open_channel(self) -> None:
        """From Alice to Bob, half of it Bob's."""
        bob = (await self.bob.api.get("/v1/getinfo"))["identity_pubkey"]
        address = {"pubkey": bob, "host": f"127.0.0.1:{self.bob.peer_port}"}
        await self.alice.api.post("/v1/peers", {"addr": address, "timeout": "10"})
        body = {
            "node_pubkey_string": bob,
            "local_funding_amount": str(CHANNEL_SAT),
            "push_sat": str(CHANNEL_SAT // 2),
            "private": False,
        }
        await self.alice.api.post("/v1/channels", body)
        await self.mine(6)
        await self.until(self._is_open, "the channel is open")

    async def _is_open(self) -> bool:
        for node in (self.alice, self.bob):
            channels = (await node.api.get("/v1/channels"))["channels"]
            if not channels or not all(one["active"] for one in channels):
                return False
        return await self._can_pay(self.alice, self.bob) and await self._can_pay(self.bob, self.alice)

    async def _can_pay(self, payer: Node, payee: Node) -> bool:
        """Shown active it is a second before it can be used."""
        target = (await payee.api.get("/v1/getinfo"))["identity_pubkey"]
        try:
            found = await payer.api.get(f"/v1/graph/routes/{target}/1000")
        except Exception:  # noqa: BLE001
            return False
        return bool(found["routes"])

    # --- btcd -----------------------------------------------------------------------------------------------------

    async def _start_btcd(self, mining_address: str) -> None:
        options = [
            "--simnet",
            "--txindex",
            "--rpcuser=u",
            "--rpcpass=p",
            f"--rpccert={self.folder / 'rpc.cert'}",
            f"--rpckey={self.folder / 'rpc.key'}",
            f"--datadir={self.folder / 'btcd'}",
            f"--logdir={self.folder / 'btcd-logs'}",
            f"--configfile={self.folder / 'btcd.conf'}",
            f"--listen=127.0.0.1:{self._listen_port}",
            f"--rpclisten=127.0.0.1:{self.rpc_port}",
            "--debuglevel=error",
        ]
        (self.folder / "btcd.conf").touch()
        if mining_address:
            options.append(f"--miningaddr={mining_address}")
        log = (self.folder / "btcd.log").open("ab")
        self._btcd = await asyncio.create_subprocess_exec(
            self.programs / "btcd", *options, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        await self.until(self._btcd_answers, "btcd answers")

    async def _btcd_answers(self) -> bool:
        try:
            await self.btcctl("getblockcount")
        except AssertionError:
            return False
        return True

    async def _stop_btcd(self) -> None:
        if self._btcd is not None and self._btcd.returncode is None:
            self._btcd.send_signal(signal.SIGTERM)
            await self._btcd.wait()

    async def btcctl(self, *arguments: str) -> Any:
        command = [
            str(self.programs / "btcctl"),
            "--simnet",
            "--rpcuser=u",
            "--rpcpass=p",
            f"--rpccert={self.folder / 'rpc.cert'}",
            f"--rpcserver=127.0.0.1:{self.rpc_port}",
            f"--configfile={self.folder / 'btcctl.conf'}",
            *arguments,
        ]
        (self.folder / "btcctl.conf").touch()
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, problem = await process.communicate()
        assert process.returncode == 0, problem.decode()
        return json.loads(out) if out[:1] in b"[{" else out.decode().strip()

    async def mine(self, blocks: int) -> None:
        await self.btcctl("generate", str(blocks))

    async def until(self, is_so: Any, what: str) -> None:
        """Ask again until it is so: these programs tell nobody."""
        deadline = asyncio.get_running_loop().time() + START_S_MAX
        while True:
            try:
                if await is_so():
                    return
            except (aiohttp.ClientError, OSError, LedgerError):
                pass
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {START_S_MAX} s: {what}")
            await asyncio.sleep(0.05)
