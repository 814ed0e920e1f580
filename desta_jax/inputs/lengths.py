"""How long every sample of a directory of records is, measured once and kept beside the records."""

from __future__ import annotations

import concurrent.futures as futures
import dataclasses
import hashlib
import io
import multiprocessing
import zipfile
from collections.abc import Iterator

import numpy as np
import tokenizers
import transformers
from absl import logging
from etils import epath
from jaxtyping import Bool, Int32, UInt8

from desta_jax.files import is_remote, write_whole
from desta_jax.inputs.prompt import AUDIO_CUT, NO_LABEL, PromptBuilder
from desta_jax.machine import cores
from desta_jax.processes import die_with_parent
from desta_jax.records import schema
from desta_jax.records.read import RecordSource
from desta_jax.records.workers import told_when_a_worker_dies

VERSION = 1  # of the file; also to be raised when the rules of a prompt change
PARALLEL_FROM = 20_000  # samples; below, starting processes takes longer than they save
CHUNK = 5_000  # samples
MOST_PROCESSES = 32  # each holds its own copy of the records' index
SHOWN_FAULTS = 5
READ_AGAIN = 1_000  # samples at most: of more, the fault is no passing one

MEASURED, INVALID, UNREADABLE = 0, 1, 2  # states of a sample
INVALID_MESSAGES = "no prompt can be made of the messages"
UNREADABLE_RECORD = "the record cannot be read"
TOO_MANY_CLIPS = "more clips than data.clips_per_row"


@dataclasses.dataclass(frozen=True)
class Lengths:
    """One entry a sample; see `prompt.Extent`. Where the state is not MEASURED, the numbers are 0."""

    tokens: Int32[np.ndarray, " samples"]
    answer: Int32[np.ndarray, " samples"]
    audio_end: Int32[np.ndarray, " samples"]
    clips: Int32[np.ndarray, " samples"]
    state: UInt8[np.ndarray, " samples"]

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, max_length: int) -> Int32[np.ndarray, " samples"]:
        """Tokens of each sample after the cut."""
        return np.minimum(self.tokens, max_length)

    def labels(self, max_length: int) -> Int32[np.ndarray, " samples"]:
        """Label tokens of each sample after the cut."""
        return np.maximum(self.cut(max_length) - self.answer, 0)

    def usable(
        self, max_length: int, most_clips: int | None = None
    ) -> tuple[Bool[np.ndarray, " samples"], dict[str, int]]:
        """Which samples can be used at this length, and how many cannot, by reason."""
        usable = np.ones(len(self), bool)
        rejected = {}
        for reason, fails in {
            UNREADABLE_RECORD: self.state == UNREADABLE,
            INVALID_MESSAGES: self.state == INVALID,
            AUDIO_CUT: self.audio_end > self.cut(max_length),
            NO_LABEL: self.answer >= self.cut(max_length),
            TOO_MANY_CLIPS: self.clips > (most_clips if most_clips is not None else self.clips),
        }.items():
            if count := int((usable & fails).sum()):
                rejected[reason] = count
            usable &= ~fails
        return usable, rejected


