"""Making one shard: what a worker does, row after row."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable

import numpy as np

from desta_jax.audio import load
from desta_jax.records import index as indexing
from desta_jax.records import rows as manifest_rows
from desta_jax.records import schema, tfrecord
from desta_jax.records.rows import BadRow, Place, Rejection


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """What there is to make."""

    file: str
    """Path of the shard."""
    note: str
    """Path of the note that says the shard is whole."""
    audio_root: str
    shard: int
    """Its number."""


@dataclasses.dataclass(frozen=True)
class ShardNote:
    """What is known of a whole shard: its part of the index, and the rows that did not get in for their audio."""

    size: int
    columns: dict[str, np.ndarray]
    rejections: dict[int, Rejection]
    stamps: dict[str, list[int] | None]
    """Size and time of those rows' clips: if one changes, the shard is made again."""

    def write(self, path: str) -> None:
        rejections = {row: dataclasses.asdict(rejection) for row, rejection in self.rejections.items()}
        about = json.dumps({"size": self.size, "rejections": rejections, "stamps": self.stamps})
        with open(path + ".part", "wb") as file:
            np.savez(file, about=np.array(about), **self.columns)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".part", path)

    @classmethod
    def read(cls, path: str) -> ShardNote:
        arrays = dict(np.load(path))
        about = json.loads(str(arrays.pop("about")))
        rejections = {int(row): Rejection(**fields) for row, fields in about["rejections"].items()}
        return cls(about["size"], arrays, rejections, about["stamps"])


def make_shard(work: tuple[ShardTask, list[tuple[int, Place]]], count: Callable[[bool], bool]) -> dict[int, Rejection]:
    """Writes the shard under a passing name, gives it its own when it is whole, then writes its note.

    Args:
        work: the task, and the rows that go in by their numbers.
        count: told after each row whether it became a record; answers whether to go on. If not, the shard is
            left undone.

    Returns:
        The rejected rows by number.
    """
    task, rows = work
    entries, rejections, stamps = [], {}, {}
    passing = f"{task.file}.{os.getpid()}.part"
    with open(passing, "wb") as file:
        offset, go_on = 0, True
        for number, place in rows:
            text = place.read()
            row = manifest_rows.parse_row(text, f"{os.path.basename(place.manifest)}:{place.line}")
            try:
                sample = with_audio(row, task.audio_root)
            except BadRow as error:
                rejections[number] = manifest_rows.reject(place, text, error.reason, str(error))
                stamps |= {clip: clip_stamp(clip, task.audio_root) for clip in row.clips}
            else:
                record, text_length = schema.encode(sample)
                header, footer = tfrecord.frame(record)
                file.write(header + record + footer)
                entries.append(indexing.entry_of(record, offset + tfrecord.HEADER, text_length, sample.num_samples))
                offset += len(header) + len(record) + len(footer)
            go_on = count(number not in rejections)
            if not go_on:
                break
        file.flush()
        os.fsync(file.fileno())
    if not go_on:
        os.remove(passing)
        return rejections
    os.replace(passing, task.file)
    ShardNote(offset, indexing.columns(entries), rejections, stamps).write(task.note)
    return rejections


def usable_note(task: ShardTask) -> ShardNote | None:
    """The note of a shard that an earlier run made, if the shard is whole and its rejected clips are as they were."""
    if not os.path.exists(task.note) or not os.path.exists(task.file):
        return None
    try:
        note = ShardNote.read(task.note)
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile):  # cut short when the machine went down
        return None
    if os.path.getsize(task.file) != note.size:
        return None
    if any(clip_stamp(clip, task.audio_root) != stamp for clip, stamp in note.stamps.items()):
        return None
    return note


def with_audio(row: manifest_rows.Row, audio_root: str) -> schema.Sample:
    """The row with its clips as FLAC; raises BadRow, naming the file, for a clip that cannot be used."""
    audio, num_samples = [], []
    for clip in row.clips:
        samples = _load(find_audio(audio_root, clip))
        audio.append(load.encode_flac(samples))
        num_samples.append(len(samples))
    return schema.Sample(audio=audio, num_samples=num_samples, **dataclasses.asdict(row))


def find_audio(audio_root: str, clip: str) -> str:
    """The file of a row's clip: under the root at the row's path, or at that path with the extension .wav."""
    path = os.path.join(audio_root, clip)
    wav = os.path.splitext(path)[0] + ".wav"
    return wav if not os.path.exists(path) and os.path.exists(wav) else path


def clip_stamp(clip: str, audio_root: str) -> list[int] | None:
    """Size and time of a clip's file; None if there is none."""
    path = find_audio(audio_root, clip)
    if not os.path.exists(path):
        return None
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def _load(path: str) -> np.ndarray:
    try:
        return load.to_int16(load.load_audio(path))
    except load.AudioError as error:
        raise BadRow(f"{error.reason}_audio", str(error)) from None
    except FileNotFoundError as error:
        raise BadRow("missing_audio", str(error)) from None
    except OSError as error:
        raise BadRow("unreadable_audio", f"{path}: {error.strerror}") from None
