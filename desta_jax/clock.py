"""Time as people read it."""

from __future__ import annotations


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
