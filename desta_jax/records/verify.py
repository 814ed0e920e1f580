"""Everything that can be checked of a directory of records: checksums, sound, counts, index."""

from __future__ import annotations

import dataclasses
import json
import posixpath
import sys
from collections.abc import Callable, Iterator

import fsspec

from desta_jax.audio import load
from desta_jax.machine import cores
from desta_jax.records import index as indexing
from desta_jax.records import rows, schema, tfrecord
from desta_jax.records.read import RecordSource
from desta_jax.records.workers import Progress, Workers

_SHOWN = 20  # problems of a shard: one that was cut has two a record


@dataclasses.dataclass(frozen=True)
class Report:
    """What `verify` found."""

    records: int
    """Good ones."""
    clips: int
    samples: int
    problems: list[str]
    """One line each: shard, record number in the shard, id where it can be read, and what is wrong."""


@dataclasses.dataclass(frozen=True)
class _Shard:
    path: str
    """Local or remote, as RecordSource reads it."""
    number: int
    index: indexing.Index
    """Of this shard alone."""


def verify(
    directory: str,
    *,
    workers: int = 0,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Report:
    """Reads every record, local or remote: checksums, fields, every clip decoded and measured, all against the index.

    Goes on past damage, so that the report lists it; of a shard with many problems the first.

    Raises:
        FileNotFoundError: no such directory.
        ValueError: the directory is unfinished or its index is damaged.
    """
    source = RecordSource(directory)
    index = source.index
    shards = (
        _Shard(posixpath.join(directory, name), number, index.shard(number)) for number, name in enumerate(index.shards)
    )
    problems: dict[int, list[str]] = {}
    records = clips = samples = 0
    with Workers(workers or cores()) as pool:
        for found in pool.each(_verify_shard, shards, Progress(report, len(source), len(index.shards))):
            number, part = found
            problems[number] = part.problems
            records, clips, samples = records + part.records, clips + part.clips, samples + part.samples
    lines = [line for number in sorted(problems) for line in problems[number]]
    return Report(records, clips, samples, _directory_problems(directory, index) + lines)


def _verify_shard(shard: _Shard, count: Callable[[bool], bool]) -> tuple[int, Report]:
    filesystem, path = fsspec.core.url_to_fs(shard.path)
    name = posixpath.basename(path)
    problems: list[str] = []
    if not filesystem.isfile(path):
        return shard.number, Report(0, 0, 0, [f"{name}: no such file"])
    records = clips = samples = end = 0
    with filesystem.open(path, "rb") as file:
        for number in range(len(shard.index.offset)):
            entry = shard.index.entry(number)
            found = list(_record_problems(file, entry, end))
            problems += [f"{name} record {number}{_id(file, entry)}: {problem}" for problem in found]
            end = entry.offset + entry.length + tfrecord.FOOTER
            if not found:
                records, clips, samples = records + 1, clips + entry.clips, samples + entry.samples
            if not count(not found):
                break
    if (surplus := filesystem.size(path) - end) > 0:
        problems.append(f"{name}: {surplus} bytes after the last record of the index")
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"{name}: and {len(problems) - _SHOWN} more"]
    return shard.number, Report(records, clips, samples, problems)


def _record_problems(file, entry: indexing.Entry, previous_end: int) -> Iterator[str]:
    """What is wrong with one record; `previous_end` is where the one before it ends."""
    if entry.offset != previous_end + tfrecord.HEADER:
        yield f"the index says byte {entry.offset}, but the record before ends at {previous_end}"
    file.seek(entry.offset - tfrecord.HEADER)
    header, record, footer = file.read(tfrecord.HEADER), file.read(entry.length), file.read(tfrecord.FOOTER)
    try:
        length = tfrecord.header_length(header)
        if length != entry.length:
            yield f"its header says {length} bytes, the index {entry.length}"
    except ValueError as error:
        yield str(error)
    try:
        tfrecord.check_record(record, footer)
        sample = schema.decode(record)
    except ValueError as error:
        yield str(error)
        return
    yield from _sample_problems(sample)
    text_length = schema.text_length(record)
    if entry != indexing.entry_of(record, entry.offset, text_length, sample.num_samples):
        yield "its clips, samples or text are not what the index says"


def _sample_problems(sample: schema.Sample) -> Iterator[str]:
    located = sum(message.get("content", "").count(rows.AUDIO_LOCATOR) for message in sample.messages)
    numbers = {len(sample.audio), len(sample.num_samples), len(sample.transcripts), located}
    if len(numbers) > 1:
        yield (
            f"{len(sample.audio)} clips, {len(sample.num_samples)} lengths, {len(sample.transcripts)} transcripts and "
            f"{located} {rows.AUDIO_LOCATOR} do not agree"
        )
    for number, (clip, samples) in enumerate(zip(sample.audio, sample.num_samples, strict=False)):
        try:
            decoded = len(load.decode_flac(clip))
        except ValueError as error:
            yield f"clip {number}: {error}"
            continue
        if decoded != samples or not samples:
            yield f"clip {number} has {decoded} samples, the record says {samples}"


def _id(file, entry: indexing.Entry) -> str:
    """The record's id, if its text is whole."""
    file.seek(entry.offset)
    text = file.read(entry.text_length)
    if tfrecord.checksum(text) != entry.text_checksum:
        return ""
    return f" (id {schema.decode_text(text).id})"


def _directory_problems(directory: str, index: indexing.Index) -> list[str]:
    """Shards that the index does not know, and what the files beside it say otherwise or not at all."""
    filesystem, root = fsspec.core.url_to_fs(directory)
    known = set(index.shards)
    problems = [
        f"{file}: a shard that {indexing.INDEX_FILE} does not know"
        for file in sorted(map(posixpath.basename, filesystem.ls(root, detail=False)))
        if ".tfrecord" in file and file not in known
    ]

    def told(file: str, read: Callable[[dict], object]):
        """What a JSON file says; a line in `problems` where it can't be read."""
        try:
            return read(json.loads(filesystem.cat_file(posixpath.join(root, file))))
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            problems.append(f"{file}: cannot be read ({error})")

    lengths = told("dataset_info.json", lambda info: [int(length) for length in info["splits"][0]["shardLengths"]])
    if lengths not in (None, index.counts.tolist()):
        problems.append(f"dataset_info.json: shards of {lengths} records, in the index {index.counts.tolist()}")
    fields = told("features.json", lambda features: sorted(features["featuresDict"]["features"]))
    if fields not in (None, sorted(schema.FEATURES)):
        problems.append(f"features.json: fields {fields}, in the records {sorted(schema.FEATURES)}")
    records = told("summary.json", lambda summary: int(summary["records"]))
    if records not in (None, len(index.offset)):
        problems.append(f"summary.json: {records} records, in the index {len(index.offset)}")
    return problems
