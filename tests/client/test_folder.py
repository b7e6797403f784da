"""A wallet's folder."""

import stat
from pathlib import Path

import pytest

from isthmus.client.folder import SECRET_FILE, SETTINGS_FILE, TOKEN_FILE, init_folder, load_folder
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.ilp.ildcp import IldcpResponse

TOLD = IldcpResponse("test.hub.alice", 8, 'B"T\\C')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_folder(tmp_path / "wallet", "btp+ws://127.0.0.1:7768/", "the-token", TOLD, ca_file="/etc/ca.pem")
    return tmp_path / "wallet"


def change(folder: Path, before: str, after: str) -> None:
    text = (folder / SETTINGS_FILE).read_text()
    assert before in text
    (folder / SETTINGS_FILE).write_text(text.replace(before, after))


def test_what_was_written_is_read(folder: Path) -> None:
    """AUTH-2: the token lies apart, and printing the settings shows no secret."""
    settings = load_folder(folder)
    assert (settings.connector, settings.address, settings.asset) == (
        "btp+ws://127.0.0.1:7768/", "test.hub.alice", Asset('B"T\\C', 8))  # fmt: skip
    assert (settings.token, settings.ca_file, len(settings.secret)) == ("the-token", "/etc/ca.pem", 32)
    assert "the-token" not in repr(settings)
    assert settings.secret.hex() not in repr(settings)
    assert repr(settings.secret) not in repr(settings)


def test_files_are_for_their_owner_only(folder: Path) -> None:
    for name in (SETTINGS_FILE, TOKEN_FILE, SECRET_FILE):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_two_wallets_have_two_secrets(folder: Path, tmp_path: Path) -> None:
    init_folder(tmp_path / "other", "btp+ws://127.0.0.1:7768/", "the-token", TOLD)
    assert load_folder(folder).secret != load_folder(tmp_path / "other").secret


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is a wallet already"):
        init_folder(folder, "btp+ws://127.0.0.1:1/", "x", TOLD)


def test_an_interrupted_init_is_made_again(folder: Path) -> None:
    secret = load_folder(folder).secret
    (folder / SETTINGS_FILE).unlink()
    init_folder(folder, "btp+ws://127.0.0.1:7768/", "another-token", TOLD)
    assert (load_folder(folder).token, load_folder(folder).secret) == ("another-token", secret)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("connector =", "conector =", "conector: no such key"),
        ('"btp+ws://127.0.0.1:7768/"', '"https://bob"', "BTP URL"),
        ("scale = 8", "scale = 300", "not 0 to 255"),
        ("scale = 8", "scale = true", "not a int"),
        ("scale = 8", "", "missing"),
        ('"test.hub.alice"', '"somewhere"', "no ILP address"),
        ("# packet_timeout_ms = 30000", "packet_timeout_ms = 5", "not 1000 to 60000"),
        ("scale = 8", "scale = ", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(folder: Path, before: str, after: str, words: str) -> None:
    change(folder, before, after)
    with pytest.raises(ConfigError, match=words):
        load_folder(folder)


def test_a_file_that_others_may_read_is_refused(folder: Path) -> None:
    (folder / TOKEN_FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_folder(folder)


@pytest.mark.parametrize("secret", ["", "00", "zz" * 32])
def test_a_damaged_secret_is_refused(folder: Path, secret: str) -> None:
    (folder / SECRET_FILE).write_text(secret)
    with pytest.raises(ConfigError, match="32 bytes"):
        load_folder(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / TOKEN_FILE).unlink()
    with pytest.raises(ConfigError, match="token"):
        load_folder(folder)


def test_a_huge_file_is_not_read(folder: Path) -> None:
    (folder / SETTINGS_FILE).write_bytes(b"#" * 70_000)
    with pytest.raises(ConfigError, match="longer than"):
        load_folder(folder)
