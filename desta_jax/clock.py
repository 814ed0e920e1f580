"""Time as people read it."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Such as 3d 04h, 2h 05m, 1m 09s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def time_left(done: float, total: float, seconds: float) -> str:
    """What remains if the rest goes as what was done, in so many seconds, went."""
    return f"{duration(seconds * (total - done) / done)} left" if done else "time left unknown"


class Pace:
    """How fast a job goes that begins now, and how long it still takes.

    Args:
        total: how much there is to do.
        every: seconds between lines, of which the last always comes.
    """

    def __init__(self, total: int, every: float = 0.0):
        self.total, self.done, self._every = total, 0, every
        self._start = time.monotonic()
        self._next = self._start + every

    def add(self, done: int) -> str | None:
        """Such as "1.20 a second, 3m 09s left", when so much more is done; None before it is time for a line."""
        self.done, now = self.done + done, time.monotonic()
        if now < self._next and self.done < self.total:
            return None
        self._next, seconds = now + self._every, now - self._start
        return f"{self.done / max(seconds, 1e-9):.2f} a second, {time_left(self.done, self.total, seconds)}"
