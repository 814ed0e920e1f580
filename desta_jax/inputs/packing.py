"""The plan of rows: which samples share a row, decided once a run from their lengths and numbers of clips."""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np
from jaxtyping import Int32, Int64

ROUND = 64  # a chosen row length is a multiple of this, which suits the tiles of an accelerator
SPARE_ROWS = 0.01  # rows beyond the fewest possible that a chosen row length may cost


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows of samples; row r holds samples[starts[r]:starts[r + 1]]."""

    starts: Int64[np.ndarray, " rows_and_one"]
    samples: Int32[np.ndarray, " samples"]
    row_length: int
    """Tokens that a row may have; without packing, those of the longest sample."""
    packed: bool

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Int32[np.ndarray, " samples_in_row"]:
        return self.samples[self.starts[row] : self.starts[row + 1]]

    def totals(self, values: np.ndarray) -> Int64[np.ndarray, " rows"]:
        """The sum over each row's samples of something that each sample has."""
        return np.add.reduceat(values[self.samples].astype(np.int64), self.starts[:-1])


def one_a_row(samples: Int32[np.ndarray, " samples"], lengths: Int32[np.ndarray, " all"]) -> Plan:
    """The plan without packing."""
    longest = int(lengths[samples].max(initial=0))
    return Plan(np.arange(len(samples) + 1), np.asarray(samples, np.int32), longest, packed=False)


def join(plans: list[Plan]) -> Plan:
    """The rows of several plans, one after the other."""
    offsets = np.cumsum([0] + [len(plan.samples) for plan in plans])
    starts = [plan.starts[:-1] + offset for plan, offset in zip(plans, offsets)]
    samples = np.concatenate([plan.samples for plan in plans])
    row_length = max(plan.row_length for plan in plans)
    return Plan(np.concatenate([*starts, offsets[-1:]]), samples, row_length, packed=plans[0].packed)


def pack(
    samples: Int32[np.ndarray, " samples"],
    lengths: Int32[np.ndarray, " all"],
    clips: Int32[np.ndarray, " all"],
    *,
    clips_per_row: int,
    row_length: int = 0,
    seed: int = 0,
) -> Plan:
    """Rows of at most `clips_per_row` clips and `row_length` tokens, with few clip slots and few positions empty.

    Samples of the same length and number of clips change places with the seed; the rest depends on the data alone.

    Args:
        samples: which samples to plan for.
        lengths: tokens of every sample.
        clips: clips of every sample; more than `clips_per_row` in a planned sample is a mistake of the caller.
        row_length: 0 takes the shortest multiple of 64 that needs at most 1 % more rows than the clips need anyway.

    Raises:
        ValueError: a planned sample is longer than `row_length`.
    """
    samples = np.random.default_rng(seed).permutation(np.asarray(samples, np.int32))
    samples = samples[np.lexsort((-lengths[samples], -clips[samples]))]  # clips, then tokens, falling; ties as drawn
    lengths, clips = lengths[samples], clips[samples]
    longest = int(lengths.max(initial=0))
    if row_length and longest > row_length:
        raise ValueError(
            f"data.row_length: {row_length} is less than the {longest} tokens of the longest sample;"
            f" make it at least {longest}, or data.max_length at most {row_length}"
        )
    kinds = _kinds(lengths, clips)
    row_length = row_length or _choose_row_length(kinds, clips_per_row)
    return _plan(samples, *_place(kinds, clips_per_row, row_length), row_length)


Kinds = list[tuple[int, int, int]]
"""(clips, tokens, how many samples) of each kind of sample, in the order in which they are placed."""


@dataclasses.dataclass(frozen=True)
class _Placement:
    """A stretch of samples that go into a stretch of rows, one each."""

    sample: int
    row: int
    count: int


