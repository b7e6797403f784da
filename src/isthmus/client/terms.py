"""What a payment is to be: whom, how much, and the least that must arrive for it. Pure.

The minimum exchange rate comes from outside the path: a number, a price source, or a quote that a person confirmed.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, final

from isthmus.client.streams import as_fraction, base_rate
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset, parse_amount
from isthmus.stream.orders import Quote
from isthmus.stream.rate import MinimumRate, minimum_rate

KEY_CHARS_MAX: Final = 200
DEFAULT_SLIPPAGE: Final = Fraction(1, 100)


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Minimum:
    """The least rate, in whole units of the receiver's asset for one of ours: given, or from prices less slippage."""

    rate: Fraction | None = None
    price: Fraction | None = None  # of one unit of ours, in units of the receiver's asset
    prices: dict[str, Fraction] | None = None  # by asset code, all in one currency
    slippage: Fraction = DEFAULT_SLIPPAGE

    def whole(self, source: Asset, destination: Asset) -> Fraction:
        """The rate for these two assets. Raises ConfigError if a price is missing."""
        if self.rate is not None:
            return self.rate
        if self.price is not None:
            return minimum_rate(self.price, self.slippage)
        assert self.prices is not None
        for asset in (source, destination):
            if not self.prices.get(asset.code):
                raise ConfigError("price source", f"it has no price of {asset.code}", "Add one, or give --min-rate")
        return minimum_rate(self.prices[source.code] / self.prices[destination.code], self.slippage)

    def to_json(self) -> dict[str, Any]:
        return {
            "rate": _text(self.rate),
            "price": _text(self.price),
            "prices": None if self.prices is None else {code: str(price) for code, price in self.prices.items()},
            "slippage": str(self.slippage),
        }

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Minimum":
        prices = loaded["prices"]
        return cls(
            rate=_fraction(loaded["rate"]),
            price=_fraction(loaded["price"]),
            prices=None if prices is None else {code: as_fraction(price) for code, price in prices.items()},
            slippage=as_fraction(loaded["slippage"]),
        )


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class PaymentRequest:
    """What the user asks for. `amount` is base units, or text in whole units ("0.015", "0.015 BTC")."""

    target: str  # payment pointer, URL, or ILP address
    amount: int | str
    deliver: bool = False  # the amount is what is to arrive, in the receiver's asset
    minimum: Minimum | None = None
    key: str = ""
    secret: bytes = field(default=b"", repr=False)  # of a STREAM connection, if the target is an ILP address

    def check(self) -> None:
        """Raise ConfigError for what can't be asked, TypeError for what is no amount."""
        amount: object = self.amount
        if not isinstance(amount, int | str) or isinstance(amount, bool):
            raise TypeError("an amount is an int (base units) or a str (whole units): floats are not exact")
        if isinstance(self.amount, int) and self.amount <= 0:
            raise ConfigError("amount", "not positive", "Give what is to be sent")
        if len(self.key) > KEY_CHARS_MAX or not self.key.isprintable():
            raise ConfigError("key", f"longer than {KEY_CHARS_MAX} characters, or not printable", "Choose another")

    def units(self, asset: Asset) -> int:
        """The amount in base units of `asset`. Raises ConfigError for one that can't be read."""
        if isinstance(self.amount, int):
            return self.amount
        try:
            units = parse_amount(self.amount, asset)
        except ValueError as error:
            raise ConfigError("amount", str(error), "Correct it") from None
        if units == 0:
            raise ConfigError("amount", "zero", f"Give what is to be {'delivered' if self.deliver else 'sent'}")
        return units

    def terms(self) -> str:
        """One canonical line: a key used again with another is an error. The minimum counts if it was a number."""
        amount = self.amount
        if isinstance(amount, str):
            number = amount.strip().partition(" ")[0]
            whole, point, fraction = number.partition(".")
            fraction = fraction.rstrip("0") if point else ""
            whole = whole.lstrip("0") or "0"
            amount = f"{whole}.{fraction}" if fraction else whole
        else:
            amount = f"{amount} base units"
        rate = None if self.minimum is None else self.minimum.rate
        least = "" if rate is None else f" at {rate} or more"
        return f"{'deliver' if self.deliver else 'send'} {amount} to {self.target}{least}"

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "amount": self.amount,
            "deliver": self.deliver,
            "minimum": None if self.minimum is None else self.minimum.to_json(),
            "key": self.key,
            "secret": self.secret.hex(),
        }

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "PaymentRequest":
        minimum = loaded["minimum"]
        return cls(
            target=loaded["target"],
            amount=loaded["amount"],
            deliver=loaded["deliver"],
            minimum=None if minimum is None else Minimum.from_json(minimum),
            key=loaded["key"],
            secret=bytes.fromhex(loaded["secret"]),
        )


@final
@dataclass(slots=True, frozen=True)
class Receiver:
    """Whom a target leads to. The hosts are for people to verify (PTR-4); empty for an ILP address."""

    address: str
    secret: bytes = field(repr=False)
    host: str = ""  # that the pointer or URL names
    final_host: str = ""  # that answered, after redirects


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Offer:
    """What the path offers for a request, beside the least that was asked for. Amounts are base units."""

    source_asset: Asset
    destination_asset: Asset
    source_amount: int
    source_max: int  # never more than this leaves
    destination_amount: int  # estimate, at the rate seen
    destination_minimum: int  # arrives at least; 0 without a minimum rate
    rate: Fraction  # base units
    minimum: Fraction | None  # base units
    packet_max: int | None
    host: str = ""
    final_host: str = ""

    @property
    def is_enough(self) -> bool:
        """Whether the rate seen meets the minimum, but for one unit that rounding may take."""
        if self.minimum is None:
            return True
        return MinimumRate(self.minimum).accepts(self.source_amount, self.destination_amount)


def offer(request: PaymentRequest, quote: Quote, source: Asset, destination: Asset) -> Offer:
    """Put a quote beside the request's minimum."""
    minimum = None
    if request.minimum is not None:
        minimum = base_rate(request.minimum.whole(source, destination), source, destination)
    source_amount, destination_amount = quote.source_amount, quote.destination_amount
    source_max, least = source_amount, 0
    if minimum is not None:
        floor = MinimumRate(minimum)
        if request.deliver:
            # The price may move until the last packet; never beyond what the minimum allows.
            source_max, least = max(source_amount, floor.source(destination_amount)), destination_amount
        else:
            least = max(0, floor.destination(source_amount) - 1)
    return Offer(
        source_asset=source,
        destination_asset=destination,
        source_amount=source_amount,
        source_max=source_max,
        destination_amount=destination_amount,
        destination_minimum=least,
        rate=quote.rate,
        minimum=minimum,
        packet_max=quote.packet_max,
    )


def _text(value: Fraction | None) -> str | None:
    return None if value is None else str(value)


def _fraction(text: str | None) -> Fraction | None:
    return None if text is None else as_fraction(text)
