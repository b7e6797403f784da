"""The threat model is true: the tests that it names exist. Locks pin what is installed."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "security.md"
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())))


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize("path, name", NAMED)
def test_a_test_that_the_threat_model_names_exists(path: str, name: str) -> None:
    assert name.startswith("test_") and name in functions(path)


def test_every_threat_has_a_test() -> None:
    """A row of the tables under "Threats" has a test in its last cell."""
    threats = PAGE.read_text().partition("\n## Threats\n")[2].partition("\n## ")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ") and not line.startswith("| attacker ")]
    assert len(rows) > 25
    for row in rows:
        assert "`tests/" in row.rstrip("| ").rpartition("|")[2], row


@pytest.mark.parametrize("lock", ["run.lock", "dev.lock"])
def test_locks_pin_every_package_by_hash(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 20
    for line in lines:
        assert re.match(r"[a-z0-9-]+(\[\w+\])?==", line), line
        assert "--hash=sha256:" in line, line


def test_the_audit_is_part_of_ci() -> None:
    assert "step audit " in (ROOT / ".ci" / "run").read_text()
    assert "tools/audit.py" in (ROOT / "Makefile").read_text()
