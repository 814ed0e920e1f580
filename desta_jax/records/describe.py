"""What a directory of records holds: counts, hours, durations and lengths by source dataset, without decoding sound."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from desta_jax.audio.load import SAMPLE_RATE
from desta_jax.machine import cores
from desta_jax.records import schema
from desta_jax.records.read import RecordSource
from desta_jax.records.workers import Workers

WINDOW_SECONDS = 30  # what the encoder hears of a clip
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_WORTH_A_PROCESS = 10_000  # records that take longer to read than a process to start
_ALL = "all"


def describe(directory: str, *, workers: int = 0) -> dict[str, dict]:
    """Statistics by source dataset, largest first, after those of all together ("all").

    A dataset that is itself called all has its name in quotation marks.

    Each is {"records", "clips", "hours", "clips_over_30s", "clips_per_record": {number: records},
    "clip_seconds", "response_characters", "message_characters", "transcript_characters"}; the last four are
    {"mean", "p0", "p5", "p25", "p50", "p75", "p95", "p100"}, transcripts and seconds by clip, the others by record.

    Raises:
        FileNotFoundError, ValueError: no such directory, or an unfinished one.
        OSError: a damaged record.
    """
    source = RecordSource(directory)
    workers = min(workers or cores(), -(-len(source) // _WORTH_A_PROCESS)) or 1
    cuts = np.linspace(0, len(source), 4 * workers + 1).astype(int)
    parts = [(source, range(start, stop)) for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
    measured: dict[str, list] = collections.defaultdict(list)
    with Workers(workers) as pool:
        for part in pool.map(_measure, parts):
            for dataset, records in part.items():
                measured[dataset] += records
    by_size = sorted(measured, key=lambda dataset: (-len(measured[dataset]), dataset))
    everything = [record for dataset in by_size for record in measured[dataset]]
    names = {dataset: f'"{_ALL}"' if dataset == _ALL else dataset for dataset in by_size}
    return {_ALL: _statistics(everything)} | {names[dataset]: _statistics(measured[dataset]) for dataset in by_size}


def format_description(description: dict[str, dict]) -> str:
    """The description as a table for people."""
    width = max(len(dataset) for dataset in description)
    lines = [
        f"{'dataset':{width}}  {'records':>9}  {'clips':>9}  {'hours':>9}  {'> 30 s':>7}  clip seconds p5/50/95   "
        "response p5/50/95   messages p50  transcript p50"
    ]
    for dataset, one in description.items():
        seconds, response = one["clip_seconds"], one["response_characters"]
        lines.append(
            f"{dataset:{width}}  {one['records']:>9,}  {one['clips']:>9,}  {one['hours']:>9,.2f}  "
            f"{one['clips_over_30s']:>7,}  {seconds['p5']:>6.1f} {seconds['p50']:>6.1f} {seconds['p95']:>6.1f}   "
            f"{response['p5']:>6.0f} {response['p50']:>5.0f} {response['p95']:>5.0f}   "
            f"{one['message_characters']['p50']:>12.0f}  {one['transcript_characters']['p50']:>14.0f}"
        )
    clips = ", ".join(f"{number}: {records:,}" for number, records in description[_ALL]["clips_per_record"].items())
    return "\n".join([*lines, f"records by number of clips: {clips}", "lengths of text are in characters"])


def _measure(part: tuple[RecordSource, Sequence[int]]) -> dict[str, list]:
    """By dataset, for each record: (samples of each clip, response, messages, transcripts in characters)."""
    source, numbers = part
    measured = collections.defaultdict(list)
    for number in numbers:
        sample = schema.decode_text(source.text(number))
        messages = sum(len(message["content"]) for message in sample.messages)
        transcripts = [len(text) for text in sample.transcripts]
        measured[sample.dataset].append((sample.num_samples, len(sample.response), messages, transcripts))
    return dict(measured)


def _statistics(records: Sequence[tuple]) -> dict:
    clip_samples, responses, messages, transcripts = zip(*records, strict=True) if records else ([], [], [], [])
    seconds = np.array([samples / SAMPLE_RATE for clips in clip_samples for samples in clips])
    clips_per_record = collections.Counter(len(clips) for clips in clip_samples)
    return {
        "records": len(records),
        "clips": len(seconds),
        "hours": round(float(seconds.sum()) / 3600, 6),
        "clips_over_30s": int((seconds > WINDOW_SECONDS).sum()),
        "clips_per_record": dict(sorted(clips_per_record.items())),
        "clip_seconds": _distribution(seconds),
        "response_characters": _distribution(responses),
        "message_characters": _distribution(messages),
        "transcript_characters": _distribution([length for clips in transcripts for length in clips]),
    }


def _distribution(values: Sequence[float]) -> dict[str, float]:
    if not len(values):
        return {"mean": 0.0} | {f"p{percent}": 0.0 for percent in PERCENTILES}
    percentiles = np.percentile(values, PERCENTILES)
    named = {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, percentiles, strict=True)}
    return {"mean": float(np.mean(values))} | named
