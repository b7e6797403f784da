"""The operation by which an operator says that what an alarm of an engine told of has been looked after."""

from isthmus.node.admin.engines import named, note_of
from isthmus.node.admin.operation import TEXT, Call, Json, Operation, RefusedError, schema_of
from isthmus.runtime.engines import EngineRunner


def alarm_operations(engines: EngineRunner) -> list[Operation]:
    """What happened once has no end that an engine could see."""

    async def clear(call: Call) -> Json:
        one, event = named(engines, call.path["engine"]), call.path["event"]
        account = call.json().get("account", "")
        if not isinstance(account, str):
            raise RefusedError(400, '"account" is not a string.')
        if not engines.over(one, event, account, note_of(call)):
            whose = f" for {account}" if account else ""
            raise RefusedError(409, f"No alarm {event} of {one.name} stands{whose}: isthmus settlements list.")
        return {"engine": one.name, "event": event, "account": account}

    return [
        Operation(
            method="POST",
            path="/engines/{engine}/alarms/{event}/clear",
            name="clearAlarm",
            summary="Say that what an alarm told of has been looked after; told again, it stands again.",
            handle=clear,
            answer=schema_of({"engine": TEXT, "event": TEXT, "account": TEXT}),
            body=schema_of(
                {"note": {**TEXT, "description": "What was done, for the log."}},
                {"account": {**TEXT, "description": "Whose alarm it is; without, the engine's own."}},
            ),
            refusals=(404, 409),
        ),
    ]
