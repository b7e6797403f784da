"""`settlement.toml` of a wallet: the engine by which it settles with its connector, and what they agreed on."""

import os
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isthmus.client.folder import SETTLEMENT_FILE
from isthmus.client.settling import ENGINE, WalletSettling
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset, parse_amount
from isthmus.node.config import CONFIG_BYTES_MAX, has_huge_number
from isthmus.node.config_lines import KeyPath, locate
from isthmus.node.config_reader import Key, Section, Source, read_section
from isthmus.node.config_settlement import ACCOUNT_SETTLEMENT, read_terms
from isthmus.node.config_values import Amount, Text
from isthmus.node.engine_config import AnyTable
from isthmus.node.engines.kind import EngineKind, Surroundings
from isthmus.node.engines.kinds import KINDS
from isthmus.runtime import clock

RFC38: Final = "rfc38"  # such an engine is a server's: it calls back by HTTP


@dataclass(slots=True, frozen=True)
class EngineType:
    """The name of a kind, looked up when it is read: some are added late."""

    label = "name of an engine's kind"

    def read(self, value: object, source: Source, path: KeyPath) -> str:
        """As it stands there."""
        kinds = tuple(name for name in KINDS if name != RFC38)
        return str(Text(kinds).read(value, source, path))


WALLET_SETTLEMENT: Final[Section] = (
    Key("type", EngineType(), "The kind of engine, as in a node's `[settlement.NAME]`."),
    Key(
        "receivable",
        Amount(),
        "What the connector may owe us: beyond it incoming packets end in T04 until it has settled.",
        None,
        "any amount",
    ),
    *(key for key in ACCOUNT_SETTLEMENT if key.name != "engine"),
    Key("engine", AnyTable(), "The engine's own options, as in a node's `[settlement.NAME]` but for `type`."),
)
_COMMON: Final = frozenset(key.name for key in WALLET_SETTLEMENT)


def load_wallet_settlement(
    folder: Path, asset: Asset, environment: Mapping[str, str] | None = None
) -> WalletSettling | None:
    """What the wallet in this folder settles by; None if it has no such file. Raises ConfigError."""
    path = folder / SETTLEMENT_FILE
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise ConfigError(str(path), "is too large for a configuration", "It is no wallet's")
        text = path.read_text()
        values = tomllib.loads(text)
        if has_huge_number(values):
            raise ValueError("a number beyond all amounts")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(str(path), error.strerror or "can't be read", "Check the file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), f"not TOML: {error}", "Correct it") from None
    source = Source(folder, locate(text), os.environ if environment is None else environment)
    found = _read(values, source, folder, asset)
    if source.problems:
        first = min(source.problems, key=lambda each: (each.line is None, each.line))
        where = SETTLEMENT_FILE if first.line is None else f"{SETTLEMENT_FILE}, line {first.line}"
        raise ConfigError(f"{where}: {first.key}", first.problem, first.remedy.removesuffix("."))
    assert found is not None
    return found


def _read(values: dict[str, Any], source: Source, folder: Path, asset: Asset) -> WalletSettling | None:
    common = {name: each for name, each in values.items() if name in _COMMON}
    found = read_section(WALLET_SETTLEMENT, common, source, ())
    if len(found) < len(WALLET_SETTLEMENT):
        return None
    kind: EngineKind = KINDS[found["type"]]
    options = read_section(kind.options, found["engine"], source, ("engine",))
    settings = read_section(kind.account, {name: values[name] for name in values if name not in _COMMON}, source, ())
    terms = read_terms(source, (), {**found, "engine": ENGINE}, asset, payable_max=None)
    receivable_max = _receivable(source, found["receivable"], asset)
    if source.problems or terms is None or len(options) < len(kind.options) or len(settings) < len(kind.account):
        return None
    kind.check(source, ("engine",), options)
    kind.check_account(source, (), settings, asset)
    surroundings = Surroundings(name=ENGINE, data=folder, now=clock.system_now, random=random.random)
    return WalletSettling(
        terms=terms,
        receivable_max=receivable_max,
        settings={key: str(value) for key, value in settings.items() if value is not None},
        kind=found["type"],
        make_engine=lambda: kind.make(options, surroundings),
    )


def _receivable(source: Source, text: str | None, asset: Asset) -> int | None:
    if text is None or text == "unlimited":
        return None
    try:
        return parse_amount(text, asset)
    except ValueError as error:
        source.problem(("receivable",), str(error), f"Write it in {asset.code}.")
        return None
