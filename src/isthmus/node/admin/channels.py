"""Operations on payment channels: list them, open one, put more in, redeem, close."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from isthmus.connector.events import AccountId
from isthmus.errors import LedgerError
from isthmus.node.admin.engines import working
from isthmus.node.admin.operation import (
    AMOUNT,
    COUNT,
    FLAG,
    TEXT,
    Call,
    Json,
    Operation,
    RefusedError,
    list_of,
    schema_of,
)
from isthmus.runtime.engines import EngineRunner
from isthmus.settlement.channels import ChannelKeeper
from isthmus.settlement.port import MessageRefusedError, StepRefusedError

AMOUNT_DIGITS_MAX: Final = 78  # those of 256 bits
_LEDGER_AMOUNT: Final = {**AMOUNT, "description": "In the ledger's units: 10^-unit_scale of unit_code."}
CHANNEL: Final = schema_of(
    {
        "account": TEXT,
        "engine": TEXT,
        "id": TEXT,
        "direction": {
            "type": "string",
            "enum": ["out", "in", "both"],
            "description": "Ours to the peer, the peer's to us, or one by which either pays.",
        },
        "state": TEXT,
        "unit_code": TEXT,
        "unit_scale": COUNT,
        "capacity": _LEDGER_AMOUNT,
        "can_send": _LEDGER_AMOUNT,
        "can_receive": _LEDGER_AMOUNT,
        "claimed": {**_LEDGER_AMOUNT, "description": "All that was signed for the other side."},
        "redeemed": {**_LEDGER_AMOUNT, "description": "What of it the ledger has given out."},
        "unredeemed": {**_LEDGER_AMOUNT, "description": "The rest: what would be lost if the channel ended now."},
        "text": TEXT,
    },
    {
        "ends_at_ms": {**COUNT, "description": "From when on its owner can take back what was not redeemed."},
        "settle_delay_s": {**COUNT, "description": "From the owner's wish to that moment."},
    },
)
KEEPER: Final = schema_of({"account": TEXT, "engine": TEXT, "unit_code": TEXT, "unit_scale": COUNT})
LIST: Final = schema_of(
    {
        "channels": list_of(CHANNEL),
        "accounts": {**list_of(KEEPER), "description": "Accounts whose engine has channels, with one or without."},
    }
)
DONE: Final = schema_of({"account": TEXT, "text": TEXT})
Change: TypeAlias = Callable[[ChannelKeeper, AccountId, Call], Awaitable[str]]


def channel_operations(engines: EngineRunner) -> list[Operation]:
    """What is begun goes on by itself; the list tells how."""

    async def list_all(call: Call) -> Json:
        return channels_json(engines)

    def change(name: str, verb: str, summary: str, do: Change, body: Json) -> Operation:
        async def handle(call: Call) -> Json:
            account = AccountId(call.path["account"])
            keeper = _keeper(engines, account)
            try:
                return {"account": account, "text": await do(keeper, account, call)}
            except (LedgerError, MessageRefusedError, StepRefusedError) as error:
                raise RefusedError(409, f"Nothing is begun: {error}.") from None

        return Operation(
            method="POST",
            path=f"/accounts/{{account}}/channels/{verb}",
            name=name,
            summary=summary,
            handle=handle,
            answer=DONE,
            body=body,
            refusals=(404, 409),
        )

    amount = schema_of({"amount": _LEDGER_AMOUNT})
    nothing = schema_of({})
    ends = schema_of({}, {"ends": {**FLAG, "description": "End the peer's channels with it."}})
    return [
        Operation(
            method="GET",
            path="/channels",
            name="listChannels",
            summary="Payment channels with peers, as they were seen last.",
            handle=list_all,
            answer=LIST,
        ),
        change("openChannel", "open", "Open a channel to a peer, with so much in it.", _open, amount),
        change("fundChannel", "fund", "Put more into our channel to a peer.", _fund, amount),
        change("closeChannel", "close", "End our channel to a peer.", _close, nothing),
        change("redeemChannels", "redeem", "Redeem what a peer's channels owe us.", _redeem, ends),
    ]


def channels_json(engines: EngineRunner) -> Json:
    """All channels of engines that work."""
    channels: list[Json] = []
    accounts: list[Json] = []
    for one in engines.engines():
        keeper = one.engine
        if not one.works or not isinstance(keeper, ChannelKeeper):
            continue
        for account in one.accounts:
            unit = keeper.unit(account)
            about = {"account": account, "engine": one.name, "unit_code": unit.code, "unit_scale": unit.scale}
            accounts.append(about)
            channels += [{**about, **each.to_json()} for each in keeper.channels(account)]
    return {"channels": channels, "accounts": accounts}


def _keeper(engines: EngineRunner, account: AccountId) -> ChannelKeeper:
    one = working(engines.engine_of(account))
    if not isinstance(one.engine, ChannelKeeper):
        raise RefusedError(409, f"The engine {one.name} has no channels: its ledger only transfers.")
    return one.engine


def _amount(call: Call) -> int:
    text = call.json().get("amount")
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal()) or len(text) > AMOUNT_DIGITS_MAX:
        raise RefusedError(400, '"amount" is missing, or is not a string of digits.')
    if int(text) == 0:
        raise RefusedError(400, '"amount" is zero.')
    return int(text)


async def _open(keeper: ChannelKeeper, account: AccountId, call: Call) -> str:
    if not await keeper.open_channel(account, _amount(call)):
        raise RefusedError(409, "There is a channel to this peer already, or its opening is under way.")
    return "the channel is being opened"


async def _fund(keeper: ChannelKeeper, account: AccountId, call: Call) -> str:
    if not await keeper.add_to_channel(account, _amount(call)):
        raise RefusedError(409, "No channel of ours to this peer is open, or funds are under way to it.")
    return "the funds are under way"


async def _close(keeper: ChannelKeeper, account: AccountId, call: Call) -> str:
    if not await keeper.close_channel(account):
        raise RefusedError(409, "No channel of ours to this peer is open.")
    return "the channel is being closed"


async def _redeem(keeper: ChannelKeeper, account: AccountId, call: Call) -> str:
    ends = call.json().get("ends", False)
    if not isinstance(ends, bool):
        raise RefusedError(400, '"ends" is neither true nor false.')
    count = await keeper.redeem_channels(account, and_end=ends)
    if count == 0:
        raise RefusedError(409, "There is nothing to redeem.")
    return (
        f"{count} of the peer's channels {'is' if count == 1 else 'are'} being redeemed{' and ended' if ends else ''}"
    )
