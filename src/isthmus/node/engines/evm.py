"""`type = "evm"`: Ethereum and other EVM chains, by payment channels or by plain transfers.

The ledger's libraries are imported when an engine is made: whoever has none needs no `isthmus[evm]`.
"""

import os
from typing import TYPE_CHECKING, Final

from isthmus.errors import CodecError, not_installed
from isthmus.ilp.asset import Asset
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Key, Section, Source
from isthmus.node.config_values import Amount, Duration, FilePath, Integer, SecretText, Text
from isthmus.node.engines.checks import check_amount, is_http, units_of
from isthmus.node.engines.kind import EngineKind, Options, Surroundings

if TYPE_CHECKING:
    from isthmus.settlement.evm.engine import EvmEngine
    from isthmus.settlement.evm.settings import ChannelPolicy

DAY_MS: Final = 86_400_000
GWEI: Final = 10**9
# Chain ids are bounded so that twice of one still fits the old signatures' field (EIP-2294).
CHAIN_ID_MAX: Final = 2**63 // 2 - 36

OPTIONS: Final[Section] = (
    Key("method", Text(("channels", "transfers")), "By payment channels, or by plain transfers.", "channels"),
    Key("chain_id", Integer(1, CHAIN_ID_MAX), "The chain: 1 is Ethereum's main net, 11155111 is Sepolia."),
    Key("rpc", SecretText(), "A node's URL for JSON-RPC; a secret, as providers put keys into it."),
    Key("rpc_check", SecretText(), "Another node's, whose answers must be the same.", None, "no comparison"),
    Key("confirmations", Integer(1, 10_000), "Blocks from which on a block is taken to stay, its own included.", 12),
    Key("token", Text(), "An ERC-20 token's address.", None, "the chain's own coin"),
    Key("decimals", Integer(0, 77), "Decimal places of the coin or token.", 18),
    Key("contract", Text(), "The channels' contract, if it isn't where it is on all chains.", None, "that place"),
    Key("key_file", FilePath(), "The key: 64 hex digits, or an encrypted key file; mode 600.", None, "no file"),
    Key("key_variable", Text(), "The environment variable that holds the key instead.", None, "none"),
    Key("passphrase_variable", Text(), "The one that holds an encrypted key file's passphrase.", None, "none"),
    Key("tip", Integer(0, 10**6), "What whoever makes a block gets for a unit of gas, in gwei.", 1),
    Key("fee_max", Integer(1, 10**7), "The most that we offer for a unit of gas, in gwei.", 200),
    Key("fee_max_urgent", Integer(1, 10**7), "The same for what would be lost if it came late.", 2_000),
    Key("fee_wait", Duration(1_000, 3_600_000), "More is offered after so long without a place.", 60_000, '`"1 min"`'),
    Key("poll", Duration(100, 600_000), "How often the chain is looked at.", 4_000, '`"4 s"`'),
    Key("deposit", Amount(may_be_unlimited=False), "What a channel gets at a time, in coins or tokens.", None, "none"),
    Key("reserve", Amount(may_be_unlimited=False), "With less left in our channel, more is added.", "0", '`"0"`'),
    Key(
        "claim_above",
        Amount(may_be_unlimited=False),
        "A claim is redeemed once it is worth this; by default only when its channel closes.",
        None,
        "at the end",
    ),
    Key("settle_delay", Duration(0, 365 * DAY_MS), "Of channels that we open.", DAY_MS, '`"24 h"`'),
    Key(
        "settle_delay_min",
        Duration(0, 365 * DAY_MS),
        "Of channels to us; so long we may be away.",
        DAY_MS // 2,
        '`"12 h"`',
    ),
    Key("settle_delay_max", Duration(0, 365 * DAY_MS), "The longest that a peer may ask for.", 7 * DAY_MS, '`"168 h"`'),
)
ACCOUNT: Final[Section] = (
    Key("peer_address", Text(), "The peer's address, if it is not to be told by the peer.", None, "what it proves"),
)


