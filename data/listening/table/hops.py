"""SAKURA's questions about its test clips: what is heard, and what follows from it."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import share
from held_out import MELD, TRAINED_TRACKS, is_test_clip
from perception import LANGUAGES

from desta_jax.evaluation import sakura
from desta_jax.evaluation.question import Question

MAX_NEW_TOKENS = 64
GIVEN = "multi given single"
TRAINED = "trained tracks"
FORMS = sakura.FORMS | {language.casefold(): names for language, names in LANGUAGES.items()}


def ask(folder: Path) -> list[Question]:
    """Both questions of every test clip of a checkout of SAKURA."""
    return [question for question in sakura.read(folder, "test") if is_test_clip(question.row["file"])]


def score(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, Any]:
    """By hop and track the share that names the right option, by its text, another form of it or its letter, and no
    other; and of the clips whose single-hop answer was right, the share whose multi-hop answer was too."""
    marks = {
        question.id: sakura.names_only(answers[question.id], question.row["label"], question.row["question"], FORMS)
        for question in questions
        if question.id in answers
    }
    groups: dict[str, dict[str, list[bool]]] = {hop: collections.defaultdict(list) for hop in (*sakura.HOPS, GIVEN)}
    for question in questions:
        track, hop, clip = question.id.split("/", 2)
        if question.id not in marks:
            continue
        for name in _counted_as(question.row):
            groups[hop][name].append(marks[question.id])
            if hop == "multi" and marks.get(f"{track}/single/{clip}"):
                groups[GIVEN][name].append(marks[question.id])
    return {hop: {track: share(tracks[track]) for track in _all_last(tracks)} for hop, tracks in groups.items()}


def _counted_as(row: Mapping[str, Any]) -> list[str]:
    """A question's track; beside it, either what its clip is of that is never trained on, or all that is."""
    track = row["track"]
    if MELD.fullmatch(Path(row["file"]).stem):
        return [track, f"{track}, of MELD"]
    return [track] + [TRAINED] * (track in TRAINED_TRACKS)


def _all_last(tracks: Iterable[str]) -> list[str]:
    return sorted(tracks, key=lambda track: track == TRAINED)


def chance(questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """By hop and track: percent right by choosing evenly among a question's options."""
    groups: dict[str, dict[str, list[float]]] = {hop: collections.defaultdict(list) for hop in sakura.HOPS}
    for question in questions:
        row = question.row
        options = sum(f"({letter})" in row["question"] for letter in "abcdef")
        for name in _counted_as(row):
            groups[row["hop"]][name].append(100 / max(options, 1))
    return {
        hop: {track: round(sum(each) / len(each), 4) for track, each in tracks.items()}
        for hop, tracks in groups.items()
    }
