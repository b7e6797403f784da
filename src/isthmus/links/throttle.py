"""Failed authentication, counted by address: whoever shows wrong credentials again and again waits for each answer.

The rule is pure: addresses and the time go in, verdicts come out. It never looks at who is right. Right credentials
are let in at once from every address, also from one above its limit: many peers may share an address (NAT, a reverse
proxy), and a stranger there must not be able to lock them out. What a token of 32 random bytes needs against guessing
it has by itself; what is bounded here is the work, and the log, that guesses cost us.
"""

from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple, final

# So many failures at once pass with the plain answer, and one more for each FAILURE_MS: enough for an operator who
# tries tokens by hand, or for several peers behind one address whose tokens were changed.
FAILURES_MAX: Final = 30
FAILURE_MS: Final = 2_000
# Above it the answer is held back for so long, while its connection takes one of the places that strangers have.
HOLD_MS: Final = 1_000
# Addresses remembered, 100 bytes each. Beyond it the one that failed longest ago is forgotten: whoever has more
# addresses than this isn't slowed by it, and meets the bound on strangers instead.
ADDRESSES_MAX: Final = 4_096

_IPV6_REST_BITS: Final = 64


class Verdict(NamedTuple):
    """A failure above the limit."""

    hold_ms: int  # before the refusal is sent
    retry_after_s: int
    is_news: bool  # the address was within its limit before: worth one line in the log


def address_key(host: str) -> str:
    """What counts as one address: IPv4 as it is, of IPv6 the network of 64 bits that one customer gets."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host  # a Unix socket, or nothing
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    network = int(address) >> _IPV6_REST_BITS << _IPV6_REST_BITS
    return f"{IPv6Address(network)}/64"


@final
class FailureThrottle:
    """Counts failures of each address. Times are monotonic ms."""

    def __init__(
        self,
        *,
        failures_max: int = FAILURES_MAX,
        failure_ms: int = FAILURE_MS,
        hold_ms: int = HOLD_MS,
        addresses_max: int = ADDRESSES_MAX,
    ) -> None:
        assert failures_max > 0 and failure_ms > 0 and addresses_max > 0
        self._allowed_ms: Final = failures_max * failure_ms
        self._failure_ms: Final = failure_ms
        self._hold_ms: Final = hold_ms
        self._addresses_max: Final = addresses_max
        # When the address will have nothing against it any more; in the order of the last failure.
        self._clean_at: Final[dict[str, int]] = {}

    def __len__(self) -> int:
        """Addresses remembered."""
        return len(self._clean_at)

    def failed(self, host: str, now: int) -> Verdict | None:
        """Count one failure; None if it is within the limit."""
        key = address_key(host)
        table = self._clean_at
        before = max(table.pop(key, now), now)
        if len(table) >= self._addresses_max:
            del table[next(iter(table))]
        # Never more than one failure above the limit is remembered: whoever stops is soon as before.
        clean_at = min(before + self._failure_ms, now + self._allowed_ms + self._failure_ms)
        table[key] = clean_at
        too_many_ms = clean_at - now - self._allowed_ms
        if too_many_ms <= 0:
            return None
        is_news = before - now <= self._allowed_ms
        return Verdict(self._hold_ms, max(1, -(-too_many_ms // 1000)), is_news)

    def is_above(self, host: str, now: int) -> bool:
        """Whether the next failure would be above the limit; counts nothing."""
        return self._clean_at.get(address_key(host), now) + self._failure_ms - now > self._allowed_ms
