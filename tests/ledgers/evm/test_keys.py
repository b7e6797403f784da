"""Where keys are read from, and that they are shown nowhere."""

import json
from pathlib import Path

import pytest
from eth_account import Account

from isthmus.errors import ConfigError
from isthmus.ledgers.evm.keys import Key, make_key_file, read_key
from tests.ledgers.evm.anvil import a_key


def read(file: Path | None = None, variable: str | None = None, passphrase: str | None = None, **environ: str) -> Key:
    return read_key("key", file=file, variable=variable, passphrase_variable=passphrase, environ=environ)


def test_a_new_file_is_the_owners_only_and_read_again(tmp_path: Path) -> None:
    key = make_key_file(tmp_path / "key", passphrase=None)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read(tmp_path / "key").secret == key.secret
    with pytest.raises(FileExistsError):
        make_key_file(tmp_path / "key", passphrase=None)


def test_an_encrypted_file_needs_its_passphrase(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(json.dumps(Account.encrypt(a_key(1).secret, "correct horse", kdf="scrypt", iterations=2)))
    file.chmod(0o600)
    assert read(file, None, "PASS", PASS="correct horse").address == a_key(1).address
    for environ in ({}, {"PASS": "wrong"}):
        with pytest.raises(ConfigError) as caught:
            read(file, None, "PASS", **environ)
        assert "wrong" not in str(caught.value)


def test_a_new_file_with_a_passphrase_holds_no_key(tmp_path: Path) -> None:
    key = make_key_file(tmp_path / "key", passphrase="p")
    assert key.secret.hex() not in (tmp_path / "key").read_text()
    assert read(tmp_path / "key", None, "PASS", PASS="p").secret == key.secret


def test_the_environment_may_hold_it() -> None:
    assert read(None, "KEY", KEY="0x" + a_key(2).secret.hex()).address == a_key(2).address


@pytest.mark.parametrize("text", ["", "0x12", "zz" * 32, "00" * 32, "ff" * 32, "{}", '{"crypto": 1}'])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read(file, None, "PASS", PASS="p")
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(a_key(1).secret.hex())
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read(file)


def test_no_key_is_shown_by_accident() -> None:
    key = a_key(1)
    assert key.secret.hex() not in repr(key) + str(key)
    with pytest.raises(ConfigError, match="no key"):
        read()
    with pytest.raises(ConfigError, match="KEY"):
        read(None, "KEY")
