"""What an operator sets at run time, as the journal keeps it, and which of file and run time wins.

An item is an account or a configured route. It is as it was set at run time until its own section of the file changes:
with each item the hash of that section is kept, and where the section is another, the file wins and the item ends.
The journal keeps no secret: tokens that peers show to us are hashes, others are sealed (`vault`).
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, TypeAlias

from isthmus.errors import ConfigError
from isthmus.links.btp.url import parse_btp_url
from isthmus.node.config import DEFAULT_ROUTE, Document
from isthmus.node.vault import Vault, is_sealed

Json: TypeAlias = dict[str, Any]

ACCOUNT: Final = "account"
ROUTE: Final = "route"
SECTIONS: Final = {ACCOUNT: "accounts", ROUTE: "routes"}
FORMAT: Final = 1
# Of a link: what is never kept as it is.
SECRETS: Final = frozenset({"token", "secret", "private_key"})


@dataclass(slots=True, frozen=True)
class Item:
    """One account or route of the configuration."""

    kind: str
    name: str

    @property
    def key(self) -> bytes:
        """In the journal."""
        return f"{self.kind}:{self.name}".encode()

    @property
    def place(self) -> str:
        """In a document, as errors name it."""
        return f"{SECTIONS[self.kind]}.{self.name}"


@dataclass(slots=True, frozen=True, kw_only=True)
class Setting:
    """What was set for an item: its whole section, or nothing (removed)."""

    file: str | None  # hash of the file's section then; None if it had none
    whole: Any = None

    def encode(self) -> bytes:
        described: Json = {"v": FORMAT, "file": self.file, "set": self.whole}
        return json.dumps(described, separators=(",", ":"), sort_keys=True).encode()


def decode_setting(key: bytes, value: bytes) -> tuple[Item, Setting] | None:
    """None for what is neither an account nor a route. Raises ConfigError for one by a newer version."""
    kind, _, name = key.decode().partition(":")
    if kind not in SECTIONS:
        return None
    described = json.loads(value)
    if described["v"] != FORMAT:
        raise ConfigError(f"{SECTIONS[kind]}.{name}", "a newer isthmus set it", "Use that version")
    return Item(kind, name), Setting(file=described["file"], whole=described["set"])


def settings_of(kept: Mapping[bytes, bytes]) -> dict[Item, Setting]:
    """All items among the journal's settings."""
    found = (decode_setting(key, value) for key, value in kept.items())
    return dict(each for each in found if each is not None)


@dataclass(slots=True, frozen=True)
class Merged:
    """The document that holds, and the items that ended because their sections in the file changed."""

    document: Document
    ended: tuple[Item, ...]


def merge(file: Document, settings: Mapping[Item, Setting], vault: Vault) -> Merged:
    """Lay what was set at run time over the file. Raises ConfigError if a secret can't be opened."""
    values = {**file.values}
    lines = file.lines
    ended: list[Item] = []
    for item, setting in settings.items():
        if setting.file != hash_of(section(file, item)):
            ended.append(item)
            continue
        table = SECTIONS[item.kind]
        values[table] = {**values.get(table, {})}
        definition = definition_of(file, item, setting)
        if definition is None:
            values[table].pop(item.name, None)
        else:
            values[table][item.name] = unsealed(definition, item, vault)
        lines = {path: line for path, line in lines.items() if path[:2] != (table, item.name)}
    return Merged(replace(file, values=values, lines=lines), tuple(ended))


def section(file: Document, item: Item) -> Any:
    """The item's section of the file; None without one."""
    return file.values.get(SECTIONS[item.kind], {}).get(item.name)


def hash_of(value: Any) -> str | None:
    """Of a section, whatever its order and spacing: SHA-256 in hex. None for none."""
    if value is None:
        return None
    return sha256(json.dumps(value, separators=(",", ":"), sort_keys=True, default=str).encode()).hexdigest()


