"""Random access to the records of a directory: a data source for Grain."""

from __future__ import annotations

import bisect
import collections
import contextlib
import os
import posixpath
import threading
from collections.abc import Iterator

import fsspec
import numpy as np
from jaxtyping import Int32

from desta_jax.records import index as indexing
from desta_jax.records import tfrecord

PROGRESS_DIRECTORY = "progress"  # beside the shards while they are being written
OPEN_FILES = 128  # shards kept open by a source; a system's usual limit for a process is 1024


class RecordSource:
    """The records of a directory by number: `len(source)`, `source[i]`.

    Reads are positional, one system call a record, so threads can share a source. A pickled source carries no open
    files and opens its own where it is unpickled.

    Args:
        path: a directory that `desta-jax records` wrote; or a pattern of shards in one directory that have no
            index, such as "d/*.tfrecord-*", which are then read through once to make one. Local, or remote as
            fsspec reads it ("gs://bucket/records", which needs gcsfs).

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if the records are unfinished or the index is damaged.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = os.fspath(path)
        self._scanned = None
        self._open()

    def _open(self):
        filesystem, root = fsspec.core.url_to_fs(self._path)
        if any(character in root for character in "*?[") and not filesystem.isdir(root):
            root = posixpath.dirname(root)
            self._scanned = self._scanned or _scan_shards(filesystem, self._path)
        self._index = self._scanned or _read_index(filesystem, root, self._path)
        self._starts = np.concatenate([[0], np.cumsum(self._index.counts)]).tolist()
        self._shards = [posixpath.join(root, name) for name in self._index.shards]
        local = isinstance(filesystem, fsspec.implementations.local.LocalFileSystem)
        self._files = _LocalFiles() if local else _RemoteFiles(filesystem)

    def __getstate__(self):
        return {"_path": self._path, "_scanned": self._scanned}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __repr__(self):
        return f"RecordSource({self._path!r}, {len(self)} records)"  # Grain keeps it in its checkpoints

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> bytes:
        """The whole record; raises OSError, naming shard and byte, if it is damaged."""
        shard, number = self._locate(number)
        offset, length = int(self._index.offset[number]), int(self._index.length[number])
        data = self._files.read(self._shards[shard], offset, length + tfrecord.FOOTER)
        record = data[:length]
        try:
            tfrecord.check_record(record, data[length:])
        except ValueError as error:
            raise OSError(f"{self._shards[shard]}, record at byte {offset}: {error}; {_REMEDY}") from None
        return record

    def text(self, number: int) -> bytes:
        """The part of the record that comes before the audio, for `schema.decode_text`; verified likewise."""
        shard, number = self._locate(number)
        offset, length = int(self._index.offset[number]), int(self._index.text_length[number])
        data = self._files.read(self._shards[shard], offset, length)
        if tfrecord.checksum(data) != self._index.text_checksum[number]:
            raise OSError(f"{self._shards[shard]}, record at byte {offset}: the text is damaged; {_REMEDY}")
        return data

    @property
    def index(self) -> indexing.Index:
        return self._index

    @property
    def clips(self) -> Int32[np.ndarray, "records"]:
        """Audio clips in each record."""
        return self._index.clips

    def place(self, number: int) -> str:
        """Shard and record number within it, for messages."""
        shard, number = self._locate(number)
        return f"{self._index.shards[shard]} record {number - self._starts[shard]}"

    def _locate(self, number: int) -> tuple[int, int]:
        number = number.__index__()
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)} in {self._path}")
        return bisect.bisect_right(self._starts, number) - 1, number


_REMEDY = "`desta-jax records --verify` lists all damage; copy the shard again or make it again"


def _read_index(filesystem, root: str, path: str) -> indexing.Index:
    file = posixpath.join(root, indexing.INDEX_FILE)
    if filesystem.exists(posixpath.join(root, PROGRESS_DIRECTORY)):
        raise ValueError(f"{path}: the records are unfinished; run the same `desta-jax records` command again")
    if not filesystem.exists(root):
        raise FileNotFoundError(f"{path}: no such directory of records")
    if not filesystem.exists(file):
        raise ValueError(f"{path}: no {indexing.INDEX_FILE}, so this is no finished directory of records")
    return indexing.Index.from_bytes(filesystem.cat_file(file), f"{path}/{indexing.INDEX_FILE}")


def _scan_shards(filesystem, pattern: str) -> indexing.Index:
    shards = sorted(filesystem.glob(pattern))
    if not shards:
        raise FileNotFoundError(f"{pattern}: no file matches")
    parts = []
    for shard in shards:
        with filesystem.open(shard, "rb") as file:
            parts.append(indexing.columns(indexing.scan(file, shard)))
    return indexing.join([posixpath.basename(shard) for shard in shards], parts)


class _LocalFiles:
    """Positional reads of local files; the longest unused are closed past OPEN_FILES."""

    def __init__(self):
        self._lock = threading.Lock()
        self._descriptors: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._readers: collections.Counter[str] = collections.Counter()

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self._descriptor(path) as descriptor:
            data = os.pread(descriptor, length, offset)
            while len(data) < length:  # one call reads at most 2 GiB, and a network file system may give less
                more = os.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        return data

    @contextlib.contextmanager
    def _descriptor(self, path: str) -> Iterator[int]:
        with self._lock:
            if path not in self._descriptors:
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors.move_to_end(path)
            self._readers[path] += 1
            descriptor = self._descriptors[path]
        try:
            yield descriptor
        finally:
            with self._lock:
                self._readers[path] -= 1
                self._close_unused()

    def _close_unused(self):
        surplus = len(self._descriptors) - OPEN_FILES
        if surplus <= 0:
            return
        unused = [path for path in self._descriptors if not self._readers[path]]
        for path in unused[:surplus]:
            os.close(self._descriptors.pop(path))
            del self._readers[path]

    def __del__(self):
        for descriptor in self._descriptors.values():
            os.close(descriptor)


class _RemoteFiles:
    """Positional reads through fsspec: one ranged request each."""

    def __init__(self, filesystem):
        self._filesystem = filesystem

    def read(self, path: str, offset: int, length: int) -> bytes:
        try:
            return self._filesystem.cat_file(path, start=offset, end=offset + length)
        except OSError:
            raise
        except Exception as error:  # each store has its own, once it has tried again itself
            raise OSError(f"{path}: {error!r}") from error
