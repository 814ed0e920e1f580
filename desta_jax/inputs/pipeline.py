"""Records to batches: which rows a step takes, and how a process reads its share of them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from desta_jax.audio.load import SAMPLE_RATE
from desta_jax.batch import Batch
from desta_jax.inputs import packing
from desta_jax.inputs.lengths import Lengths
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.inputs.rows import NO_ROW, Records, RowReader, Shapes
from desta_jax.processes import die_with_parent_only

MULTIPLE = 16  # of which token and label capacities are
MOST_LOST, LOST_FROM = 0.1, 100  # a share of the samples read, counted from so many lost on: then the run stops


class Inputs:
    """A sequence of global batches, each a function of its step alone; see `training_inputs`, `evaluation_inputs`."""

    def __init__(
        self,
        reader: RowReader,
        order: grain.MapDataset,
        steps: int,
        rejected: dict[str, int],
        data: ConfigDict,
    ):
        self.shapes = reader.shapes
        self.rejected = rejected
        """How many samples of the records are not used, by reason."""
        self.faults: dict[str, str] = {}
        """What was unreadable when a batch was made in this process: shard and record to what is wrong with it."""
        self.unreadable = 0
        """How many times a row of this process lost a sample to that."""
        self._read = 0
        self._reader, self._order, self._steps, self._data = reader, order, steps, data

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the plan; with data.weights, of all datasets together."""
        return len(self._reader.plan)

    @property
    def samples_per_epoch(self) -> int:
        """Samples that are used; each once an epoch."""
        return len(self._reader.plan.samples)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every row is seen, the last one filled up."""
        return -(-self.rows_per_epoch // self.shapes.rows)

    @property
    def fingerprint(self) -> str:
        """The same in every process of a run, or they would not train on the same batches; and whenever it goes on:
        changes with the records, their order, and the rows that they make."""
        plan = self._reader.plan
        digest = hashlib.sha256(f"{self.shapes} {self._reader.records.fingerprint}".encode())
        digest.update(plan.starts.tobytes())
        digest.update(plan.samples.tobytes())
        return digest.hexdigest()

    def batches(self, step: int, local_rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """The batches from a step on (steps count from 0); nothing before it is read.

        Args:
            step: the first.
            local_rows: which rows of each global batch this process holds, rising; None is all of them. The batches
                have these rows only.

        Yields:
            Batches of NumPy arrays: without end in training, to the last row in evaluation. A sample that cannot be
            read is left out of its row, see `unreadable`.

        Raises:
            OSError: many samples cannot be read, as when a file system is gone.
        """
        rows = list(range(self.shapes.rows)) if local_rows is None else list(local_rows)
        steps = _Steps(self._order, self.shapes.rows, rows, step, self._steps)
        dataset = grain.MapDataset.source(steps).map(self._reader.read)
        ahead = max(self._data.prefetch, self._data.threads)
        dataset = dataset.to_iter_dataset(grain.ReadOptions(self._data.threads, ahead))
        if self._data.workers:
            _mark_flags_parsed()
            options = grain.MultiprocessingOptions(self._data.workers, per_worker_buffer_size=self._data.prefetch)
            dataset = dataset.mp_prefetch(options, worker_init_fn=die_with_parent_only)
        return self._watched(dataset)

    def sample_ids(self, step: int) -> list[str]:
        """The ids of the samples in a step's global batch, in the order of its rows."""
        every = _Steps(self._order, self.shapes.rows, range(self.shapes.rows), step, self._steps)
        return self._reader.ids(every[0])

    def _watched(self, dataset: grain.IterDataset) -> Iterator[Batch]:
        iterator = iter(dataset)
        try:
            for batch, faults in iterator:
                self._read += int(batch.segments.max(axis=1, initial=0).sum()) + len(faults)
                self._note(faults)
                yield batch
        finally:
            iterator.close()

    def _note(self, faults: list[tuple[str, str]]) -> None:
        for place, error in faults:
            self.unreadable += 1
            if place not in self.faults:
                logging.warning("%s cannot be used, its row goes on without it: %s", place, error)
                self.faults[place] = error
        if self.unreadable >= LOST_FROM and self.unreadable > MOST_LOST * self._read:
            raise OSError(f"{self.unreadable} of {self._read} samples could not be read; the last: {place}: {error}")


def training_inputs(
    config: ConfigDict, prompts: PromptBuilder, *, rows_per_step: int, cache: str | None = None
) -> Inputs:
    """The endless batches of a run.

    Epoch after epoch, each a permutation of the planned rows that depends on (config.seed, epoch) alone; with
    data.weights, each dataset has epochs of its own and the rows are drawn from them by weight. Step s takes rows
    [s * rows_per_step, (s + 1) * rows_per_step) of that sequence, however many processes share them.

    Args:
        config: the run's; `data`, `seed` are read.
        rows_per_step: rows of the global batch.
        cache: a directory for the samples' lengths where those of the records cannot be written.

    Raises:
        ValueError, FileNotFoundError: records that are missing or damaged, no sample that can be used, a row_length
            that is too short.
    """
    data = config.data
    records = Records(_required(data.train, "data.train"))
    lengths = records.lengths(prompts, cache)
    usable, rejected = lengths.usable(data.max_length, data.clips_per_row if data.pack else None)
    groups = records.groups if data.weights else [range(len(records))]
    plans = [_plan(config, lengths, group, usable) for group in groups]
    for folder, plan in zip(data.train if data.weights else ["data.train"], plans):
        _check_not_empty(folder, plan, rejected)
    plan = packing.join(plans)
    shapes = _shapes(rows_per_step, data, data.max_length, lengths, plan)
    reader = RowReader(records, prompts, plan, shapes, data.max_length)
    order = _training_order([len(part) for part in plans], data.weights, config.seed, data.shuffle)
    return _report(Inputs(reader, order, sys.maxsize, rejected, data), "training")


