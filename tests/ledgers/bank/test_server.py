"""The bank over HTTP: who may ask what, once for a key, whatever is sent."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from isthmus.errors import CodecError
from isthmus.ledgers.bank.answers import account_of, bank_of, statement_of, transfer_of
from isthmus.ledgers.bank.client import (
    ANSWER_BYTES_MAX,
    BankAwayError,
    BankClient,
    BankRefusedError,
    WrongAnswerError,
    _answer,
)
from isthmus.ledgers.bank.document import document
from isthmus.ledgers.bank.operations import OPERATIONS
from isthmus.ledgers.bank.rules import Bank, new_operator_token
from isthmus.ledgers.bank.server import BODY_BYTES_MAX, WAITING_MAX, BankServer
from isthmus.ledgers.bank.values import AMOUNT_MAX, ENTRIES_PAGE_MAX, REFERENCE_CHARS_MAX
from tests.ledgers.bank.conftest import an_order, client, furnish, serving

WAIT_S = 60.0


class World:
    """A served bank, its operator's token, and Ann's."""

    def __init__(self, bank: Bank, server: BankServer, http: aiohttp.ClientSession) -> None:
        self.bank = bank
        self.server = server
        self.http = http
        self.operator = new_operator_token()
        bank.ensure_operator(self.operator, "test")
        self.ann = bank.new_token("ann", "")[1]

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = None, key: str | None = "k"
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.operator if token is None else token}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self.http.request(method, self.server.url + path, data=data, headers=headers) as response:
            wanted = "application/json" if response.status < 400 else "application/problem+json"
            assert response.content_type == wanted
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def world(bank: Bank) -> AsyncIterator[World]:
    furnish(bank, "ann", "bob")
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with serving(bank) as server, aiohttp.ClientSession(timeout=timeout) as http:
        yield World(bank, server, http)


async def test_a_holder_pays_and_reads_the_statement(world: World) -> None:
    body = {"to": "bob", "amount": "250", "reference": "lunch"}
    status, made = await world.ask("POST", "/accounts/ann/transfers", body, token=world.ann)
    assert (status, made["from"], made["amount"], made["key"]) == (201, "ann", "250", "k")
    assert await world.ask("POST", "/accounts/ann/transfers", body, token=world.ann) == (200, made)
    assert await world.ask("GET", "/accounts/ann/transfers/k", token=world.ann) == (200, made)
    _, page = await world.ask("GET", "/accounts/ann/entries?after=1&limit=5", token=world.ann)
    assert page["account"]["balance"] == "750"
    assert [(each["number"], each["amount"], each["reference"]) for each in page["entries"]] == [(2, "-250", "lunch")]
    status, problem = await world.ask("DELETE", "/accounts/ann/transfers/k", token=world.ann)
    assert (status, problem["code"]) == (409, "key-used")


async def test_an_operator_opens_accounts_and_gives_tokens(world: World) -> None:
    body = {"id": "cy", "asset_code": "USD", "asset_scale": 2, "name": "Cy", "overdraft": None}
    status, account = await world.ask("POST", "/accounts", body)
    assert (status, account["overdraft"], account["balance"]) == (201, None, "0")
    assert (await world.ask("POST", "/accounts", body))[0] == 200
    assert (await world.ask("PATCH", "/accounts/cy", {"overdraft": "7"}))[1]["overdraft"] == "7"
    _, found = await world.ask("GET", "/accounts")
    assert [each["id"] for each in found["accounts"]] == ["ann", "bob", "cy", "issuer"] and found["next"] is None
    status, token = await world.ask("POST", "/accounts/cy/tokens", {"label": "phone"})
    assert status == 201
    assert (await world.ask("GET", "/bank", token=token["token"]))[1] == {"id": "the-bank", "holder": "cy"}
    _, listed = await world.ask("GET", "/accounts/cy/tokens")
    assert "token" not in listed["tokens"][0] and listed["tokens"][0]["label"] == "phone"
    assert (await world.ask("DELETE", f"/accounts/cy/tokens/{token['id']}"))[0] == 200
    assert (await world.ask("GET", "/bank", token=token["token"]))[0] == 401
    assert (await world.ask("GET", "/audit"))[1] == {"problems": []}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
async def test_nothing_is_told_or_done_without_the_right_token(world: World, operation: Any) -> None:
    path = operation.path.format(account="bob", key="k", token="0")
    body = {"to": "ann", "amount": "1"}
    before = world.bank.accounts("")
    status, problem = await world.ask(operation.method, path, body, token="0123456789abcdef.nothing")
    assert (status, problem["code"]) == (401, "no-token")
    if operation.name != "showBank":
        status, problem = await world.ask(operation.method, path, body, token=world.ann)
        assert (status, problem["code"]) == (403, "not-yours")
        # Nor is a holder told whether there is another account.
        other = operation.path.format(account="nobody", key="k", token="0")
        assert (await world.ask(operation.method, other, body, token=world.ann))[0] == 403
    assert world.bank.accounts("") == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/accounts/ann/transfers", b"{", 400, "not JSON"),
        ("POST", "/accounts/ann/transfers", b"\xff", 400, "not UTF-8"),
        ("POST", "/accounts/ann/transfers", [], 400, "not a JSON object"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": 5}, 400, "string of digits"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "0"}, 400, "0 is not 1 to"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": str(AMOUNT_MAX + 1)}, 400, "is not 1 to"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "٣"}, 400, "string of digits"),
        ("POST", "/accounts/ann/transfers", {"to": "Bob!", "amount": "5"}, 400, "to: use"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "5", "fee": "1"}, 400, "no field 'fee'"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "5", "reference": "a\nb"}, 400, "printable"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "5", "reference": "x" * 141}, 400, "140"),
        ("POST", "/accounts/ann/transfers", b" " * (BODY_BYTES_MAX + 1), 413, ""),
        ("POST", "/accounts/nobody/transfers", {"to": "bob", "amount": "5"}, 404, "no such account"),
        ("POST", "/accounts/ann/transfers", {"to": "nobody", "amount": "5"}, 422, "no account of this name"),
        ("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "1001"}, 409, "doesn't have as much"),
        ("POST", "/accounts", {"id": "x", "asset_code": "U$", "asset_scale": 2}, 400, "asset_code"),
        ("POST", "/accounts", {"id": "x", "asset_code": "USD", "asset_scale": True}, 400, "asset_scale"),
        ("POST", "/accounts", {"id": "x", "asset_code": "USD", "asset_scale": 3}, 409, "2 decimal places"),
        ("POST", "/accounts", {"id": "../x", "asset_code": "USD", "asset_scale": 2}, 400, "id: use"),
        ("GET", "/accounts/ann/entries?after=-1", None, 400, "after"),
        ("GET", "/accounts/ann/entries?limit=101", None, 400, "limit"),
        ("GET", "/accounts/ann/entries?before=1", None, 400, "no parameter"),
        ("GET", "/nowhere", None, 404, "openapi"),
        ("PUT", "/accounts/ann", None, 405, "openapi"),
    ],
)
async def test_mistakes_are_problems(
    world: World, method: str, path: str, body: object, status: int, words: str
) -> None:
    found, problem = await world.ask(method, path, body)
    assert (found, problem["status"]) == (status, status) and words in problem["detail"], problem
    assert world.bank.account("ann").entries == 1


@pytest.mark.parametrize("key", [None, "", "a b", "x" * 65, "ü"])
async def test_a_transfer_needs_a_key(world: World, key: str | None) -> None:
    status, problem = await world.ask("POST", "/accounts/ann/transfers", {"to": "bob", "amount": "5"}, key=key)
    assert status == 400 and "Idempotency-Key" in problem["detail"]


async def test_the_document_tells_all_operations_and_is_open(world: World) -> None:
    async with world.http.get(world.server.url + "/openapi.json") as response:
        found = await response.json()
    assert found == document("1")
    names = {each["operationId"] for methods in found["paths"].values() for each in methods.values()}
    assert names == {each.name for each in OPERATIONS} | {"openapi"}


async def test_a_caller_who_goes_away_undoes_nothing(world: World) -> None:
    held, go = threading.Event(), threading.Event()

    def hold(_db: object) -> None:
        held.set()
        go.wait(WAIT_S)

    holding = asyncio.get_running_loop().run_in_executor(None, world.bank._database.write, hold)
    await asyncio.to_thread(held.wait, WAIT_S)
    async with client(world.server, "ann", world.ann, timeout_s=0.2) as ann:
        with pytest.raises(BankAwayError, match="didn't answer"):
            await ann.transfer("k", b'{"to": "bob", "amount": "5"}')
        go.set()
        await holding
    async with client(world.server, "ann", world.ann) as ann:
        assert (await ann.transfer("k", b'{"to": "bob", "amount": "5"}')).order == an_order("ann", "bob", 5)
    assert world.bank.account("ann").balance == 995


async def test_requests_that_wait_are_bounded(world: World) -> None:
    world.server._waiting = WAITING_MAX
    assert (await world.ask("GET", "/bank"))[0] == 503
    world.server._waiting = 0
    assert (await world.ask("GET", "/bank"))[0] == 200


async def test_the_client_reads_what_the_bank_answers(world: World) -> None:
    async with client(world.server, "ann", world.ann) as ann:
        assert await ann.bank() == ("the-bank", "ann")
        assert (await ann.show()).balance == 1_000
        made = await ann.transfer("k", b'{"to":"bob","amount":"5","reference":"r"}')
        assert await ann.transfer_under("k") == made
        account, (first, second) = await ann.statement(0)
        assert (account.balance, first.amount, second.amount, second.transfer) == (995, 1_000, -5, made.id)
        await ann.void("other")
        with pytest.raises(BankRefusedError) as caught:
            await ann.transfer_under("other")
        assert (caught.value.status, caught.value.code) == (404, "no-such-transfer")


async def test_the_longest_page_is_not_too_long(world: World) -> None:
    for number in range(ENTRIES_PAGE_MAX):
        world.bank.transfer(an_order("ann", "bob", 1, key=str(number), reference="\U0001f4b8" * REFERENCE_CHARS_MAX))
    async with client(world.server, "ann", world.ann) as ann:
        _, entries = await ann.statement(1)
    assert len(entries) == ENTRIES_PAGE_MAX


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {"account": {}, "entries": []},
        {"id": "a", "holder": 5},
        {"id": "x" * 65},
        {"id": "a", "key": "k", "from": "a", "to": "b", "amount": "0", "reference": "", "at_ms": 1},
        {"id": "a", "key": "k", "from": "a", "to": "b", "amount": "-5", "reference": "", "at_ms": 1},
        {"id": "a", "key": "k", "from": "a", "to": "b", "amount": 5, "reference": "", "at_ms": 1},
        {"id": "", "key": "k", "from": "a", "to": "b", "amount": "5", "reference": "", "at_ms": 1},
        {"id": "a", "key": "k", "from": "a", "to": "b", "amount": "5", "reference": "\n", "at_ms": 1},
        {"id": "a", "key": "k", "from": "a", "to": "b", "amount": "5", "reference": "", "at_ms": True},
        {"id": "a", "key": "k", "from": "a", "to": "b", "amount": "5", "reference": "", "at_ms": 10**16},
    ],
)
def test_what_is_no_answer_of_a_bank(found: object) -> None:
    for decode in (account_of, statement_of, transfer_of):
        with pytest.raises(CodecError):
            decode(found)
    if not (isinstance(found, dict) and found.get("id") == "a" and "holder" not in found):
        with pytest.raises(CodecError):
            bank_of(found)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", BankAwayError),
        (200, b"<html>", BankAwayError),
        (302, b"", BankRefusedError),
        (404, b"[]", BankRefusedError),
        (500, b"\xff" * 10, BankRefusedError),
    ],
)
def test_what_is_no_success(status: int, body: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        _answer(status, body)


async def test_an_endless_answer_is_cut_off() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * (ANSWER_BYTES_MAX + 9))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = BankClient(f"http://127.0.0.1:{port}", "ann", "t", timeout_s=WAIT_S)
    with pytest.raises(BankAwayError, match="longer than"):
        await one.bank()
    await one.close()
    server.close()


async def test_an_answer_of_another_shape_is_wrong(world: World) -> None:
    async with client(world.server, "ann/entries", world.operator) as odd:
        with pytest.raises(WrongAnswerError):
            await odd.show()
