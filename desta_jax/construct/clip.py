"""A clip as its metadata knows it, and the lines of text that say it: the seed description."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from desta_jax.records.rows import NO_SPEECH


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a clip: who says what, and how; times in seconds, None where the metadata has none."""

    start: float | None = None
    end: float | None = None
    words: str = ""
    speaker: str = ""
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name to value as they are said, in the order in which they are said."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One audio file and all that is known of it."""

    audio: str
    """Path under the audio root; also the id of its rows, as in the public dataset."""
    dataset: str
    kind: str
    segments: Sequence[Segment]
    caption: str = ""
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the clip as a whole: what was measured."""
    duration: float | None = None
    language: str = ""
    """ISO code of the words, where it is known."""
    unasked: frozenset[str] = frozenset()
    """Attributes that no general question is about."""
    given: str | None = None
    """The transcript that stands beside the clip, where that is not its words."""
    synonyms: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
    """Of an attribute's values: other words that name them."""

    @property
    def words(self) -> str:
        return " ".join(segment.words for segment in self.segments if segment.words)

    @property
    def transcript(self) -> str:
        """What stands beside the clip in a row's messages."""
        return (self.words if self.given is None else self.given) or NO_SPEECH

    def names(self, attribute: str, value: str) -> tuple[str, ...]:
        """The words that name a value of an attribute."""
        return (value, *self.synonyms.get(attribute, {}).get(value, ()))

    @property
    def speakers(self) -> int:
        named = {segment.speaker for segment in self.segments if segment.speaker}
        return len(named) or int(bool(self.words))

    @property
    def said(self) -> dict[str, str]:
        """Every attribute with its value; of several segments that differ in one, the first counts."""
        merged = dict(self.attributes)
        for segment in reversed(self.segments):
            merged |= segment.attributes
        return merged

    @property
    def uniform(self) -> dict[str, str]:
        """The attributes that have one value in the whole clip: what can be asked about with one answer."""
        said = self.said
        segments = [segment.attributes for segment in self.segments]
        return {
            name: value
            for name, value in said.items()
            if name in self.attributes or all(attributes.get(name) == value for attributes in segments)
        }

    def describe(self) -> str:
        """The seed description: `[mm:ss-mm:ss] words (Attribute: value, ...)`, a line a segment."""
        return "\n".join(" ".join(filter(None, line)) for line in self._lines())

    @property
    def brackets(self) -> list[str]:
        """What of the description stands in brackets: captions and attributes."""
        return [text for _, _, *brackets in self._lines() for text in brackets if text]

    def _lines(self) -> list[tuple[str, ...]]:
        """Of each line of the description the times, the words and what stands in brackets."""
        if len(self.segments) == 1:
            return [self._only_line(self.segments[0])]
        lines = [_turn(segment) for segment in self.segments]
        if self.caption or self.attributes:
            lines.append((_times(0.0, self.duration), "", _bracket(self.caption), _listed(self.attributes)))
        return lines

    def _only_line(self, segment: Segment) -> tuple[str, ...]:
        start = 0.0 if segment.start is None else segment.start
        end = self.duration if segment.end is None else segment.end
        attributes = {**segment.attributes, **self.attributes}
        return _times(start, end), segment.words, _bracket(self.caption), _listed(attributes)


def _turn(segment: Segment) -> tuple[str, ...]:
    quoted = f'{segment.speaker}: "{segment.words}"' if segment.words else segment.speaker  # said, but not written down
    words = quoted if segment.speaker else segment.words
    return _times(segment.start, segment.end), words, _listed(segment.attributes)


def clock(seconds: float) -> str:
    """mm:ss; minutes go on past 59."""
    whole = math.floor(seconds + 0.5)
    return f"{whole // 60:02d}:{whole % 60:02d}"


def _times(start: float | None, end: float | None) -> str:
    """A stretch of less than a second is said to last one, as in the public rows."""
    if start is None or end is None:
        return ""
    return f"[{clock(start)}-{clock(max(end, math.floor(start + 0.5) + 1))}]"


def _listed(attributes: Mapping[str, str]) -> str:
    return _bracket(", ".join(f"{name}: {value}" for name, value in attributes.items()))


def _bracket(text: str) -> str:
    return f"({text})" if text else ""
