"""When whoever was refused should come back: as soon as the queue may have passed."""

from __future__ import annotations

import math

SHARE = 0.1  # of the newest in the running mean
MOST_SECONDS = 60


class Pace:
    """How many seconds one job takes of late, where ``width`` are worked on at the same time."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.seconds = 0.0  # running mean; 0 until a job has ended

    def ended(self, seconds: float, others: int = 0) -> None:
        """A job has ended, so long after it came to so many others, waiting or worked on."""
        ahead = max(0, others + 1 - self.width)  # that had to end before it was begun
        alone = seconds / (1 + ahead / self.width)
        self.seconds += (alone - self.seconds) * (SHARE if self.seconds else 1)

    def retry_after(self, waiting: int) -> int:
        """Whole seconds, 1 to 60, until so many have been taken from the queue."""
        return min(MOST_SECONDS, max(1, math.ceil(waiting / self.width * self.seconds)))
