"""The routes of a running node as they are shown: those configured, those learned, and why a packet goes its way."""

from collections.abc import Iterator
from typing import Final

from isthmus.connector.routing.price import UNKNOWN
from isthmus.connector.routing.rib import Candidate, Rib
from isthmus.connector.routing.unsteady import RETURNS
from isthmus.node.admin.operation import Json
from isthmus.node.control import Control
from isthmus.runtime.driver import Driver

# Of one answer; making 10,000 takes the loop some 20 ms. Who wants others asks for a longer prefix.
ROUTES_SHOWN_MAX: Final = 10_000


class RoutesView:
    """`control` says where a configured route comes from."""

    def __init__(self, driver: Driver, control: Control) -> None:
        self._driver: Final = driver
        self._control: Final = control

    def shown(self, prefix: str) -> Json:
        """The routes below a prefix, and the one that its packets take; all of them for an empty one."""
        switch = self._driver.kernel.switch
        taken = switch.router.find(switch, prefix.encode()) if prefix else None
        below = f"{prefix}."
        found: list[Json] = []
        left_off = 0
        for each, account, learned in self._all():
            is_wanted = not prefix or each == prefix or each.startswith(below)
            if not is_wanted and (taken is None or each.encode() != taken[0]):
                continue
            if len(found) >= ROUTES_SHOWN_MAX:
                left_off += 1
                continue
            source = f"learned from {account}" if learned else self._control.route_source(each)
            found.append({"prefix": each, "account": account, "source": source})
        return {"routes": sorted(found, key=lambda route: str(route["prefix"])), "left_off": left_off}

    def _all(self) -> Iterator[tuple[str, str, bool]]:
        """Prefix, account, and whether it was learned; where both are, the configured one is followed."""
        switch = self._driver.kernel.switch
        static = switch.tables.routes
        for prefix, account in static.items():
            yield prefix, account, False
        for learned, account in switch.router.forwarding.live.items():
            if static.at(learned) is None:
                yield learned.decode(), account, True

    def why(self, address: str) -> Json:
        """Why packets to an address go where they go now, and who else reaches it."""
        switch = self._driver.kernel.switch
        found = switch.router.find(switch, address.encode())
        own = switch.tables.address
        if found is None:
            return {"prefix": None, "account": None, "text": "No route leads there: F02.", "others": []}
        prefix, account = found[0].decode(), found[1]
        if own and len(prefix) < len(own) and (address == own or address.startswith(f"{own}.")):
            text = "It is below our own address, and no account has it: F02, or an answer of the node itself."
            return {"prefix": None, "account": None, "text": text, "others": []}
        candidates = switch.router.rib.ranked(prefix, switch.mono)
        others = [one for one in candidates if one.source.account != account]
        return {
            "prefix": prefix,
            "account": account,
            "text": f"{_longest(prefix)} ({self._how(prefix, account, candidates)}).{self._shown(account, candidates)}"
            f"{unsteadiness(switch.router.rib, prefix, switch.mono)}{self._divided(prefix)}{self._state(account)}",
            "others": [_described(one, switch.mono) for one in others],
        }

    def _how(self, prefix: str, account: str, candidates: list[Candidate]) -> str:
        configured = self._driver.kernel.switch.tables.routes.at(prefix.encode())
        if configured == account:
            return self._control.route_source(prefix)
        path = next((one.route.path for one in candidates if one.source.account == account), ())
        learned = f"learned from {account}, path of {len(path)}"
        return learned if configured is None else f"{learned}; {configured}, where it should go, is down"

    def _shown(self, account: str, candidates: list[Candidate]) -> str:
        chosen = next((one for one in candidates if one.source.account == account), None)
        if chosen is None or len(candidates) < 2:
            return ""
        return f" {account}: {'; '.join(facts(chosen, self._driver.kernel.switch.mono))}."

    def _divided(self, prefix: str) -> str:
        router = self._driver.kernel.switch.router
        if not router.is_divided(prefix.encode()):
            return ""
        return " A hop lacked liquidity lately (T04): each packet goes to the best hop that has some."

    def _state(self, account: str) -> str:
        lane = next((one for name, one in self._driver.kernel.switch.lanes.items() if name == account), None)
        if lane is None or lane.up:
            return ""
        return f" The link of {account} is down: T01."


def _longest(prefix: str) -> str:
    return f"The longest prefix is {prefix}" if prefix else "No prefix is longer than the default route"


def unsteadiness(rib: Rib, prefix: str, now: int) -> str:
    """What is to be said of a prefix that doesn't come to rest; "" of any other."""
    left_ms = rib.unsteady.left_ms(prefix, now)
    if not left_ms:
        return ""
    return (
        f" It went back and forth between hops ({RETURNS} times in a row): for {-(-left_ms // 1_000)} s more, and while"
        " it goes on, relations don't count for it, and the shorter path goes first."
    )


def facts(candidate: Candidate, now: int) -> list[str]:
    """What decides among hops that policy, relation and length leave equal."""
    price = candidate.told_price
    told = ["tells no price" if price == UNKNOWN else f"tells {price} ppm, with what we keep"]
    shown = candidate.shown
    if shown is None:
        return told
    record = shown.record
    if record is not None and record.remembers(now):
        told.append(
            f"packets showed {record.good} fulfilled and {record.bad} refused of late, in {record.delay_ms} ms:"
            f" {record.penalty(now)} ppm"
        )
    if shown.rests_until > now:
        told.append(f"rests for {shown.rests_until - now} ms more, after a failure")
    if shown.scarce_until > now:
        told.append(f"lacked liquidity, and is left out for {shown.scarce_until - now} ms")
    return told


def _described(candidate: Candidate, now: int) -> Json:
    return {
        "account": candidate.source.account,
        "relation": candidate.source.relation,
        "preference": candidate.source.preference,
        "path": list(candidate.route.path),
        "text": "; ".join(facts(candidate, now)),
    }
