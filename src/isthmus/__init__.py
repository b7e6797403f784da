"""Interledger in Python: codecs, a connector, a wallet and everything between."""

__version__ = "0.1.0"
