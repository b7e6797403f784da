"""How a link and the node that owns it meet. A link moves ILP packets between us and one peer; it decides nothing."""

from collections.abc import Callable
from typing import Any, Protocol

from isthmus.connector.events import AccountId, Inbound, Outbound, Undelivered


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """What a shell needs of time: the event loop, or the simulator's virtual time."""

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], /) -> Timer: ...

    def create_future(self) -> Any:
        """For whoever waits; nobody does in the simulator."""


class LinkOwner(Protocol):
    """What a link tells its owner. All calls come from the event loop's thread and return at once."""

    def inbound(self, packets: list[Inbound]) -> None:
        """All packets of one read, in the order of the wire."""

    def undelivered(self, failures: list[Undelivered]) -> None: ...

    def link_up(self, account: AccountId) -> None: ...

    def link_down(self, account: AccountId, why: str) -> None: ...

    def blocked(self, account: AccountId) -> None:
        """The send buffer rose above its bound."""

    def writable(self, account: AccountId) -> None:
        """The send buffer fell below its lower bound."""

    def mono_ms(self) -> int:
        """The clock that `Inbound.read_at` is taken from."""


class Link(Protocol):
    """One account's way to its peer. It lives as long as the account does; connections come and go within it."""

    account: AccountId

    async def start(self) -> None: ...

    def write(self, frames: list[Outbound]) -> None:
        """Send the frames with one write where the transport allows it.

        Never raises for what a peer or a network does. A reply that can't be written because no connection is up is
        kept (bounded, until it would be useless) and goes out on the next connection under its old request id
        (BTP-18). A Prepare of which no byte was written is reported by `undelivered`.
        """

    def pause_reading(self) -> None:
        """Stop reading: the peer doesn't take our answers, or our inbox for it is full."""

    def resume_reading(self) -> None: ...

    def reset(self, why: str) -> None:
        """Drop the present connection, if the link has such a thing; a dialling side comes back by itself."""

    async def close(self) -> None: ...
