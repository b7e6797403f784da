"""Operations on exchange rates: what each pair stands at, and the operator's word over its source's."""

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from isthmus.errors import ConfigError
from isthmus.node.admin.operation import TEXT, Call, Json, Operation, RefusedError, list_of, schema_of
from isthmus.node.rates.board import Board, PairState, WishError
from isthmus.node.rates.exact import AnswerError, Codes, pair_text, read_rate, split_pair
from isthmus.node.rates.provider import Provider
from isthmus.runtime.driver import Driver

SET: Final = "set"
STOP: Final = "stop"
FOLLOW: Final = "follow"
ACCEPT: Final = "accept"
ACTIONS: Final = (SET, STOP, FOLLOW, ACCEPT)

_FRACTION: Final[Json] = {"type": ["string", "null"], "description": 'Exact: "271/250".'}
RATE_SHOWN: Final[dict[str, Json]] = {
    "pair": {**TEXT, "description": "Both asset codes, `EUR/USD`: units of the second for one of the first."},
    "rate": {**_FRACTION, "description": 'The last one that was believed, exact: "271/250". Null before the first.'},
    "source": {
        **TEXT,
        "description": "`file`, `operator`, `via CODE`, or the name of a source; `none`: exchanged no more.",
    },
    "age_ms": {
        "type": ["integer", "null"],
        "description": "Since it was right at its source; null: it has none.",
    },
    "spread": {**_FRACTION, "description": "The pair's own part; null: the accounts' or the default holds."},
    "state": {"type": "string", "enum": ["trading", "stopped"]},
    "why": {"type": ["string", "null"], "description": "Why it is stopped."},
    "offered": {**_FRACTION, "description": "What its source says, where that is not believed."},
    "problem": {"type": ["string", "null"], "description": "What was wrong with the source's last answer."},
}
_BODY: Final = schema_of(
    {"pair": TEXT, "action": {"type": "string", "enum": list(ACTIONS)}},
    {"rate": {**TEXT, "description": "With `set` and `accept`: a decimal number, as text."}},
)


def rates_operations(driver: Driver, rates: Provider) -> list[Operation]:
    """`driver` journals what is set."""

    async def show(call: Call) -> Json:
        default = rates.rates.spread
        return {"rates": [shown(state) for state in rates.states()], "spread": str(default)}

    async def change(call: Call) -> Json:
        tell = wish_of(call.json(), {terms.asset.code for terms in driver.kernel.tables.accounts.values()})
        try:
            codes, event = rates.wish(tell)
        except (WishError, ConfigError) as error:
            raise RefusedError(409, f"{error}.") from None
        told = await driver.change_rates(event.rates, settings=event.settings)
        if told.problem:
            raise RefusedError(409, f"{told.problem}.")
        state = next((state for state in rates.states() if state.codes == codes), None)
        return gone(codes) if state is None else shown(state)

    return [
        Operation(
            method="GET",
            path="/rates",
            name="listRates",
            summary="All pairs: rate, source, age, spread, and whether they are exchanged.",
            handle=show,
            answer=schema_of({"rates": list_of(schema_of(RATE_SHOWN)), "spread": _FRACTION}),
        ),
        Operation(
            method="POST",
            path="/rates",
            name="setRate",
            summary="Set a pair's rate, stop it, follow its source again, or accept a rate that jumped.",
            handle=change,
            answer=schema_of(RATE_SHOWN),
            body=_BODY,
            refusals=(404, 409),
        ),
    ]


def wish_of(body: Json, assets: set[str]) -> Callable[[Board], Codes]:
    """What a request asks of the board. `assets` are those of the accounts: other pairs must be in the file."""
    unknown = sorted(set(body) - {"pair", "action", "rate"})
    if unknown:
        raise RefusedError(400, f"{unknown[0][:40]!r} is no field here; these are known: pair, action, rate.")
    codes = split_pair(body["pair"]) if isinstance(body.get("pair"), str) else None
    if codes is None or codes[0] == codes[1]:
        raise RefusedError(400, 'pair must be two asset codes, like "EUR/USD".')
    action = body.get("action")
    if action not in ACTIONS:
        raise RefusedError(400, f"action must be one of {', '.join(ACTIONS)}.")
    if (action in (SET, ACCEPT)) != ("rate" in body):
        raise RefusedError(400, "rate goes with set and accept, and with nothing else.")
    rate = _rate(body["rate"]) if "rate" in body else None

    def tell(board: Board) -> Codes:
        if action == FOLLOW:
            return board.follow(codes)
        if action == ACCEPT and rate is not None:
            return board.accept(codes, rate)
        missing = [code for code in codes if code not in assets]
        if missing and not board.knows(codes):
            raise RefusedError(404, f"No account is in {missing[0][:40]!r}, and the pair is not in the node's file.")
        return board.set(codes, rate)

    return tell


def _rate(text: object) -> Fraction:
    if not isinstance(text, str):
        raise RefusedError(400, 'rate must be a string: "1.0843".')
    try:
        return read_rate(text)
    except AnswerError as error:
        raise RefusedError(400, f"rate: {error}.") from None


def gone(codes: Codes) -> Json:
    """A pair that only the operator had a word on, which was taken back."""
    nothing = dict.fromkeys(("rate", "age_ms", "spread", "offered", "problem"))
    why = "the node's file doesn't have this pair"
    return {"pair": pair_text(codes), "source": "none", "state": "stopped", "why": why, **nothing}


def shown(state: PairState) -> Json:
    return {
        "pair": pair_text(state.codes),
        "rate": None if state.rate is None else str(state.rate),
        "source": state.source,
        "age_ms": state.age_ms,
        "spread": None if state.spread is None else str(state.spread),
        "state": "trading" if state.stopped is None else "stopped",
        "why": None if state.stopped is None else state.stopped.value,
        "offered": None if state.offered is None else str(state.offered),
        "problem": state.problem or None,
    }
