"""Documents are true: the reference is current, every code is explained, links lead somewhere."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from isthmus.ilp.asset import Asset
from isthmus.ilp.codes import ErrorCode, code_name
from isthmus.node.config import parse_config
from isthmus.node.wallet_settlement import load_wallet_settlement

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "adr").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(language: str) -> list[tuple[Path, str]]:
    """(page, text) of all fenced blocks in a language."""
    return [(page, text) for page in PAGES for name, text in FENCE.findall(page.read_text()) if name == language]


def label(case: object) -> str:
    return case.name if isinstance(case, Path) else "example"


def is_of_a_wallet(text: str) -> bool:
    """A wallet's settlement.toml, and no part of a node's file."""
    return "type" in tomllib.loads(text)


@pytest.mark.parametrize("page, text", [one for one in blocks("toml") if is_of_a_wallet(one[1])], ids=label)
def test_examples_of_wallets_are_understood(page: Path, text: str, tmp_path: Path) -> None:
    (tmp_path / "settlement.toml").write_text(text)
    for name in ("tls.cert", "admin.macaroon"):
        (tmp_path / name).write_text("there")
    assert load_wallet_settlement(tmp_path, Asset("BTC", 11), {}) is not None


@pytest.mark.parametrize("page, text", [one for one in blocks("toml") if not is_of_a_wallet(one[1])], ids=label)
def test_configuration_examples_are_understood(page: Path, text: str, tmp_path: Path) -> None:
    """No unknown key and no bad value; what else a whole file needs is beside the point of an example."""
    for problem in parse_config(text, tmp_path / "isthmus.toml", {}).problems:
        assert problem.problem == "missing" or "there is no file" in problem.problem, str(problem)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_configuration_reference_is_current() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "configuration_page.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_code_is_explained() -> None:
    """ILP-22."""
    text = (ROOT / "docs" / "errors.md").read_text()
    for code in ErrorCode:
        assert f"| {code.value} | {code_name(code.value)} |" in text


def test_news_fragments_have_a_kind() -> None:
    for path in (ROOT / "changelog.d").glob("*.md"):
        if path.name != "README.md":
            assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed|security|upgrade)\.md", path.name), path.name
