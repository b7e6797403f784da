"""Answers of the admin API: objects as JSON, and problems (RFC 9457)."""

import json
from typing import Any, Final

from aiohttp import web

from isthmus.node.admin.operation import TITLES, Json, RefusedError

PROBLEM: Final = "application/problem+json"


def answer(body: Json, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


def refusal(error: RefusedError) -> web.Response:
    headers = {"Retry-After": "10"} if error.status == 503 else None
    return problem(error.status, TITLES[error.status], str(error), headers, **error.more)


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> web.Response:
    """`more` are further fields, for programs: which key was wrong, what is left to do."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    response = web.Response(status=status, text=json.dumps(body), content_type=PROBLEM, headers=headers)
    if status in (401, 429):
        response.force_close()  # one try for each connection
    return response
