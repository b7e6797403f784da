"""Interledger in Python: codecs, a connector, a wallet and everything between.

    async with isthmus.connect("btp+wss://:TOKEN@connector.example") as wallet:
        payment = await wallet.pay("$bob.example", "0.015", min_rate="24.5")

    async with isthmus.listen("btp+wss://:TOKEN@connector.example") as server:
        async for connection in server:
            async for stream in connection:
                async for money in stream:
                    print(money.amount, server.asset)

`connect` and `listen` take a BTP URL, for a wallet in memory, or the folder of a wallet that `isthmus wallet init`
made, which keeps its history and survives kills.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from isthmus.client.listener import Listener as Listener
    from isthmus.client.payment import KeyConflictError as KeyConflictError
    from isthmus.client.payment import PaymentError as PaymentError
    from isthmus.client.payment import PaymentResult as PaymentResult
    from isthmus.client.payment import Progress as Progress
    from isthmus.client.streams import Connection as Connection
    from isthmus.client.streams import Money as Money
    from isthmus.client.streams import Offer as MoneyOffer
    from isthmus.client.streams import Stream as Stream
    from isthmus.client.streams import StreamError as StreamError
    from isthmus.client.terms import Offer as Offer
    from isthmus.client.wallet import Wallet as Wallet
    from isthmus.errors import IsthmusError as IsthmusError
    from isthmus.ilp.asset import Asset as Asset
    from isthmus.ilp.asset import format_amount as format_amount
    from isthmus.ilp.asset import parse_amount as parse_amount
    from isthmus.stream.tokens import Invitation as Invitation

__version__ = "0.1.0"

# Imported when they are used: the command line must start fast.
_HOMES: Final = {
    "Asset": "isthmus.ilp.asset",
    "Connection": "isthmus.client.streams",
    "Invitation": "isthmus.stream.tokens",
    "IsthmusError": "isthmus.errors",
    "KeyConflictError": "isthmus.client.payment",
    "Listener": "isthmus.client.listener",
    "Money": "isthmus.client.streams",
    "Offer": "isthmus.client.terms",
    "PaymentError": "isthmus.client.payment",
    "PaymentResult": "isthmus.client.payment",
    "Progress": "isthmus.client.payment",
    "Stream": "isthmus.client.streams",
    "StreamError": "isthmus.client.streams",
    "Wallet": "isthmus.client.wallet",
    "format_amount": "isthmus.ilp.asset",
    "parse_amount": "isthmus.ilp.asset",
}

__all__ = ["__version__", "connect", "listen", *_HOMES]  # noqa: PLE0604 - names of strings


def connect(
    place: str | os.PathLike[str],
    *,
    token: str | None = None,
    ca_file: str | None = None,
    allow_insecure: bool = False,
) -> "Wallet":
    """The wallet at a BTP URL (in memory) or in a folder (durable); use it with `async with`.

    One in a folder with a `settlement.toml` settles with its connector by the engine that stands there.
    `token` may be in the URL instead. `ca_file` holds certificates to trust in place of the system's. Plain `btp+ws`
    is for this machine, unless `allow_insecure`.
    """
    from isthmus.apps.resolving import resolve
    from isthmus.client.wallet import Wallet
    from isthmus.node.settling_wallets import load_settlement

    return Wallet.at(
        place,
        token=token,
        resolve=resolve,
        ca_file=ca_file,
        allow_insecure=allow_insecure,
        settle=load_settlement,
    )


def listen(
    place: str | os.PathLike[str],
    *,
    token: str | None = None,
    ca_file: str | None = None,
    allow_insecure: bool = False,
    accept: "Callable[[MoneyOffer], bool] | None" = None,
    receive_max: int | None = None,
) -> "AbstractAsyncContextManager[Listener]":
    """Be paid: a server with an `address` and a `secret` to hand out, that gives the connections of those who use them.

    `accept` is asked before each packet's money is taken; `receive_max` bounds each stream. See `connect` for the rest.
    """
    from isthmus.client.wallet import listening

    wallet = connect(place, token=token, ca_file=ca_file, allow_insecure=allow_insecure)
    return listening(wallet, accept=accept, receive_max=receive_max)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