def evaluation_inputs(
    config: ConfigDict, prompts: PromptBuilder, *, rows_per_step: int, cache: str | None = None
) -> Inputs:
    """The batches of data.validation: every usable sample once, in the records' order, a sample a row, cut at
    data.validation_max_length; the last batch is filled up with empty rows.

    Args, raises: as `training_inputs`.
    """
    data = config.data
    records = Records(_required(data.validation, "data.validation"))
    lengths = records.lengths(prompts, cache)
    usable, rejected = lengths.usable(data.validation_max_length)
    plan = packing.one_a_row(np.flatnonzero(usable), lengths.cut(data.validation_max_length))
    _check_not_empty("data.validation", plan, rejected)
    shapes = _shapes(rows_per_step, data, data.validation_max_length, lengths, plan)
    reader = RowReader(records, prompts, plan, shapes, data.validation_max_length)
    steps = -(-len(plan) // rows_per_step)
    return _report(Inputs(reader, grain.MapDataset.range(len(plan)), steps, rejected, data), "validation")


def steps_of(config: ConfigDict, rows_per_epoch: int, rows_per_step: int) -> int:
    """Steps of a run: train.steps, or else the whole ones that the rows of train.epochs fill."""
    return config.train.steps or max(1, config.train.epochs * rows_per_epoch // rows_per_step)


class _Steps:
    """A data source for Grain whose element j is the rows that this process takes in step `first` + j."""

    def __init__(self, order: grain.MapDataset, rows: int, local_rows: Sequence[int], first: int, steps: int):
        self._order, self._rows, self._local_rows, self._first = order, rows, local_rows, first
        self._length = max(0, min(steps, sys.maxsize // rows) - first)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> list[int]:
        start = (self._first + index) * self._rows
        numbers = (start + row for row in self._local_rows)
        return [self._order[number] if number < len(self._order) else NO_ROW for number in numbers]

    def __repr__(self) -> str:
        return f"_Steps({self._length})"


def _training_order(rows: list[int], weights: Sequence[float], seed: int, shuffle: bool) -> grain.MapDataset:
    """An endless sequence of row numbers; each part of the plan is shuffled by itself, then they are mixed."""
    parts, start = [], 0
    for part, count in enumerate(rows):
        order = grain.MapDataset.range(start, start + count)
        if shuffle:
            order = order.seed(_seed_of(seed, part)).shuffle()
        parts.append(order.repeat())
        start += count
    return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights)


def _seed_of(seed: int, part: int) -> int:
    """A seed of 32 bits; datasets of equal size must not be shuffled alike."""
    return int(np.random.SeedSequence([seed, part]).generate_state(1)[0])


def _plan(config: ConfigDict, lengths: Lengths, group: range, usable: np.ndarray) -> packing.Plan:
    data = config.data
    samples = np.flatnonzero(usable[group.start : group.stop]) + group.start
    cut = lengths.cut(data.max_length)
    if not data.pack:
        return packing.one_a_row(samples, cut)
    return packing.pack(
        samples,
        cut,
        lengths.clips,
        clips_per_row=data.clips_per_row,
        row_length=data.row_length,
        seed=config.seed,
    )


def _shapes(rows: int, data: ConfigDict, max_length: int, lengths: Lengths, plan: packing.Plan) -> Shapes:
    """The least that holds every planned row; in a packed row, the clips that the config allows."""
    clips = data.clips_per_row if plan.packed else int(plan.totals(lengths.clips).max())
    return Shapes(
        rows=rows,
        clips=max(1, clips),
        samples=data.audio_seconds * SAMPLE_RATE,
        tokens=round_up(plan.row_length),
        labels=round_up(int(plan.totals(lengths.labels(max_length)).max())),
    )


def round_up(length: int) -> int:
    """A capacity for so many tokens or labels."""
    return -(-length // MULTIPLE) * MULTIPLE


def _required(folders: Sequence[str], key: str) -> Sequence[str]:
    if not folders:
        raise ValueError(f"{key}: name at least one folder that `desta-jax records` wrote")
    return folders


def _check_not_empty(folder: str, plan: packing.Plan, rejected: dict[str, int]) -> None:
    if len(plan):
        return
    reasons = "; ".join(f"{reason}: {count}" for reason, count in rejected.items()) or "it holds none"
    raise ValueError(f"{folder}: no sample can be used ({reasons})")


def _report(inputs: Inputs, name: str) -> Inputs:
    """Says what was planned."""
    shapes = inputs.shapes
    logging.info(
        "%s: %d samples in %d rows of %d tokens and %d clips", name, inputs.samples_per_epoch, inputs.rows_per_epoch,
        shapes.tokens, shapes.clips,
    )  # fmt: skip
    for reason, count in inputs.rejected.items():
        logging.warning("%s: %d samples are left out: %s", name, count, reason)
    return inputs


def _mark_flags_parsed() -> None:
    """Grain reads absl flags when it starts processes, which fails where the program does not use absl."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
