"""The operations on invitations: make one, see them, take one back."""

from typing import Final

from isthmus.node.admin.accounts import DEFINITION, DEFINITION_CHARS_MAX
from isthmus.node.admin.operation import COUNT, TEXT, Call, Json, Operation, RefusedError, list_of, schema_of
from isthmus.node.joining import LIFE_S_MAX, Joining

LIFE_S: Final = 24 * 3_600
INVITATION: Final = schema_of(
    {
        "id": {**TEXT, "description": "The beginning of the SHA-256 of its secret."},
        "account": TEXT,
        "asset": TEXT,
        "scale": COUNT,
        "relation": TEXT,
        "expires_at_ms": COUNT,
        "state": {"type": "string", "enum": ["open", "used", "ended"]},
    }
)


def join_operations(joining: Joining) -> list[Operation]:
    async def invite(call: Call) -> Json:
        body = call.json()
        unknown = sorted(set(body) - {"account", "definition", "life_s"})
        if unknown:
            raise RefusedError(400, f"{unknown[0][:40]!r} is not known here; give account, definition and life_s.")
        name, definition, life_s = body.get("account"), body.get("definition"), body.get("life_s", LIFE_S)
        if not isinstance(name, str) or not isinstance(definition, dict) or type(life_s) is not int:
            raise RefusedError(400, "account is a name, definition an account's section, life_s a number of seconds.")
        if "link" in definition:
            raise RefusedError(400, "The link is the peer's to make: leave it out.")
        return await joining.invite(name, definition, life_s)

    async def invitations(call: Call) -> Json:
        return {"invitations": joining.invitations()}

    async def revoke(call: Call) -> Json:
        return await joining.revoke(call.path["id"])

    properties = {key: value for key, value in DEFINITION["properties"].items() if key != "link"}
    required = [key for key in DEFINITION["required"] if key != "link"]
    definition = {**DEFINITION, "properties": properties, "required": required}
    return [
        Operation(
            method="POST",
            path="/invitations",
            name="invite",
            summary="Make an invitation: whoever has it becomes the account's peer, once and until it ends.",
            handle=invite,
            answer=schema_of({"account": TEXT, "invitation": TEXT, "expires_at_ms": COUNT}),
            body=schema_of(
                {"account": TEXT, "definition": definition},
                {"life_s": {"type": "integer", "minimum": 1, "maximum": LIFE_S_MAX}},
            ),
            body_chars_max=DEFINITION_CHARS_MAX,
            refusals=(409,),
        ),
        Operation(
            method="GET",
            path="/invitations",
            name="invitations",
            summary="The invitations that are kept, without their secrets.",
            handle=invitations,
            answer=schema_of({"invitations": list_of(INVITATION)}),
        ),
        Operation(
            method="DELETE",
            path="/invitations/{id}",
            name="revokeInvitation",
            summary="Take back an invitation that nobody has used.",
            handle=revoke,
            answer=schema_of({"id": TEXT, "account": TEXT}),
            refusals=(404, 409),
        ),
    ]
