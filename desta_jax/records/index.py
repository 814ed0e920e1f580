"""Where each record of a set of shards stands: index.npz, which makes TFRecords random access."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt32

from desta_jax.records import schema, tfrecord

INDEX_FILE = "index.npz"


@dataclasses.dataclass(frozen=True)
class Index:
    """One entry a record, shard after shard; about 32 bytes each."""

    shards: list[str]
    """File names."""
    counts: Int64[np.ndarray, "shards"]
    """Records in each shard."""
    offset: Int64[np.ndarray, "records"]
    """Byte of the shard at which the record begins, after its header."""
    length: Int32[np.ndarray, "records"]
    """Bytes of the record."""
    text_length: Int32[np.ndarray, "records"]
    """Bytes of the record that come before its audio."""
    text_checksum: UInt32[np.ndarray, "records"]
    """Checksum of those bytes (the record's own checksum covers the whole)."""
    clips: Int32[np.ndarray, "records"]
    """Audio clips in the record."""
    samples: Int64[np.ndarray, "records"]
    """16 kHz samples of all its clips together."""

    def entry(self, number: int) -> Entry:
        """One record's line, by its number over all shards."""
        return Entry(**{name: int(getattr(self, name)[number]) for name in _COLUMNS})

    def shard(self, number: int) -> Index:
        """The part that one shard has in it."""
        start = int(self.counts[:number].sum())
        part = slice(start, start + int(self.counts[number]))
        arrays = {name: getattr(self, name)[part] for name in _COLUMNS}
        return Index([self.shards[number]], self.counts[number : number + 1], **arrays)

    def to_bytes(self) -> bytes:
        """The content of index.npz; the same index gives the same bytes."""
        file = io.BytesIO()
        np.savez(file, **{**dataclasses.asdict(self), "shards": np.array(self.shards)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Index:
        """Raises ValueError, naming `where`, for bytes that are no index or a damaged one."""
        try:
            arrays = dict(np.load(io.BytesIO(data)))
            arrays["shards"] = [str(name) for name in arrays["shards"]]
            index = cls(**arrays)
        except _DAMAGED as error:
            raise ValueError(f"{where} is damaged or no index of records ({error}); make the records again") from None
        if int(index.counts.sum()) != len(index.offset) or len(index.counts) != len(index.shards):
            raise ValueError(f"{where} contradicts itself; make the records again")
        return index


_DAMAGED = (zipfile.BadZipFile, ValueError, KeyError, TypeError, OSError, EOFError, NotImplementedError, RuntimeError)
"""What NumPy and zipfile raise for bytes that are no index, or are one with some of its bits turned."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One record's line in the index."""

    offset: int
    length: int
    text_length: int
    text_checksum: int
    clips: int
    samples: int


def entry_of(record: bytes, offset: int, text_length: int, num_samples: Sequence[int]) -> Entry:
    """The entry of a record that stands at `offset` in its shard."""
    text_checksum = tfrecord.checksum(record[:text_length])
    return Entry(offset, len(record), text_length, text_checksum, len(num_samples), sum(num_samples))


_COLUMNS = {
    "offset": np.int64,
    "length": np.int32,
    "text_length": np.int32,
    "text_checksum": np.uint32,
    "clips": np.int32,
    "samples": np.int64,
}


def columns(entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The index's arrays over some entries."""
    return {name: np.array([getattr(entry, name) for entry in entries], dtype) for name, dtype in _COLUMNS.items()}


def join(shards: Sequence[str], parts: Sequence[dict[str, np.ndarray]]) -> Index:
    """The index of several shards from the columns of each."""
    counts = np.array([len(part["offset"]) for part in parts], np.int64)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}
    return Index(list(shards), counts, **arrays)


def scan(data, where: str) -> list[Entry]:
    """The entries of a shard that has no index, from an open binary file; every checksum is verified.

    Raises:
        OSError: naming the shard and the offset of the first damage.
        ValueError: for a record that is not of this project's schema.
    """
    entries, offset = [], 0
    while header := data.read(tfrecord.HEADER):
        offset += tfrecord.HEADER
        try:
            record = data.read(tfrecord.header_length(header))
            tfrecord.check_record(record, data.read(tfrecord.FOOTER))
        except ValueError as error:
            raise OSError(f"{where}, record at byte {offset}: {error}") from None
        try:
            num_samples = schema.decode_text(record).num_samples
        except ValueError as error:
            raise ValueError(f"{where}, record at byte {offset}: {error}") from None
        entries.append(entry_of(record, offset, schema.text_length(record), num_samples))
        offset += len(record) + tfrecord.FOOTER
    return entries
