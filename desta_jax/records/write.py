"""Rows and their audio to a directory of shards: in parallel, resumable, the same bytes every time."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from desta_jax.audio.load import SAMPLE_RATE
from desta_jax.files import is_remote, lock
from desta_jax.machine import cores
from desta_jax.records import dataset_info
from desta_jax.records import index as indexing
from desta_jax.records import rows as manifest_rows
from desta_jax.records.plan import Plan, count_reasons, make_plan
from desta_jax.records.read import PROGRESS_DIRECTORY
from desta_jax.records.rows import Rejection
from desta_jax.records.shard import ShardNote, ShardTask, make_shard, usable_note
from desta_jax.records.workers import Progress, Workers

SUMMARY_FILE = "summary.json"
REJECTED_FILE = "rejected.jsonl"
_DONE_DIRECTORY = "progress.done"  # for the moment of its removal: half removed, it must not look unfinished
_JOB_FILE = "job.json"  # in the progress directory: the plan's settings


def write_records(
    manifests: Sequence[str],
    audio_root: str,
    out: str,
    *,
    name: str = "desta_aqa5m",
    split: str = "train",
    shards: int = 0,
    rows_per_shard: int = 0,
    workers: int = 0,
    max_rejected_fraction: float = 0.01,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> dict:
    """Writes a directory of records from manifests in AQA5M's form.

    Shards hold equal numbers of consecutive rows; a shard's bytes depend on its rows alone, whatever the number of
    workers. A shard has its name only once it is whole. A run that was stopped, by whatever means, is continued by
    calling again: shards that are whole are kept, unless a clip that was rejected has changed since. The directory is
    readable once index.npz stands in it.

    Args:
        manifests: JSON lines files, read in this order.
        audio_root: directory under which the rows' audio paths lie.
        out: a local directory: new, empty, or one that this function was stopped in.
        name, split: of the dataset, in the shards' names.
        shards: their number; 0 chooses by the number of rows, or by `rows_per_shard` if that is given.
        workers: processes; 0 is one a core.
        max_rejected_fraction: how many of the rows may be unusable before the job fails.
        report: gets the progress lines.

    Returns:
        What summary.json holds: rows, records, clips, hours, bytes, shards, rejected (by reason), job.

    Raises:
        FileNotFoundError: a manifest or the audio root is missing.
        OSError: the disk is full; finished shards are kept.
        ValueError: too many bad rows (rejected.jsonl lists them; nothing that was finished is lost), a directory
            that holds something else, or input or settings that changed since the run that is to be continued.
    """
    if is_remote(out):
        raise ValueError(f"{out}: records are written to a local directory; copy it to the bucket afterwards")
    if not 0 <= max_rejected_fraction <= 1:
        raise ValueError(f"max_rejected_fraction: must be from 0 to 1, got {max_rejected_fraction}")
    with Workers(workers or cores()) as pool:

        def scan_all(paths: Sequence[str]) -> list[manifest_rows.ManifestScan]:
            report(f"reading {len(paths)} manifest{'s' * (len(paths) > 1)}")
            return pool.map(manifest_rows.scan_manifest, paths)

        plan = make_plan(manifests, audio_root, name, split, shards, rows_per_shard, scan_all)
        if _is_complete(out, plan):
            report(f"{out}: already complete")
            return read_summary(out)
        _check_fraction(plan, plan.rejections, max_rejected_fraction, out)
        with _opened(out, plan), _full_disk_explained(out):
            notes = _make_shards(plan, out, pool, max_rejected_fraction, report)
            summary = _finish(plan, out, notes)
    report(_one_line(out, summary))
    return summary


def _one_line(out: str, summary: Mapping) -> str:
    """A summary in one line."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["rejected"].items())
    rejected = f"; {summary['rows'] - summary['records']:,} rows rejected ({reasons})" if reasons else ""
    size = f"{summary['clips']:,} clips, {summary['hours']:.2f} h, {summary['bytes'] / 1e6:,.1f} MB"
    return f"{out}: {summary['records']:,} records, {size} in {summary['shards']} shards{rejected}"


def read_summary(out: str) -> dict:
    """What summary.json holds."""
    path = os.path.join(out, SUMMARY_FILE)
    try:
        with open(path) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{path}: missing or damaged ({error}); make the records again") from None


def _is_complete(out: str, plan: Plan) -> bool:
    """Whether the directory holds this plan's records already; raises ValueError if it holds anything else."""
    if os.path.exists(os.path.join(out, PROGRESS_DIRECTORY)) or not os.path.isdir(out):
        return False
    if os.path.exists(os.path.join(out, indexing.INDEX_FILE)):
        _check_same_job(read_summary(out)["job"], plan.settings(), out)
        lost = [
            file for file in map(plan.shard_file, range(plan.shards)) if not os.path.exists(os.path.join(out, file))
        ]
        if lost:
            raise ValueError(f"{out} lacks {', '.join(lost)}, which its index has; delete the directory and run again")
        shutil.rmtree(os.path.join(out, _DONE_DIRECTORY), ignore_errors=True)
        return True
    others = sorted(set(os.listdir(out)) - {REJECTED_FILE, f"{REJECTED_FILE}.part"})
    if others:
        raise ValueError(f"{out} is not empty and holds no records (found {others[0]}); choose another directory")
    return False


def _check_same_job(old: Mapping, new: Mapping, out: str):
    changed = [f"{key} was {old.get(key)!r}, now {new[key]!r}" for key in new if old.get(key) != new[key]]
    if changed:
        raise ValueError(
            f"{out} holds the work of another job: {'; '.join(changed)}. Run with what it was made with, or choose "
            "another directory, or delete this one"
        )


