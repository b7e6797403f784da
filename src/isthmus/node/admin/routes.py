"""Operations on routes: show them, say why an address goes where it goes, add and remove configured ones."""

from typing import Final

from isthmus.ilp.address import is_valid_prefix
from isthmus.node.admin.accounts import flag
from isthmus.node.admin.operation import COUNT, FLAG, TEXT, Call, Json, Operation, RefusedError, list_of, schema_of
from isthmus.node.config import DEFAULT_ROUTE
from isthmus.node.control import Control
from isthmus.node.routes_view import RoutesView
from isthmus.runtime.driver import Driver

ROUTE: Final = schema_of(
    {
        "prefix": {**TEXT, "description": "Empty: the default route."},
        "account": TEXT,
        "source": {**TEXT, "description": "file, run time, child, parent, or what taught it."},
    }
)
LEFT_OFF: Final = {**COUNT, "description": "How many are not shown; ask for a longer prefix."}
OTHER: Final = schema_of(
    {
        "account": TEXT,
        "relation": TEXT,
        "preference": {"type": "integer"},
        "path": list_of(TEXT),
        "text": {**TEXT, "description": "What it costs, what packets have shown of it, and whether it is left out."},
    },
)
WHY: Final = schema_of(
    {
        "prefix": {"type": ["string", "null"]},
        "account": {"type": ["string", "null"]},
        "text": TEXT,
        "others": {**list_of(OTHER), "description": "Who else says that it reaches the prefix."},
    }
)
CHANGED: Final = schema_of({"prefix": TEXT, "changed": FLAG}, {"account": TEXT})


def route_operations(control: Control, driver: Driver) -> list[Operation]:
    """`control` changes routes, `driver` runs the kernel that follows them."""
    view = RoutesView(driver, control)

    async def show(call: Call) -> Json:
        prefix = call.query.get("prefix", "")
        is_default = prefix == DEFAULT_ROUTE
        prefix = _asked(prefix)
        found = view.shown(prefix)
        if is_default:
            found = {"routes": [route for route in found["routes"] if not route["prefix"]], "left_off": 0}
        if flag(call, "why"):
            found["why"] = view.why(prefix)
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
            answer=schema_of({"routes": list_of(ROUTE), "left_off": LEFT_OFF}, {"why": WHY}),
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
    return _asked(prefix) or prefix


def _asked(prefix: str) -> str:
    """A prefix as the tables have it: empty for `default`, and for none. RefusedError if it is none."""
    if prefix in ("", DEFAULT_ROUTE):
        return ""
    if not is_valid_prefix(prefix):
        raise RefusedError(400, f"{prefix[:80]!r} is no address prefix. Write it like test.bob, or default.")
    return prefix
