"""The OpenAPI document of the admin API, made from the operations that are served."""

from collections.abc import Sequence
from typing import Any, Final

from isthmus import __version__
from isthmus.node.admin.answers import PROBLEM
from isthmus.node.admin.operation import TITLES, Call, Json, Operation

PATH: Final = "/openapi.json"
# What every operation may answer; those that change something may also meet a node without a token.
_ALWAYS: Final = (400, 401, 429, 503)
_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457. Further fields tell programs which key was wrong, or what is left to do.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do, for people."},
        "key": {"type": "string", "description": "The key of the configuration that is wrong."},
    },
    "required": ["type", "title", "status", "detail"],
}


def with_document(operations: Sequence[Operation]) -> list[Operation]:
    """The operations, and the one that tells of them all."""

    async def show(call: Call) -> Json:
        return document(everything)

    itself = Operation(
        method="GET",
        path=PATH,
        name="openapi",
        summary="This document.",
        handle=show,
        answer={"type": "object"},
    )
    everything = [*operations, itself]
    return everything


def document(operations: Sequence[Operation]) -> Json:
    """OpenAPI 3.1. The same operations give the same document, in the order of their paths."""
    paths: dict[str, Json] = {}
    for operation in sorted(operations, key=lambda each: each.path):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "summary": "Metrics for Prometheus, if they are configured.",
            "responses": {"200": {"description": "In text format.", "content": {"text/plain": {}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "isthmus admin API",
            "version": __version__,
            "description": "What an operator's tools ask a running node. Amounts are strings: a JSON number ends at "
            "2^53. A change is durable when it is answered, and the same request again changes nothing more.",
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
    told: Json = {"operationId": operation.name, "summary": operation.summary}
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in operation.parameters()
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query.items()
    ]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    told["responses"] = _responses(operation)
    if operation.is_open:
        told["security"] = []
    return told


def _responses(operation: Operation) -> Json:
    answer: Json = {"description": "Done.", "content": {"application/json": {"schema": operation.answer}}}
    if operation.is_open:
        return {"200": answer, "503": {**answer, "description": "Not well."}}
    refusals = {*_ALWAYS, *operation.refusals, *((403,) if operation.writes else ())}
    if operation.body is not None:
        refusals.add(413)
    responses: dict[str, Any] = {"200": answer}
    for status in sorted(refusals):
        content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[str(status)] = {"description": TITLES[status], "content": content}
    return responses
