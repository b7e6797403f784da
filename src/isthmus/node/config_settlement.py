"""Settlement in a configuration: engines in `[settlement.NAME]`, and what accounts agree on with their peers.

Which keys an account's table has depends on its engine's kind, which stands elsewhere: so the keys that all have are
read first, and the engine's own once the whole file is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import SettleTerms
from isthmus.errors import ConfigError
from isthmus.ilp.asset import SCALE_MAX, Asset, parse_amount
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_model import Account, AccountSettlement, EngineSettings
from isthmus.node.config_reader import Bad, Choice, Incomplete, Key, Section, Source, read_section
from isthmus.node.config_values import Amount, Integer, SignedAmount, Text
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.port import SettlingAccount

ENGINES_MAX: Final = 64
ENGINE_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,32}", re.ASCII)

ACCOUNT_SETTLEMENT: Final[Section] = (
    Key("engine", Text(), "The name of the engine, one of `settlement`, that pays this peer and sees what it pays."),
    Key(
        "threshold",
        SignedAmount(),
        'From what we owe on the peer is paid, by itself. `"-2"`: once no more than two are left that we paid ahead.',
        None,
        "by `isthmus settle` only",
    ),
    Key(
        "target",
        SignedAmount(),
        'What we owe after a settlement. `"-5"`: we pay five ahead, which the peer then owes us.',
        "0",
        '`"0"`',
    ),
    Key(
        "ahead_max",
        Amount(may_be_unlimited=False),
        "We never pay so that the peer owes us more than this.",
        None,
        "what `target` says",
    ),
    Key("minimum", Amount(may_be_unlimited=False), "No settlement is smaller.", None, "one base unit"),
    Key("amount_max", Amount(), "No settlement is larger; what is left follows in another.", None, "unlimited"),
    Key(
        "ledger_scale",
        Integer(0, SCALE_MAX),
        "How many decimal places the ledger has, if fewer than the account; what it can't pay stays owed.",
        None,
        "any amount can be paid",
    ),
)
_COMMON: Final = frozenset(key.name for key in ACCOUNT_SETTLEMENT)


@dataclass(slots=True, frozen=True)
class RawSettlement:
    """An account's table while the engines are not known: the keys that all have, and the rest as it stands there."""

    common: dict[str, Any]
    rest: dict[str, Any]


@dataclass(slots=True, frozen=True)
class AccountSettlementTable:
    """`[accounts.NAME.settlement]`."""

    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> RawSettlement:
        """The keys that all engines have; others are looked at when the engine is known."""
        both = value if isinstance(value, dict) else {}
        common = {name: each for name, each in both.items() if name in _COMMON}
        found = read_section(ACCOUNT_SETTLEMENT, common if isinstance(value, dict) else value, source, path)
        if len(found) < len(ACCOUNT_SETTLEMENT):
            raise Incomplete
        return RawSettlement(found, {name: each for name, each in both.items() if name not in _COMMON})


def engine_choice() -> Choice:
    """`[settlement.NAME]`, with the kinds of engines that there are."""
    return Choice("type", {name: (kind.options, partial(_Raw, name)) for name, kind in KINDS.items()})


class _Raw:
    """An engine's kind and its options as they were read."""

    def __init__(self, kind: str, /, **options: Any) -> None:
        self.kind: Final = kind
        self.options: Final = options


@dataclass(slots=True, frozen=True)
class EngineTable:
    """`[settlement.NAME]`: looked up when it is read, so that a kind which was added late is known too."""

    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> Any:
        """As a table that isn't whole, whatever is wrong with it: accounts that name the engine do so rightly."""
        try:
            return engine_choice().read(value, source, path)
        except Bad as bad:
            source.problem(path, bad.problem, bad.remedy)
            raise Incomplete from None


def build_engines(source: Source, found: Mapping[str, _Raw | None]) -> tuple[EngineSettings, ...]:
    """The engines; what shows only between their keys is reported."""
    if len(found) > ENGINES_MAX:
        source.problem(("settlement",), f"{len(found)} engines", f"Use {ENGINES_MAX} at most.")
    engines: list[EngineSettings] = []
    for name, raw in found.items():
        if ENGINE_NAME.fullmatch(name) is None:
            source.problem(("settlement", name), "not a name for an engine", "Use up to 32 of A-Z a-z 0-9 _ -.")
        if raw is not None:
            KINDS[raw.kind].check(source, ("settlement", name), raw.options)
            engines.append(EngineSettings(name=name, kind=raw.kind, options=raw.options))
    return tuple(engines)


def build_settlement(
    source: Source,
    account: AccountId,
    raw: RawSettlement | None,
    asset: Asset,
    *,
    payable_max: int | None,
    engines: Mapping[str, Any],
) -> AccountSettlement | None:
    """What an account settles by; None without any, or after at least one problem.

    `engines` is the file's table of them as it was read, None for one that isn't whole.
    """
    if raw is None:
        return None
    path = ("accounts", account, "settlement")
    before = len(source.problems)
    name = raw.common["engine"]
    if name not in engines:
        known = ", ".join(sorted(engines)) or "none yet"
        source.problem((*path, "engine"), f"there is no engine {name!r}", f"Engines: {known}.")
        return None
    terms = read_terms(source, path, raw.common, asset, payable_max=payable_max)
    engine: _Raw | None = engines[name]
    if engine is None:
        return None
    kind = KINDS[engine.kind]
    found = read_section(kind.account, raw.rest, source, path)
    if len(source.problems) > before or terms is None:
        return None
    kind.check_account(source, path, found, asset)
    settings = {key: str(value) for key, value in found.items() if value is not None}
    return AccountSettlement(terms=terms, settings=settings) if len(source.problems) == before else None


def read_terms(
    source: Source, path: KeyPath, raw: Mapping[str, Any], asset: Asset, *, payable_max: int | None
) -> SettleTerms | None:
    """The keys of `ACCOUNT_SETTLEMENT` as what the kernel knows; None after at least one problem."""
    before = len(source.problems)

    def units(key: str) -> int | None:
        text: str | None = raw[key]
        if text is None:
            return None
        sign = -1 if text.startswith("-") else 1
        try:
            return sign * parse_amount(text.removeprefix("-"), asset)
        except ValueError as error:
            source.problem((*path, key), str(error), f"Write it in {asset.code}.")
            return None

    target = units("target") or 0
    ahead_max = units("ahead_max")
    minimum = units("minimum")
    terms = SettleTerms(
        engine=raw["engine"],
        threshold=units("threshold"),
        target=target,
        ahead_max=max(0, -target) if ahead_max is None else ahead_max,
        minimum=1 if minimum is None else minimum,
        amount_max=units("amount_max"),
        ledger_scale=raw["ledger_scale"],
    )
    if len(source.problems) > before:
        return None
    try:
        terms.check("settlement", payable_max=payable_max)
    except ConfigError as error:
        source.problem((*path, error.key.rpartition(".")[2]), error.problem, f"{error.remedy}.")
        return None
    return terms


def settling_accounts(accounts: tuple[Account, ...]) -> dict[str, list[SettlingAccount]]:
    """The accounts of each engine, as it is told of them."""
    found: dict[str, list[SettlingAccount]] = {}
    for account in accounts:
        if account.settlement is not None:
            one = SettlingAccount(account.id, account.asset, account.settlement.settings)
            found.setdefault(account.settlement.terms.engine, []).append(one)
    return found
