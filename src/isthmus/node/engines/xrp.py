"""`type = "xrp"` and `type = "xrp-payment"`: the XRP Ledger, by payment channels or by plain payments.

The ledger's library is imported when an engine is made: whoever has none needs no `isthmus[xrp]`.
"""

import os
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError, not_installed
from isthmus.ilp.asset import Asset
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Key, Section, Source
from isthmus.node.config_values import Amount, Duration, FilePath, Integer, SecretText, Text
from isthmus.node.engines.checks import check_amount, is_url_of, units_of
from isthmus.node.engines.kind import EngineKind, Options, Surroundings

if TYPE_CHECKING:
    from isthmus.ledgers.xrp.signatures import SigningKey
    from isthmus.settlement.xrp.channels import ChannelEngine
    from isthmus.settlement.xrp.payments import PaymentEngine
    from isthmus.settlement.xrp.settings import LedgerSettings

DAY_MS: Final = 86_400_000
DECIMALS: Final = 6  # of XRP
SCHEMES: Final = ("http", "https", "ws", "wss")
DELAY_MS_MAX: Final = 365 * DAY_MS

LEDGER: Final[Section] = (
    Key("network_id", Integer(0, 2**32 - 1), "The network: 0 is the main net, 1 the test net."),
    Key("rpc", SecretText(), "A server's URL, `https://` or `wss://`; a secret, as providers put keys into it."),
    Key("rpc_check", SecretText(), "Another server's, whose answers must be the same.", None, "no comparison"),
    Key("key_file", FilePath(), "The key: a file with its seed (s… or sEd…), or sealed; mode 600.", None, "no file"),
    Key("key_variable", Text(), "The environment variable that holds the seed instead.", None, "none"),
    Key("passphrase_variable", Text(), "The one that holds a sealed key file's passphrase.", None, "none"),
    Key("fee_max", Integer(10, 10**8), "The most that we offer for a transaction, in drops.", 5_000),
    Key("fee_max_urgent", Integer(10, 10**8), "The same for what would be lost if it came late.", 1_000_000),
    Key("poll", Duration(100, 600_000), "How often the ledger is looked at, unless it is pushed.", 2_000, '`"2 s"`'),
)
CHANNELS: Final[Section] = (
    *LEDGER,
    Key("deposit", Amount(may_be_unlimited=False), "What a channel gets at a time, in XRP."),
    Key("reserve", Amount(may_be_unlimited=False), "With less left in our channel, more is added.", "0", '`"0"`'),
    Key(
        "claim_above",
        Amount(may_be_unlimited=False),
        "A claim is redeemed once it is worth this; by default only when its channel closes.",
        None,
        "at the end",
    ),
    Key("settle_delay", Duration(0, DELAY_MS_MAX), "Of channels that we open.", DAY_MS, '`"24 h"`'),
    Key(
        "settle_delay_min",
        Duration(0, DELAY_MS_MAX),
        "Of channels to us; so long we may be away.",
        3_600_000,
        '`"1 h"`',
    ),
)
ACCOUNT: Final[Section] = (
    Key("peer_address", Text(), "The peer's address, if it is not to be told by the peer.", None, "what it tells"),
)
PAID_ACCOUNT: Final[Section] = (
    *ACCOUNT,
    Key("peer_tag", Integer(0, 2**32 - 1), "The destination tag for payments to it.", None, "what it tells, each time"),
)


def _check(source: Source, path: KeyPath, options: Options) -> None:
    for name in ("rpc", "rpc_check"):
        if options[name] is not None and not is_url_of(options[name].reveal(), SCHEMES):
            remedy = "Use https:// or wss://…; http or ws on this machine."
            source.problem((*path, name), "not a URL with http, https, ws or wss", remedy)
    if (options["key_file"] is None) == (options["key_variable"] is None):
        source.problem((*path, "key_file"), "one key is needed", "Set key_file, or key_variable.")
    if options["fee_max_urgent"] < options["fee_max"]:
        source.problem((*path, "fee_max"), "above fee_max_urgent", "Keep it below.")


