"""One operation of the admin API as data: the server serves it, and the OpenAPI document describes it.

Whoever adds to the API makes a list of `Operation`s and hands it to the server. A handler takes a `Call` and returns
what is answered as JSON; what it can't do it raises as `RefusedError`, which becomes a problem (RFC 9457).
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class RefusedError(Exception):
    """The node can't do what it was asked for; `status` is one of `TITLES`, `more` are fields of the problem."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        assert status in TITLES
        self.status = status
        self.more = more


@dataclass(slots=True, frozen=True)
class Call:
    """What a request says: the parts of its path, its query, and its body as text."""

    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    def json(self) -> Json:
        """The body as a JSON object; RefusedError if it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            raise RefusedError(400, "The body is not JSON.") from None
        if not isinstance(found, dict):
            raise RefusedError(400, "The body is not a JSON object.")
        return found


@dataclass(slots=True, frozen=True)
class Answer:
    """Where the status is not 200."""

    status: int
    body: Json


Handler: TypeAlias = Callable[[Call], Awaitable[Json | Answer]]


@dataclass(slots=True, frozen=True, kw_only=True)
class Operation:
    """A method on a path. `{name}` in the path is one segment of it."""

    method: str
    path: str
    name: str  # of the operation, for those who make clients from the document
    summary: str
    handle: Handler
    answer: Json  # the JSON schema of what is answered with 200
    body: Json | None = None  # the JSON schema of what is sent
    query: Mapping[str, str] = field(default_factory=dict)  # parameter -> what it means; all are optional
    refusals: tuple[int, ...] = ()  # beyond those that every operation may answer
    is_open: bool = False  # needs no token
    body_chars_max: int = 4_096
    wait_s_max: float | None = None  # instead of the server's

    @property
    def writes(self) -> bool:
        """Whether it changes something: then no node without a token takes it."""
        return self.method != "GET"

    def parameters(self) -> list[str]:
        """The names in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def schema_of(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    """The JSON schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


TEXT: Final[Json] = {"type": "string"}
FLAG: Final[Json] = {"type": "boolean"}
COUNT: Final[Json] = {"type": "integer", "minimum": 0}
AMOUNT: Final[Json] = {"type": "string", "pattern": "^-?[0-9]+$", "description": "In base units of the account."}
LIMIT: Final[Json] = {"type": ["string", "null"], "pattern": "^[0-9]+$", "description": "In base units; null: none."}
