"""Durations and what is left, in words."""

import pytest

from desta_jax import clock
from desta_jax.clock import Pace, duration, time_left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0m 00s"),
        (59.6, "1m 00s"),
        (69, "1m 09s"),
        (3599.5, "1h 00m"),
        (7500, "2h 05m"),
        (86_400, "1d 00h"),
        (273_600, "3d 04h"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_what_is_left_takes_as_long_as_what_was_done():
    assert time_left(25, 100, 20.0) == "1m 00s left"
    assert time_left(100, 100, 20.0) == "0m 00s left"
    assert time_left(0, 100, 20.0) == "time left unknown"


def test_a_pace_is_told_now_and_then_and_at_the_end(monkeypatch):
    times = iter([100.0, 110.0, 130.0, 131.0, 132.0])
    monkeypatch.setattr(clock.time, "monotonic", lambda: next(times))
    pace = Pace(total=64, every=30)
    assert [pace.add(16) for _ in range(4)] == [None, "1.07 a second, 0m 30s left", None, "2.00 a second, 0m 00s left"]
    assert pace.done == 64