def join(parts: list[Lengths]) -> Lengths:
    """Several datasets one after the other."""
    names = [field.name for field in dataclasses.fields(Lengths)]
    return Lengths(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def lengths_of(directory: str, source: RecordSource, prompts: PromptBuilder, cache: str | None = None) -> Lengths:
    """Every sample's lengths: read from the file that an earlier call left, or measured.

    The file lies in the directory of the records, or, where that cannot be written, in `cache`. Its name holds a
    fingerprint of the records' index, the tokenizer (and its library) and the prompt's settings, so that it is never
    taken for another.
    Without a place to keep it, every start measures anew.

    Args:
        directory: of the records, local or remote, or a pattern of shards; `source` reads it.
        cache: another directory to keep the file in. Where it is in a bucket, the first process of several measures,
            and the others wait and read.
    """
    name = f"lengths-{_fingerprint(source, prompts)[:16]}.npz"
    if not is_remote(cache or ""):
        return _read_or_measure(directory, source, prompts, cache, name)
    import jax  # not at the top: the processes that measure do without it
    from jax.experimental import multihost_utils

    # Millions of rows need not be read by every host of a pod: the first one's measures are in the bucket.
    first = jax.process_index() == 0
    lengths = _read_or_measure(directory, source, prompts, cache, name) if first else None
    multihost_utils.sync_global_devices(name)
    return lengths if first else _read_or_measure(directory, source, prompts, cache, name)


def _read_or_measure(
    directory: str, source: RecordSource, prompts: PromptBuilder, cache: str | None, name: str
) -> Lengths:
    places = [epath.Path(place) for place in (directory, cache) if place and "*" not in place]
    for place in places:
        if (lengths := _load(place / name, len(source))) is not None:
            return lengths
    lengths = measure(source, prompts)
    _read_again(lengths, source, prompts)
    if (lengths.state == UNREADABLE).any():
        places = [epath.Path(cache)] if cache else []  # a run's samples stay the same; for others they may be repaired
    saved = (_save(place / name, lengths) for place in places)
    # For the hosts of a pod everywhere: the directory may be one on each host's own disk.
    if not any(list(saved) if is_remote(cache or "") else saved):
        logging.warning("%s: the samples' lengths can be kept nowhere; each start measures them anew", directory)
    return lengths


def _read_again(lengths: Lengths, source: RecordSource, prompts: PromptBuilder) -> None:
    """Samples that could not be read may have been out of reach for a moment: puts what they are now into `lengths`."""
    for number in map(int, np.flatnonzero(lengths.state == UNREADABLE)[:READ_AGAIN]):
        again, _ = _measure_chunk(source, prompts, number, number + 1)
        for field in dataclasses.fields(Lengths):
            getattr(lengths, field.name)[number] = getattr(again, field.name)[0]


def measure(source: RecordSource, prompts: PromptBuilder, processes: int | None = None) -> Lengths:
    """Reads every sample's text and measures it, in parallel where there are many."""
    chunks = [(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)]
    if processes is None:
        processes = min(cores(), MOST_PROCESSES) if len(source) >= PARALLEL_FROM else 1
    if processes > 1:
        results = _measure_in_processes(source, prompts, chunks, processes)
    else:
        results = (_measure_chunk(source, prompts, *chunk) for chunk in chunks)
    parts, shown = [_empty()], 0
    for number, (part, faults) in enumerate(results, 1):
        parts.append(part)
        for fault in faults[: SHOWN_FAULTS - shown]:
            logging.warning("left out: %s", fault)
            shown += 1
        if number % 20 == 0:
            logging.info("measured %d of %d samples", min(number * CHUNK, len(source)), len(source))
    return join(parts)


def _measure_in_processes(
    source: RecordSource, prompts: PromptBuilder, chunks: list[tuple[int, int]], processes: int
) -> Iterator[tuple[Lengths, list[str]]]:
    # Spawned, not forked: a fork would copy the locks of JAX's threads.
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(processes, context, _begin, (source, prompts))
    with pool, told_when_a_worker_dies():
        yield from pool.map(_measure_here, *zip(*chunks))


_work: tuple[RecordSource, PromptBuilder]  # of this process, as a worker


def _begin(source: RecordSource, prompts: PromptBuilder) -> None:
    global _work
    _work = (source, prompts)
    die_with_parent()


def _measure_here(start: int, stop: int) -> tuple[Lengths, list[str]]:
    return _measure_chunk(*_work, start, stop)


def _measure_chunk(source: RecordSource, prompts: PromptBuilder, start: int, stop: int) -> tuple[Lengths, list[str]]:
    """The lengths of some samples, and what is wrong with those that cannot be used."""
    rows, faults = [], []
    for number in range(start, stop):
        try:
            sample = schema.decode_text(source.text(number))
        except (OSError, ValueError) as error:
            rows.append((0, 0, 0, 0, UNREADABLE))
            faults.append(f"{source.place(number)}: {error}")
            continue
        try:
            extent = prompts.extent(sample.messages, sample.response)
            _check_clips(extent.clips, int(source.clips[number]))
        except ValueError as error:
            rows.append((0, 0, 0, 0, INVALID))
            faults.append(f"{source.place(number)} (id {sample.id!r}): {error}")
            continue
        rows.append((extent.tokens, extent.answer, extent.audio_end, extent.clips, MEASURED))
    columns = np.array(rows, np.int32).T
    return Lengths(*columns[:4], columns[4].astype(np.uint8)), faults


def _check_clips(in_messages: int, in_record: int) -> None:
    if in_messages != in_record:
        raise ValueError(f"the messages speak of {in_messages} clips, the record holds {in_record}")


def _empty() -> Lengths:
    nothing = np.zeros(0, np.int32)
    return Lengths(nothing, nothing, nothing, nothing, nothing.astype(np.uint8))


def _fingerprint(source: RecordSource, prompts: PromptBuilder) -> str:
    versions = (VERSION, tokenizers.__version__, transformers.__version__)
    digest = hashlib.sha256(f"{versions} {prompts.fingerprint} {source.index.shards}".encode())
    for array in (source.index.counts, source.index.offset, source.index.text_checksum, source.clips):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _load(file: epath.Path, samples: int) -> Lengths | None:
    """What is in the file, if it is there and whole."""
    try:
        lengths = Lengths(**np.load(io.BytesIO(file.read_bytes())))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s: not used, %s", file, error)
        return None
    return lengths if len(lengths) == samples else None


def _save(file: epath.Path, lengths: Lengths) -> bool:
    """Whether the file could be written; it has its name only once it is whole."""
    content = io.BytesIO()
    np.savez(content, **dataclasses.asdict(lengths))
    try:
        write_whole(file, content.getvalue())
    except OSError:
        return False
    return True
