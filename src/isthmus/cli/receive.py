"""`isthmus receive`: a STREAM receiver, and an SPSP server that leads payers to it."""

import asyncio
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

import click
from aiohttp import web

from isthmus.apps.pointers import WELL_KNOWN_PATH, is_loopback
from isthmus.apps.spsp import ReceiptRequest
from isthmus.apps.spsp_server import SpspServer
from isthmus.cli.wallet_channels import redeemed_lines
from isthmus.cli.wallet_session import json_option, print_json, run_with_wallet, wallet_option
from isthmus.client.control import Json
from isthmus.client.core import receiver_secret
from isthmus.client.folder import load_folder
from isthmus.client.session import AnySession, RemoteSession, open_session
from isthmus.errors import ConfigError, LinkError
from isthmus.ilp.asset import parse_amount
from isthmus.links.http.listener import HttpListener
from isthmus.links.places import StrangerBounds
from isthmus.node.settling_wallets import load_settlement
from isthmus.runtime import clock
from isthmus.stream.tokens import Invitation, Tokens

PORT: Final = 7780
CONNECTIONS_MAX: Final = 100  # of which we know what we were told, if another process takes over
IDLE_S_MAX: Final = 75.0  # a payer asks once, and seldom again on the same connection
EXAMPLES: Final = """\b
Examples:
  isthmus receive
  isthmus receive --listen 127.0.0.1:8080 --url https://bob.example    # behind a reverse proxy with a certificate
  isthmus receive --until 0.2 --json                                   # ends when so much has come in
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=f"127.0.0.1:{PORT}",
    show_default=True,
    help="Where SPSP is served; port 0 takes any free one.",
)
@click.option("--url", metavar="URL", help="How payers reach it, if that is through a reverse proxy.")
@click.option(
    "--allow-insecure", is_flag=True, help="Serve plain http beyond this machine; anybody on the way can read."
)
@click.option("--until", metavar="AMOUNT", help="End when so much has come in, in the wallet's asset.")
@wallet_option
@json_option
def receive(listen: str, url: str | None, allow_insecure: bool, until: str | None, folder: Path, as_json: bool) -> int:
    """Be paid: print where to pay, and what comes in, until Ctrl-C.

    What comes in is kept in the wallet's history. With --json each line is one JSON object.
    """
    host, port = _place(listen, allow_insecure)
    settings = load_folder(folder)
    assert settings.asset is not None
    goal = None
    if until is not None:
        try:
            goal = parse_amount(until, settings.asset)
        except ValueError as error:
            raise ConfigError("--until", str(error), "Correct it") from None
    receiver = _Receiver(folder, settings.secret, host, port, url, goal, as_json)
    total = run_with_wallet(folder, receiver.work)
    if not as_json:
        from isthmus.cli.wallet_view import money

        asset = {"code": settings.asset.code, "scale": settings.asset.scale}
        click.echo(f"Received {money(str(total), asset)} in all.")
    return 0


def _place(listen: str, allow_insecure: bool) -> tuple[str, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError("--listen", f"{listen!r} is not HOST:PORT", f"Write 127.0.0.1:{PORT}")
    if not is_loopback(host) and not allow_insecure:
        raise ConfigError(
            "--listen",
            f"{host} is not this machine: secrets would travel in plain http",
            "Listen on 127.0.0.1 behind a reverse proxy with a certificate, or say --allow-insecure",
        )
    return host.strip("[]"), int(port)


class _Receiver:
    """Serves SPSP, and tells what comes in."""

    def __init__(
        self,
        folder: Path,
        secret: bytes,
        host: str,
        port: int,
        url: str | None,
        goal: int | None,
        as_json: bool,
    ) -> None:
        self._folder = folder
        self._tokens = Tokens(receiver_secret(secret), os.urandom)
        self._host = host
        self._port = port
        self._url = url
        self._goal = goal
        self._as_json = as_json
        self._address = ""
        self._leads_here = ""  # the URL that payers are given
        self._at: int | None = None  # since when we are told of money
        self._told: dict[str, tuple[str, int]] = {}  # by connection: its total and packets; the latest last
        self._total = 0
        self._reached = asyncio.Event()

    async def work(self, session: AnySession, stop: asyncio.Event) -> int:
        """Until stopped, or the goal; returns what came in."""
        server, self._leads_here = await self._serve(session)
        stopping = asyncio.create_task(self._stop_when_reached(stop))
        try:
            await self._listen(session, stop)
        finally:
            stopping.cancel()
            await server.close()
        return self._total

    async def _leave(self, session: AnySession) -> None:
        """What is owed by channels is redeemed before nobody watches them, if it is worth the fee."""
        if isinstance(session, RemoteSession):
            return  # whoever holds the wallet goes on watching
        left = (await session.ask("leave", {}))["channels"]
        for line in redeemed_lines(left):
            click.echo(line, err=True)

    async def _listen(self, session: AnySession, stop: asyncio.Event) -> None:
        """Hear what comes in; if another process held the wallet and ends, the next to hold it may be us."""
        own: AnySession | None = None
        listening = True
        try:
            while listening:
                since = {} if self._at is None else {"since": {"at": self._at, "told": self._told}}
                try:
                    await session.ask("receive", since, on_event=self._event, cancelled=stop)
                    listening = not stop.is_set()
                except LinkError:
                    # Even if we are to stop: what came in meanwhile is told by the next answer.
                    session = own = await open_session(self._folder, settle=load_settlement)
                    self._address = str((await session.ask("show", {}))["address"])
            await self._leave(session)
        finally:
            if own is not None:
                await own.close(stop)

    async def _stop_when_reached(self, stop: asyncio.Event) -> None:
        await self._reached.wait()
        stop.set()

    # --- SPSP ---------------------------------------------------------------------------------------------------

    async def _serve(self, session: AnySession) -> tuple[HttpListener, str]:
        """The server, and the URL that leads to it."""
        self._address = str((await session.ask("show", {}))["address"])
        server = SpspServer()
        for path in ("/", WELL_KNOWN_PATH):
            server.add(self._credentials, path=path, make_receipt_credentials=self._receipt_credentials)
        app = web.Application()
        server.register(app)
        # Whoever asks here stays a stranger.
        listener = HttpListener(
            app,
            (self._host, self._port),
            mono_ms=clock.mono_ms,
            ssl_context=None,
            strangers=StrangerBounds(),
            connections_max=0,
            keepalive_timeout=IDLE_S_MAX,
        )
        try:
            await listener.start()
        except LinkError as error:
            raise LinkError(f"can't serve SPSP: {error}; name another place with --listen") from None
        host, port = listener.address
        return listener, self._url or f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def _announce(self, url: str) -> None:
        if self._as_json:
            print_json({"receiving": {"url": url, "address": self._address}})
        else:
            click.echo(f"Pay  {url}")
            click.echo(f"  to {self._address}")
            if sys.stdout.isatty():
                click.echo("Ctrl-C ends.")
        sys.stdout.flush()

    # Addresses are stateless: whoever has the wallet's secret can make them, whichever process holds its link.

    def _credentials(self) -> tuple[str, bytes]:
        return _pair(self._tokens.invite(self._address))

    def _receipt_credentials(self, request: ReceiptRequest) -> tuple[str, bytes]:
        return _pair(self._tokens.invite(self._address, receipt_nonce=request.nonce, receipt_secret=request.secret))

    # --- money --------------------------------------------------------------------------------------------------

    def _event(self, event: Json) -> None:
        if "money" in event:
            self._money(event["money"])
        elif self._at is None:
            # Only now: whoever is told where to pay may pay at once, and that must be heard.
            self._at = int(event["receiving"]["at"])
            self._announce(self._leads_here)

    def _money(self, came: Json) -> None:
        self._remember(came)
        self._total += int(came["amount"])
        if self._as_json:
            print_json({"money": came})
        else:
            from isthmus.cli.wallet_view import money

            now = datetime.now().astimezone().strftime("%H:%M:%S")
            asset = came["asset"]
            packets = f"{came['packets']} packet{'' if came['packets'] == 1 else 's'}"
            click.echo(
                f"{now}  +{money(came['amount'], asset)} in {packets}, {money(came['total'], asset)} from this payer"
            )
        sys.stdout.flush()
        if self._goal is not None and self._total >= self._goal:
            self._reached.set()

    def _remember(self, came: Json) -> None:
        connection = str(came["connection"])
        self._told.pop(connection, None)
        self._told[connection] = (str(came["total"]), int(came.pop("total_packets")))
        if len(self._told) > CONNECTIONS_MAX:
            del self._told[next(iter(self._told))]


def _pair(invitation: Invitation) -> tuple[str, bytes]:
    return invitation.address, invitation.shared_secret
