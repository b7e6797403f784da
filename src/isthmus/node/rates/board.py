"""What is believed of each pair, and when it is stopped: a state machine that is told answers, wishes and the time.

A fetched rate is *accepted* if it lies near the last accepted one and within the bounds of its pair; then it holds
until it is too old. Else the pair stops: we would rather exchange nothing than at a wrong price. The operator may set
a rate, stop a pair, or accept a jump; what he sets holds over restarts, until he changes that pair in the file.

Pure: times are monotonic ms, but for a source's own (wall ms).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, Final, TypeAlias, final

from isthmus.connector.tables import RateTable
from isthmus.errors import ConfigError
from isthmus.node.config_model import Pair, Rates
from isthmus.node.rates.answers import Answer
from isthmus.node.rates.exact import Codes, Quotes, cross, decimal_text, direct, pair_text, split_pair

# A source whose clock is ahead by more than this is not believed.
FUTURE_MS_MAX: Final = 600_000
SET_MAX: Final = 1_024  # pairs that are set at run time
FORMAT: Final = 1  # of what is set, in the journal
_KIND: Final = "rate:"


class Why(Enum):
    """Why a pair is stopped. The text goes to peers too, so it tells no more than they may know, and rarely changes."""

    WAITING = "there is no rate yet"
    STALE = "its rate is too old"
    JUMPED = "its rate has jumped"
    BEYOND = "its rate is out of bounds"
    HALTED = "the operator has stopped it"


@dataclass(slots=True, frozen=True)
class PairState:
    """One pair as people are shown it."""

    codes: Codes
    rate: Fraction | None
    source: str  # "file", "operator", "via USD", or a source's name
    age_ms: int | None  # since the rate was right; None where it has no age
    spread: Fraction | None
    stopped: Why | None
    offered: Fraction | None = None  # what the source says and we don't believe
    problem: str = ""  # what was wrong last time


class WishError(Exception):
    """What the operator asks for can't be done; the text says why."""


@dataclass(slots=True)
class _Fetched:
    """What we know of one pair that is fetched."""

    accepted: Fraction | None = None  # the last rate that was believed, also by an earlier process
    as_of: int | None = None  # when it was right; None: not in this process
    offered: Fraction | None = None
    offered_as_of: int = 0
    refused: Why | None = None  # what `offered` is, if it is not believed
    problem: str = ""


@dataclass(slots=True, frozen=True)
class Wish:
    """The operator's word on a pair, and what the file said of it then: if that changes, the file wins."""

    rate: Fraction | None  # None: stopped
    over: str

    def encode(self) -> bytes:
        described = {"v": FORMAT, "rate": None if self.rate is None else str(self.rate), "over": self.over}
        return json.dumps(described, separators=(",", ":"), sort_keys=True).encode()


_Known: TypeAlias = tuple[Fraction | None, Why | None]


