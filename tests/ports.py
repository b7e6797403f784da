"""Ports for processes that must know one another's before they run, or keep one over a restart.

Not what the system gives for port 0: that is of the range from which it takes the near ends of outgoing connections
too. Such a port, free a moment ago, may be the end of a connection by the time a process wants to listen there; and who
dials one on which nobody listens yet can, by chance, be connected to himself, and hold it.
"""

import atexit
import os
import socket
from collections import deque
from typing import Final

FIRST: Final = 16_384
LAST: Final = 32_767  # Linux takes the ends of connections from 32,768 on, other systems from 49,152 on
CLAIMS_MAX: Final = 200  # more than tests that run at one time ask for; the oldest is given back

_claims: Final[deque[socket.socket]] = deque()
_next = FIRST + os.getpid() * 64 % (LAST - FIRST)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on, and that no other process with this function gives out.

    While a port is claimed its namesake of UDP is bound: the claim is seen by all processes, and ends with this one.
    """
    global _next
    for _ in range(FIRST, LAST + 1):
        port, _next = _next, _next + 1 if _next < LAST else FIRST
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            _probe(port)
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        if len(_claims) > CLAIMS_MAX:
            _claims.popleft().close()
        return port
    raise AssertionError(f"all ports from {FIRST} to {LAST} are taken")


def _probe(port: int) -> None:
    """OSError if somebody listens there, on this address or on all."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@atexit.register
def _give_back() -> None:
    while _claims:
        _claims.pop().close()
