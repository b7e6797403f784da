"""How a wallet's settlement engine and its channels are told to people."""

from collections.abc import Iterator
from typing import Any

from isthmus.ilp.asset import Asset, format_amount


def redeemed_lines(channels: list[dict[str, Any]]) -> Iterator[str]:
    """What became of the channels that owed us something when the wallet closed."""
    for one in channels:
        owed = format_amount(int(one["unredeemed"]), _unit(one))
        if one["is_redeemed"]:
            yield f"Redeemed {owed} on the ledger."
            continue
        fee = "" if one["fee"] is None else f" (the ledger's fee would be {format_amount(int(one['fee']), _unit(one))})"
        yield (
            f"Not redeemed: {owed} of channel {one['id'][:18]}…{fee}. Open the wallet again within {_absence(one)},"
            " or run isthmus wallet redeem."
        )


def _absence(one: dict[str, Any]) -> str:
    if "settle_delay_s" not in one:
        return "its settle delay"
    hours, rest = divmod(one["settle_delay_s"], 3_600)
    return f"{hours} h of its owner's wish to close it" if not rest else f"{one['settle_delay_s']} s of that"


def settlement_rows(found: dict[str, Any], asset: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of `isthmus wallet show`."""
    own = Asset(asset["code"], asset["scale"])
    state = "works" if found["works"] else found["problem"] or "not running now"
    yield "Settles by", f"{found['type']}: {state}"
    for one in found["under_way"]:
        text = f": {one['text']}" if one["text"] else ""
        yield "Settlement", f"{format_amount(int(one['amount']), own)}, {one['state']}{text}"
    for one in found["channels"]:
        yield "Channel", _channel(one)
    for text in found["alarms"][:3]:
        yield "Alarm", text


def _channel(one: dict[str, Any]) -> str:
    unit = _unit(one)
    parts = [f"{one['state']}, holds {format_amount(int(one['capacity']), unit)}"]
    if one["direction"] != "in":
        parts.append(f"we can send {format_amount(int(one['can_send']), unit)}")
    if one["direction"] != "out":
        parts.append(f"we can receive {format_amount(int(one['can_receive']), unit)}")
    if int(one["unredeemed"]):
        parts.append(f"{format_amount(int(one['unredeemed']), unit)} not redeemed")
    return ", ".join(parts)


def _unit(one: dict[str, Any]) -> Asset:
    return Asset(one["unit_code"], one["unit_scale"])
