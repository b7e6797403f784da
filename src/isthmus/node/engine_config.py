"""The file of `isthmus engine run`: one of our engines, as it serves a connector of anybody's (RFC 0038)."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.links.http.urls import check_url, is_loopback
from isthmus.node import config_model as model
from isthmus.node.config import CONFIG_BYTES_MAX, has_huge_number
from isthmus.node.config_lines import KeyPath, locate
from isthmus.node.config_reader import Bad, Incomplete, Key, Section, Source, Table, describe, read_section
from isthmus.node.config_schema_tls import CLIENT_TLS
from isthmus.node.config_values import (
    Boolean,
    Duration,
    Endpoint,
    FilePath,
    Integer,
    Listen,
    Mapped,
    Secret,
    SecretText,
    Text,
)
from isthmus.node.engines.kind import EngineKind
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.rfc38.quantity import is_account

CONNECTOR: Final[Section] = (
    Key("url", Text(), "The connector's URL for its engine: `http://127.0.0.1:3001`."),
    Key("token", SecretText(), "A bearer token that it asks for; the RFC has none.", None, "none"),
    Key("timeout", Duration(100, 60_000), "How long its answer may take.", 10_000, '`"10 s"`'),
    Key("tls", Table(CLIENT_TLS, model.ClientTls), "Certificates.", model.ClientTls(), "the system's"),
    Key("allow_insecure", Boolean(), "Allow no TLS beyond this machine, where another layer encrypts.", False),
)


@dataclass(slots=True, frozen=True)
class AnyTable:
    """A table that is looked at when the engine's kind is known."""

    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Bad(f"a table is needed, not {describe(value)}", "Write its keys below a [header].")
        return value


OTHER_NAMES: Final = {"ledger": "bank"}  # a ledger that only transfers

ENGINE_FILE: Final[Section] = (
    Key("asset", Text(), 'The code of the asset that it pays in: `"USD"`.'),
    Key("scale", Integer(0, 255), "The decimal places of its ledger: what is less is kept until it is a whole unit."),
    Key("data", FilePath(must_exist=False), "The folder of its store.", None, '`"data"` beside this file'),
    Key("listen", Listen(), "Where the connector calls it: the engine's URL. Of this machine unless there is a token."),
    Key("token", SecretText(), "A bearer token that the connector must show; the RFC has none.", None, "none"),
    Key("connector", Table(CONNECTOR), "The connector that it serves."),
    Key("engine", AnyTable(), "The engine's own options, as in a node's `settlement.NAME` but for `type`.", {}, "none"),
    Key(
        "accounts",
        Mapped(AnyTable()),
        "What the engine must know of an account, by the connector's id of it.",
        {},
        "those that need nothing",
    ),
)


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineFile:
    """An engine as a process of its own."""

    path: Path
    kind: EngineKind
    asset: Asset
    data: Path
    listen: Endpoint
    token: Secret | None
    connector: Mapping[str, Any]  # as `CONNECTOR` says
    options: Mapping[str, Any]
    accounts: Mapping[str, Mapping[str, str]]  # by id
    others: Mapping[str, str] | str  # what holds for other accounts, or why there can't be others


def served_kinds() -> dict[str, str]:
    """The types of engines of ours by what a command calls them, each with a sentence for people."""
    found = {name: kind.summary for name, kind in KINDS.items() if name != "rfc38"}
    return found | {other: f"The same as `{name}`." for other, name in OTHER_NAMES.items() if name in found}


def load_engine(kind_name: str, path: Path, environment: Mapping[str, str] | None = None) -> EngineFile:
    """Read it. Raises ConfigError for the first problem, in the order of the lines."""
    kind = KINDS.get(OTHER_NAMES.get(kind_name, kind_name))
    if kind is None or kind_name == "rfc38":
        raise ConfigError("TYPE", f"{kind_name!r} is no engine of ours", f"Kinds: {', '.join(served_kinds())}.")
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise ConfigError(str(path), "is too large for a configuration", "Name the engine's TOML file.")
        text = path.read_text()
        values = tomllib.loads(text)
        if has_huge_number(values):
            raise ValueError("a number beyond all amounts")
    except OSError as error:
        raise ConfigError(str(path), error.strerror or "can't be read", "Name the engine's TOML file.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), f"not TOML: {error}", "Name the engine's TOML file.") from None
    source = Source(path.parent, locate(text), os.environ if environment is None else environment)
    found = _read(kind, values, source, path)
    if source.problems:
        raise min(source.problems, key=lambda each: (each.line is None, each.line))
    assert found is not None
    return found


def _read(kind: EngineKind, values: dict[str, Any], source: Source, path: Path) -> EngineFile | None:
    found = read_section(ENGINE_FILE, values, source, ())
    if len(found) < len(ENGINE_FILE):
        return None
    options = read_section(kind.options, found["engine"], source, ("engine",))
    if len(options) < len(kind.options):
        return None
    kind.check(source, ("engine",), options)
    asset = Asset(found["asset"], found["scale"])
    accounts = {
        name: settings
        for name, raw in found["accounts"].items()
        if (settings := _account(kind, source, name, raw or {}, asset)) is not None
    }
    connector = found["connector"]
    try:
        check_url("url", connector["url"], allow_insecure=connector["allow_insecure"])
    except ConfigError as error:
        source.problem(("connector", "url"), error.problem, error.remedy)
    if found["token"] is None and not is_loopback(found["listen"].host):
        remedy = "Set a token, or listen on 127.0.0.1: whoever reaches it can make it pay."
        source.problem(("token",), "missing, and others can reach this address", remedy)
    return EngineFile(
        path=path,
        kind=kind,
        asset=asset,
        data=found["data"] or path.parent / "data",
        listen=found["listen"],
        token=found["token"],
        connector=connector,
        options=options,
        accounts=accounts,
        others=_others(kind, path, asset),
    )


def _account(kind: EngineKind, source: Source, name: str, raw: dict[str, Any], asset: Asset) -> dict[str, str] | None:
    here = ("accounts", name)
    if not is_account(name):
        source.problem(here, "can't stand in a URL", "Use the id that the connector has.")
    settings = read_section(kind.account, raw, source, here)
    if len(settings) < len(kind.account):
        return None
    kind.check_account(source, here, settings, asset)
    return {key: str(value) for key, value in settings.items() if value is not None}


def _others(kind: EngineKind, path: Path, asset: Asset) -> dict[str, str] | str:
    """What an account gets that the file doesn't name; or what it would need."""
    apart = Source(path.parent, {}, {})
    try:
        settings = _account(kind, apart, "any", {}, asset)
    except Incomplete:
        settings = None
    if settings is None or apart.problems:
        for problem in apart.problems:
            if problem.problem != "missing":
                return problem.problem
        keys = ", ".join(problem.key.rpartition(".")[2] for problem in apart.problems)
        return f"the engine's file must have a table [accounts.ID] with {keys}"
    return settings
