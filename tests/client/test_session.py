"""One process holds a wallet, other commands work through it."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import isthmus
from isthmus import Wallet
from isthmus.client.control import ControlError, Json
from isthmus.client.session import LocalSession, OfflineSession, RemoteSession, open_session
from isthmus.client.terms import Minimum, PaymentRequest, Receiver
from isthmus.errors import ConfigError, LinkError

if TYPE_CHECKING:
    from tests.client.conftest import Connector, MakeFolder


def a_request(wallet: Wallet, amount: int = 400, key: str = "") -> Json:
    invitation = wallet.listener.invite()
    return PaymentRequest(
        target=invitation.address,
        amount=amount,
        minimum=Minimum(rate=Fraction(24)),
        key=key,
        secret=invitation.shared_secret,
    ).to_json()


@pytest.fixture
async def bob(connector: "Connector") -> AsyncIterator[Wallet]:
    async with isthmus.connect(connector.url("bob")) as wallet:
        wallet.listen()
        yield wallet


async def receiving(folder: Path) -> Process:
    """`isthmus receive` on this wallet, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "isthmus", "receive", "--wallet", str(folder), "--listen", "127.0.0.1:0", "--json",
        stdout=PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert b"receiving" in await process.stdout.readline()
    return process


# --- the bar ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_hundred_payments_pings_and_histories_while_the_same_wallet_receives(
    connector: "Connector", make_folder: "MakeFolder", bob: Wallet
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await receiving(folder)
    for n in range(1, 101):
        session = await open_session(folder)
        assert isinstance(session, RemoteSession)
        paid = await session.ask("pay", a_request(bob, key=f"number {n}"))
        assert (paid["status"], paid["sent"], paid["delivered"]) == ("completed", "400", "100000")
        pinged = await session.ask("ping", {"target": "test.connector", "count": 1, "interval_ms": 1})
        assert pinged["pongs"][0]["reached"]
        page = await session.ask("history", {"offset": 0, "limit": 1})
        assert page["count"] == n
        await session.close()
    # And it was paid all the while.
    shown = await RemoteSession(folder).ask("invite", {})
    back = await bob.pay(shown["address"], 1_000_000, secret=bytes.fromhex(shown["secret"]), min_rate="0.03")
    assert back.delivered == 4_000
    assert holder.stdout is not None
    money = json.loads(await holder.stdout.readline())["money"]
    assert int(money["amount"]) > 0
    holder.send_signal(signal.SIGINT)
    assert await holder.wait() == 0
    assert connector.balance("alice") == 40_000 - 4_000


# --- roles -----------------------------------------------------------------------------------------------------------


async def test_who_comes_first_holds_the_wallet(connector: "Connector", make_folder: "MakeFolder") -> None:
    folder = await make_folder(connector, "alice")
    first = await open_session(folder)
    second = await open_session(folder)
    assert isinstance(first, LocalSession)
    assert isinstance(second, RemoteSession)
    assert (await first.ask("show", {}))["address"] == (await second.ask("show", {}))["address"]
    await first.close()
    with pytest.raises(LinkError):
        await second.ask("show", {})
    third = await open_session(folder)
    assert isinstance(third, LocalSession)
    await third.close()


async def test_many_that_come_at_once_share_one_wallet(connector: "Connector", make_folder: "MakeFolder") -> None:
    folder = await make_folder(connector, "alice")
    sessions = await asyncio.gather(*(open_session(folder) for _ in range(8)))
    assert sum(isinstance(one, LocalSession) for one in sessions) == 1
    shown = await asyncio.gather(*(one.ask("show", {}) for one in sessions))
    assert len({one["address"] for one in shown}) == 1
    for one in sessions:
        await one.close()


