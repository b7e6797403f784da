"""A node's configuration: from a TOML file to frozen values, or to every problem in it with line, key and remedy."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isthmus.connector.events import AccountId
from isthmus.errors import ConfigError
from isthmus.ilp.address import append_segments, is_test, is_valid_prefix, scheme_of
from isthmus.ilp.asset import Asset, parse_amount
from isthmus.ilp.packet import AMOUNT_MAX
from isthmus.node import config_links
from isthmus.node.config_lines import KeyPath, locate
from isthmus.node.config_model import Account, Join, Limits, Link, NodeConfig, Relation
from isthmus.node.config_rates import build_rates
from isthmus.node.config_reader import Source, read_section
from isthmus.node.config_routes import build_routes
from isthmus.node.config_schema import ROOT
from isthmus.node.config_settlement import build_engines, build_settlement

CONFIG_BYTES_MAX: Final = 4 * 1024 * 1024
# No amount is near it. Python refuses to print numbers of thousands of digits, which a problem with one would do.
INTEGER_MAX: Final = 2**256
ACCOUNT_NAME: Final = re.compile(r"[a-zA-Z0-9_~-]{1,64}", re.ASCII)
DEFAULT_ROUTE: Final = "default"


@dataclass(slots=True, frozen=True)
class Document:
    """A file as it was parsed, before anything in it was found good: what run time lays its own over."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(slots=True, frozen=True)
class Checked:
    """What a file says: a configuration if there is no problem, and what is allowed but probably not meant."""

    config: NodeConfig | None
    problems: tuple[ConfigError, ...]
    warnings: tuple[str, ...] = ()


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
    """The configuration in a file. Raises ConfigError for the first problem; `check_config` tells all."""
    return config_of(load_document(path, environment))


def config_of(document: Document) -> NodeConfig:
    """The configuration that a document is. Raises ConfigError for the first problem in it."""
    checked = check_document(document)
    if checked.config is None:
        raise checked.problems[0]
    return checked.config


def load_document(path: Path, environment: Mapping[str, str] | None = None) -> Document:
    """The file's text, parsed. Raises ConfigError if it can't be read or is no TOML."""
    return _document(_read(path), path, os.environ if environment is None else environment)


