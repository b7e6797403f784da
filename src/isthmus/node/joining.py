"""How others become our peers and children while we run: by invitation, or as children by asking, if that is allowed.

Whoever comes makes its own token and shows us its hash: nobody else ever knows it. An invitation is one use of a secret
that we know by its hash, for a bounded time. Who asks the same again, after an answer was lost, gets the same answer.
"""

import asyncio
import json
import re
import secrets
from base64 import b32encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from aiohttp import web

from isthmus.connector.events import AccountId
from isthmus.errors import ConfigError, JournalError
from isthmus.links.http.client import read_limited
from isthmus.links.throttle import FailureThrottle
from isthmus.node.admin.answers import answer, problem, refusal
from isthmus.node.admin.operation import Call, Json, RefusedError
from isthmus.node.config_model import Join, Relation
from isthmus.node.control import Control
from isthmus.runtime import clock

PATH: Final = "/join"
BODY_BYTES_MAX: Final = 4_096
BODY_S_MAX: Final = 10.0
SECRET_BYTES: Final = 32
INVITATIONS_MAX: Final = 1_000
DAY_S: Final = 24 * 3_600
LIFE_S_MAX: Final = 30 * DAY_S
ID_CHARS: Final = 16  # of the hash, by which operators name an invitation
NAME_BYTES: Final = 10  # of the hash, for the name of a child who asked

NO_SUCH: Final = "There is no such invitation, or its time is over. Ask for another one."

_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX: Final = b"invitation:"
# What the other side is to us, and what we are to it.
INVERSE: Final = {"parent": "child", "child": "parent", "peer": "peer"}


class Joining:
    """The endpoint for strangers, and the operator's side of invitations."""

    def __init__(
        self,
        control: Control,
        *,
        throttle: FailureThrottle,
        listening: Callable[[], dict[str, str]],
        wall_ms: Callable[[], int] = lambda: clock.system_now().wall_ms,
        mono_ms: Callable[[], int] = clock.mono_ms,
    ) -> None:
        self._control: Final = control
        self._throttle: Final = throttle
        self._listening: Final = listening  # where the listeners are, by protocol
        self._wall_ms: Final = wall_ms
        self._mono_ms: Final = mono_ms
        self._turn: Final = asyncio.Lock()  # an invitation is used or revoked, whichever was asked first

    # --- the operator's side --------------------------------------------------------------------------------------

    async def invite(self, name: str, definition: Json, life_s: int) -> Json:
        """Make an invitation; the secret is in the answer and nowhere else."""
        if not 1 <= life_s <= LIFE_S_MAX:
            raise RefusedError(400, f"life_s must be from 1 to {LIFE_S_MAX}, which is {LIFE_S_MAX // DAY_S} days.")
        kept = self._invitations()
        old = {key: b"" for key, each in kept.items() if each["expires_at"] <= self._wall_ms()}
        if len(kept) - len(old) >= INVITATIONS_MAX:
            raise RefusedError(409, f"There are {INVITATIONS_MAX} invitations; wait until some have ended.")
        self._where("http")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        await self._control.check_new(name, _with_token(definition, sha256(secret.encode()).hexdigest()))
        expires_at = self._wall_ms() + life_s * 1_000
        invitation = {"v": 1, "account": name, "definition": definition, "expires_at": expires_at, "used_by": None}
        await self._control.keep({**old, _key(secret): _encoded(invitation)}, [(AccountId(name), "invited")])
        return {"account": name, "invitation": f"{self._where('http')}{PATH}#{secret}", "expires_at_ms": expires_at}

    def invitations(self) -> list[Json]:
        """All that are kept, those that end first in front. What has ended goes when the next one is made."""
        found = []
        for key, each in self._invitations().items():
            state = "used" if each["used_by"] is not None else "open"
            if state == "open" and each["expires_at"] <= self._wall_ms():
                state = "ended"
            definition = each["definition"]
            shown = {name: definition[name] for name in ("asset", "scale", "relation")}
            times = {"expires_at_ms": each["expires_at"], "state": state}
            found.append({"id": _id(key), "account": each["account"], **shown, **times})
        return sorted(found, key=lambda one: (one["expires_at_ms"], one["id"]))

    async def revoke(self, name: str) -> Json:
        """Take an invitation back, by its id; RefusedError if it was used."""
        async with self._turn:
            found = [(key, each) for key, each in self._invitations().items() if _id(key) == name]
            if not found:
                raise RefusedError(404, f"There is no invitation {name[:40]!r}.")
            [(key, invitation)] = found
            account = invitation["account"]
            if invitation["used_by"] is not None:
                raise RefusedError(409, f"It was used: {account} is an account now, and can be disabled or removed.")
            await self._control.keep({key: b""}, [(AccountId(account), "invitation revoked")])
            return {"id": name, "account": account}

    # --- the stranger's side --------------------------------------------------------------------------------------

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """POST /join: what would be agreed (`look`), or the agreement itself."""
        try:
            call = Call({}, {}, await _body(request))
            return answer(await self._asked(call.json(), request.remote or ""))
        except RefusedError as refused:
            return refusal(refused)
        except (JournalError, ConfigError):
            return problem(503, "Service Unavailable", "Not now; ask the same again.", {"Retry-After": "10"})

    async def _asked(self, body: Json, host: str) -> Json:
        unknown = sorted(set(body) - {"secret", "look", "asset", "scale", "token_sha256"})
        if unknown:
            raise RefusedError(400, f"{unknown[0][:40]!r} is not known here.")
        if self._throttle.is_above(host, self._mono_ms()):
            self._throttle.failed(host, self._mono_ms())
            raise RefusedError(429, "Too many requests from your address; wait.")
        secret = body.get("secret")
        if secret is None:
            return await self._child(body, host)
        invitation = self._invitations().get(_key(secret)) if isinstance(secret, str) else None
        if invitation is None or invitation["expires_at"] <= self._wall_ms():
            self._throttle.failed(host, self._mono_ms())
            raise RefusedError(404, NO_SUCH)
        definition = invitation["definition"]
        if body.get("look") is True:
            if invitation["used_by"] is not None:
                raise self._used(host)
            return self._terms(definition)
        token_sha256 = _agreed(body, definition)
        async with self._turn:
            return await self._use(_key(secret), token_sha256, host)

    async def _use(self, key: bytes, token_sha256: str, host: str) -> Json:
        invitation = self._invitations().get(key)
        if invitation is None:
            raise RefusedError(404, NO_SUCH)  # revoked just now
        definition = invitation["definition"]
        if invitation["used_by"] is None:
            used = {**invitation, "used_by": token_sha256}
            await self._control.add(
                invitation["account"], _with_token(definition, token_sha256), also={key: _encoded(used)}
            )
        elif invitation["used_by"] != token_sha256:
            raise self._used(host)
        return self._terms(definition)

    def _used(self, host: str) -> RefusedError:
        self._throttle.failed(host, self._mono_ms())
        return RefusedError(410, "This invitation was used already. Ask for another one.")

    async def _child(self, body: Json, host: str) -> Json:
        """Somebody without an invitation: a child, if the operator lets anybody be one."""
        join = self._control.config.join
        if not join.children:
            self._throttle.failed(host, self._mono_ms())
            raise RefusedError(403, "This node takes children by invitation only. Ask its operator for one.")
        definition = _definition_of(join)
        children = [each.id for each in self._control.config.accounts if each.relation is Relation.CHILD]
        is_full = len(children) >= join.children_max
        full = RefusedError(409, "This node has as many children as it takes. Ask its operator, or another node.")
        if body.get("look") is True:
            if is_full:
                raise full
            return self._terms(definition)
        token_sha256 = _agreed(body, definition)
        name = "child-" + b32encode(bytes.fromhex(token_sha256)[:NAME_BYTES]).decode().lower()
        if AccountId(name) not in children:
            self._throttle.failed(host, self._mono_ms())  # so that one address can't take all places at once
            if is_full:
                raise full
        await self._control.add(name, _with_token(definition, token_sha256))
        return self._terms(definition)

    def _terms(self, definition: Json) -> Json:
        """What the other side needs to know, as it sees it."""
        return {
            "address": self._control.address_now(),
            "asset": definition["asset"],
            "scale": definition["scale"],
            "we_are_your": INVERSE[definition["relation"]],
            "btp": self._where("btp"),
        }

    def _where(self, protocol: str) -> str:
        """Our listener as others reach it; RefusedError if there is none."""
        join = self._control.config.join
        named = join.http if protocol == "http" else join.btp
        found = self._listening().get(protocol)
        if found is None:
            raise RefusedError(
                409, f"This node has no {protocol.upper()} listener. Add [listeners.{protocol}] to its file."
            )
        if named is not None:
            return named.rstrip("/")
        return _origin(found) if protocol == "http" else f"btp+ws://{found}"

    def _invitations(self) -> dict[bytes, Json]:
        kept = self._control.kept(_PREFIX)
        return {key: json.loads(value) for key, value in kept.items()}