def _kinds(lengths: np.ndarray, clips: np.ndarray) -> Kinds:
    """Sorted samples as runs of equal ones: a few hundred kinds, whatever the number of samples."""
    if not len(lengths):
        return []
    changes = np.flatnonzero((np.diff(lengths) != 0) | (np.diff(clips) != 0)) + 1
    bounds = np.concatenate([[0], changes, [len(lengths)]])
    return [(int(clips[start]), int(lengths[start]), int(n)) for start, n in zip(bounds, np.diff(bounds))]


def _choose_row_length(kinds: Kinds, clips_per_row: int) -> int:
    """By bisection between the longest sample and a row full of such."""
    longest = max((tokens for _, tokens, _ in kinds), default=ROUND)
    low, high = _round_up(longest), _round_up(longest * clips_per_row)
    enough = _place(kinds, clips_per_row, high)[1] * (1 + SPARE_ROWS)
    while low < high:
        middle = (low + high) // 2 // ROUND * ROUND
        if _place(kinds, clips_per_row, middle)[1] <= enough:
            high = middle
        else:
            low = middle + ROUND
    return low


def _round_up(length: int) -> int:
    return -(-length // ROUND) * ROUND


def _place(kinds: Kinds, clips_per_row: int, row_length: int) -> tuple[list[_Placement], int]:
    """Where each sample goes, and the number of rows.

    Kind after kind, from the one with most clips and tokens, each sample goes to the row with most tokens left among
    those that can take it; a row more is opened where none can. Starting from the fewest rows possible, that fills
    all of them evenly. Rows in the same state are handled as one stretch, so the work depends on the number of kinds.
    """
    rows = max(
        -(-sum(clips * count for clips, _, count in kinds) // clips_per_row),
        -(-sum(tokens * count for _, tokens, count in kinds) // row_length),
    )
    open_rows = _OpenRows(clips_per_row)
    open_rows.add(clips_per_row, row_length, 0, rows)
    placements, sample = [], 0
    for clips, tokens, count in kinds:
        while count:
            stretch = open_rows.take(clips, tokens)
            if stretch is None:
                a_row = min(row_length // tokens, clips_per_row // clips if clips else row_length)
                more = -(-count // a_row)
                open_rows.add(clips_per_row, row_length, rows, rows + more)
                rows += more
                continue
            clips_left, tokens_left, start, stop = stretch
            used = min(count, stop - start)
            placements.append(_Placement(sample, start, used))
            open_rows.add(clips_left - clips, tokens_left - tokens, start, start + used)
            open_rows.add(clips_left, tokens_left, start + used, stop)
            sample, count = sample + used, count - used
    return placements, rows


class _OpenRows:
    """Stretches of rows by what they have left."""

    def __init__(self, clips_per_row: int):
        self._by_clips: list[list[tuple[int, int, int]]] = [[] for _ in range(clips_per_row + 1)]  # heaps

    def add(self, clips_left: int, tokens_left: int, start: int, stop: int) -> None:
        if stop > start:
            heapq.heappush(self._by_clips[clips_left], (-tokens_left, start, stop))

    def take(self, clips: int, tokens: int) -> tuple[int, int, int, int] | None:
        """(clips left, tokens left, start, stop) of a stretch with most tokens left that has room for a sample."""
        tops = [(heap[0][0], -left) for left, heap in enumerate(self._by_clips) if heap and left >= clips]
        if not tops or -min(tops)[0] < tokens:
            return None
        clips_left = -min(tops)[1]
        tokens_left, start, stop = heapq.heappop(self._by_clips[clips_left])
        return clips_left, -tokens_left, start, stop


def _plan(samples: np.ndarray, placements: list[_Placement], rows: int, row_length: int) -> Plan:
    row_of = np.empty(len(samples), np.int32)
    for placement in placements:
        stretch = slice(placement.sample, placement.sample + placement.count)
        row_of[stretch] = np.arange(placement.row, placement.row + placement.count)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))])
    return Plan(starts, samples[np.argsort(row_of, kind="stable")], row_length, packed=True)
