"""Operations on routes: show them, say why an address goes where it goes, add and remove configured ones."""

from typing import Final

from isthmus.ilp.address import is_valid_prefix
from isthmus.node.admin.accounts import flag
from isthmus.node.admin.operation import FLAG, TEXT, Call, Json, Operation, RefusedError, list_of, schema_of
from isthmus.node.config import DEFAULT_ROUTE
from isthmus.node.control import Control

ROUTE: Final = schema_of(
    {
        "prefix": {**TEXT, "description": "Empty: the default route."},
        "account": TEXT,
        "source": {**TEXT, "description": "file, run time, child, parent, or what taught it."},
    }
)
WHY: Final = schema_of({"prefix": {"type": ["string", "null"]}, "account": {"type": ["string", "null"]}, "text": TEXT})
CHANGED: Final = schema_of({"prefix": TEXT, "changed": FLAG}, {"account": TEXT})


def route_operations(control: Control) -> list[Operation]:
    async def show(call: Call) -> Json:
        prefix = call.query.get("prefix", "")
        if prefix and not is_valid_prefix(prefix):
            raise RefusedError(400, f"{prefix[:80]!r} is no address prefix.")
        found: Json = {"routes": control.routes(prefix)}
        if flag(call, "why"):
            found["why"] = control.why(prefix)
        return found

    async def put(call: Call) -> Json:
        account = call.json().get("account")
        if not isinstance(account, str):
            raise RefusedError(400, "account must be the name of an account.")
        return await control.set_route(_prefix(call), account)

    async def remove(call: Call) -> Json:
        return await control.remove_route(_prefix(call))

    return [
        Operation(
            method="GET",
            path="/routes",
            name="listRoutes",
            summary="The routes in force, by prefix.",
            handle=show,
            answer=schema_of({"routes": list_of(ROUTE)}, {"why": WHY}),
            query={
                "prefix": "Only those below this prefix, and the one that its packets take.",
                "why": "true: say why packets to the prefix take the route that they take.",
            },
        ),
        Operation(
            method="PUT",
            path="/routes/{prefix}",
            name="setRoute",
            summary="Configure a route; `default` takes what no other does.",
            handle=put,
            answer=CHANGED,
            body=schema_of({"account": TEXT}),
        ),
        Operation(
            method="DELETE",
            path="/routes/{prefix}",
            name="removeRoute",
            summary="Remove a configured route.",
            handle=remove,
            answer=CHANGED,
        ),
    ]


def _prefix(call: Call) -> str:
    prefix = call.path["prefix"]
    if prefix != DEFAULT_ROUTE and not is_valid_prefix(prefix):
        raise RefusedError(400, f"{prefix[:80]!r} is no address prefix.")
    return prefix
