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
    """All links of a node and the listeners behind them."""

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
        for account in config.accounts:
            driver.attach(self._link(account))

    async def start(self) -> None:
        """Listen, then dial. Raises LinkError if an address can't be had."""
        if self.btp is not None:
            await self.btp.start()
        if self.http is not None:
            await self.http.start()
        for link in self._driver.links.values():
            await link.start()

    async def close(self) -> None:
        """Stop listening; the driver closes the links before."""
        if self.btp is not None:
            await self.btp.close()
        if self.http is not None:
            await self.http.close()

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
        accounts = [
            ServerAccount(account.id, account.link.token_sha256, self._session(account.id))
            for account in config.accounts
            if isinstance(account.link, model.BtpServerLink)
        ]
        listener = config.btp
        return BtpServer(
            (listener.listen.host, listener.listen.port),
            accounts,
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
            link: BtpLink = self.btp.link(account.id)
            return link
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