def _check(source: Source, path: KeyPath, options: Options) -> None:
    for name in ("rpc", "rpc_check"):
        if options[name] is not None and not is_http(options[name].reveal()):
            source.problem((*path, name), "not a URL with http or https", "Use https://…, or http on this machine.")
    for name in ("token", "contract"):
        _check_address(source, (*path, name), options[name])
    if (options["key_file"] is None) == (options["key_variable"] is None):
        source.problem((*path, "key_file"), "one key is needed", "Set key_file, or key_variable.")
    if options["method"] == "channels" and options["deposit"] is None:
        source.problem((*path, "deposit"), "missing", "Say how much a new channel gets.")
    if options["fee_max"] < options["tip"] or options["fee_max_urgent"] < options["fee_max"]:
        source.problem(
            (*path, "fee_max"), "out of order", "Use tip, fee_max and fee_max_urgent, each at least the last."
        )
    for name in ("deposit", "reserve", "claim_above"):
        check_amount(source, (*path, name), options[name], options["decimals"])
    if options["settle_delay"] > options["settle_delay_max"]:
        source.problem((*path, "settle_delay"), "longer than settle_delay_max", "Keep it below.")


def _check_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    _check_address(source, (*path, "peer_address"), options["peer_address"])


def _check_address(source: Source, path: KeyPath, text: str | None) -> None:
    if text is None:
        return
    try:
        from isthmus.ledgers.evm.octets import parse_address
    except ImportError:
        return  # the engine can't be made either, and says what to install
    try:
        parse_address(text)
    except CodecError as error:
        source.problem(path, error.problem, "Write it as your wallet or the chain's explorer shows it.")


def _make(options: Options, surroundings: Surroundings) -> "EvmEngine":
    try:
        from isthmus.ledgers.evm import contract
        from isthmus.ledgers.evm.fees import FeePolicy
        from isthmus.ledgers.evm.keys import read_key
        from isthmus.ledgers.evm.octets import NO_ADDRESS
        from isthmus.settlement.evm.channels import ChannelEngine
        from isthmus.settlement.evm.settings import ChainSettings
        from isthmus.settlement.evm.transfers import TransferEngine
    except ImportError as error:
        raise not_installed(f"settlement.{surroundings.name}.type", error.name, "evm") from None
    urls = [options[name].reveal().strip() for name in ("rpc", "rpc_check") if options[name] is not None]
    fees = FeePolicy(
        tip=options["tip"] * GWEI,
        most=options["fee_max"] * GWEI,
        urgent=options["fee_max_urgent"] * GWEI,
        wait_ms=options["fee_wait"],
    )
    settings = ChainSettings(
        urls=tuple(urls),
        chain_id=options["chain_id"],
        contract=(options["contract"] or contract.address()).lower(),
        token=(options["token"] or NO_ADDRESS).lower(),
        decimals=options["decimals"],
        confirmations=options["confirmations"],
        fees=fees,
        poll_ms=options["poll"],
    )
    key = read_key(
        f"settlement.{surroundings.name}.key_file",
        file=options["key_file"],
        variable=options["key_variable"],
        passphrase_variable=options["passphrase_variable"],
        environ=os.environ,
    )

    def now() -> int:
        return surroundings.now().wall_ms

    if options["method"] == "transfers":
        return TransferEngine(settings, key, now=now, random=surroundings.random)
    return ChannelEngine(settings, _policy(options), key, now=now, random=surroundings.random)


def _policy(options: Options) -> "ChannelPolicy":
    from isthmus.settlement.evm.settings import ChannelPolicy

    decimals = options["decimals"]
    return ChannelPolicy(
        deposit=units_of(options["deposit"], decimals),
        reserve=units_of(options["reserve"], decimals),
        claim_above=units_of(options["claim_above"] or "0", decimals),
        settle_delay=options["settle_delay"] // 1000,
        settle_delay_min=options["settle_delay_min"] // 1000,
        settle_delay_max=options["settle_delay_max"] // 1000,
    )


KIND: Final = EngineKind(
    summary="Ethereum and other EVM chains: payment channels, or plain transfers, of the coin or an ERC-20 token.",
    make=_make,
    options=OPTIONS,
    account=ACCOUNT,
    check=_check,
    check_account=_check_account,
)
