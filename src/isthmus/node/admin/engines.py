"""Which engine an operation is about."""

from typing import Final

from isthmus.node.admin.operation import RefusedError
from isthmus.runtime.engines import Running

NO_SETTLER: Final = "There is no such account, or it has no settlement engine: isthmus accounts list."


def working(one: Running | None, unknown: str = NO_SETTLER) -> Running:
    """The engine, if there is one and it works. RefusedError 404 (`unknown`) or 409."""
    if one is None:
        raise RefusedError(404, unknown)
    if not one.works:
        raise RefusedError(409, f"The engine {one.name} doesn't work: {one.problem or 'it is starting'}.")
    return one