def definition_of(file: Document, item: Item, setting: Setting | None) -> Any:
    """An item's section as it holds, with secrets as they are kept; None if there is none, or it was removed."""
    return section(file, item) if setting is None else setting.whole


def with_change(definition: Json, change: Json) -> Json:
    """A JSON merge patch (RFC 7396): null takes a key away.

    Beyond it, a table that names its kind (`type`, `auth`) replaces the old one whole, and a token its hash or the
    other way round.
    """
    changed = deepcopy(definition)
    for key, value in change.items():
        before = changed.get(key)
        if value is None:
            changed.pop(key, None)
        elif isinstance(value, dict):
            merged = before if isinstance(before, dict) and not _KINDS & set(value) else {}
            changed[key] = with_change(merged, value)
        else:
            changed[key] = value
        if key in _RIVALS and value is not None and _RIVALS[key] not in change:
            changed.pop(_RIVALS[key], None)
    return changed


_KINDS: Final = frozenset({"type", "auth"})
_RIVALS: Final = {"token": "token_sha256", "token_sha256": "token"}

# --- secrets ---------------------------------------------------------------------------------------------------------


def sealed(definition: Any, item: Item, vault: Vault) -> Any:
    """An account's section as the journal may keep it. What the file says of files and variables stays as it is."""
    if not isinstance(definition, dict) or not isinstance(definition.get("link"), dict):
        return definition
    link = _hashed(_without_token_in_url(definition["link"]))
    return {**definition, "link": _sealed(link, item.place, vault)}


def _without_token_in_url(link: Json) -> Json:
    """A BTP URL may hold user and token: they go where the others are. What is no URL is the schema's to refuse."""
    url = link.get("url")
    if not isinstance(url, str) or "@" not in url or url.startswith("http"):
        return link
    try:
        parsed = parse_btp_url(url, allow_insecure=True)
    except ConfigError:
        return link
    split = {**link, "url": str(parsed)}
    if parsed.token is not None:
        split.setdefault("token", parsed.token)
    if parsed.username:
        split.setdefault("username", parsed.username)
    return split


def _hashed(link: Json) -> Json:
    """Tokens that the peer shows: only their hashes are needed. A dialled peer's token is needed itself."""
    incoming = link.get("incoming")
    if isinstance(incoming, dict):
        return {**link, "incoming": _hash_token(incoming)}
    return _hash_token(link) if link.get("type") == "btp-server" else link


def _hash_token(holder: Json) -> Json:
    token = holder.get("token")
    if not isinstance(token, str) or not token.strip():
        return holder
    rest = {key: value for key, value in holder.items() if key != "token"}
    return {**rest, "token_sha256": sha256(token.encode()).hexdigest()}


def _sealed(value: Json, place: str, vault: Vault) -> Json:
    found: Json = {}
    for key, each in value.items():
        if key in SECRETS and isinstance(each, str):
            found[key] = vault.seal(each, place)
        elif isinstance(each, dict):
            found[key] = _sealed(each, place, vault)
        else:
            found[key] = each
    return found


def unsealed(definition: Any, item: Item, vault: Vault) -> Any:
    """The section as the configuration's reader takes it."""
    if is_sealed(definition):
        return vault.open(definition["sealed"], item.place)
    if isinstance(definition, dict):
        return {key: unsealed(value, item, vault) for key, value in definition.items()}
    return definition


def shown(definition: Any) -> Any:
    """The section for people and programs: no secret, sealed or not."""
    if not isinstance(definition, dict):
        return definition
    found: Json = {}
    for key, value in definition.items():
        if key in SECRETS or key == "public_key":
            found[key] = "…"
        elif key == "url" and isinstance(value, str):
            found[key] = _without_token_in_url({"url": value})["url"]
        else:
            found[key] = shown(value)
    return found


def route_item(prefix: str) -> Item:
    return Item(ROUTE, prefix or DEFAULT_ROUTE)
