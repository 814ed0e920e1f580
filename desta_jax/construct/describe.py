"""Drafts to clips: numbers put in the corpus's buckets, segments of one audio put together."""

from __future__ import annotations

import bisect
import collections
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from desta_jax.construct.clip import Clip, Segment
from desta_jax.construct.drafts import Draft
from desta_jax.construct.metadata import Problem
from desta_jax.construct.source import Attribute, Source

LONGEST = 30.5  # seconds: the encoder hears 30, and clips cut to that are often some frames longer


def build_clips(drafts: Sequence[Draft], source: Source) -> tuple[list[Clip], list[Problem]]:
    """Clips in the order of their first rows: buckets by the corpus, rows of one audio put together.

    Rows of the same audio are segments where the source says when each starts; else the second is a duplicate.
    """
    sayings = _bucket(drafts, source)
    groups: dict[str, list[int]] = collections.defaultdict(list)
    for index, draft in enumerate(drafts):
        groups[draft.audio].append(index)
    clips: list[Clip] = []
    problems: list[Problem] = []
    for audio, indexes in groups.items():
        if not source.start:
            for index in indexes[1:]:
                detail = f"{audio} is already described by {drafts[indexes[0]].place}"
                problems.append(Problem(drafts[index].place, "duplicate_id", detail))
            indexes = indexes[:1]
        clip = _clip([drafts[index] for index in indexes], [sayings[index] for index in indexes], source)
        if problem := _unusable(clip, drafts[indexes[0]].place):
            problems.append(problem)
        else:
            clips.append(clip)
    return clips, problems


def _clip(drafts: Sequence[Draft], sayings: Sequence[Mapping[str, str]], source: Source) -> Clip:
    measured = {attribute.name for attribute in source.attributes if attribute.measure}
    starts = itertools.accumulate(
        (draft.start for draft in drafts), lambda last, start: last if start is None else start
    )
    segments: list[Segment] = []
    for _, draft, saying in sorted(zip(starts, drafts, sayings), key=lambda turn: turn[0] or 0.0):
        attributes = {name: value for name, value in saying.items() if name not in measured}
        segment = Segment(draft.start, draft.end, draft.words, draft.speaker, attributes)
        if segment not in segments:  # a row may be there twice
            segments.append(segment)
    ends = [draft.end for draft in drafts if draft.end is not None]
    first = drafts[0]
    return Clip(
        first.audio,
        source.name,
        source.kind,
        segments,
        given=first.transcript,
        caption=first.caption,
        attributes={name: value for name, value in sayings[0].items() if name in measured},
        duration=first.duration if first.duration is not None else max(ends, default=None),
        language=first.language,
        unasked=frozenset(attribute.name for attribute in source.attributes if not attribute.ask),
        synonyms={attribute.name: attribute.synonyms for attribute in source.attributes if attribute.synonyms},
    )


def _unusable(clip: Clip, place: str) -> Problem | None:
    if clip.duration is not None and clip.duration > LONGEST:
        detail = f"{clip.audio} lasts {clip.duration:.1f} s and the encoder hears 30; cut it into clips of that length"
        return Problem(place, "too_long", detail)
    if not (clip.words or clip.caption or clip.said):
        return Problem(place, "nothing_known", f"{clip.audio}: no words, no caption and no attribute to tell")
    return None


def _bucket(drafts: Sequence[Draft], source: Source) -> list[dict[str, str]]:
    """Each draft's attributes as they are said, in the source's order."""
    sayings: list[dict[str, str]] = [{} for _ in drafts]
    for attribute in source.attributes:
        say = _number_sayer(attribute, drafts) if attribute.is_number else None
        for draft, saying in zip(drafts, sayings):
            if attribute.name in draft.texts:
                saying[attribute.name] = draft.texts[attribute.name]
            elif say and attribute.name in draft.numbers:
                saying[attribute.name] = say(draft)
    return sayings


def _number_sayer(attribute: Attribute, drafts: Sequence[Draft]) -> Callable[[Draft], str]:
    if not attribute.buckets:
        decimals = attribute.decimals or 0
        least = 10**-decimals if attribute.measure == "duration" else -math.inf  # as times have it: no clip lasts 0 s
        return lambda draft: f"{_rounded(max(draft.numbers[attribute.name], least), decimals)}{attribute.unit}"
    groups: dict[Any, list[float]] = collections.defaultdict(list)
    for draft in drafts:
        if attribute.name in draft.numbers:
            groups[draft.fields.get(attribute.by)].append(draft.numbers[attribute.name])
    edges = {group: attribute.edges or quantiles(numbers, len(attribute.buckets)) for group, numbers in groups.items()}

    def say(draft: Draft) -> str:
        cuts, number = edges[draft.fields.get(attribute.by)], draft.numbers[attribute.name]
        # A number that several cuts fall on, as one that most of a corpus has, is in the middle of what they part.
        return attribute.buckets[(bisect.bisect_left(cuts, number) + bisect.bisect_right(cuts, number) + 1) // 2]

    return say


def quantiles(numbers: Sequence[float], parts: int) -> list[float]:
    """The parts - 1 numbers that cut a corpus into equal parts, each an element of the corpus."""
    ordered = sorted(numbers)
    return [ordered[len(ordered) * part // parts] for part in range(1, parts)]


def _rounded(number: float, decimals: int) -> str:
    """Halves go up, as a person rounds."""
    return f"{math.floor(number * 10**decimals + 0.5) / 10**decimals:.{decimals}f}"
