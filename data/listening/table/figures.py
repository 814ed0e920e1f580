"""Figures with their counts and 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

Z = 1.959963984540054  # standard deviations on either side that hold 95 % of a normal distribution

Figure = dict[str, Any]


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval for a share, from 0 to 1 (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    share, weight = right / count, Z * Z / count
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(marks: Iterable[bool]) -> Figure:
    """Percent of marks that are true, of how many, and Wilson's interval."""
    marks = [bool(mark) for mark in marks]
    low, high = wilson(sum(marks), len(marks))
    value = 100 * sum(marks) / len(marks) if marks else None
    return _figure(value, len(marks), 100 * low, 100 * high)


def average(numbers: Sequence[float]) -> Figure:
    """The mean, of how many, and its interval by Student's t (a mean is no share: no Wilson's)."""
    if not numbers:
        return _figure(None, 0, -math.inf, math.inf)
    mean = float(np.mean(numbers))
    if len(numbers) < 2:
        return _figure(mean, len(numbers), -math.inf, math.inf)
    half = float(stdtrit(len(numbers) - 1, 0.975) * np.std(numbers, ddof=1)) / math.sqrt(len(numbers))
    return _figure(mean, len(numbers), mean - half, mean + half)


def ratio(pairs: Sequence[tuple[float, float]], draws: int = 2000) -> Figure:
    """Percent that the first numbers' sum is of the second numbers', with a bootstrap over the pairs."""
    if not pairs or not sum(below for _, below in pairs):
        return _figure(None, len(pairs), -math.inf, math.inf)
    numbers = np.asarray(pairs, np.float64)
    drawn = np.random.default_rng(0).integers(len(numbers), size=(draws, len(numbers)))
    above, below = numbers[drawn].sum(axis=1).T
    ratios = 100 * above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    above, below = numbers.sum(axis=0)
    return _figure(100 * above / below, len(pairs), float(low), float(high))


def of_seeds(figures: Sequence[Figure]) -> Figure:
    """One figure of several runs of a kind: the mean, and the range from run to run."""
    known = [figure["value"] for figure in figures if figure["value"] is not None]
    if len(figures) == 1 or not known:
        return figures[0]
    low, high = min(known), max(known)
    return _figure(float(np.mean(known)), figures[0]["count"], low, high) | {"seeds": len(known)}


def text(figure: Figure | None, decimals: int = 0) -> str:
    """`93 (88-96)`, or of several runs `93 [91-95]`."""
    if figure is None or figure["value"] is None:
        return "-"
    low, high = (_number(figure[key], decimals) for key in ("low", "high"))
    interval = f"[{low}–{high}]" if "seeds" in figure else f"({low}–{high})"
    return f"{_number(figure['value'], decimals)} {interval}"


def _number(value: float | None, decimals: int) -> str:
    return "?" if value is None else f"{value:.{decimals}f}"


def _figure(value: float | None, count: int, low: float, high: float) -> Figure:
    """JSON knows no infinity: an end that is not known is null."""
    ends = [round(end, 4) if math.isfinite(end) else None for end in (low, high)]
    return {"value": None if value is None else round(value, 4), "count": count, "low": ends[0], "high": ends[1]}
