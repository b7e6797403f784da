"""What was set at run time, laid over the file: one rule, no secret kept, and bad input that changes nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import ConfigError
from isthmus.node.config import Document
from isthmus.node.settings import (
    ACCOUNT,
    ROUTE,
    Item,
    Setting,
    decode_setting,
    hash_of,
    merge,
    sealed,
    shown,
    unsealed,
    with_change,
)
from isthmus.node.vault import KEY_FILE, Vault

BOB = Item(ACCOUNT, "bob")
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
keys = st.sampled_from(["a", "b", "type", "auth", "token", "token_sha256", "limits"])
objects = st.recursive(
    st.dictionaries(keys, leaves, max_size=4),
    lambda inner: st.dictionaries(keys, inner | leaves, max_size=4),
    max_leaves=8,
)


def without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(each) for key, each in value.items() if each is not None}


def document(tmp_path: Path, **values: Any) -> Document:
    return Document(tmp_path / "node.toml", values, {}, {})


@given(objects, objects)
def test_a_change_says_what_it_names_and_leaves_the_rest(definition: dict[str, Any], change: dict[str, Any]) -> None:
    """RFC 7396, but for kinds and tokens; nothing is left null, and nothing given is changed."""
    before, asked = json.dumps(definition), json.dumps(change)
    changed = with_change(without_nulls(definition), change)
    assert without_nulls(changed) == changed
    assert (json.dumps(definition), json.dumps(change)) == (before, asked)
    for key, value in change.items():
        if value is None:
            assert key not in changed
        elif not isinstance(value, dict):
            assert changed[key] == value
    rivals = {"token", "token_sha256"} & set(change)
    for key, value in without_nulls(definition).items():
        if key not in change and not (rivals and key in ("token", "token_sha256")):
            assert changed[key] == value
    assert with_change(changed, change) == changed


@given(objects, st.none() | st.text(max_size=5), st.sampled_from([BOB, Item(ROUTE, "test.x.ü")]))
def test_settings_round_trip(whole: dict[str, Any], file: str | None, item: Item) -> None:
    setting = Setting(file=file, whole=whole)
    assert decode_setting(item.key, setting.encode()) == (item, setting)


def test_others_keys_are_left_alone_and_a_newer_format_is_an_error() -> None:
    assert decode_setting(b"rates:EUR/USD", b"whatever") is None
    with pytest.raises(ConfigError, match="newer"):
        decode_setting(BOB.key, b'{"v":2,"file":null,"set":null}')


@pytest.mark.parametrize(
    "in_file, over, expected, ended",
    [
        (None, None, {"scale": 1}, False),  # added at run time
        ({"scale": 7}, {"scale": 7}, {"scale": 1}, False),  # changed over what the file still says
        ({"scale": 8}, {"scale": 7}, {"scale": 8}, True),  # the file was changed: it wins
        ({"scale": 8}, None, {"scale": 8}, True),  # the file has it now
        (None, {"scale": 7}, None, True),  # the file has it no more
    ],
)
def test_run_time_wins_until_the_section_of_the_file_changes(
    tmp_path: Path, in_file: Any, over: Any, expected: Any, ended: bool
) -> None:
    file = document(tmp_path, accounts={"alice": {}} | ({} if in_file is None else {"bob": in_file}))
    setting = Setting(file=hash_of(over), whole={"scale": 1})
    merged = merge(file, {BOB: setting}, Vault(tmp_path))
    assert merged.document.values["accounts"].get("bob") == expected
    assert merged.ended == ((BOB,) if ended else ())
    assert file.values["accounts"].get("bob") == in_file, "the file as it was read stays what it is"


def test_a_removed_item_stays_away_while_its_section_is_the_same(tmp_path: Path) -> None:
    file = document(tmp_path, routes={"test.bob": "bob", "test": "alice"})
    item = Item(ROUTE, "test.bob")
    merged = merge(file, {item: Setting(file=hash_of("bob"))}, Vault(tmp_path))
    assert merged.document.values["routes"] == {"test": "alice"}


@given(st.permutations(["asset", "scale", "relation"]))
def test_the_order_of_a_section_does_not_matter(order: list[str]) -> None:
    section = {"asset": "USD", "scale": 9, "relation": "peer"}
    assert hash_of({key: section[key] for key in order}) == hash_of(section)


SECRET = "a secret of somebody"
LINKS: list[dict[str, Any]] = [
    {"type": "btp-client", "url": "btp+ws://127.0.0.1:1", "token": SECRET},
    {"type": "btp-client", "url": "btp+ws://us:a%20secret%20of%20somebody@127.0.0.1:1"},
    {"type": "btp-server", "token": SECRET},
    {"type": "http", "outgoing": {"auth": "bearer", "token": SECRET}, "incoming": {"auth": "bearer", "token": SECRET}},
    {"type": "http", "incoming": {"auth": "jwt_hs256", "secret": SECRET, "subject": "x"}},
    {"type": "http", "outgoing": {"auth": "jwt_rs256", "private_key": SECRET}, "incoming": {}},
]


@pytest.mark.parametrize("link", LINKS, ids=lambda link: "-".join(sorted(link)))
def test_no_secret_is_kept_or_shown(tmp_path: Path, link: dict[str, Any]) -> None:
    vault = Vault(tmp_path)
    kept = sealed({"scale": 9, "link": link}, BOB, vault)
    for told in (kept, shown(kept), shown({"link": link})):
        assert "secret of somebody" not in json.dumps(told) and "a%20secret" not in json.dumps(told)
    assert sealed(kept, BOB, vault) == kept, "what is sealed stays as it is"
    opened = unsealed(kept, BOB, Vault(tmp_path))
    needed = link["type"] == "btp-client" or "outgoing" in link or "secret" in link.get("incoming", {})
    assert (SECRET in json.dumps(opened)) is needed


def test_what_is_sealed_opens_at_its_place_and_with_its_key_only(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    kept = vault.seal(SECRET, "accounts.bob")["sealed"]
    assert vault.open(kept, "accounts.bob") == SECRET
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    for text, place in ((kept, "accounts.alice"), (kept[:-4] + "AAAA", "accounts.bob"), ("!", "accounts.bob")):
        with pytest.raises(ConfigError, match="not sealed with"):
            vault.open(text, place)
    (tmp_path / KEY_FILE).write_text(os.urandom(32).hex())
    with pytest.raises(ConfigError, match="not sealed with"):
        Vault(tmp_path).open(kept, "accounts.bob")
    (tmp_path / KEY_FILE).write_text("not hex")
    with pytest.raises(ConfigError, match="damaged"):
        Vault(tmp_path).open(kept, "accounts.bob")
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(ConfigError, match="can't be read"):
        Vault(tmp_path).open(kept, "accounts.bob")
