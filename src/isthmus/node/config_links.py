"""The link of each account: from what the schema read to a value, and whether links and listeners fit together."""

from collections.abc import Iterable
from typing import Any, assert_never

from isthmus.errors import ConfigError
from isthmus.links.btp.url import parse_btp_url
from isthmus.links.http.auth import JwtCredentials, JwtVerifier, decode_shared_secret
from isthmus.links.http.urls import check_url, is_loopback
from isthmus.node import tls
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_model import (
    Account,
    Admin,
    BearerAuth,
    BearerCheck,
    BtpClientLink,
    BtpServerLink,
    ClientTls,
    HttpLink,
    IncomingAuth,
    JwtAuth,
    Link,
    Listener,
    NoAuth,
    OutgoingAuth,
    ServerTls,
)
from isthmus.node.config_reader import Source


def build_link(source: Source, path: KeyPath, raw: dict[str, Any]) -> Link | None:
    """A link, or None after at least one problem. The keys tell which kind of link it is."""
    before = len(source.problems)
    link: Link | None
    if "incoming" in raw:
        link = _http(source, path, raw)
    elif "url" in raw:
        link = _btp_client(source, path, raw)
    else:
        link = _btp_server(source, path, raw)
    return link if len(source.problems) == before else None


def _rekeyed(source: Source, path: KeyPath, error: ConfigError) -> None:
    source.problem(path, error.problem, error.remedy)


# --- BTP -------------------------------------------------------------------------------------------------------------


def _btp_client(source: Source, path: KeyPath, raw: dict[str, Any]) -> BtpClientLink:
    try:
        url = parse_btp_url(raw["url"], allow_insecure=raw["allow_insecure"])
    except ConfigError as error:
        _rekeyed(source, (*path, "url"), error)
    else:
        if raw["token"] is None and url.token is None:
            source.problem((*path, "token"), "missing", "Write it here, or into the URL.")
    _check_client_tls(source, (*path, "tls"), raw["tls"])
    return BtpClientLink(**raw)


def _btp_server(source: Source, path: KeyPath, raw: dict[str, Any]) -> BtpServerLink | None:
    digest = _token_digest(source, path, raw)
    return None if digest is None else BtpServerLink(token_sha256=digest)


def _token_digest(source: Source, path: KeyPath, raw: dict[str, Any]) -> str | None:
    token, digest = raw["token"], raw["token_sha256"]
    if (token is None) == (digest is None):
        problem = "missing" if token is None else "given beside token_sha256"
        source.problem((*path, "token"), problem, "Give either token or token_sha256.")
        return None
    found: str = token.sha256() if token is not None else digest
    return found


# --- HTTP ------------------------------------------------------------------------------------------------------------


def _http(source: Source, path: KeyPath, raw: dict[str, Any]) -> HttpLink | None:
    for key in ("url", "callback_url", "peer_callback_url"):
        if raw[key] is not None:
            try:
                check_url(key, raw[key], allow_insecure=raw["allow_insecure"])
            except ConfigError as error:
                _rekeyed(source, (*path, key), error)
    if raw["answers"] == "async" and raw["url"] is None and raw["peer_callback_url"] is None:
        remedy = 'Set peer_callback_url, or answers = "sync".'
        source.problem((*path, "answers"), "asynchronous answers need somewhere to go", remedy)
    if raw["mode"] == "async" and raw["callback_url"] is None:
        remedy = "Set callback_url to our listener's address as the peer sees it."
        source.problem((*path, "callback_url"), "asynchronous answers need somewhere to come", remedy)
    if raw["url"] is not None and raw["outgoing"] is None:
        remedy = (
            'Set outgoing = { auth = "bearer", token = … }, or { auth = "none" } where a certificate speaks for us.'
        )
        source.problem((*path, "outgoing"), "missing", remedy)
    _check_client_tls(source, (*path, "tls"), raw["tls"])
    outgoing = _outgoing(source, (*path, "outgoing"), raw["outgoing"] or {})
    incoming = _incoming(source, (*path, "incoming"), raw["incoming"])
    if outgoing is None or incoming is None:
        return None
    rest = {key: value for key, value in raw.items() if key not in ("outgoing", "incoming", "concurrency")}
    return HttpLink(**rest, outgoing=outgoing, incoming=incoming, concurrency_max=raw["concurrency"])


def _outgoing(source: Source, path: KeyPath, raw: dict[str, Any]) -> OutgoingAuth | None:
    if "token" in raw:
        return BearerAuth(token=raw["token"])
    auth = _jwt(raw, key="private_key")
    if auth is None:
        return NoAuth()
    try:
        # Made once here, so that a key that can't sign is found before the node runs.
        JwtCredentials(
            "HS256" if auth.algorithm == "HS256" else "RS256",
            key_bytes(auth),
            subject=auth.subject,
            issuer=auth.issuer,
            audience=auth.audience,
        ).authorization(1_700_000_000_000)
    except Exception as error:  # noqa: BLE001  (whatever the library says about a key is a problem of the key)
        source.problem(path, f"can't sign with this key: {error}", _KEY_REMEDY[auth.algorithm])
        return None
    return auth


