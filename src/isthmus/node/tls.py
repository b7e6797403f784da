"""TLS contexts from certificates in files: what links and listeners are given."""

import ssl

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from isthmus.errors import ConfigError
from isthmus.node.config_model import ClientTls, ServerTls

_REMEDY = "Give PEM files: the certificate (with those between it and its authority) and its private key."


def _no_password() -> str:
    """Instead of a question on the terminal: a node must start by itself."""
    return ""


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """For dialling: the peer's certificate is always checked, its name too."""
    try:
        ca_file = None if settings.ca_file is None else str(settings.ca_file)
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
        if settings.cert_file is not None and settings.key_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError("tls", f"can't use these files: {error.strerror or error}", _REMEDY) from None
    return context


def server_context(settings: ServerTls) -> ssl.SSLContext:
    """For listening; with `client_ca_file`, only to those who show a certificate from there."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
        if settings.client_ca_file is not None:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise ConfigError("tls", f"can't use these files: {error.strerror or error}", _REMEDY) from None
    return context


def check_public_key(pem: str) -> None:
    """ValueError unless this is an RSA public key."""
    try:
        key = load_pem_public_key(pem.encode())
    except Exception as error:  # noqa: BLE001  (the library raises its own kinds for unsupported keys)
        raise ValueError(f"not a public key in PEM form ({type(error).__name__})") from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
