"""The limits of an account in a configuration. Also for commands, which need no more of it."""

from typing import Final

from isthmus.connector.tables import EXPIRY_MARGIN_MS, HOLD_MS_LIMIT, HOLD_MS_MAX, OPEN_LEGS_MAX
from isthmus.node.config_reader import Key, Section
from isthmus.node.config_values import Amount, Duration, Integer, duration_text

PACKETS_PER_MINUTE_MAX: Final = 1_000_000_000
OPEN_LEGS_LIMIT: Final = 1_000_000  # 1.5 GB

LIMITS: Final[Section] = (
    Key("receivable", Amount(), 'How much the peer may owe us; packets beyond it get T04. `"0"`: it pays in advance.'),
    Key("payable", Amount(), "How much we are willing to owe the peer; packets beyond it get T04.", None, "unlimited"),
    Key("packet", Amount(), "The largest amount of one incoming packet; larger ones get F08.", None, "unlimited"),
    Key("in_flight", Amount(), "How much incoming value may wait for its outcome at a time (T04).", None, "unlimited"),
    Key("per_second", Amount(), "How much incoming value may pass in a second, on average (T04).", None, "unlimited"),
    Key(
        "packets_per_minute",
        Integer(1, PACKETS_PER_MINUTE_MAX),
        "How many Prepares the peer may send in a minute (T05).",
        None,
        "unlimited",
    ),
    Key(
        "hold",
        Duration(1_000, HOLD_MS_LIMIT),
        "The longest time that we hold value for a packet from this peer, whatever its expiry says.",
        HOLD_MS_MAX,
        f'`"{duration_text(HOLD_MS_MAX)}"`',
    ),
    Key(
        "margin",
        Duration(0, 60_000),
        "How much earlier our outgoing packet expires than the incoming one. It pays for the way back and the commit.",
        EXPIRY_MARGIN_MS,
        f'`"{duration_text(EXPIRY_MARGIN_MS)}"`',
    ),
    Key(
        "open_legs",
        Integer(1, OPEN_LEGS_LIMIT),
        "How many packets may wait for their outcome at a time, each way (T03).",
        OPEN_LEGS_MAX,
    ),
    Key(
        "echo",
        Amount(may_be_unlimited=False),
        "The largest amount of a ping to our own address that is answered.",
        "0",
        '`"0"`',
    ),
)
