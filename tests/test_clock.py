"""Durations and what is left, in words."""

import pytest

from desta_jax.clock import duration, time_left


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
