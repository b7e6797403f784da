"""Links and listeners of a node, made from its configuration."""

from collections.abc import Callable
from typing import Final

from isthmus.connector.events import AccountId, Log
from isthmus.links.btp.client import BtpClient
from isthmus.links.btp.link import BtpLink
from isthmus.links.btp.server import BtpServer, ServerAccount
from isthmus.links.http.auth import (
    BearerCredentials,
    BearerVerifier,
    Credentials,
    JwtCredentials,
    JwtVerifier,
    NoCredentials,
    Verifier,
)
from isthmus.links.http.link import HttpLink
from isthmus.links.http.server import HttpServer
from isthmus.links.http.settings import HttpSettings, IncomingMode, OutgoingMode
from isthmus.links.port import Link
from isthmus.links.throttle import FailureThrottle
from isthmus.node import config_model as model
from isthmus.node.config_links import key_bytes
from isthmus.node.tls import client_context, server_context
from isthmus.runtime import clock
from isthmus.runtime.driver import Driver


class Links:
    """All links of a node and the listeners behind them. `follow` brings them to a changed configuration."""

    def __init__(
        self,
        config: model.NodeConfig,
        driver: Driver,
        *,
        throttle: FailureThrottle,
        on_log: Callable[[Log], None],
    ) -> None:
        self._driver: Final = driver
        self._session: Final = driver.kernel.session
        self._throttle: Final = throttle
        self._on_log: Final = on_log
        self.btp: Final = self._btp_server(config)
        self.http: Final = self._http_server(config)
        self._made: Final[dict[AccountId, model.Link]] = {}  # what each attached link was made from
        self._leaving: set[AccountId] = set()  # disabled, and still with packets in flight
        for account in config.accounts:
            if self._is_wanted(account):
                self._attach(account)

    async def start(self) -> None:
        """Listen, then dial. Raises LinkError if an address can't be had."""
        if self.btp is not None:
            await self.btp.start()
        if self.http is not None:
            await self.http.start()
        for link in list(self._driver.links.values()):
            await link.start()

    async def close(self) -> None:
        """Stop listening; the driver closes the links before."""
        if self.btp is not None:
            await self.btp.close()
        if self.http is not None:
            await self.http.close()

    async def follow(self, config: model.NodeConfig) -> None:
        """After the kernel has taken new tables: end, make and change links. Those of other accounts are untouched."""
        accounts = {account.id: account for account in config.accounts}
        for name in list(self._made):
            if name not in accounts:
                await self._detach(name)
        for account in config.accounts:
            settings = self._made.get(account.id)
            if not self._is_wanted(account):
                if settings is not None:
                    await self._detach(account.id)
            elif settings is None:
                await self._attach(account).start()
            elif settings != account.link:
                await self._change(account, settings)

    def may_leave(self) -> bool:
        """Whether the link of a disabled account waits for nothing any more."""
        return any(not is_in_flight(self._driver, account) for account in self._leaving)

    def _is_wanted(self, account: model.Account) -> bool:
        """A disabled account keeps its link until the last outcome was told."""
        if account.enabled or is_in_flight(self._driver, account.id):
            if not account.enabled:
                self._leaving.add(account.id)
            return True
        self._leaving.discard(account.id)
        return False

    def _attach(self, account: model.Account) -> Link:
        link = self._link(account)
        self._driver.attach(link)
        self._made[account.id] = account.link
        return link

    async def _detach(self, account: AccountId) -> Link | None:
        """Nobody gets in any more; what was written leaves; then the kernel hears that the link is down."""
        settings = self._made.pop(account)
        self._leaving.discard(account)
        if isinstance(settings, model.BtpServerLink) and self.btp is not None:
            self.btp.remove(account)
        elif isinstance(settings, model.HttpLink) and self.http is not None:
            self.http.remove(account)
        link = self._driver.links.get(account)
        if link is not None:
            await link.close()
            self._driver.detach(account)
            self._driver.link_down(account, "the link was closed")
        return link

    async def _change(self, account: model.Account, before: model.Link) -> None:
        settings = account.link
        if isinstance(settings, model.BtpServerLink) and isinstance(before, model.BtpServerLink):
            assert self.btp is not None, "the configuration was checked"
            self.btp.change_token(account.id, settings.token_sha256)
            self._made[account.id] = settings
            # Whoever is in showed the token that is good no more.
            self.btp.link(account.id).reset("the token was changed")
            return
        earlier = await self._detach(account.id)
        link = self._attach(account)
        if isinstance(link, BtpLink) and isinstance(earlier, BtpLink):
            link.take_over(earlier)
        await link.start()

    def listening(self) -> dict[str, str]:
        """Where peers reach us, by protocol, with the ports that were really taken."""
        found: dict[str, str] = {}
        if self.btp is not None:
            host, port = self.btp.address
            found["btp"] = f"{host}:{port}"
        if self.http is not None:
            found["http"] = self.http.url
        return found

    def _btp_server(self, config: model.NodeConfig) -> BtpServer | None:
        if config.btp is None:
            return None
        listener = config.btp
        return BtpServer(
            (listener.listen.host, listener.listen.port),
            (),
            self._driver,
            path=listener.path,
            ssl_context=None if listener.tls is None else server_context(listener.tls),
            throttle=self._throttle,
            on_log=self._on_log,
        )

    def _http_server(self, config: model.NodeConfig) -> HttpServer | None:
        if config.http is None:
            return None
        listener = config.http
        return HttpServer(
            host=listener.listen.host,
            port=listener.listen.port,
            now=clock.system_now,
            path=listener.path,
            ssl_context=None if listener.tls is None else server_context(listener.tls),
            allow_insecure=listener.allow_insecure,
            throttle=self._throttle,
            on_log=self._on_log,
        )

    def _link(self, account: model.Account) -> Link:
        settings = account.link
        if isinstance(settings, model.BtpClientLink):
            return self._btp_client(account.id, settings)
        if isinstance(settings, model.BtpServerLink):
            assert self.btp is not None, "the configuration was checked"
            return self.btp.add(ServerAccount(account.id, settings.token_sha256, self._session(account.id)))
        return self._http_link(account.id, settings)

    def _btp_client(self, account: AccountId, settings: model.BtpClientLink) -> BtpClient:
        is_secure = settings.url.startswith(("btp+wss", "wss"))
        return BtpClient(
            account,
            settings.url,
            self._driver,
            session=self._session(account),
            token=None if settings.token is None else settings.token.reveal(),
            username=settings.username,
            ssl_context=client_context(settings.tls) if is_secure else None,
            allow_insecure=settings.allow_insecure,
            on_log=self._on_log,
        )

    def _http_link(self, account: AccountId, settings: model.HttpLink) -> HttpLink:
        assert self.http is not None, "the configuration was checked"
        is_secure = settings.url is not None and settings.url.startswith("https")
        link = HttpLink(
            account,
            self._driver,
            HttpSettings(
                url=settings.url,
                outgoing=OutgoingMode(settings.mode),
                incoming=IncomingMode(settings.answers),
                callback_url=settings.callback_url,
                peer_callback_url=settings.peer_callback_url,
                concurrency_max=settings.concurrency_max,
                allow_insecure=settings.allow_insecure,
            ),
            _credentials(settings.outgoing),
            now=clock.system_now,
            ssl_context=client_context(settings.tls) if is_secure else None,
        )
        # Answers to what was sent before a restart may still come, by POSTs of their own.
        link.restore(self._driver.kernel.open_requests(account))
        self.http.add(link, _verifier(settings.incoming))
        return link


def is_in_flight(driver: Driver, account: AccountId) -> bool:
    """Whether a packet of the account waits for its outcome, or a Fulfill of ours for its acknowledgement."""
    found = driver.kernel.books.peers.get(account)
    return found is not None and bool(found.received or found.sent or found.fulfilled)


def _credentials(auth: model.OutgoingAuth) -> Credentials:
    if isinstance(auth, model.BearerAuth):
        return BearerCredentials(auth.token.reveal())
    if isinstance(auth, model.JwtAuth):
        return JwtCredentials(
            auth.algorithm, key_bytes(auth), subject=auth.subject, issuer=auth.issuer, audience=auth.audience
        )
    return NoCredentials()


def _verifier(auth: model.IncomingAuth) -> Verifier:
    if isinstance(auth, model.BearerCheck):
        return BearerVerifier([bytes.fromhex(digest) for digest in auth.token_sha256s])
    return JwtVerifier(
        auth.algorithm, key_bytes(auth), subject=auth.subject, issuer=auth.issuer, audience=auth.audience
    )
