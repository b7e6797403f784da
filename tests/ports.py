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

from isthmus.cli.demo.processes import PORTS, is_free

CLAIMS_MAX: Final = 200  # more than tests that run at one time ask for; the oldest is given back

_claims: Final[deque[socket.socket]] = deque()
_next = os.getpid() * 64 % len(PORTS)  # the place in the range


def free_port() -> int:
    """A TCP port of this machine that nobody listens on, and that no other process with this function gives out.

    While a port is claimed its namesake of UDP is bound: the claim is seen by all processes, and ends with this one.
    """
    global _next
    for _ in PORTS:
        port, _next = PORTS[_next], (_next + 1) % len(PORTS)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        if not is_free(port):
            claim.close()
            continue
        _claims.append(claim)
        if len(_claims) > CLAIMS_MAX:
            _claims.popleft().close()
        return port
    raise AssertionError(f"all of {PORTS} are taken")


@atexit.register
def _give_back() -> None:
    while _claims:
        _claims.pop().close()
