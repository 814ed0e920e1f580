"""The files of the pool of instructions: sections of lines under conditions that a row's clips must meet.

A file holds sections. A section is a line `[category] key=value; key=value` and one instruction a line after it:

    [speaker: emotion] needs=Emotion; weight=2
    How does the speaker feel?

Keys: `needs` (below), `weight` (how often the section is drawn against the others), `about` (the attribute that
{attribute}, {options} and {guess} speak of; * for any), `base` (categories: the lines are added to an instruction of
one of these, after it or around {instruction}), `language` (of the response: a code, "same" as the words', "either"
the words' or English, or "any"; English without it), `system` (a system prompt for these instructions alone).
In an instruction, {audio} is where a clip stands, \\n is a new line.

`needs` is a list of conditions, all of which must hold for every clip: speech, sound, music, words, words>=N, caption,
speakers>=N, segments>=N, clips>=N, in CODE (language of the words), an attribute's name; `not` before a condition, and
`|` between alternatives. Words of an unknown language are neither `in` nor `not in` one. A section that says nothing of
clips is for one clip.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

from desta_jax.construct.clip import Clip
from desta_jax.construct.language import code_of
from desta_jax.construct.measure import count_words
from desta_jax.construct.source import KINDS

_KEYS = ("needs", "weight", "about", "base", "language", "system")
_COUNTED = {
    "words": lambda clip: count_words(clip.words),
    "speakers": lambda clip: clip.speakers,
    "segments": lambda clip: len(clip.segments),
}


@dataclasses.dataclass(frozen=True)
class Section:
    """Instructions of one category under the same conditions."""

    category: str
    lines: tuple[str, ...]
    needs: str = ""
    weight: float = 1.0
    about: str = ""
    base: tuple[str, ...] = ()
    language: str = "en"
    system: str = ""
    place: str = ""

    @functools.cached_property
    def admits(self) -> Callable[[Sequence[Clip]], bool]:
        """Whether these clips meet the section's needs."""
        return _conditions(self.needs)


def parse_pool(text: str, name: str) -> list[Section]:
    """The sections of one file; raises ValueError naming file and line."""
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        place = f"{name}:{number}"
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            sections.append(_parse_header(line, place))
        elif not sections:
            raise ValueError(f"{place}: an instruction before the first [category]")
        else:
            _check_line(line, sections[-1], place)
            lines = (*sections[-1].lines, line.replace("\\n", "\n"))
            sections[-1] = dataclasses.replace(sections[-1], lines=lines)
    for section in sections:
        if not section.lines:
            raise ValueError(f"{section.place}: [{section.category}] holds no instruction")
    return sections


def _parse_header(line: str, place: str) -> Section:
    found = re.fullmatch(r"\[([^\]]+)\]\s*(.*)", line)
    if not found:
        raise ValueError(f"{place}: a section's first line is [category] key=value; key=value")
    keys: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in found[2].split("; "))):
        key, equals, value = (text.strip() for text in part.partition("="))
        if key not in _KEYS or not equals:
            raise ValueError(f"{place}: {part!r} is none of {', '.join(f'{key}=...' for key in _KEYS)}")
        keys[key] = value.rstrip(";")
    try:
        section = Section(
            category=found[1].strip(),
            lines=(),
            needs=keys.get("needs", ""),
            weight=float(keys.get("weight", 1)),
            about=keys.get("about", ""),
            base=tuple(base.strip() for base in keys.get("base", "").split(",") if base.strip()),
            language=keys.get("language", "en"),
            system=keys.get("system", "").replace("\\n", "\n"),
            place=place,
        )
        _ = section.admits
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return section


_PLACEHOLDERS = {"audio", "instruction", "attribute", "options", "guess"}


def _check_line(line: str, section: Section, place: str) -> None:
    named = set(re.findall(r"\{(\w+)\}", line))
    if unknown := named - _PLACEHOLDERS:
        raise ValueError(f"{place}: {{{unknown.pop()}}} is none of {{{'}, {'.join(sorted(_PLACEHOLDERS))}}}")
    if named & {"attribute", "options", "guess"} and not section.about:
        raise ValueError(f"{place}: {line!r} speaks of an attribute; its section needs about=NAME or about=*")
    if "instruction" in named and not section.base:
        raise ValueError(f"{place}: {{instruction}} is for a section with base=CATEGORY")


def _conditions(needs: str) -> Callable[[Sequence[Clip]], bool]:
    parts = [part.strip() for part in needs.split(",") if part.strip()]
    tests = [_alternatives(part) for part in parts]
    several = any("clips" in part for part in parts)

    def admits(clips: Sequence[Clip]) -> bool:
        return (several or len(clips) == 1) and all(test(clips) for test in tests)

    return admits


def _alternatives(part: str) -> Callable[[Sequence[Clip]], bool]:
    tests = [_condition(each.strip()) for each in part.split("|")]
    return lambda clips: any(test(clips) for test in tests)


def _condition(text: str) -> Callable[[Sequence[Clip]], bool]:
    if text.startswith("not ") and not text.startswith("not in "):
        denied = _one_clip(text[4:].strip())
        return lambda clips: not any(denied(clip) for clip in clips)
    if counted := re.fullmatch(r"clips\s*(>=|=)\s*(\d+)", text):
        least = int(counted[2])
        return lambda clips: len(clips) == least or (counted[1] == ">=" and len(clips) > least)
    test = _one_clip(text)
    return lambda clips: all(test(clip) for clip in clips)


def _one_clip(text: str) -> Callable[[Clip], bool]:
    if text in KINDS:
        return lambda clip: clip.kind == text
    if text == "words":
        return lambda clip: bool(clip.words)
    if text == "caption":
        return lambda clip: bool(clip.caption)
    if text.startswith("not in "):
        return lambda clip: code_of(clip.language) not in ("", text[7:].strip())
    if text.startswith("in "):
        return lambda clip: code_of(clip.language) == text[3:].strip()
    if counted := re.fullmatch(r"(\w+)\s*>=\s*(\d+)", text):
        if counted[1] not in _COUNTED:
            raise ValueError(f"{text!r}: only {', '.join(_COUNTED)} and clips can be counted")
        return lambda clip: _COUNTED[counted[1]](clip) >= int(counted[2])
    if not re.fullmatch(r"[\w() \-']+", text):
        raise ValueError(f"{text!r} is no condition")
    return lambda clip: text.lower() in (name.lower() for name in clip.said)
