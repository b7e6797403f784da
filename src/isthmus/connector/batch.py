"""A batch between its append and the word that it is durable."""

from typing import Final, final

from isthmus.connector.events import Effect, Outbound
from isthmus.connector.lane import Lane
from isthmus.connector.legs import IncomingLeg


@final
class Batch:
    """An appended batch whose frames wait for it."""

    __slots__ = (
        "answers",
        "first_deadline",
        "first_posted_deadline",
        "frames",
        "last_leg",
        "posted",
        "sequence",
        "submitted_at",
        "tokens",
    )

    def __init__(
        self,
        sequence: int,
        *,
        submitted_at: int,
        last_leg: int,
        posted: list[IncomingLeg],
        first_deadline: int,
        first_posted_deadline: int,
        tokens: list[int],
        frames: list[tuple[Lane, list[Outbound]]],
        answers: list[Effect],
    ) -> None:
        self.sequence: Final = sequence
        self.submitted_at: Final = submitted_at
        self.last_leg: Final = last_leg
        self.posted: Final[list[IncomingLeg]] = posted
        self.first_deadline: Final = first_deadline
        self.first_posted_deadline: Final = first_posted_deadline
        self.tokens: Final = tokens
        self.frames: Final = frames
        self.answers: Final[list[Effect]] = answers  # to those who asked, once it is durable
