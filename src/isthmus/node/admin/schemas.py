"""JSON schemas of what the configuration's reader takes: an account is sent as it would be written in the file."""

from typing import Any

from isthmus.node.admin.operation import Json
from isthmus.node.config_reader import REQUIRED, Choice, Section, Table
from isthmus.node.config_settlement import ACCOUNT_SETTLEMENT, AccountSettlementTable
from isthmus.node.config_values import Boolean, Integer, SecretText, Text


def section_schema(section: Section) -> Json:
    """Of a table with these keys."""
    properties = {key.name: {**kind_schema(key.kind), "description": key.doc} for key in section}
    required = [key.name for key in section if key.default is REQUIRED]
    schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def kind_schema(kind: Any) -> Json:
    """Of one value. What isn't told here is text that the node reads: amounts, durations, rates, paths."""
    if isinstance(kind, Table):
        return section_schema(kind.section)
    if isinstance(kind, AccountSettlementTable):
        own = {"description": "What the account's engine knows by itself."}
        return {**section_schema(ACCOUNT_SETTLEMENT), "additionalProperties": own}
    if isinstance(kind, Choice):
        return {"oneOf": [_option(kind.tag, name, section) for name, (section, _) in kind.options.items()]}
    if isinstance(kind, Integer):
        return {"type": "integer", "minimum": kind.minimum, "maximum": kind.maximum}
    if isinstance(kind, Boolean):
        return {"type": "boolean"}
    if isinstance(kind, Text) and kind.options:
        return {"type": "string", "enum": list(kind.options)}
    if isinstance(kind, SecretText):
        return {"type": "string", "writeOnly": True}
    return {"type": "string"}


def _option(tag: str, name: str, section: Section) -> Json:
    schema = section_schema(section)
    schema["properties"] = {tag: {"const": name}, **schema["properties"]}
    schema["required"] = [tag, *schema.get("required", [])]
    return schema


def partial(schema: Json) -> Json:
    """Of a change: nothing is required, and null takes a key back to its default."""
    if "properties" not in schema:
        return {**schema, "type": [schema["type"], "null"]} if isinstance(schema.get("type"), str) else schema
    rest = {key: value for key, value in schema.items() if key not in ("required", "properties")}
    return {**rest, "properties": {name: partial(each) for name, each in schema["properties"].items()}}
