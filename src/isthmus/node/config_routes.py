"""`routes` of an account: who tells whom what it reaches, by relation, by keys, or after the peer's program.

Which side asks the other for routes differs between programs and can't be detected (X-10): ilp-connector exchanges
them with parents and peers and not with children, interledger-rs tells its children and peers, and asks its parents
and peers.
"""

from dataclasses import dataclass
from typing import Any, Final

from isthmus.connector.routing.terms import FILTER_MAX, PREFERENCE_MAX, RECEIVED_LIMIT, RECEIVED_MAX, RouteTerms
from isthmus.ilp.address import is_valid_prefix
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Bad, Incomplete, Key, Section, Source, describe, read_section
from isthmus.node.config_values import Boolean, IlpAddress, Integer

# (send, receive) by relation. A parent that is an ilp-connector refuses to tell us: its default route stands.
DEFAULTS: Final = {"parent": (True, True), "peer": (True, True), "child": (True, False)}
PRESETS: Final = {
    # A parent tells its children nothing and asks them for nothing; a child asks its parent, and tells it when asked.
    "ilp-connector": {"parent": (False, False), "peer": (True, True), "child": (True, True)},
    # A parent tells its children unasked, and never asks them.
    "interledger-rs": {"parent": (False, True), "peer": (True, True), "child": (True, False)},
}
OFF: Final = "off"


@dataclass(slots=True, frozen=True)
class Prefixes:
    """A list of address prefixes."""

    label = "list of prefixes"

    def read(self, value: object, source: Source, path: KeyPath) -> tuple[str, ...]:
        """Each must be one, and not the empty one."""
        if not isinstance(value, list):
            raise Bad(f"a list of prefixes is needed, not {describe(value)}", 'Write ["test.alice", "test.bob"].')
        if len(value) > FILTER_MAX:
            raise Bad(f"{len(value)} prefixes", f"Keep at most {FILTER_MAX}.")
        for each in value:
            if not isinstance(each, str) or not each or not is_valid_prefix(each):
                raise Bad(f"{each!r} is no address prefix", "Use for example 'test.bob'.")
        return tuple(value)


ROUTES: Final[Section] = (
    Key("send", Boolean(), "Tell the peer what we reach, when it asks.", None, "yes"),
    Key("receive", Boolean(), "Ask the peer what it reaches, and use it.", None, "yes, but not of a child"),
    Key("transit", Boolean(), "Tell it also what we reach over peers and parents. A parent is never told.", True),
    Key("send_only", Prefixes(), "Tell it only prefixes under these.", (), "all"),
    Key("send_not", Prefixes(), "Don't tell it prefixes under these.", (), "none"),
    Key("receive_only", Prefixes(), "Take only prefixes under these.", (), "all"),
    Key("receive_not", Prefixes(), "Don't take prefixes under these.", (), "none"),
    Key("max", Integer(1, RECEIVED_LIMIT), "How many routes are taken from it.", RECEIVED_MAX),
    Key(
        "preference",
        Integer(-PREFERENCE_MAX, PREFERENCE_MAX),
        "Among hops that reach the same prefix the one with the highest is taken, whatever relations and paths are.",
        0,
    ),
    Key("speaker", IlpAddress(), "The only address that may tell routes here.", None, "a child's own; else any"),
)


@dataclass(slots=True, frozen=True)
class AccountRoutes:
    """Keys, or the name of a preset."""

    label = "table or text"

    def read(self, value: object, source: Source, path: KeyPath) -> dict[str, Any] | str:
        """A preset's name stays as it is; of keys that are missing, the relation decides."""
        if isinstance(value, str):
            if value not in PRESETS and value != OFF:
                words = ", ".join(f'"{name}"' for name in (*PRESETS, OFF))
                raise Bad(f"{value!r} is no preset", f"Use {words}, or {{ send = …, receive = … }}.")
            return value
        found = read_section(ROUTES, value, source, path)
        if len(found) < len(ROUTES):
            raise Incomplete
        return found


def build_routes(raw: dict[str, Any] | str | None, relation: str) -> RouteTerms:
    """What the account's terms say about routes; None for nothing in the file."""
    if raw == OFF:
        return RouteTerms()
    if raw is None or isinstance(raw, str):
        send, receive = DEFAULTS[relation] if raw is None else PRESETS[raw][relation]
        return RouteTerms(send=send, receive=receive)
    send, receive = DEFAULTS[relation]
    return RouteTerms(
        send=send if raw["send"] is None else raw["send"],
        receive=receive if raw["receive"] is None else raw["receive"],
        transit=raw["transit"],
        send_only=raw["send_only"],
        send_not=raw["send_not"],
        receive_only=raw["receive_only"],
        receive_not=raw["receive_not"],
        received_max=raw["max"],
        preference=raw["preference"],
        speaker=raw["speaker"] or "",
    )