@contextlib.contextmanager
def _opened(out: str, plan: Plan) -> Iterator[None]:
    """The directory with its progress directory, for this process alone; what a killed run left half is removed."""
    progress = os.path.join(out, PROGRESS_DIRECTORY)
    os.makedirs(progress, exist_ok=True)
    with open(os.path.join(progress, "lock"), "w") as file:
        lock(file, f"{out}: another process is writing records here")
        job_file = os.path.join(progress, _JOB_FILE)
        if os.path.exists(job_file):
            with open(job_file) as job:
                _check_same_job(json.load(job), plan.settings(), out)
        elif os.path.exists(os.path.join(out, indexing.INDEX_FILE)):  # since _is_complete looked
            shutil.rmtree(progress)
            raise ValueError(f"{out}: another process has just finished records here; run again to see whether yours")
        else:
            _replace(job_file, json.dumps(plan.settings(), indent=1).encode())
        _remove_half_written(out)
        _remove_half_written(progress)
        yield


@contextlib.contextmanager
def _full_disk_explained(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"{out}: {error.strerror}; finished shards are kept: make room and run again") from error


def _remove_half_written(directory: str):
    for entry in os.scandir(directory):
        if entry.name.endswith(".part"):
            os.remove(entry.path)


def _make_shards(
    plan: Plan, out: str, pool: Workers, max_rejected_fraction: float, report: Callable[[str], None]
) -> list[ShardNote]:
    """Makes the shards that are not whole yet; returns the notes of all, in order."""
    tasks = [
        ShardTask(os.path.join(out, plan.shard_file(shard)), _note_path(out, shard), plan.audio_root, shard)
        for shard in range(plan.shards)
    ]
    kept = {task.shard: note for task in tasks if (note := usable_note(task)) is not None}
    rejections = dict(plan.rejections)
    for note in kept.values():
        rejections |= note.rejections
    if kept:
        report(f"going on where an earlier run stopped: {len(kept)} of {plan.shards} shards are there")
    progress = Progress(report, plan.rows, plan.shards)
    records = sum(len(note.columns["offset"]) for note in kept.values())
    progress.already(records + len(rejections), len(rejections), len(kept))
    begun = ((task, plan.shard_rows(task.shard)) for task in tasks if task.shard not in kept)
    still_allowed = _allowed(plan, max_rejected_fraction) - len(rejections)
    for rejected in pool.each(make_shard, begun, progress, still_allowed):
        rejections |= rejected
    _check_fraction(plan, rejections, max_rejected_fraction, out)
    return [kept.get(task.shard) or ShardNote.read(task.note) for task in tasks]


def _note_path(out: str, shard: int) -> str:
    return os.path.join(out, PROGRESS_DIRECTORY, f"{shard:05d}.npz")


def _allowed(plan: Plan, fraction: float) -> int:
    """How many rows that fraction of them is; 0.29 of 100 is 29, though its product is a little less."""
    return math.floor(fraction * plan.rows + 1e-6)


def _check_fraction(plan: Plan, rejections: Mapping[int, Rejection], fraction: float, out: str):
    """Raises ValueError if too many rows are bad, after listing them where the user finds them."""
    if len(rejections) <= _allowed(plan, fraction):
        return
    os.makedirs(out, exist_ok=True)
    _write_rejected(out, rejections)
    first = rejections[min(rejections)]
    raise ValueError(
        f"{len(rejections)} of {plan.rows} rows cannot be used ({_reasons(rejections.values())}), more than the "
        f"fraction of {fraction} that --max_rejected allows; the first is {first.manifest}:{first.line}: "
        f"{first.detail}. {os.path.join(out, REJECTED_FILE)} lists them. Repair rows and audio files, or allow more, "
        "and run again: finished shards are kept"
    )


def _finish(plan: Plan, out: str, notes: Sequence[ShardNote]) -> dict:
    """Writes what makes the directory whole, the index last."""
    rejections = dict(plan.rejections)
    for note in notes:
        rejections |= note.rejections
    index = indexing.join([plan.shard_file(shard) for shard in range(plan.shards)], [note.columns for note in notes])
    size = sum(note.size for note in notes)
    summary = {
        "rows": plan.rows,
        "records": len(index.offset),
        "rejected": count_reasons(list(rejections.values())),
        "clips": int(index.clips.sum()),
        "hours": round(int(index.samples.sum()) / SAMPLE_RATE / 3600, 6),
        "bytes": size,
        "shards": plan.shards,
        "job": plan.settings(),
    }
    _write_rejected(out, rejections)
    _replace(os.path.join(out, SUMMARY_FILE), json.dumps(summary, indent=1).encode())
    about = dataset_info.render(plan.name, plan.split, index.counts.tolist(), size)
    for file, content in about.items():
        _replace(os.path.join(out, file), content)
    _replace(os.path.join(out, indexing.INDEX_FILE), index.to_bytes())
    done = os.path.join(out, _DONE_DIRECTORY)
    os.rename(os.path.join(out, PROGRESS_DIRECTORY), done)
    shutil.rmtree(done)
    return summary


def _write_rejected(out: str, rejections: Mapping[int, Rejection]):
    lines = [rejections[row].to_json() + "\n" for row in sorted(rejections)]
    _replace(os.path.join(out, REJECTED_FILE), "".join(lines).encode())


def _reasons(rejections) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in count_reasons(list(rejections)).items())


def _replace(path: str, content: bytes):
    """Puts a file in place whole: no reader sees half of it."""
    with open(path + ".part", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".part", path)
