"""`isthmus demo`: a payment from BTC to ETH over three connectors, in processes of their own on this machine."""

from isthmus.cli.demo.command import demo

__all__ = ["demo"]
