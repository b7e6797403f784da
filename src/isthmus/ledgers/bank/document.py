"""The OpenAPI document of a bank, made from the operations that it serves."""

from typing import Any, Final

from isthmus.ledgers.bank.operations import OPERATIONS, Json, Operation

PROBLEM: Final = "application/problem+json"
TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
_ALWAYS: Final = (400, 401, 403, 429, 503)
_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, for people."},
        "code": {"type": "string", "description": "The same for programs: `insufficient-funds`, `key-used`, …"},
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def document(version: str) -> Json:
    """OpenAPI 3.1, always the same for a version."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    about = {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}}
    paths["/openapi.json"] = {
        "get": {"operationId": "openapi", "summary": "This document.", "responses": {"200": about}, "security": []}
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "isthmus bank",
            "version": version,
            "description": "A double-entry ledger that only transfers. Amounts are strings: a JSON number ends at "
            "2^53. What is answered with success is durable.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(operation: Operation) -> Json:
    who = " For the operator." if operation.is_operators else ""
    told: Json = {"operationId": operation.name, "summary": operation.summary + who}
    parameters: list[Any] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in operation.parameters()
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query.items()
    ]
    if operation.has_key:
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string"}})
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    responses: Json = {
        str(status): {
            "description": "Done." if status == operation.statuses[-1] else "Done before.",
            "content": {"application/json": {"schema": operation.answer}},
        }
        for status in operation.statuses
    }
    refusals = {*_ALWAYS, *operation.refusals, *((408, 413) if operation.body is not None else ())}
    for status in sorted(refusals):
        content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[str(status)] = {"description": TITLES[status], "content": content}
    told["responses"] = responses
    return told