def _incoming(source: Source, path: KeyPath, raw: dict[str, Any]) -> IncomingAuth | None:
    if "token_sha256" in raw:
        digest = _token_digest(source, path, raw)
        if digest is None:
            return None
        return BearerCheck(token_sha256s=(digest, *filter(None, [raw["old_token_sha256"]])))
    auth = _jwt(raw, key="public_key")
    assert auth is not None
    try:
        JwtVerifier(
            "HS256" if auth.algorithm == "HS256" else "RS256",
            key_bytes(auth),
            subject=auth.subject,
            issuer=auth.issuer,
            audience=auth.audience,
        )
        if auth.algorithm == "RS256":
            tls.check_public_key(auth.key.reveal())
    except ValueError as error:
        source.problem(path, f"can't check with this key: {error}", _KEY_REMEDY[auth.algorithm])
        return None
    return auth


_KEY_REMEDY = {
    "HS256": "Give base64 of at least 32 random bytes.",
    "RS256": "Give an RSA key in PEM form.",
}


def _jwt(raw: dict[str, Any], *, key: str) -> JwtAuth | None:
    claims = {name: raw.get(name) for name in ("issuer", "audience")}
    if "secret" in raw:
        return JwtAuth(algorithm="HS256", key=raw["secret"], subject=raw["subject"], **claims)
    if key in raw:
        return JwtAuth(algorithm="RS256", key=raw[key], subject=raw["subject"], **claims)
    return None


def key_bytes(auth: JwtAuth) -> bytes:
    """The key as the JWT classes of the link want it; ValueError if it isn't one."""
    text = auth.key.reveal()
    return decode_shared_secret(text) if auth.algorithm == "HS256" else text.encode()


# --- together --------------------------------------------------------------------------------------------------------


def check_together(
    source: Source, accounts: list[Account], listeners: dict[str, Listener | None], admin: Admin | None
) -> None:
    """Links need listeners, listeners and tokens must not collide, and what leaves the machine needs TLS."""
    _check_listeners(source, accounts, listeners)
    _check_tokens(source, accounts)
    places: dict[tuple[str, int], str] = {}
    named: list[tuple[KeyPath, Listener | Admin | None]] = [
        *((("listeners", name), listener) for name, listener in listeners.items()),
        (("admin",), admin),
    ]
    for path, each in named:
        if each is None:
            continue
        place = (each.listen.host, each.listen.port)
        if place in places and each.listen.port != 0:
            problem = f"{each.listen} is taken by {places[place]}"
            source.problem((*path, "listen"), problem, "Give each its own port.")
        places[place] = ".".join(path)
        if each.tls is not None:
            _check_server_tls(source, (*path, "tls"), each.tls)
        elif isinstance(each, Listener) and not each.allow_insecure and not is_loopback(each.listen.host):
            remedy = "Give [tls], listen on 127.0.0.1 behind a reverse proxy, or set allow_insecure = true."
            source.problem((*path, "listen"), f"{each.listen} would be served without TLS", remedy)
    if admin is not None and admin.token is not None and admin.token_sha256 is not None:
        source.problem(("admin", "token"), "given beside token_sha256", "Give either token or token_sha256.")
    if admin is not None and admin.token_digest is None and not is_loopback(admin.listen.host):
        remedy = "Set a token, or listen on 127.0.0.1."
        source.problem(("admin", "token"), "missing, and others can reach this address", remedy)


def _check_listeners(source: Source, accounts: list[Account], listeners: dict[str, Listener | None]) -> None:
    for account in accounts:
        path = ("accounts", account.id, "link")
        if isinstance(account.link, BtpServerLink):
            if listeners["btp"] is None:
                source.problem(
                    path, "the peer has nowhere to dial", 'Add [listeners.btp] with listen = "127.0.0.1:7768".'
                )
        elif isinstance(account.link, HttpLink):
            if listeners["http"] is None:
                remedy = 'Add [listeners.http] with listen = "127.0.0.1:7769".'
                source.problem(path, "the peer has nowhere to send to", remedy)
        elif isinstance(account.link, BtpClientLink):
            pass
        else:
            assert_never(account.link)


def _check_tokens(source: Source, accounts: list[Account]) -> None:
    """One token opens one account: else a peer could speak for another."""
    owners: dict[tuple[str, str], str] = {}
    for account in accounts:
        for kind, digest in _digests(account.link):
            if (kind, digest) in owners and owners[kind, digest] != account.id:
                problem = f"{owners[kind, digest]} has the same token"
                source.problem(("accounts", account.id, "link"), problem, "Give each account its own token.")
            owners[kind, digest] = account.id


def _digests(link: Link) -> Iterable[tuple[str, str]]:
    if isinstance(link, BtpServerLink):
        return [("btp", link.token_sha256)]
    if isinstance(link, HttpLink) and isinstance(link.incoming, BearerCheck):
        return [("http", digest) for digest in link.incoming.token_sha256s]
    return []


def _check_client_tls(source: Source, path: KeyPath, settings: ClientTls) -> None:
    if (settings.cert_file is None) != (settings.key_file is None):
        missing = "cert_file" if settings.cert_file is None else "key_file"
        source.problem((*path, missing), "missing", "A certificate and its key come together.")
        return
    if settings.ca_file is None and settings.cert_file is None:
        return  # no file that could be wrong; and reading the system's authorities takes long
    try:
        tls.client_context(settings)
    except ConfigError as error:
        _rekeyed(source, path, error)


def _check_server_tls(source: Source, path: KeyPath, settings: ServerTls) -> None:
    try:
        tls.server_context(settings)
    except ConfigError as error:
        _rekeyed(source, path, error)