@final
class Board:
    """All pairs of a node. `remembered` is what the journal has of them from before."""

    def __init__(self, rates: Rates, remembered: "Remembered") -> None:
        self._rates: Final = rates
        self._pairs: Final[dict[Codes, Pair]] = {pair.codes: pair for pair in rates.pairs}
        self._set: Final = {
            codes: wish for codes, wish in remembered.wishes.items() if wish.over == _item(self._pairs.get(codes))
        }
        # Of those that the operator changed in the file since, so that the journal forgets them.
        self._ended: Final = [codes for codes in remembered.wishes if codes not in self._set]
        self._followed: Final[set[Codes]] = set()  # set once, and no longer by the operator's word
        before = remembered.rates
        self._fetched: Final[dict[Codes, _Fetched]] = {
            pair.codes: _Fetched(accepted=direct(before, *pair.codes)) for pair in rates.pairs if pair.fetched
        }
        self._failures: Final[dict[str, int]] = {source.name: 0 for source in rates.sources}

    def reconfigured(self, rates: Rates) -> "Board":
        """A board for another configuration, which goes on with what it knows of pairs whose source is the same."""
        fresh = Board(rates, Remembered(self.table(0).rates, self._set))
        for codes, found in fresh._fetched.items():
            before = self._pairs.get(codes)
            pair = fresh._pairs[codes]
            if before is not None and before.fetched == pair.fetched and codes in self._fetched:
                known = self._fetched[codes]
                found.accepted, found.as_of, found.problem = known.accepted, known.as_of, known.problem
                found.offered, found.offered_as_of, found.refused = known.offered, known.offered_as_of, known.refused
                fresh._judge_again(pair, found)
        for name in fresh._failures:
            fresh._failures[name] = self._failures.get(name, 0)
        return fresh

    @property
    def failures(self) -> Mapping[str, int]:
        """How many times each source failed."""
        return self._failures

    # --- facts ------------------------------------------------------------------------------------------------------

    def wanted(self, source: str) -> list[str]:
        """The asset codes that this source is asked for, and its base."""
        codes = {code for pair in self._from(source) for code in pair.codes}
        codes |= {pair.fetched.base for pair in self._from(source) if pair.fetched and pair.fetched.base}
        return sorted(codes)

    def waits_for(self, source: str) -> bool:
        """Whether a pair has never had an answer of it."""
        found = [self._fetched[pair.codes] for pair in self._from(source)]
        return any(one.as_of is None and one.refused is None for one in found)

    def answered(self, source: str, answer: Answer, *, wall_ms: int, now: int) -> str:
        """A source's answer; what is wrong with it as a whole, or nothing."""
        age_ms = 0
        if answer.as_of_ms is not None:
            age_ms = wall_ms - answer.as_of_ms
            if age_ms < -FUTURE_MS_MAX:
                return self.failed(source, f"its time is {-age_ms // 1000} s in the future; one of the clocks is wrong")
        as_of = now - max(0, age_ms)
        for pair in self._from(source):
            self._take(pair, answer, as_of)
        return ""

    def failed(self, source: str, problem: str) -> str:
        """No answer, or none that can be used: rates go on until they are too old."""
        self._failures[source] = self._failures.get(source, 0) + 1
        for pair in self._from(source):
            self._fetched[pair.codes].problem = problem
        return problem

    def _from(self, source: str) -> list[Pair]:
        return [pair for pair in self._pairs.values() if pair.fetched is not None and pair.fetched.name == source]

    def _take(self, pair: Pair, answer: Answer, as_of: int) -> None:
        found = self._fetched[pair.codes]
        assert pair.fetched is not None
        rate = cross(answer.quotes, pair.source, pair.destination, pair.fetched.base)
        if rate is None:
            parts = [text for codes, text in answer.problems.items() if set(codes) & set(pair.codes)]
            found.problem = parts[0] if parts else f"it doesn't tell {pair_text(pair.codes)}"
            return
        if found.as_of is not None and as_of < found.as_of and answer.as_of_ms is not None:
            return  # an old answer, from a cache on the way: what we know is newer
        found.problem = ""
        self._judge(pair, found, rate, as_of)

    @staticmethod
    def _judge(pair: Pair, found: _Fetched, rate: Fraction, as_of: int) -> None:
        found.refused = None
        if (pair.least is not None and rate < pair.least) or (pair.most is not None and rate > pair.most):
            found.refused = Why.BEYOND
        elif found.accepted is not None and _jump(found.accepted, rate) > pair.jump_max:
            found.refused = Why.JUMPED
        if found.refused is None:
            found.accepted, found.as_of, found.offered = rate, as_of, None
        else:
            found.offered, found.offered_as_of = rate, as_of

    def _judge_again(self, pair: Pair, found: _Fetched) -> None:
        """The bounds or what it is compared with have changed."""
        if found.offered is not None:
            self._judge(pair, found, found.offered, found.offered_as_of)
        elif found.accepted is not None and found.as_of is not None:
            self._judge(pair, found, found.accepted, found.as_of)

    # --- the operator's wishes --------------------------------------------------------------------------------------

    def set(self, codes: Codes, rate: Fraction | None) -> Codes:
        """This rate, or None to stop the pair, whatever its source says; gives the pair as it is kept."""
        codes, inverted = self._named(codes)
        if rate is None and codes not in self._pairs and codes not in self._set:
            raise WishError(f"{pair_text(codes)} is not exchanged here")
        if len(self._set) >= SET_MAX and codes not in self._set:
            raise WishError(f"{SET_MAX} pairs are set already; write what is to stay into the node's file")
        self._set[codes] = Wish(1 / rate if inverted and rate is not None else rate, _item(self._pairs.get(codes)))
        return codes

    def follow(self, codes: Codes) -> Codes:
        """Again what the file says of the pair."""
        codes, _ = self._named(codes)
        if codes not in self._set:
            raise WishError(f"{pair_text(codes)} is not set by the operator")
        del self._set[codes]
        self._followed.add(codes)
        return codes

    def accept(self, codes: Codes, rate: Fraction) -> Codes:
        """Take this rate as the one that jumps are measured from; what the source says is judged anew."""
        codes, inverted = self._named(codes)
        found = self._fetched.get(codes)
        if found is None:
            raise WishError(f"{pair_text(codes)} is not fetched from a source")
        rate = 1 / rate if inverted else rate
        offered = found.offered
        if offered is None:
            raise WishError(f"{pair_text(codes)} has no rate that waits to be accepted")
        pair = self._pairs[codes]
        if _jump(rate, offered) > pair.jump_max:
            raise WishError(f"its source says {decimal_text(offered)} for {pair_text(codes)}, which is far from that")
        if found.refused is Why.BEYOND:
            raise WishError(f"{decimal_text(offered)} is out of the bounds of {pair_text(codes)} in the node's file")
        found.accepted = rate
        self._judge_again(pair, found)
        return codes

    def knows(self, codes: Codes) -> bool:
        """Whether the file or the operator has a word on this pair, or on its way back."""
        kept, _ = self._named(codes)
        return kept in self._pairs or kept in self._set

    def _named(self, codes: Codes) -> tuple[Codes, bool]:
        """The pair as it is kept, and whether that is the way back of how it was named."""
        known = self._pairs.keys() | self._set.keys()
        back = codes[::-1]
        return (back, True) if codes not in known and back in known else (codes, False)

    # --- what follows -----------------------------------------------------------------------------------------------

    def table(self, now: int) -> RateTable:
        """The rates as they hold at this time. Accounts' spreads are not in it."""
        rates: dict[Codes, Fraction] = {}
        stopped: dict[Codes, str] = {}
        spreads: dict[Codes, Fraction] = {}
        for codes in [*self._pairs, *(codes for codes in self._set if codes not in self._pairs)]:
            rate, why = self._known(codes, now)
            if rate is not None:
                rates[codes] = rate
            if why is not None:
                stopped[codes] = why.value
            pair = self._pairs.get(codes)
            if pair is not None and pair.spread is not None:
                spreads[codes] = pair.spread
                if codes[::-1] not in self._pairs:
                    spreads[codes[::-1]] = pair.spread
        return RateTable(rates, spread=self._rates.spread, pair_spreads=spreads, stopped=stopped)

    def _known(self, codes: Codes, now: int) -> _Known:
        """The rate to be shown, and why it is not exchanged at."""
        wish = self._set.get(codes)
        if wish is not None:
            return (self._unset(codes, now)[0], Why.HALTED) if wish.rate is None else (wish.rate, None)
        return self._unset(codes, now)

    def _unset(self, codes: Codes, now: int) -> _Known:
        pair = self._pairs.get(codes)
        if pair is None:
            return None, None
        if pair.rate is not None:
            return pair.rate, None
        if pair.via is not None:
            return self._by_way_of(pair, pair.via, now)
        found = self._fetched[codes]
        if found.refused is not None:
            return found.accepted, found.refused
        if found.as_of is None:
            return found.accepted, Why.WAITING
        return found.accepted, Why.STALE if now - found.as_of > pair.max_age_ms else None

    def _by_way_of(self, pair: Pair, via: str, now: int) -> _Known:
        """The product of both parts, which stops with either."""
        product = Fraction(1)
        stopped: Why | None = None
        for codes in ((pair.source, via), (via, pair.destination)):
            kept, inverted = self._named(codes)
            rate, why = self._known(kept, now)
            if rate is None:
                return None, why or Why.WAITING
            product *= 1 / rate if inverted else rate
            stopped = stopped or why
        return product, stopped

    def wakes_at(self, now: int) -> int | None:
        """When the next rate gets too old; None if none will."""
        found: int | None = None
        for codes, known in self._fetched.items():
            if known.as_of is None or known.refused is not None:
                continue
            at = known.as_of + self._pairs[codes].max_age_ms + 1
            if at > now and (found is None or at < found):
                found = at
        return found

    def states(self, now: int) -> list[PairState]:
        """All pairs, in the order of the file, then those that are set only at run time."""
        return [
            self._state(codes, now) for codes in [*self._pairs, *(one for one in self._set if one not in self._pairs)]
        ]

    def _state(self, codes: Codes, now: int) -> PairState:
        rate, why = self._known(codes, now)
        pair = self._pairs.get(codes)
        found = self._fetched.get(codes)
        spread = None if pair is None else pair.spread
        if codes in self._set:
            return PairState(codes, rate, "operator", None, spread, why)
        assert pair is not None
        if pair.via is not None:
            ages = [self._age(self._named(part)[0], now) for part in ((codes[0], pair.via), (pair.via, codes[1]))]
            known_ages = [age for age in ages if age is not None]
            return PairState(codes, rate, f"via {pair.via}", max(known_ages, default=None), spread, why)
        if found is None or pair.fetched is None:
            return PairState(codes, rate, "file", None, spread, why)
        age = self._age(codes, now)
        return PairState(codes, rate, pair.fetched.name, age, spread, why, found.offered, found.problem)

    def _age(self, codes: Codes, now: int) -> int | None:
        found = self._fetched.get(codes)
        return None if found is None or found.as_of is None or codes in self._set else now - found.as_of

    def settings(self) -> list[tuple[bytes, bytes]]:
        """What is set, as the journal keeps it, and what is set no longer (empty)."""
        kept = [(_key(codes), wish.encode()) for codes, wish in self._set.items()]
        gone = [*self._ended, *sorted(self._followed)]
        return kept + [(_key(codes), b"") for codes in gone if codes not in self._set]

    @property
    def ended(self) -> Sequence[Codes]:
        """Pairs that were set at run time, until the file was changed."""
        return self._ended


