"""Which engine an operation is about, and why it is done."""

from typing import Final

from isthmus.node.admin.operation import Call, RefusedError
from isthmus.runtime.engines import EngineRunner, Running

NO_SETTLER: Final = "There is no such account, or it has no settlement engine: isthmus accounts list."
NOTE_CHARS_MAX: Final = 300


def working(one: Running | None, unknown: str = NO_SETTLER) -> Running:
    """The engine, if there is one and it works. RefusedError 404 (`unknown`) or 409."""
    if one is None:
        raise RefusedError(404, unknown)
    if not one.works:
        raise RefusedError(409, f"The engine {one.name} doesn't work: {one.problem or 'it is starting'}.")
    return one


def named(engines: EngineRunner, name: str) -> Running:
    """The engine of this name, working or not. RefusedError 404."""
    one = next((each for each in engines.engines() if each.name == name), None)
    if one is None:
        raise RefusedError(404, "There is no such engine: isthmus settlements list.")
    return one


def note_of(call: Call) -> str:
    """What the operator says of it. RefusedError 400."""
    note = call.json().get("note")
    if not isinstance(note, str) or not note.strip() or not note.isprintable() or len(note) > NOTE_CHARS_MAX:
        raise RefusedError(400, f'"note" is missing, or is not one line of {NOTE_CHARS_MAX} characters at most.')
    return note.strip()
