"""Writes docs/configuration.md from the keys that are really read; `--check` says whether it is current."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.node.config_rates import RATE, SOURCE, RatesTable
from isthmus.node.config_reader import REQUIRED, Choice, Key, Section, Table
from isthmus.node.config_routes import ROUTES, AccountRoutes
from isthmus.node.config_schema import ROOT
from isthmus.node.config_settlement import ACCOUNT_SETTLEMENT, AccountSettlementTable, EngineTable
from isthmus.node.config_values import Mapped
from isthmus.node.engine_config import CONNECTOR, ENGINE_FILE
from isthmus.node.engines.kinds import KINDS
from isthmus.node.wallet_settlement import WALLET_SETTLEMENT

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

HEAD = """\
# Configuration

<!-- Made by tools/configuration_page.py from the code that reads the file. Edit the texts there. -->

A node is configured by one TOML file. `isthmus node init` writes one to start from, `isthmus node check FILE` names
what is wrong in one, with line, key and remedy, and `isthmus node run FILE` runs it. On SIGHUP a running node reads
rates, routes and limits again.

How values are written:

- **amount**: a string in units of the account's asset, `"0.5"`; never a number with a point, so that nothing is
  rounded. Whole numbers may stand without quotes.
- **rate**: a string, `"64250.5"` or `"1/3"`; kept as an exact fraction.
- **spread**: `"0.2 %"` or `"20 bp"`.
- **duration**: a number and a unit (`ms`, `s`, `min`, `h`), `"30 s"`.
- **secret**: the text itself, `{ file = "path" }` or `{ env = "NAME" }`.
- **path**: relative to the folder of the file.
"""

TITLES = {
    (): "The file",
    ("accounts",): "accounts.NAME",
    ("accounts", "link"): "accounts.NAME.link",
    ("accounts", "limits"): "accounts.NAME.limits",
    ("accounts", "routes"): "accounts.NAME.routes",
    ("accounts", "settlement"): "accounts.NAME.settlement",
    ("rates",): 'rates."BTC/USD"',
    ("rates", "sources"): "rates.sources.NAME",
    ("rates", "sources", "tls"): "rates.sources.NAME.tls",
}


def sections(section: Section, path: tuple[str, ...]) -> Iterator[tuple[str, str, Section]]:
    """(title, a sentence, keys) of every table, those inside it after it."""
    yield TITLES.get(path, ".".join(_shown(path))), "", section
    for key in section:
        yield from _inner(key.kind, (*path, key.name))


def _inner(kind: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, Section]]:
    if isinstance(kind, Mapped):
        yield from _inner(kind.each, path)
    elif isinstance(kind, Table):
        yield from sections(kind.section, path)
    elif isinstance(kind, AccountRoutes):
        words = 'Instead of the table: the program that the peer runs, or `"off"` ([how routing works](routing.md)).'
        yield TITLES[path], words, ROUTES
    elif isinstance(kind, AccountSettlementTable):
        words = "What is said to the engine itself depends on its kind ([how settlement works](settlement.md))."
        yield TITLES[path], words, ACCOUNT_SETTLEMENT
        for name, engine in KINDS.items():
            yield f'{TITLES[path]} with an engine of type "{name}"', "", engine.account
    elif isinstance(kind, EngineTable):
        for name, engine in KINDS.items():
            yield f'settlement.NAME with type = "{name}"', engine.summary, engine.options
            for key in engine.options:
                yield from _inner(key.kind, ("settlement", "NAME", key.name))
    elif isinstance(kind, RatesTable):
        yield TITLES[path], "A pair may have a table instead of a rate alone.", RATE
        yield from _inner(SOURCE, (*path, "sources"))
    elif isinstance(kind, Choice):
        title = TITLES.get(path, ".".join(_shown(path)))
        for option, (section, _) in kind.options.items():
            yield f'{title} with {kind.tag} = "{option}"', "", section
            for key in section:
                yield from _inner(key.kind, (*path, key.name))


def _shown(path: tuple[str, ...]) -> tuple[str, ...]:
    return (path[0], "NAME", *path[1:]) if path[:1] == ("accounts",) else path


def row(key: Key) -> str:
    if key.default is REQUIRED:
        default = "**required**"
    elif key.default_text:
        default = key.default_text
    elif isinstance(key.default, bool):
        default = f"`{str(key.default).lower()}`"
    elif isinstance(key.default, str):
        default = f'`"{key.default}"`'
    else:
        default = "none" if key.default is None else f"`{key.default}`"
    return f"| `{key.name}` | {key.kind.label} | {default} | {key.doc} |"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    seen: set[str] = set()
    words = "One of our engines for another connector ([how settlement works](settlement.md)); a file of its own."
    wallet = "How a wallet settles with its connector ([wallets](settlement.md#wallets)); beside its `wallet.toml`."
    apart = [
        ("the file of isthmus engine run", words, ENGINE_FILE),
        ("connector in that file", "", CONNECTOR),
        ("settlement.toml of a wallet", wallet, WALLET_SETTLEMENT),
    ]
    for title, words, section in [*sections(ROOT, ()), *apart]:
        if title in seen or not section:
            continue
        seen.add(title)
        heading = title if title == TITLES[()] else f"`{title}`"
        parts.append(f"## {heading}\n")
        if words:
            parts.append(f"{words}\n")
        rows = "\n".join(row(key) for key in section)
        parts.append(f"| key | holds | default | meaning |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def main() -> int:
    wanted = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != wanted:
            print(f"{PAGE.name} is not current: .venv/bin/python tools/configuration_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
