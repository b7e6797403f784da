"""Lists the rows of docs/spec/conformance.md that no test names: `make rows`.

A test names rows in its docstring: `SECTION-NUMBER`, several by commas. A row that can't have a test yet has a reason
in docs/spec/untested.toml. Exit status 1 if a row has neither, or if a test or a reason names a row that isn't there.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "spec" / "conformance.md"
REASONS = ROOT / "docs" / "spec" / "untested.toml"

# The sections that this version implements; the others wait for monetisation.
SECTIONS = (
    "OER", "ADDR", "ILP", "CONN", "PEER", "ILDCP", "CCP", "BTP", "HTTP", "AUTH", "STREAM", "RCPT", "SPSP",
    "PTR", "SE", "X", "P",
)  # fmt: skip

HEADING = re.compile(r"^## ([A-Z]+)\b")
ROW = re.compile(r"^(\d+)\. ")
NAMED = re.compile(r"\b([A-Z]{1,6})-(\d+)\b")


def rows_of(text: str) -> dict[str, list[str]]:
    """Section -> its rows, as `SECTION-NUMBER`, in the order of the list."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        if heading := HEADING.match(line):
            section = heading.group(1)
            found[section] = []
        elif section and (row := ROW.match(line)):
            found[section].append(f"{section}-{row.group(1)}")
    return found


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of test functions, of classes (state machines, groups of tests) and of their rules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_rule = any("rule" in ast.dump(each) or "invariant" in ast.dump(each) for each in node.decorator_list)
            if not (node.name.startswith("test") or is_rule):
                continue
        elif not isinstance(node, ast.ClassDef):
            continue
        if text := ast.get_docstring(node):
            yield text


def named_in(folder: Path) -> dict[str, set[str]]:
    """Row -> the test files that name it."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        for text in docstrings(path.read_text()):
            for section, number in NAMED.findall(text):
                found.setdefault(f"{section}-{number}", set()).add(str(path.relative_to(folder)))
    return found


def main() -> int:
    sections = rows_of(LIST.read_text())
    every = {row for rows in sections.values() for row in rows}
    named = named_in(ROOT / "tests")
    reasons: dict[str, str] = tomllib.loads(REASONS.read_text())
    status = 0
    for row in sorted(named):
        if row not in every and row.split("-")[0] in sections:
            print(f"{row} is named by {', '.join(sorted(named[row]))} but is no row of the list")
            status = 1
    for row in reasons:
        if row not in every:
            print(f"{row} has a reason in untested.toml but is no row of the list")
            status = 1
        elif row in named:
            print(f"{row} has a test now: its reason can go from untested.toml")
    for section in SECTIONS:
        rows = sections[section]
        missing = [row for row in rows if row not in named and row not in reasons]
        explained = sum(row in reasons and row not in named for row in rows)
        tested = len(rows) - len(missing) - explained
        note = f", {explained} with a reason" if explained else ""
        print(f"{section:7} {tested:3} of {len(rows):3} rows tested{note}" + (": no test of" if missing else ""))
        if missing:
            print("        " + ", ".join(missing))
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
