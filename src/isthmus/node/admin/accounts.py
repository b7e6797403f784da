"""Operations on accounts: show one, add, change, remove, disable, enable."""

from typing import Final

from isthmus.node.admin.operation import COUNT, FLAG, TEXT, Call, Handler, Json, Operation, RefusedError, schema_of
from isthmus.node.admin.schemas import partial, section_schema
from isthmus.node.config_schema import ACCOUNT
from isthmus.node.control import DRAIN_S_MAX, Control

DEFINITION: Final = section_schema(ACCOUNT)
CHANGED: Final = schema_of({"account": TEXT, "changed": {**FLAG, "description": "False: it was so already."}})
SHOWN: Final = schema_of(
    {"id": TEXT, "source": TEXT, "definition": {"type": "object", "description": "As in the file, without secrets."}}
)
PONG: Final = schema_of(
    {
        "account": TEXT,
        "took_ms": COUNT,
        "code": {**TEXT, "description": "Of its Reject, as peers answer; empty from a parent."},
        "address": {**TEXT, "description": "Ours, as a parent tells it; else that of whoever answered."},
    },
    {"asset_code": {**TEXT, "description": "What a parent counts in."}, "asset_scale": COUNT},
)
# An account with two keys in PEM form.
DEFINITION_CHARS_MAX: Final = 32_768
# Beyond the time that a drain may take.
DRAIN_ANSWER_S: Final = DRAIN_S_MAX + 10


def account_operations(control: Control) -> list[Operation]:
    """Every change is durable, and holds, when it is answered. The same again is answered with `changed: false`."""

    async def show(call: Call) -> Json:
        return control.definition(call.path["account"])

    async def add(call: Call) -> Json:
        return await control.add(call.path["account"], call.json())

    async def change(call: Call) -> Json:
        return await control.change(call.path["account"], call.json())

    async def remove(call: Call) -> Json:
        return await control.remove(
            call.path["account"], drain=flag(call, "drain"), with_routes=flag(call, "with_routes")
        )

    async def disable(call: Call) -> Json:
        return await control.change(call.path["account"], {"enabled": False})

    async def enable(call: Call) -> Json:
        return await control.change(call.path["account"], {"enabled": True})

    async def ping(call: Call) -> Json:
        return await control.ping(call.path["account"])

    path = "/accounts/{account}"
    return [
        Operation(
            method="GET",
            path=path,
            name="showAccount",
            summary="What an account is configured with, and where that comes from.",
            handle=show,
            answer=SHOWN,
            refusals=(404,),
        ),
        Operation(
            method="PUT",
            path=path,
            name="addAccount",
            summary="Add an account. One that is there with other terms is refused; with the same it is fine.",
            handle=add,
            answer=CHANGED,
            body=DEFINITION,
            body_chars_max=DEFINITION_CHARS_MAX,
            refusals=(409,),
        ),
        Operation(
            method="PATCH",
            path=path,
            name="changeAccount",
            summary="Change what is given of an account (a JSON merge patch); asset and scale are for ever.",
            handle=change,
            answer=CHANGED,
            body=partial(DEFINITION),
            body_chars_max=DEFINITION_CHARS_MAX,
            refusals=(404, 409),
        ),
        Operation(
            method="DELETE",
            path=path,
            name="removeAccount",
            summary="Remove an account that owes nothing, is owed nothing and has nothing in flight.",
            handle=remove,
            answer=CHANGED,
            query={
                "drain": "true: take no new packets, wait until nothing is in flight, then remove it.",
                "with_routes": "true: remove the configured routes that lead to it too.",
            },
            refusals=(404, 409),
            wait_s_max=DRAIN_ANSWER_S,
        ),
        Operation(
            method="POST",
            path=f"{path}/ping",
            name="pingAccount",
            summary="Ask the peer something harmless: that it answers, how fast, and what it says of itself.",
            handle=ping,
            answer=PONG,
            refusals=(404, 409),
        ),
        _switch("disable", "Take no packets and send none; the link closes when nothing is in flight.", disable),
        _switch("enable", "Take packets again.", enable),
    ]


def _switch(verb: str, summary: str, handle: Handler) -> Operation:
    return Operation(
        method="POST",
        path=f"/accounts/{{account}}/{verb}",
        name=f"{verb}Account",
        summary=summary,
        handle=handle,
        answer=CHANGED,
        refusals=(404,),
    )


def flag(call: Call, name: str) -> bool:
    """A parameter that is true or false; RefusedError for anything else."""
    value = call.query.get(name, "false")
    if value not in ("true", "false"):
        raise RefusedError(400, f"{name} is true or false, not {value[:40]!r}.")
    return value == "true"
