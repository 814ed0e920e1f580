"""Rows of a plan to a batch: which records there are, how one is read, and where its arrays go in the batch."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Sequence

import numpy as np

from desta_jax.audio.load import decode_flac
from desta_jax.batch import Batch, empty_batch
from desta_jax.inputs import packing
from desta_jax.inputs.lengths import Lengths, join, lengths_of
from desta_jax.inputs.prompt import Example, PromptBuilder, Rejection
from desta_jax.records import schema
from desta_jax.records.read import RecordSource

NO_ROW = -1  # what a step takes where an evaluation has no more rows


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The shape of every global batch."""

    rows: int
    clips: int
    samples: int
    """16 kHz samples a clip."""
    tokens: int
    labels: int


class RowReader:
    """Makes batches of planned rows; shared by threads, and sent whole to reader processes."""

    def __init__(self, records: Records, prompts: PromptBuilder, plan: packing.Plan, shapes: Shapes, max_length: int):
        self.records, self.prompts, self.plan, self.shapes, self.max_length = records, prompts, plan, shapes, max_length

    def read(self, rows: Sequence[int]) -> tuple[Batch, list[tuple[str, str]]]:
        """The batch of some rows; and shard, record and reason for each sample that had to be left out of it."""
        shapes, faults = self.shapes, []
        batch = empty_batch(len(rows), shapes.clips, shapes.samples, shapes.tokens, shapes.labels)
        for index, row in enumerate(rows):
            samples = []
            for number in self._numbers(row):
                try:
                    samples.append(self._load(number))
                except (OSError, ValueError) as error:
                    faults.append((self.records.place(number), str(error)))
            self._fill(batch, index, samples)
        return batch, faults

    def ids(self, rows: Sequence[int]) -> list[str]:
        return [self._id(number) for row in rows for number in self._numbers(row)]

    def _numbers(self, row: int) -> list[int]:
        return [] if row == NO_ROW else self.plan[row].tolist()

    def _id(self, number: int) -> str:
        try:
            return schema.decode_text(self.records.text(number)).id
        except (OSError, ValueError):
            return f"unreadable: {self.records.place(number)}"

    def _load(self, number: int) -> tuple[Example, list[np.ndarray]]:
        sample = schema.decode(self.records[number])
        example = self.prompts.training(sample.messages, sample.response, self.max_length)
        if isinstance(example, Rejection):
            raise ValueError(example.reason)
        return example, [decode_flac(flac)[: self.shapes.samples] for flac in sample.audio]

    def _fill(self, batch: Batch, row: int, samples: list[tuple[Example, list[np.ndarray]]]) -> None:
        """Writes samples into a row, one after the other."""
        token = label = clip = 0
        for segment, (example, waves) in enumerate(samples, 1):
            length, answers = len(example.tokens), len(example.labels)
            here, there = slice(token, token + length), slice(label, label + answers)
            batch.tokens[row, here] = example.tokens
            batch.positions[row, here] = np.arange(length)
            batch.segments[row, here] = segment
            slots = example.audio_slots
            batch.audio_slots[row, here] = np.where(slots >= 0, slots + clip * self.prompts.prompt_size, slots)
            batch.label_positions[row, there] = token + example.answer - 1 + np.arange(answers)
            batch.labels[row, there] = example.labels
            for number, wave in enumerate(waves, clip):
                batch.audio[row, number, : len(wave)] = wave
            token, label, clip = token + length, label + answers, clip + len(waves)


class Records:
    """Several directories of records as one sequence; picklable."""

    def __init__(self, folders: Sequence[str]):
        self._folders = [os.fspath(folder) for folder in folders]
        self._sources = [RecordSource(folder) for folder in self._folders]
        self._starts = [0, *itertools.accumulate(len(source) for source in self._sources)]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def groups(self) -> list[range]:
        """The numbers of each directory's records."""
        return [range(*pair) for pair in itertools.pairwise(self._starts)]

    @property
    def fingerprint(self) -> str:
        """Changes with the records and their order, however they are spread over shards."""
        digest = hashlib.sha256()
        for source in self._sources:
            for array in (source.index.length, source.index.text_checksum):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __getitem__(self, number: int) -> bytes:
        source, number = self._locate(number)
        return source[number]

    def text(self, number: int) -> bytes:
        source, number = self._locate(number)
        return source.text(number)

    def place(self, number: int) -> str:
        """Directory, shard and record, for messages."""
        source, within = self._locate(number)
        return f"{self._folders[self._sources.index(source)]}: {source.place(within)}"

    def lengths(self, prompts: PromptBuilder, cache: str | None) -> Lengths:
        return join(
            [lengths_of(folder, source, prompts, cache) for folder, source in zip(self._folders, self._sources)]
        )

    def _locate(self, number: int) -> tuple[RecordSource, int]:
        source = bisect.bisect_right(self._starts, number) - 1
        return self._sources[source], number - self._starts[source]