def check_config(path: Path, environment: Mapping[str, str] | None = None) -> Checked:
    """Everything that is wrong with a file, in the order of its lines."""
    try:
        text = _read(path)
    except ConfigError as error:
        return Checked(None, (error,))
    return parse_config(text, path, os.environ if environment is None else environment)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise ConfigError(str(path), "is too large for a configuration", "Name the node's TOML file.")
        return path.read_text()
    except OSError as error:
        raise ConfigError(
            str(path), error.strerror or "can't be read", "Name the TOML file; `isthmus node init` makes one."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not UTF-8 text", "Name the node's TOML file.") from None


def parse_config(text: str, path: Path, environment: Mapping[str, str]) -> Checked:
    """As `check_config`, for the text of a file at `path` (relative paths in it start from its folder)."""
    try:
        document = _document(text, path, environment)
    except ConfigError as error:
        return Checked(None, (error,))
    return check_document(document)


def _document(text: str, path: Path, environment: Mapping[str, str]) -> Document:
    try:
        values = tomllib.loads(text)
        if has_huge_number(values):
            raise ValueError("a number beyond all amounts")
        return Document(path, values, locate(text), environment)
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, or a number of thousands of digits
        raise _syntax_error(str(error)) from None


def check_document(document: Document) -> Checked:
    """Everything that is wrong with a document, in the order of its lines; or the configuration that it is."""
    source = Source(document.path.parent, document.lines, document.environment)
    found = read_section(ROOT, document.values, source, ())
    config = _Assembly(source, found, document.path).config()
    problems = sorted(source.problems, key=lambda each: each.line or 0)
    if problems:
        return Checked(None, tuple(problems))
    assert config is not None
    return Checked(config, (), tuple(_warnings(config)))


def has_huge_number(value: object) -> bool:
    """Whether a number is in there that Python would refuse to print."""
    if isinstance(value, dict):
        return any(has_huge_number(each) for each in value.values())
    if isinstance(value, list):
        return any(has_huge_number(each) for each in value)
    return isinstance(value, int) and abs(value) > INTEGER_MAX


def _syntax_error(text: str) -> ConfigError:
    at = re.search(r"\(at line (\d+), column (\d+)\)", text)
    problem = text.partition(" (at ")[0].lower()
    column = f" in column {at[2]}" if at else ""
    line = int(at[1]) if at else None
    return ConfigError("syntax", f"not TOML: {problem}{column}", "Quote strings; write key = value.", line=line)


class _Assembly:
    """From what the schema read to a whole configuration; reports what only shows between keys."""

    def __init__(self, source: Source, found: dict[str, Any], path: Path) -> None:
        self._source = source
        self._found = found
        self._path = path

    def config(self) -> NodeConfig | None:
        """The configuration, or None after at least one problem."""
        found = self._found
        accounts = [self._account(name, raw) for name, raw in found.get("accounts", {}).items()]
        address: str | None = found.get("address")
        whole = [account for account in accounts if account is not None]
        self._check_relations(address, whole)
        self._check_addresses(address, whole)
        if "listeners" in found and "admin" in found:
            config_links.check_together(self._source, whole, found["listeners"], found["admin"])
        self._check_join()
        routes = self._routes(address, whole)
        rates = build_rates(self._source, found.get("rates", {}))
        engines = build_engines(self._source, found.get("settlement", {}))
        if self._source.problems:
            return None
        return NodeConfig(
            path=self._path,
            address=address,
            data=found["data"] or self._path.parent / "data",
            accounts=tuple(whole),
            routes=routes,
            rates=rates,
            btp=found["listeners"]["btp"],
            http=found["listeners"]["http"],
            admin=found["admin"],
            join=found["join"],
            journal=found["journal"],
            log=found["log"],
            engines=engines,
            routing=found["routing"],
        )

    # --- accounts -------------------------------------------------------------------------------------------------

    def _account(self, name: str, raw: dict[str, Any] | None) -> Account | None:
        path = ("accounts", name)
        if ACCOUNT_NAME.fullmatch(name) is None:
            self._source.problem(path, "not a name for an account", "Use up to 64 of A-Z a-z 0-9 _ ~ -.")
        if raw is None:
            return None
        segment = raw["segment"] or name
        if ACCOUNT_NAME.fullmatch(segment) is None:
            self._source.problem((*path, "segment"), f"{segment!r} can't stand in an address", "Use A-Z a-z 0-9 _ ~ -.")
        asset = Asset(raw["asset"], raw["scale"])
        limits = self._limits(path, raw["limits"], asset)
        link: Link | None = config_links.build_link(self._source, (*path, "link"), raw["link"])
        if link is None or limits is None:
            return None
        settlement = build_settlement(
            self._source,
            AccountId(name),
            raw["settlement"],
            asset,
            payable_max=limits.payable_max,
            engines=self._found.get("settlement", {}),
        )
        return Account(
            id=AccountId(name),
            asset=asset,
            relation=Relation(raw["relation"]),
            link=link,
            limits=limits,
            segment=segment,
            spread=raw["spread"],
            routes=build_routes(raw["routes"], raw["relation"]),
            settlement=settlement,
            enabled=raw["enabled"],
        )

    def _limits(self, path: tuple[str, ...], raw: dict[str, Any], asset: Asset) -> Limits | None:
        before = len(self._source.problems)

        def units(key: str) -> int | None:
            text: str | None = raw[key]
            if text is None:
                return None
            try:
                return parse_amount(text, asset)
            except ValueError as error:
                self._source.problem((*path, "limits", key), str(error), f"Write it in {asset.code}.")
                return None

        packet = units("packet")
        if packet is not None and packet > AMOUNT_MAX:
            self._source.problem(
                (*path, "limits", "packet"), "more than a packet can carry (2^64 - 1 units)", "Leave it out."
            )
        if raw["margin"] >= raw["hold"]:
            self._source.problem((*path, "limits", "margin"), "not below hold", "Shorten the margin, or hold longer.")
        limits = Limits(
            receivable_max=units("receivable"),
            payable_max=units("payable"),
            packet_amount_max=packet,
            in_flight_max=units("in_flight"),
            per_second_max=units("per_second"),
            packets_per_minute=raw["packets_per_minute"],
            hold_ms_max=raw["hold"],
            margin_ms=raw["margin"],
            open_legs_max=raw["open_legs"],
            echo_amount_max=units("echo") or 0,
        )
        return limits if len(self._source.problems) == before else None

    def _check_relations(self, address: str | None, accounts: list[Account]) -> None:
        parents = [account for account in accounts if account.relation is Relation.PARENT]
        for account in parents[1:]:
            self._source.problem(
                ("accounts", account.id, "relation"), f"{parents[0].id} is the parent already", "Make it a peer."
            )  # CONN-14

    def _check_addresses(self, address: str | None, accounts: list[Account]) -> None:
        segments: dict[str, AccountId] = {}
        for account in accounts:
            if account.relation is not Relation.CHILD:
                continue
            path = ("accounts", account.id, "segment")
            if account.segment in segments:
                problem = f"{segments[account.segment]} has the same address"
                self._source.problem(path, problem, "Give each child a segment of its own.")
            segments[account.segment] = account.id
            if address is not None:
                try:
                    append_segments(address, account.segment)
                except ValueError as error:
                    self._source.problem(path, str(error), "Use a shorter segment.")

    def _check_join(self) -> None:
        join: Join | None = self._found.get("join")
        if join is None or not join.children:
            return
        for key in ("asset", "scale"):
            if getattr(join, key) is None:
                self._source.problem(("join", key), "missing", "Say what children count in, or set children = false.")
        if self._found.get("listeners", {}).get("http") is None:
            remedy = "Add [listeners.http], or set children = false."
            self._source.problem(("join", "children"), "there is no HTTP listener where they could ask", remedy)

    # --- routes and rates -----------------------------------------------------------------------------------------

    def _routes(self, address: str | None, accounts: list[Account]) -> tuple[tuple[str, AccountId], ...]:
        names = set(self._found.get("accounts", {}))
        routes: list[tuple[str, AccountId]] = []
        for prefix, name in self._found.get("routes", {}).items():
            path = ("routes", prefix)
            if name not in names:
                known = ", ".join(sorted(names)) or "none yet"
                self._source.problem(path, f"there is no account {name!r}", f"Accounts: {known}.")
            if prefix == DEFAULT_ROUTE:
                routes.append(("", AccountId(name)))
                continue
            if not is_valid_prefix(prefix) or not prefix:
                self._source.problem(path, "not an address prefix", 'Write one like "test.bob", or default.')
            elif scheme_of(prefix) == "peer":
                self._source.problem(path, "peer.* is never forwarded", "Remove it.")  # ADDR-5
            elif address is not None and is_test(prefix) != is_test(address) and scheme_of(address) in _NETWORKS:
                which = "a test network" if is_test(address) else "the live network"
                self._source.problem(path, f"this node is on {which}", "A node is on one of them only.")  # ADDR-6
            routes.append((prefix, AccountId(name)))
        parent = next((account.id for account in accounts if account.relation is Relation.PARENT), None)
        if parent is not None and all(prefix for prefix, _ in routes):
            routes.append(("", parent))
        return tuple(routes)


# Schemes that stand for a network; the others (example, private, …) are for tests and for single machines.
_NETWORKS: Final = frozenset({"g", "test", "test1", "test2", "test3"})


def _warnings(config: NodeConfig) -> list[str]:
    """What works but is probably not meant."""
    found: list[str] = []
    known = {codes for pair in config.rates.pairs for codes in (pair.codes, pair.codes[::-1])}
    codes = sorted({account.asset.code for account in config.accounts})
    found += [
        f"no rate between {one} and {other}: packets from one to the other are refused"
        for index, one in enumerate(codes)
        for other in codes[index + 1 :]
        if (one, other) not in known
    ]
    if config.address is None and config.parent is None:
        found.append(
            "no account is a parent, who would tell the address: packets come and go once `isthmus node join` made one"
        )
    if not config.accounts:
        found.append("no account: this node has nobody to exchange packets with")
    for account in config.accounts:
        if account.limits.receivable_max is None and account.relation is not Relation.PARENT:
            found.append(f"accounts.{account.id}: the peer may owe us without limit")
    try:
        if config.path.stat().st_mode & 0o077 and _has_inline_secret(config.path.read_text()):
            found.append(f"{config.path} holds secrets and others may read it: chmod 600 {config.path}")
    except OSError:
        pass
    return found


def _has_inline_secret(text: str) -> bool:
    return re.search(r"^[^#\n]*\b(token|secret|private_key)\s*=\s*[\"']", text, re.MULTILINE) is not None
