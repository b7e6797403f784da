"""`isthmus engine run`: an engine of ours as a process of its own, beside nodes and by itself."""

from pathlib import Path
from typing import Final

import pytest

from isthmus.errors import ConfigError
from isthmus.node.engine_config import load_engine
from isthmus.node.engines.kinds import KINDS
from tests.settlement.toy import KIND, KIND_NAME

FILE: Final = """
asset = "USD"
scale = 9
listen = "127.0.0.1:0"
[connector]
url = "http://127.0.0.1:1"
[engine]
url = "http://127.0.0.1:2"
holder = "us"
[accounts.ann]
holder = "ann"
"""


@pytest.fixture(autouse=True)
def toy() -> None:
    KINDS[KIND_NAME] = KIND


def load(tmp_path: Path, text: str, kind: str = KIND_NAME) -> object:
    path = tmp_path / "engine.toml"
    path.write_text(text)
    return load_engine(kind, path, {})


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "engine.toml").write_text(FILE)
    found = load_engine(KIND_NAME, tmp_path / "engine.toml", {})
    assert found.accounts == {"ann": {"holder": "ann"}}
    assert found.others == "the engine's file must have a table [accounts.ID] with holder"
    assert (found.asset.code, found.asset.scale, found.data) == ("USD", 9, tmp_path / "data")
    assert found.options == {"url": "http://127.0.0.1:2", "holder": "us"}


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ('holder = "us"', "", "line 7: engine.holder: missing"),
        ('holder = "ann"', 'holder = "ann"\ncolour = "red"', "line 12: accounts.ann.colour: no such key"),
        ("[accounts.ann]", '[accounts."a/b"]', 'line 10: accounts."a/b": can\'t stand in a URL'),
        ('"http://127.0.0.1:1"', '"http://example.com"', "line 6: connector.url: 'http://example.com' would send"),
        ('"127.0.0.1:0"', '"0.0.0.0:1"', "token: missing, and others can reach this address"),
        ("scale = 9", "scale = 256", "line 3: scale: 256 is out of range"),
        ("[connector]", "[connectors]", "line 5: connectors: no such key"),
        ("[engine]", "[[engine]]", "engine: a table is needed, not an array"),
        ("scale", "=", "not TOML"),
    ],
)
def test_what_a_file_cant_say(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert FILE.count(old) >= 1
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, FILE.replace(old, new, 1))
    assert expected in str(caught.value)


@pytest.mark.parametrize("kind", ["gold", "rfc38"])
def test_only_engines_of_ours_are_served(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="is no engine of ours"):
        load(tmp_path, FILE, kind)
