"""Seeds of engines: in files that nobody else can read, sealed if there is a passphrase, and in no message."""

import json
import stat
from pathlib import Path

import pytest

from isthmus.errors import ConfigError
from isthmus.ledgers.sealed import COST_MAX, seal, unseal
from isthmus.ledgers.xrp.keys import make_key_file, read_key
from isthmus.ledgers.xrp.signatures import SigningKey

ENVIRON = {"PASS": "correct horse", "OTHER": "battery"}


def read(file: Path, passphrase_variable: str | None = None) -> SigningKey:
    return read_key("key", file=file, variable=None, passphrase_variable=passphrase_variable, environ=ENVIRON)


def test_a_new_key_is_read_back_and_is_its_owners_only(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    key = make_key_file(file, passphrase=None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("sEd")
    assert read(file).address == key.address
    with pytest.raises(FileExistsError):
        make_key_file(file, passphrase=None)


def test_a_sealed_key_needs_its_passphrase(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    key = make_key_file(file, passphrase="correct horse")
    assert "sEd" not in file.read_text()
    assert read(file, "PASS").address == key.address
    for variable, problem in ((None, "is sealed"), ("MISSING", "is sealed"), ("OTHER", "can't be unsealed")):
        with pytest.raises(ConfigError, match=problem):
            read(file, variable)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "another"},
        {"cost": COST_MAX * 2},
        {"cost": 1_000},
        {"cost": "x"},
        {"salt": "zz"},
        {"nonce": ""},
        {"box": "00"},
        {"box": None},
    ],
)
def test_a_sealed_secret_that_was_changed_is_none(changes: dict[str, object]) -> None:
    text = seal("secret", "p", salt=bytes(16), nonce=bytes(12))
    assert unseal(text, "p") == "secret"
    with pytest.raises(ValueError, match="not a sealed secret"):
        unseal(json.dumps(json.loads(text) | changes), "p")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10_000, "5", "{}"])
def test_what_is_no_sealed_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a sealed secret"):
        unseal(text, "p")
