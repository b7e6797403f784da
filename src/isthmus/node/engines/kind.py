"""What a kind of settlement engine tells of itself, so that a node can be configured with it and make it.

A new kind is a module beside this one that declares an `EngineKind`, and a line in `kinds.py`. Its module is imported
with the configuration: what it needs to work (a ledger's library) is imported in `make`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from isthmus.connector.events import Now
from isthmus.ilp.asset import Asset
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Section, Source
from isthmus.settlement.port import Engine

Options: TypeAlias = Mapping[str, Any]


@dataclass(slots=True, frozen=True, kw_only=True)
class Surroundings:
    """What an engine of this node is made with, besides its options."""

    name: str  # of the engine, in the configuration
    data: Path  # the node's folder: for keys; facts go through the port
    now: Callable[[], Now]
    random: Callable[[], float]  # for jitter


def nothing_more(source: Source, path: KeyPath, options: Options) -> None:
    """Each key by itself says all."""


def no_more_of_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    """Each key by itself says all."""


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineKind:
    """A kind of engine.

    `options` are the keys of `[settlement.NAME]` beside `type`; `account` those of `[accounts.NAME.settlement]` beside
    what all engines know. `make` gets the options as their kinds read them; an account's reach the engine as text
    (`SettlingAccount.settings`), without those that are not set. `check` and `check_account` report, by
    `source.problem`, what only shows between keys.
    """

    summary: str  # a sentence for the reference
    make: Callable[[Options, Surroundings], Engine]
    options: Section = ()
    account: Section = ()
    check: Callable[[Source, KeyPath, Options], None] = nothing_more
    check_account: Callable[[Source, KeyPath, Options, Asset], None] = no_more_of_account
