"""Certificates in a configuration: of those whom we dial, and of those who dial us."""

from typing import Final

from isthmus.node.config_reader import Key, Section
from isthmus.node.config_values import FilePath

CLIENT_TLS: Final[Section] = (
    Key("ca_file", FilePath(), "PEM file of the authorities that the peer's certificate must come from.", None),
    Key("cert_file", FilePath(), "PEM file of the certificate that we show (mutual TLS).", None),
    Key("key_file", FilePath(), "PEM file of its private key.", None),
)

SERVER_TLS: Final[Section] = (
    Key("cert_file", FilePath(), "PEM file of the certificate, with those between it and its authority."),
    Key("key_file", FilePath(), "PEM file of its private key."),
    Key("client_ca_file", FilePath(), "PEM file; clients must then show a certificate that comes from it.", None),
)
