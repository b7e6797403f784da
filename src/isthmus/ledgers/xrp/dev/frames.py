"""Requests as text, and the text of their answers: the frames of WebSocket and of JSON-RPC.

Whatever the text, there is an answer, and it is JSON.
"""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from isthmus.errors import LedgerError, plain
from isthmus.ledgers.xrp.dev.desk import API_VERSIONS, Request
from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.faults import Code, Fault
from isthmus.ledgers.xrp.dev.service import Service
from isthmus.ledgers.xrp.dev.subscriptions import Subscriber

UNPARSABLE: Final = "Unable to parse request: no JSON object\n"
_SECRETS: Final = ("secret", "seed", "seed_hex", "passphrase")
_ECHOED: Final = ("id", "jsonrpc", "ripplerpc", "api_version")
_REPEATED_CHARS_MAX: Final = 200  # of what is no JSON

_log = logging.getLogger(__name__)


def web_socket_answer(service: Service, text: str, subscriber: Subscriber) -> Fields:
    """The answer to a message on a WebSocket."""
    try:
        message = parsed(text)
    except ValueError:
        return {"type": "error", "error": "jsonInvalid", "value": text[:_REPEATED_CHARS_MAX]}
    command = message.get("command", message.get("method"))
    params = {name: value for name, value in message.items() if name not in ("command", "method", *_ECHOED)}
    echoed: Fields = {name: message[name] for name in _ECHOED if name in message}
    try:
        result = _result(service, command, params, message.get("api_version", 1), subscriber)
    except Fault as fault:
        refused = {"request": _without_secrets(message), "status": "error", "type": "response"}
        return {**echoed, **fault.fields, **refused}
    return {**echoed, "result": result, "status": "success", "type": "response"}


def json_rpc_answer(service: Service, text: str) -> Fields | str:
    """The answer to the body of a POST; as plain text if it is no request at all."""
    try:
        message = parsed(text)
    except ValueError:
        return UNPARSABLE
    given = message.get("params", [{}])
    params = given[0] if isinstance(given, list) and len(given) == 1 else {} if given == [] else given
    if not isinstance(params, dict):
        return "params unparseable\n"
    method = message.get("method")
    if not isinstance(method, str) or not method:
        return "Null method\n"
    echoed: Fields = {name: message[name] for name in ("id", "jsonrpc", "ripplerpc") if name in message}
    try:
        result = _result(service, method, params, params.get("api_version", 1), None)
        answer: Fields = {**result, "status": "success"}
    except Fault as fault:
        answer = {**fault.fields, "request": {**_without_secrets(params), "command": method}, "status": "error"}
    return {"result": answer, **echoed}


def _result(
    service: Service, command: object, params: Mapping[str, Any], version: object, subscriber: Subscriber | None
) -> Fields:
    if not isinstance(command, str):
        raise Fault(Code.COMMAND_MISSING)
    if not isinstance(version, int) or isinstance(version, bool) or version not in API_VERSIONS:
        raise Fault(Code.INVALID_VERSION)
    try:
        return service.answer(Request(command, params, version), subscriber)
    except LedgerError as error:
        raise Fault(Code.INTERNAL, str(error)) from error
    except Fault:
        raise
    except Exception as error:
        # One request may not take the ledger from everybody.
        _log.exception("this is a bug: %s could not be answered", plain(command))
        raise Fault(Code.INTERNAL) from error


def parsed(text: str) -> dict[str, Any]:
    """A JSON object; ValueError for anything else."""
    try:
        message = json.loads(text, parse_float=_finite, parse_constant=_refused)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def as_text(answer: Fields) -> str:
    """As JSON. What the request nested too deeply to be repeated isn't."""
    try:
        return json.dumps(answer)
    except RecursionError:
        return json.dumps(Fault(Code.INVALID_PARAMS).fields | {"status": "error", "type": "response"})


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number out of range")
    return number


def _refused(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _without_secrets(message: Mapping[str, Any]) -> Fields:
    return {name: "<masked>" if name in _SECRETS else value for name, value in message.items()}