def _check_channels(source: Source, path: KeyPath, options: Options) -> None:
    _check(source, path, options)
    for name in ("deposit", "reserve", "claim_above"):
        check_amount(source, (*path, name), options[name], DECIMALS)


def _check_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    if asset.code != "XRP":
        remedy = "It moves XRP only, one for one: use another engine."
        source.problem((*path, "engine"), f"the account counts in {asset.code}", remedy)
    if options["peer_address"] is None:
        return
    try:
        from isthmus.ledgers.xrp.transactions import is_address
    except ImportError:
        return  # the engine can't be made either, and says what to install
    if not is_address(options["peer_address"]):
        remedy = "Write it as wallets show it: r…, without a tag in it."
        source.problem((*path, "peer_address"), "not a classic address, or a character is wrong", remedy)


def _missing(name: str | None, surroundings: Surroundings) -> ConfigError:
    return not_installed(f"settlement.{surroundings.name}.type", name, "xrp")


def _settings(options: Options) -> "LedgerSettings":
    from isthmus.settlement.xrp.settings import LedgerSettings

    return LedgerSettings(
        urls=tuple(options[name].reveal().strip() for name in ("rpc", "rpc_check") if options[name] is not None),
        network_id=options["network_id"],
        fee_max=options["fee_max"],
        fee_max_urgent=options["fee_max_urgent"],
        poll_ms=options["poll"],
    )


def _key(options: Options, surroundings: Surroundings) -> "SigningKey":
    from isthmus.ledgers.xrp.keys import read_key

    where = f"settlement.{surroundings.name}.key_file"
    return read_key(
        where,
        file=options["key_file"],
        variable=options["key_variable"],
        passphrase_variable=options["passphrase_variable"],
        environ=os.environ,
    )


def _make_channels(options: Options, surroundings: Surroundings) -> "ChannelEngine":
    try:
        from isthmus.settlement.xrp.channels import ChannelEngine
        from isthmus.settlement.xrp.settings import ChannelPolicy
    except ImportError as error:
        raise _missing(error.name, surroundings) from None
    policy = ChannelPolicy(
        deposit=units_of(options["deposit"], DECIMALS),
        reserve=units_of(options["reserve"], DECIMALS),
        claim_above=units_of(options["claim_above"] or "0", DECIMALS),
        settle_delay=options["settle_delay"] // 1000,
        settle_delay_min=options["settle_delay_min"] // 1000,
    )
    key = _key(options, surroundings)
    return ChannelEngine(
        _settings(options),
        policy,
        key,
        now=lambda: surroundings.now().wall_ms,
        random=surroundings.random,
    )


def _make_payments(options: Options, surroundings: Surroundings) -> "PaymentEngine":
    try:
        from isthmus.settlement.xrp.payments import PaymentEngine
    except ImportError as error:
        raise _missing(error.name, surroundings) from None
    key = _key(options, surroundings)
    return PaymentEngine(_settings(options), key, now=lambda: surroundings.now().wall_ms, random=surroundings.random)


def _check_paid_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    _check_account(source, path, options, asset)
    if options["peer_tag"] is not None and options["peer_address"] is None:
        source.problem((*path, "peer_tag"), "set without peer_address", "Set both: the tag belongs to the address.")


CHANNEL_KIND: Final = EngineKind(
    summary="The XRP Ledger, by payment channels; also with peers that run ilp-plugin-xrp-paychan.",
    make=_make_channels,
    options=CHANNELS,
    account=ACCOUNT,
    check=_check_channels,
    check_account=_check_account,
)
PAYMENT_KIND: Final = EngineKind(
    summary="The XRP Ledger, by plain payments with destination tags.",
    make=_make_payments,
    options=LEDGER,
    account=PAID_ACCOUNT,
    check=_check,
    check_account=_check_paid_account,
)