async def test_the_socket_of_a_killed_process_is_no_hindrance(
    connector: "Connector", make_folder: "MakeFolder"
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await receiving(folder)
    holder.send_signal(signal.SIGKILL)
    await holder.communicate()
    assert (folder / "wallet.sock").exists()
    session = await open_session(folder)
    assert isinstance(session, LocalSession)
    await session.close()


async def test_looking_needs_no_connection(connector: "Connector", make_folder: "MakeFolder", bob: Wallet) -> None:
    folder = await make_folder(connector, "alice")
    session = await open_session(folder)
    await session.ask("pay", a_request(bob))
    await session.close()
    await bob.close()
    looking = await open_session(folder, online=False)
    assert isinstance(looking, OfflineSession)
    page = await looking.ask("history", {"offset": 0, "limit": 10})
    assert [entry["sent"] for entry in page["entries"]] == ["400"]
    assert (await looking.ask("show", {}))["balance"] == "-400"
    with pytest.raises(LinkError, match="not open"):
        await looking.ask("ping", {"target": "test.connector", "count": 1, "interval_ms": 1})
    await looking.close()


# --- work through another process ------------------------------------------------------------------------------------


async def test_a_holder_that_is_done_waits_for_the_others(
    connector: "Connector", make_folder: "MakeFolder", bob: Wallet
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await open_session(folder)
    other = await open_session(folder)
    begun = asyncio.Event()
    paying = asyncio.create_task(other.ask("pay", a_request(bob, 400_000), on_event=lambda _: begun.set()))
    await begun.wait()
    await holder.close()
    assert (await paying)["status"] == "completed"


async def test_a_holder_in_a_hurry_stops_the_others_cleanly(
    connector: "Connector", make_folder: "MakeFolder", bob: Wallet
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await open_session(folder)
    other = await open_session(folder)
    begun, hurry = asyncio.Event(), asyncio.Event()
    paying = asyncio.create_task(other.ask("pay", a_request(bob, 40_000_000), on_event=lambda _: begun.set()))
    await begun.wait()
    hurry.set()
    await holder.close(hurry)
    result = await paying
    assert result["status"] == "stopped"
    assert int(result["sent"]) == connector.balance("alice")


async def test_a_caller_stops_its_own_payment(connector: "Connector", make_folder: "MakeFolder", bob: Wallet) -> None:
    folder = await make_folder(connector, "alice")
    holder = await open_session(folder)
    other = await open_session(folder)
    stop = asyncio.Event()
    result = await other.ask("pay", a_request(bob, 40_000_000), on_event=lambda _: stop.set(), cancelled=stop)
    assert result["status"] == "stopped"
    await holder.close()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("dance", {}),
        ("pay", {}),
        ("history", {"offset": "x", "limit": 1}),
        ("ping", {"target": 5}),
        ("trace", {"target": "test.x"}),
    ],
)
async def test_what_is_no_request_is_refused(
    connector: "Connector", make_folder: "MakeFolder", method: str, params: Json
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await open_session(folder)
    for session in (holder, await open_session(folder)):
        with pytest.raises(ControlError):
            await session.ask(method, params)
    await holder.close()


async def test_mistakes_keep_their_exit_status_through_the_socket(
    connector: "Connector", make_folder: "MakeFolder", bob: Wallet
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await open_session(folder)
    other = await open_session(folder)
    request = {**a_request(bob), "amount": "0.123456789"}
    with pytest.raises(ConfigError, match="decimals"):
        await holder.ask("pay", request)
    with pytest.raises(ControlError, match="decimals") as refused:
        await other.ask("pay", request)
    assert refused.value.status == 2
    await holder.close()


async def test_pointers_are_resolved_by_who_holds_the_wallet(
    connector: "Connector", make_folder: "MakeFolder", bob: Wallet
) -> None:
    async def resolve(target: str) -> Receiver:
        invitation = bob.listener.invite()
        return Receiver(invitation.address, invitation.shared_secret, "bob.example", "pay.example")

    folder = await make_folder(connector, "alice")
    holder = await open_session(folder, resolve=resolve)
    request = PaymentRequest(target="$bob.example", amount="0.00001", minimum=Minimum(rate=Fraction(24)))
    found = await (await open_session(folder)).ask("quote", request.to_json())
    assert (found["host"], found["final_host"]) == ("bob.example", "pay.example")
    assert (found["rate"], found["minimum"], found["enough"]) == ("25", "24", True)
    await holder.close()


async def test_history_comes_in_pages_that_fit_a_line(
    connector: "Connector", make_folder: "MakeFolder", bob: Wallet
) -> None:
    folder = await make_folder(connector, "alice")
    holder = await open_session(folder)
    for _ in range(60):
        await holder.ask("pay", a_request(bob))
    other = await open_session(folder)
    first = await other.ask("history", {"offset": 0, "limit": 1_000})
    rest = await other.ask("history", {"offset": len(first["entries"]), "limit": 1_000})
    assert (first["count"], len(first["entries"]), len(rest["entries"])) == (60, 50, 10)
    times = [entry["at"] for entry in first["entries"] + rest["entries"]]
    assert times == sorted(times, reverse=True)
    await holder.close()
