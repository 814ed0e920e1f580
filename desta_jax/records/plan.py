"""Which row goes to which shard: a function of the manifests' rows and their order alone."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np

from desta_jax.records import rows as manifest_rows
from desta_jax.records.rows import ManifestScan, Place, Rejection

FORMAT = 1  # of records and index; records of another format are made again
ROWS_PER_SHARD = 4096  # at most, if the caller does not say: 0.4 to 0.9 GB of speech
SMALL_SHARD = 64  # rows; shards get no smaller for the sake of parallelism
PARALLEL_SHARDS = 64


@dataclasses.dataclass(frozen=True)
class Plan:
    """The rows of all manifests, in order, cut in shards of equal numbers of rows."""

    scans: list[ManifestScan]
    name: str
    split: str
    shards: int
    audio_root: str
    rejections: dict[int, Rejection]
    """Rows whose text is bad, by row number over all manifests."""

    @property
    def rows(self) -> int:
        return sum(len(scan.offset) for scan in self.scans)

    def settings(self) -> dict:
        """What must be the same for a later run to go on with this one's work, as JSON."""
        manifests = [{"file": os.path.basename(scan.path), "sha256": scan.sha256} for scan in self.scans]
        job = {"format": FORMAT, "name": self.name, "split": self.split, "shards": self.shards}
        return job | {"audio_root": self.audio_root, "manifests": manifests}

    def shard_file(self, shard: int) -> str:
        return f"{self.name}-{self.split}.tfrecord-{shard:05d}-of-{self.shards:05d}"

    def shard_rows(self, shard: int) -> list[tuple[int, Place]]:
        """The shard's rows whose text is good: (row number, place)."""
        starts = np.concatenate([[0], np.cumsum([len(scan.offset) for scan in self.scans])])
        first, stop = (self.rows * part // self.shards for part in (shard, shard + 1))
        places = []
        for row in range(first, stop):
            if row not in self.rejections:
                scan = int(np.searchsorted(starts, row, side="right")) - 1
                places.append((row, self.scans[scan].place(row - int(starts[scan]))))
        return places


def make_plan(
    manifests: Sequence[str],
    audio_root: str,
    name: str,
    split: str,
    shards: int,
    rows_per_shard: int,
    scan_all: Callable[[Sequence[str]], list[ManifestScan]],
) -> Plan:
    """Reads the manifests through and decides.

    Args:
        shards, rows_per_shard: how to cut; 0 leaves it to the other, and both 0 to the number of rows.
        scan_all: runs `rows.scan_manifest` on every manifest, in order.

    Raises:
        FileNotFoundError: a manifest or the audio root is not there.
        ValueError: no rows, or settings that contradict each other.
    """
    _check_arguments(manifests, audio_root, name, split, shards, rows_per_shard)
    scans = scan_all(manifests)
    rows = sum(len(scan.offset) for scan in scans)
    if not rows:
        raise ValueError(f"no rows in {', '.join(manifests)}")
    shards = shards or (-(-rows // rows_per_shard) if rows_per_shard else _default_shards(rows))
    if shards > min(rows, 99999):
        raise ValueError(f"shards: {shards} is too many for {rows} rows")
    return Plan(scans, name, split, shards, os.path.abspath(audio_root), _rejections(scans))


def count_reasons(rejections: Sequence[Rejection]) -> dict[str, int]:
    """How many rows were rejected for each reason, the most frequent first."""
    counts = collections.Counter(rejection.reason for rejection in rejections)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _check_arguments(manifests, audio_root, name, split, shards, rows_per_shard):
    if not manifests:
        raise ValueError("manifests: give at least one JSON lines file")
    if not os.path.isdir(audio_root):
        raise FileNotFoundError(f"{audio_root}: no such directory (audio_root)")
    if shards and rows_per_shard:
        raise ValueError("shards and rows_per_shard: give one of them")
    if shards < 0 or rows_per_shard < 0:
        raise ValueError("shards and rows_per_shard must be 0 (chosen by the number of rows) or more")
    for key, value in (("name", name), ("split", split)):
        if not value.replace("_", "").isalnum() or not value[0].isalpha() or value != value.lower():
            raise ValueError(f"{key}: {value!r} should be lower-case letters, digits and _, from a letter on")


def _default_shards(rows: int) -> int:
    return max(-(-rows // ROWS_PER_SHARD), min(PARALLEL_SHARDS, -(-rows // SMALL_SHARD)))


def _rejections(scans: Sequence[ManifestScan]) -> dict[int, Rejection]:
    starts = np.concatenate([[0], np.cumsum([len(scan.offset) for scan in scans])]).tolist()
    rejections = {}
    for scan, start in zip(scans, starts, strict=False):
        rejections |= {start + row: rejection for row, rejection in scan.rejections.items()}

    def place(row: int) -> Place:
        scan = int(np.searchsorted(starts, row, side="right")) - 1
        return scans[scan].place(row - starts[scan])

    for row, first in manifest_rows.find_duplicates([scan.digest for scan in scans]).items():
        detail = f"same id, messages and response as {place(first).manifest}:{place(first).line}"
        rejections[row] = manifest_rows.reject(place(row), place(row).read(), "duplicate", detail)
    return dict(sorted(rejections.items()))
