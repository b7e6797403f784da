"""`isthmus node init` and `check`: what init writes is fine, and mistakes are told one by one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.node.config import check_config
from isthmus.node.config_model import BtpClientLink, BtpServerLink


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`isthmus node …` in a process of its own."""
    command = [sys.executable, "-m", "isthmus", "node", *args]
    environment = {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


@pytest.mark.parametrize("parent", [(), ("--parent", "btp+wss://me:up-token@parent.example:7768/btp")])
@pytest.mark.parametrize("keep", ["inline", "files", "env"])
def test_what_init_writes_is_fine(tmp_path: Path, keep: str, parent: tuple[str, ...]) -> None:
    made = run("init", str(tmp_path / "hub"), "--secrets", keep, "--asset", "EUR", "--scale", "2", *parent)
    assert made.returncode == 0, made.stderr
    path = tmp_path / "hub" / "isthmus.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    exports = [line.split("export ")[1].split("=", 1) for line in made.stdout.splitlines() if "export " in line]
    checked = check_config(path, dict(exports))
    assert (checked.problems, checked.warnings) == ((), ())
    config = checked.config
    assert config is not None
    assert (config.address is None) == bool(parent)
    assert {account.asset.code for account in config.accounts} == {"EUR"}
    links = {str(account.id): account.link for account in config.accounts}
    assert isinstance(links.pop("alice"), BtpServerLink)
    if parent:
        link = links.pop("parent")
        assert isinstance(link, BtpClientLink)
        assert link.token is not None
        assert link.token.reveal() == "up-token"
        assert "up-token" not in link.url
    assert ("up-token" in path.read_text()) == (bool(parent) and keep == "inline")


def test_each_init_has_secrets_of_its_own(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        assert run("init", str(tmp_path / name)).returncode == 0
        texts.append((tmp_path / name / "isthmus.toml").read_text())
    tokens = [line for text in texts for line in text.splitlines() if "token = " in line and line[0] != "#"]
    assert len(set(tokens)) == len(tokens) == 4


def test_init_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "isthmus.toml").write_text("mine")
    made = run("init", str(tmp_path))
    assert made.returncode == 2
    assert "exists already" in made.stderr
    assert (tmp_path / "isthmus.toml").read_text() == "mine"


@pytest.mark.parametrize(
    "options", [("--address", "nowhere"), ("--asset", 'U"'), ("--parent", "btp+wss://x.example"), ("--scale", "256")]
)
def test_init_refuses_what_can_not_work(tmp_path: Path, options: tuple[str, str]) -> None:
    made = run("init", str(tmp_path), *options)
    assert made.returncode == 2
    assert made.stderr.count("\n") == 1
    assert options[0] in made.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_tells_all_problems_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.toml"
    path.write_text('address = "test.a"\nadress = "test.a"\n[admin]\nlisten = "7770"\n')
    shown = run("check", str(path))
    assert shown.returncode == 2
    remedy = 'Write it as "127.0.0.1:7768", or "[::1]:7768".'
    assert shown.stderr.splitlines() == [
        f"{path}: line 2: adress: no such key. Did you mean address?",
        f"{path}: line 4: admin.listen: '7770' is not an address and a port. {remedy}",
        f"2 problems in {path}",
    ]


def test_check_shows_what_is_configured_and_no_secret(tmp_path: Path) -> None:
    assert run("init", str(tmp_path), "--parent", "btp+wss://:hush@parent.example").returncode == 0
    shown = run("check", str(tmp_path / "isthmus.toml"), COLUMNS="120")
    assert shown.returncode == 0
    assert "alice" in shown.stdout
    assert "10 USD" in shown.stdout
    assert "hush" not in shown.stdout + shown.stderr


def test_run_names_the_problem_and_how_to_see_all(tmp_path: Path) -> None:
    path = tmp_path / "isthmus.toml"
    path.write_text('adress = "test.a"\n')
    shown = run("run", str(path))
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "isthmus node check" in shown.stderr
