"""What the wallet's commands share: finding the wallet, reaching whoever holds it, and Ctrl-C."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from isthmus.client.control import ControlError, Json
from isthmus.client.session import AnySession, LocalSession, open_session
from isthmus.errors import LinkError

T = TypeVar("T")

FOLDER_VARIABLE: Final = "ISTHMUS_WALLET"
INTERRUPTED: Final = 130
Work = Callable[[AnySession, asyncio.Event], Awaitable[T]]


def default_folder() -> Path:
    """$ISTHMUS_WALLET, or ~/.isthmus/wallet."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".isthmus" / "wallet")


def wallet_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--wallet DIR`."""
    return click.option(
        "--wallet",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_folder,
        show_default="$ISTHMUS_WALLET or ~/.isthmus/wallet",
        help="The wallet's folder.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="JSON; amounts are strings in base units, rates exact fractions."
    )(command)


def print_json(value: Json) -> None:
    click.echo(json.dumps(value))


async def confirm(question: str, stop: asyncio.Event) -> bool:
    """Ask on the terminal; Ctrl-C and the end of input say no."""
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), readable.set)
    waits = [asyncio.create_task(event.wait()) for event in (readable, stop)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin.fileno())
        for wait in waits:
            wait.cancel()
    if stop.is_set():
        click.echo(err=True)
        return False
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run_with_wallet(folder: Path, work: Work[T], *, online: bool = True) -> T:
    """Open the wallet here or reach the process that holds it, and work; Ctrl-C sets the event that work is given."""
    try:
        return asyncio.run(_run(folder, work, online))
    except ControlError as error:
        raise _RefusedError(error) from error


class _RefusedError(click.ClickException):
    """The process that holds the wallet said no; it also said which exit status fits."""

    def __init__(self, error: ControlError) -> None:
        super().__init__(str(error))
        self.status = error.status

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return self.status


async def _run(folder: Path, work: Work[T], online: bool) -> T:
    from isthmus.apps.resolving import resolve
    from isthmus.node.settling_wallets import load_settlement

    stop, hurry = asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, NotImplementedError):  # not in the main thread: a test
            loop.add_signal_handler(number, interrupted)
    opening = asyncio.create_task(open_session(folder, resolve=resolve, settle=load_settlement, online=online))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        raise KeyboardInterrupt
    session = opening.result()
    try:
        return await work(session, stop)
    finally:
        if isinstance(session, LocalSession) and session.others and not hurry.is_set():
            click.echo("waiting for other commands that work through this one (Ctrl-C stops them)", err=True)
            stop.set()
        await session.close(hurry)


async def look(folder: Path, method: str, params: Json) -> Json:
    """A question that needs no connection: ask whoever holds the wallet, else read its journal."""
    from isthmus.node.settling_wallets import load_settlement

    session = await open_session(folder, settle=load_settlement, online=False)
    try:
        return await session.ask(method, params)
    except LinkError:
        # The holder has just ended.
        session = await open_session(folder, settle=load_settlement, online=False)
        return await session.ask(method, params)
    finally:
        await session.close()
