"""The OpenAPI document: made of what is served, current in docs, and true to what a node answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

from isthmus.node.admin.everything import all_operations
from isthmus.node.admin.openapi import document

ROOT = Path(__file__).resolve().parents[2]
TOKEN = {"Authorization": "Bearer admin-token-of-the-node-tests-0123456789"}


def matches(value: Any, schema: dict[str, Any]) -> str:
    """What of a value is not as its schema says; empty if all is. As much of JSON Schema as our documents use."""
    if "oneOf" in schema:
        return "" if any(not matches(value, each) for each in schema["oneOf"]) else f"{value!r} is none of them"
    if "const" in schema:
        return "" if value == schema["const"] else f"{value!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not in {schema['enum']}"
    names = schema.get("type")
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
    allowed = tuple(kinds[name] for name in ([names] if isinstance(names, str) else names or kinds))
    if not isinstance(value, allowed):
        return f"{value!r} is no {names}"
    if isinstance(value, list):
        return next((found for each in value if (found := matches(each, schema["items"]))), "")
    if isinstance(value, dict) and "properties" in schema:
        missing = set(schema.get("required", [])) - set(value)
        unknown = set(value) - set(schema["properties"]) if schema.get("additionalProperties") is False else set()
        if missing or unknown:
            return f"missing {missing}, unknown {unknown}"
        known = [(key, each) for key, each in value.items() if key in schema["properties"]]
        return next((f"{key}: {bad}" for key, each in known if (bad := matches(each, schema["properties"][key]))), "")
    return ""


def test_the_document_in_docs_is_current() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "openapi_document.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_operation_has_a_name_of_its_own_and_its_refusals() -> None:
    nobody: Any = None
    operations = all_operations(nobody, nobody, nobody, nobody, nobody, nobody, "")
    names = [operation.name for operation in operations]
    assert len(set(names)) == len(names)
    told = document(operations)
    for operation in operations:
        responses = told["paths"][operation.path][operation.method.lower()]["responses"]
        assert "200" in responses and ("401" in responses) is not operation.is_open
        assert ("403" in responses) is operation.writes


async def test_what_a_node_answers_is_as_its_document_says(nodes: Any, two: str) -> None:
    node = await nodes.run(two)
    body = {
        "asset": "USD",
        "scale": 9,
        "relation": "peer",
        "link": {"type": "btp-server", "token": "x" * 40},
        "limits": {"receivable": "1"},
    }
    adjust = {"amount": "5", "note": "for the test", "key": "one"}
    by_hand = {"amount": "-5", "note": "for the test", "key": "s"}
    reverse = {"number": "3", "note": "for the test", "key": "r"}
    requests: list[tuple[str, str, str, Any]] = [
        ("PUT", "/accounts/{account}", "/accounts/carol", body),
        ("PUT", "/accounts/{account}", "/accounts/carol", {**body, "scale": 8}),
        ("PATCH", "/accounts/{account}", "/accounts/carol", {"limits": {"payable": None, "packet": "5"}}),
        ("PUT", "/routes/{prefix}", "/routes/test.carol", {"account": "carol"}),
        ("GET", "/routes", "/routes?prefix=test.carol&why=true", None),
        ("GET", "/accounts", "/accounts", None),
        ("GET", "/accounts/{account}", "/accounts/carol", None),
        ("POST", "/accounts/{account}/disable", "/accounts/carol/disable", None),
        ("POST", "/accounts/{account}/enable", "/accounts/carol/enable", None),
        ("POST", "/accounts/{account}/adjust", "/accounts/carol/adjust", adjust),
        ("POST", "/accounts/{account}/settlement", "/accounts/carol/settlement", by_hand),
        ("POST", "/accounts/{account}/settle", "/accounts/carol/settle", {"key": "t"}),
        ("POST", "/accounts/{account}/reverse-settlement", "/accounts/carol/reverse-settlement", reverse),
        ("GET", "/settlements", "/settlements", None),
        ("POST", "/accounts/{account}/write-off", "/accounts/carol/write-off", {"note": "x", "key": "two"}),
        ("DELETE", "/accounts/{account}", "/accounts/carol", None),
        ("DELETE", "/routes/{prefix}", "/routes/test.carol", None),
        ("GET", "/balances", "/balances", None),
        ("GET", "/books/digest", "/books/digest", None),
        ("GET", "/health", "/health", None),
        ("GET", "/openapi.json", "/openapi.json", None),
    ]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=TOKEN) as session:
        async with session.get(f"{node.listening['admin']}/openapi.json") as response:
            told = await response.json()
        assert told == json.loads((ROOT / "docs" / "openapi.json").read_text())
        for method, path, target, sent in requests:
            operation = told["paths"][path][method.lower()]
            if sent is not None:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert not matches(sent, schema), (path, matches(sent, schema))
            async with session.request(method, node.listening["admin"] + target, json=sent) as response:
                found = await response.json(content_type=None)
                answer = operation["responses"][str(response.status)]["content"].get("application/json")
                if answer is None:
                    assert response.content_type == "application/problem+json" and found["detail"]
                else:
                    assert not matches(found, answer["schema"]), (path, matches(found, answer["schema"]))