def _key(secret: str) -> bytes:
    return _PREFIX + sha256(secret.encode("utf-8", "surrogatepass")).hexdigest().encode()


def _id(key: bytes) -> str:
    return key.removeprefix(_PREFIX)[:ID_CHARS].decode()


def _encoded(invitation: Json) -> bytes:
    return json.dumps(invitation, separators=(",", ":"), sort_keys=True).encode()


def _with_token(definition: Json, token_sha256: str) -> Json:
    return {**definition, "link": {"type": "btp-server", "token_sha256": token_sha256}}


def _definition_of(join: Join) -> Json:
    limits: dict[str, Any] = {
        "receivable": join.receivable,
        **({} if join.payable is None else {"payable": join.payable}),
    }
    return {"asset": join.asset, "scale": join.scale, "relation": "child", "limits": limits}


def _agreed(body: Json, definition: Json) -> str:
    """The hash of the token that will be shown to us; RefusedError unless both sides count in the same."""
    theirs = (body.get("asset"), body.get("scale"))
    if theirs != (definition["asset"], definition["scale"]):
        ours = f"{definition['asset']} with scale {definition['scale']}"
        raise RefusedError(409, f"We count in {ours}: both sides of an account must be the same.")
    token_sha256 = body.get("token_sha256")
    if not isinstance(token_sha256, str) or _HASH.fullmatch(token_sha256) is None:
        raise RefusedError(400, "token_sha256 must be a SHA-256 in hex.")
    return token_sha256


def _origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


async def _body(request: web.Request) -> str:
    try:
        async with asyncio.timeout(BODY_S_MAX):
            body = await read_limited(request.content, BODY_BYTES_MAX)
        if body is None:
            raise RefusedError(413, f"The body is longer than {BODY_BYTES_MAX} bytes.")
        return body.decode()
    except (TimeoutError, OSError, ValueError):
        raise RefusedError(400, "The body could not be read.") from None
