"""Ethereum and any chain that speaks its protocol: signatures, transactions, a channel contract and JSON-RPC.

Nothing here knows of accounts or books: `settlement.evm` pays by it.
"""
