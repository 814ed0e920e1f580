"""The test clips of the listening corpus, and which of SAKURA's clips may be asked about."""

from __future__ import annotations

import dataclasses
import random
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from desta_jax.construct.run import describe
from desta_jax.evaluation.answers import read_lines

KINDS = ("speech", "dialogue", "sound", "music")
REAL = "sakura"  # the source of real recordings
TRAINED_TRACKS = ("Language", "Gender", "Emotion")
MELD = re.compile(r"dia\d+_utt\d+")
"""Names of the Emotion track's clips that come from a television series, and are never trained on."""
BARRED = {5: "for testing only", 7: "not to be touched"}
"""Why a recording of SAKURA is not trained on, by what divides the CRC-32 of its name."""
_SOURCES = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A test clip: its row of metadata, and what `construct` says of it."""

    path: Path
    kind: str
    row: dict[str, Any]
    description: str
    transcript: str

    @property
    def name(self) -> str:
        """Its folder and file, without ending."""
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def source(self) -> str:
        """`real` for the recordings of SAKURA, `made` for what the corpus makes or finds."""
        return "real" if self.row.get("source") == REAL else "made"


def barred_by(name: str) -> list[int]:
    """Which of BARRED divide the CRC-32 of a file name without its ending; none of a clip for training."""
    number = zlib.crc32(Path(name).stem.encode())
    return [divisor for divisor in BARRED if number % divisor == 0]


def is_test_clip(name: str) -> bool:
    """Whether a clip of SAKURA may be asked about: it is for testing alone, and not one of those that stay untouched,
    so that an independent check is possible."""
    return barred_by(name) == [5]


def read_clips(folder: Path, say: Callable[[str], None]) -> list[Clip]:
    """The test clips of a corpus, described; a clip of several rows (a dialogue) is one.

    Raises:
        FileNotFoundError: the folder has no test clips.
    """
    clips: list[Clip] = []
    for kind in KINDS:
        file = folder / "test" / f"{kind}.jsonl"
        if file.is_file():
            clips += _read_kind(folder, file, kind, say)
    if not clips:
        raise FileNotFoundError(f"{folder}: no test clips; make.py writes test/speech.jsonl and others")
    barred = [clip for clip in clips if clip.source == "real" and not is_test_clip(clip.path.name)]
    if barred:
        say(f"{len(barred)} clips are left out: their names say that they are not for testing")
    return [clip for clip in clips if clip not in barred]


def _read_kind(folder: Path, file: Path, kind: str, say: Callable[[str], None]) -> list[Clip]:
    rows: dict[str, dict[str, Any]] = {}
    for row in read_lines(file):
        rows.setdefault(row["audio"], row)
    known = describe(str(file), str(_SOURCES / f"{kind}.toml"))  # without audio, as the rows were made
    if known.problems:
        say(f"{file}: {len(known.problems)} problems, the first: {known.problems[0]}")
    return [
        Clip(folder / "audio" / clip.audio, kind, rows[clip.audio], clip.describe(), clip.transcript)
        for clip in known.clips
    ]


def spread(clips: Sequence[Clip], count: int, seed: str) -> list[Clip]:
    """So many of these, drawn by seed; a larger number adds to them."""
    shuffled = list(clips)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:count]
