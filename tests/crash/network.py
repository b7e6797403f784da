"""The network that is crashed: the demo's three connectors with more credit, and two wallets that pay each other."""

import dataclasses
import http.client
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from isthmus.cli.demo.network import (
    ADMIN,
    ALICE,
    BOB,
    BTP,
    CONFIG_NAME,
    DEMO,
    HOST,
    Listener,
    Network,
    btp_url,
    files,
    token_names,
)
from isthmus.cli.demo.run import DATA_NAME, RUNNING_NAME, TOKEN_BYTES, write_private
from isthmus.client.folder import SETTINGS_FILE, init_folder
from isthmus.ilp.ildcp import IldcpResponse
from isthmus.sim.evidence import End, Wire
from tests.crash.payer import STATUS_FILE, Plan
from tests.ports import free_port

WALLETS: Final = (ALICE, BOB)
PLAN_FILE: Final = "plan.json"
PLACE_FILE: Final = "network.json"
SECRETS_NAME: Final = "secrets"
ANSWER_S_MAX: Final = 10
# Much: what a crash leaves open must not use it up.
CREDIT: Final = {"credit": "1000000", "credit_back": "1000000"}
NETWORK: Final = Network(
    connectors=tuple(dataclasses.replace(one, **CREDIT) for one in DEMO.connectors),  # type: ignore[arg-type]
    carriers=DEMO.carriers,
    finds_routes=False,  # a route that isn't there for a moment would end payments, and they are to be in flight
)
# Bob's packets are as small as Alice's, in his asset.
PACKET_BACK: Final = "0.000256"
# The middle one takes only so much at a time from its neighbours: beyond it T04, in the middle of payments.
IN_FLIGHT: Final = {"connector-2": {"connector-1": "200", "connector-3": "200"}}
SLIPPAGE: Final = Fraction(3, 100)
PACKETS_PER_PAYMENT_MAX: Final = 40


class Place:
    """The network's folder: who is where."""

    def __init__(self, folder: Path, ports: Mapping[Listener, int]) -> None:
        self.folder: Final = folder
        self.ports: Final = dict(ports)
        self.logs: Final = folder / "logs"

    @classmethod
    def make(cls, folder: Path, *, seed: int, packets_wanted: int, timeout_ms: int) -> "Place":
        """Lay out a new network."""
        listeners = NETWORK.listeners()
        place = cls(folder, dict(zip(listeners, (free_port() for _ in listeners), strict=True)))
        tokens = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in token_names(NETWORK)}
        for name, text in files(NETWORK, place.ports, tokens).items():
            write_private(folder / name, _adapted(name, text))
        place.logs.mkdir()
        for wallet in WALLETS:
            place._make_wallet(wallet, tokens, timeout_ms)
        for wallet in WALLETS:
            plan = place._plan(wallet, seed, packets_wanted)
            (place.folder / wallet / PLAN_FILE).write_text(json.dumps(dataclasses.asdict(plan)))
        ports = [[listener.node, listener.kind, port] for listener, port in place.ports.items()]
        (folder / PLACE_FILE).write_text(json.dumps(ports))
        return place

    @classmethod
    def found(cls, folder: Path) -> "Place":
        """One that was laid out before."""
        ports = json.loads((folder / PLACE_FILE).read_text())
        return cls(folder, {Listener(node, kind): port for node, kind, port in ports})

    def _make_wallet(self, wallet: str, tokens: Mapping[str, str], timeout_ms: int) -> None:
        pair = NETWORK.pairs()[0 if wallet == ALICE else -1]
        connector = pair.right if wallet == ALICE else pair.left
        asset = NETWORK.source if wallet == ALICE else NETWORK.destination
        port = self.ports[Listener(connector, BTP)]
        told = IldcpResponse(f"{_address(connector)}.{wallet}", asset.scale, asset.code)
        folder = self.folder / wallet
        init_folder(folder, btp_url(port), tokens[f"{pair.left}/{pair.right}"], told)
        with (folder / SETTINGS_FILE).open("a") as settings:
            settings.write(f"packet_timeout_ms = {timeout_ms}\n")

    def _plan(self, wallet: str, seed: int, packets_wanted: int) -> Plan:
        is_alice = wallet == ALICE
        source, destination = NETWORK.source, NETWORK.destination
        packet, packet_back = int(Fraction("0.00001") * 10**source.scale), int(Fraction(PACKET_BACK) * 10**9)
        assert destination.scale == 9
        rate = NETWORK.fair_rate if is_alice else 1 / NETWORK.fair_rate
        most, most_back = packet * PACKETS_PER_PAYMENT_MAX, packet_back * PACKETS_PER_PAYMENT_MAX
        return Plan(
            seed=seed,
            name=wallet,
            payee=str(self.folder / (BOB if is_alice else ALICE)),
            source_max=most if is_alice else most_back,
            deliver_max=most_back if is_alice else most,
            minimum=str(rate * (1 - SLIPPAGE)),
            packets_wanted=packets_wanted,
            hold_ms_min=300,
            hold_ms_max=1_200,
        )

    # --- where things are ---------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return NETWORK.names

    def data(self, name: str) -> Path:
        """The folder with somebody's journal."""
        return self.folder / name if name in WALLETS else self.folder / name / DATA_NAME

    def plan(self, wallet: str) -> Plan:
        return Plan.read(self.folder / wallet / PLAN_FILE)

    def command(self, name: str) -> tuple[str, list[str]]:
        """What the nursery is asked for: kind and arguments."""
        if name in WALLETS:
            return "payer", [str(self.folder / name), str(self.folder / name / PLAN_FILE)]
        return "isthmus", ["node", "run", str(self.folder / name / CONFIG_NAME)]

    def is_ready(self, name: str, pid: int) -> bool:
        """Whether this process serves: a node listens and dials, a wallet is connected."""
        told = read_json(self.data(name) / (STATUS_FILE if name in WALLETS else RUNNING_NAME))
        return told is not None and told["pid"] == pid

    def ask(self, name: str, path: str) -> dict[str, Any] | None:
        """A connector's admin API; None if it doesn't answer, for it may have been killed meanwhile."""
        token = (self.folder / name / SECRETS_NAME / ADMIN).read_text().strip()
        url = f"http://{HOST}:{self.ports[Listener(name, ADMIN)]}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503:
                raise
            return None  # it is too busy
        except (OSError, ValueError, http.client.HTTPException):
            return None
        assert isinstance(told, dict)
        return told


def wires() -> list[Wire]:
    """Who faces whom."""
    return [Wire(End(one.left, one.left_account), End(one.right, one.right_account)) for one in NETWORK.pairs()]


def read_json(path: Path) -> dict[str, Any] | None:
    """None as long as nobody has written it."""
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _address(connector: str) -> str:
    return next(one.address for one in NETWORK.connectors if one.name == connector)


def _adapted(name: str, text: str) -> str:
    """The demo's file with a bound for Bob's packets, and with little room in flight at the middle."""
    if not name.endswith(CONFIG_NAME):
        return text
    connector = name.partition("/")[0]
    if connector == NETWORK.connectors[-1].name:
        before, bob, after = text.partition(f"[accounts.{BOB}.limits]")
        text = before + bob + after.replace('"unlimited"', f'"{PACKET_BACK}"', 1)
    for peer, amount in IN_FLIGHT.get(connector, {}).items():
        section = f"[accounts.{peer}.limits]\n"
        text = text.replace(section, f'{section}in_flight = "{amount}"\n')
    return text
