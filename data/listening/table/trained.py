"""What an adapter was trained on: its runs' settings, and the clips of their records by source."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from held_out import BARRED, MELD, REAL, barred_by

from desta_jax.records.read import RecordSource
from desta_jax.records.schema import decode_text

VERSION = re.compile(r"varied/(.+)-[0-9a-f]{8}-\d+\.flac")  # as corpus/vary.py names a clip's versions


def trained_on(workdirs: Sequence[str], asked: Collection[str] = ()) -> list[dict[str, Any]]:
    """For each run its settings and, by source (the folder of a clip), how many rows about how many clips it had.

    Args:
        workdirs: of the runs, one after the other.
        asked: clips that the table asks about: folder and file, without ending.

    Raises:
        FileNotFoundError: a run without config.json, or its records are gone.
        ValueError: a run had a clip that is asked about, or one of SAKURA that is not for training.
    """
    return [_of_run(Path(workdir), asked) for workdir in workdirs]


def licences(corpus: Path, runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Of each source of these runs, as CORPUS/corpus.json has it."""
    known = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))["sources"]
    sources = sorted({source for run in runs for source in run["sources"]})
    if strange := [source for source in sources if source not in known]:
        raise ValueError(f"{corpus / 'corpus.json'} has no source {', '.join(strange)}, which was trained on")
    return {source: known[source]["licence"] for source in sources}


def _of_run(workdir: Path, asked: Collection[str]) -> dict[str, Any]:
    file = workdir / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: missing; --trained takes the work directories of runs")
    config = json.loads(file.read_text(encoding="utf-8"))
    folders = config["data"]["train"]
    rows = {folder: clips_of(folder) for folder in folders}
    for folder, heard in rows.items():
        for clip in sorted(set().union(*heard)):
            _check(clip, asked, f"{workdir} was trained on {clip} (in {folder})")
    weights = config["data"]["weights"] or [1] * len(folders)
    together = [clips for heard in rows.values() for clips in heard]
    clips = set().union(*together)
    return {
        "run": workdir.name,
        "steps": config["train"]["steps"],
        "batch size": config["train"]["batch_size"],
        "seed": config["seed"],
        "records": [
            {"folder": folder, "rows": len(rows[folder]), "weight": weight}
            for folder, weight in zip(folders, weights, strict=True)
        ],
        "sources": {
            source: {
                "rows": sum(source in map(source_of, row) for row in together),
                "clips": sum(source_of(clip) == source for clip in clips),
            }
            for source in sorted(set(map(source_of, clips)))
        },
    }


@functools.cache
def clips_of(folder: str) -> list[set[str]]:
    """For each row of a folder of records the clips in it: their paths in the corpus."""
    records = RecordSource(folder)
    rows = (decode_text(records.text(number)) for number in range(len(records)))
    return [{_clip(audio["audio"], row.id) for message in row.messages for audio in message.get("audios", ())}
            for row in rows]  # fmt: skip


def _clip(audio: str, row: str) -> str:
    """Of a version the clip that it is of; its source is the one of the row's id."""
    version = VERSION.fullmatch(audio)
    return f"{source_of(row)}/{version[1]}.flac" if version else audio


def source_of(clip: str) -> str:
    """`sakura` of sakura/1001_IEO.flac."""
    return PurePosixPath(clip).parts[0]


def _check(clip: str, asked: Collection[str], trouble: str) -> None:
    if str(PurePosixPath(clip).with_suffix("")) in asked:
        raise ValueError(f"{trouble}, which is asked about")
    if source_of(clip) == REAL and MELD.fullmatch(PurePosixPath(clip).stem):
        raise ValueError(f"{trouble}, which is of MELD, whose clips are for testing only")
    if source_of(clip) == REAL and (divisors := barred_by(clip)):
        why = BARRED[divisors[0]]
        raise ValueError(f"{trouble}, which is {why}: the CRC-32 of its name is divisible by {divisors[0]}")