def _jump(before: Fraction, after: Fraction) -> Fraction:
    """How far apart two rates are, as a part of the lower one: the same in both directions of a pair."""
    return max(after / before, before / after) - 1


def _item(pair: Pair | None) -> str:
    """What the file says of a pair, so that it shows when that changes. Bounds are not part of it: they are ours."""
    if pair is None:
        return "nothing"
    if pair.rate is not None:
        return f"rate {pair.rate}"
    return f"via {pair.via}" if pair.via is not None else f"source {pair.fetched.name if pair.fetched else ''}"


def _key(codes: Codes) -> bytes:
    return f"{_KIND}{pair_text(codes)}".encode()


@dataclass(slots=True, frozen=True)
class Remembered:
    """What a process before us knew: the last rates, and what the operator had set."""

    rates: Quotes
    wishes: Mapping[Codes, Wish]


NOTHING: Final = Remembered({}, {})


def remember(described: Mapping[str, Any], settings: Mapping[bytes, bytes]) -> Remembered:
    """From the journal: what `tables.rates_of` gives, and the books' settings."""
    rates: dict[Codes, Fraction] = {}
    for name, text in described.get("rates", {}).items():
        codes = split_pair(name)
        if codes is not None:
            rates[codes] = Fraction(text)
    wishes: dict[Codes, Wish] = {}
    for key, value in settings.items():
        kind, name = key.decode()[: len(_KIND)], key.decode()[len(_KIND) :]
        codes = split_pair(name)
        if kind == _KIND and codes is not None:
            wishes[codes] = _decode_wish(name, value)
    return Remembered(rates, wishes)


def _decode_wish(name: str, value: bytes) -> Wish:
    described = json.loads(value)
    if described["v"] != FORMAT:
        raise ConfigError(f"rates.{name}", "a newer isthmus set it", "Use that version")
    return Wish(None if described["rate"] is None else Fraction(described["rate"]), described["over"])
