"""Places in a JSON document: the part of JSONPath (RFC 9535) that names one value, `$.result.XXBTZUSD.c[0]`."""

import re
from typing import Any, Final, TypeAlias

from isthmus.node.rates.exact import AnswerError

STEPS_MAX: Final = 32
CHARS_MAX: Final = 512

JsonPath: TypeAlias = tuple[str | int, ...]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_STEP: Final = re.compile(
    r"""\.?([A-Za-z_][A-Za-z0-9_-]*) | \[([0-9]{1,6})\] | \[(?:'([^'\\]*)'|"([^"\\]*)")\]""", re.VERBOSE | re.ASCII
)


def parse_path(text: str) -> JsonPath:
    """Names with points between, `[0]` for places in arrays, `['…']` for other names. ValueError with the reason."""
    if len(text) > CHARS_MAX:
        raise ValueError(f"it is longer than {CHARS_MAX} characters")
    at = 2 if text.startswith("$.") else 1 if text.startswith("$") else 0
    steps: list[str | int] = []
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or (steps and match[1] is not None and text[at] != "."):
            raise ValueError(f"{text[at:][:20]!r} is no step of a path")
        if not steps and text[at] == ".":
            raise ValueError("it begins with a point")
        name = next((each for each in (match[1], match[3], match[4]) if each is not None), None)
        steps.append(int(match[2]) if name is None else name)
        at = match.end()
    if not steps:
        raise ValueError("it names nothing")
    if len(steps) > STEPS_MAX:
        raise ValueError(f"it has more than {STEPS_MAX} steps")
    return tuple(steps)


def path_text(path: JsonPath) -> str:
    """A path as it can be written."""
    parts = ["$"]
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _NAME.fullmatch(step):
            parts.append(f".{step}")
        else:
            parts.append(f'["{step}"]' if "'" in step else f"['{step}']")
    return "".join(parts)


def follow(document: Any, path: JsonPath) -> Any:
    """The value at this place; AnswerError if there is none."""
    value = document
    for step in path:
        is_there = step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))
        if isinstance(value, dict) is not isinstance(step, str) or not is_there:
            raise AnswerError(f"there is nothing at {path_text(path)}")
        value = value[step]
    return value
