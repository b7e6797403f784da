"""How long to wait before something is tried again that must be tried for ever (SE-9)."""

from typing import Final

RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 3_600.0  # SE-9
_DOUBLED_MAX: Final = 30


def growing_pause(attempt: int, first_s: float, random: float) -> float:
    """Seconds after the `attempt`-th failure (from 0 on): doubled each time, up to an hour.

    `random` (0 to 1) takes up to a half of it away, so that not all come at once.
    """
    return min(RETRY_S_MAX, first_s * (1 << min(attempt, _DOUBLED_MAX))) * (0.5 + random / 2)
