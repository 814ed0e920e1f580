"""The pool of instructions and system prompts: a draw from its sections by seed and row."""

from __future__ import annotations

import bisect
import collections
import dataclasses
import itertools
import pathlib
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from desta_jax.construct.clip import Clip
from desta_jax.construct.language import code_of
from desta_jax.construct.sections import Section, parse_pool
from desta_jax.construct.source import data_folder

AUDIO = "{audio}"
SYSTEM = "system"  # the category of system prompts
OPTIONS = 4  # of a multiple choice
_LONGEST_VALUE = 30  # characters of a value that can be an option


@dataclasses.dataclass(frozen=True)
class Instruction:
    """What a row asks: the text, and what follows from where it was drawn."""

    text: str
    """As the row's `prompt`; with {audio} where the clips have their place in it."""
    category: str
    system: str
    languages: tuple[str, ...] = ("en",)
    """Codes of those that the response may be in; none where it may be in any."""
    right: tuple[str, ...] = ()
    """Where the instruction asks for the value of an attribute: the words that name it."""
    wrong: tuple[str, ...] = ()
    """The words that name the attribute's other values in this corpus."""


class _Line(NamedTuple):
    """An instruction's text, and the words that its answer should and should not say (as in Instruction)."""

    text: str
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


class Values:
    """The values that each attribute takes in a corpus: what other options there are."""

    def __init__(self, clips: Iterable[Clip]):
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for clip in clips:
            for name, value in clip.uniform.items():
                counts[name][value] += 1
        self._values = {name: sorted(counter) for name, counter in counts.items()}

    def others(self, name: str, value: str) -> list[str]:
        """The attribute's other values; none where they are no choice (long texts, or a value of its own a clip)."""
        values = self._values.get(name, [])
        if len(values) > 200 or any(len(each) > _LONGEST_VALUE or each.strip("-.0123456789") == "" for each in values):
            return []
        return [each for each in values if each.lower() != value.lower()]


class Pool:
    """Every section of the pool, ready to be drawn from."""

    def __init__(self, sections: Sequence[Section]):
        self.systems = [section for section in sections if section.category == SYSTEM]
        self.sections = [section for section in sections if section.category != SYSTEM]
        if not self.sections or not self.systems:
            raise ValueError("the instruction pool needs at least one instruction and one section [system]")
        known = {section.category for section in self.sections if not section.base}
        for section in self.sections:
            if lost := [base for base in section.base if not any(_within(category, base) for category in known)]:
                raise ValueError(
                    f"{section.place}: base={lost[0]} is no category; there are {', '.join(sorted(known))}"
                )

    def without(self, categories: Sequence[str]) -> Pool:
        """The pool less some categories; "speaker" stands for "speaker: emotion" too.

        Raises:
            ValueError: there is no such category.
        """
        for category in categories:
            if not any(_within(section.category, category) for section in self.sections):
                known = sorted({section.category for section in self.sections})
                raise ValueError(f"no category {category!r} to leave out; there are {', '.join(known)}")

        def is_left(section: Section) -> bool:
            return not any(_within(section.category, category) for category in categories)

        kinds = {section.category for section in self.sections if is_left(section) and not section.base}
        left: list[Section] = []
        for section in filter(is_left, self.sections):
            bases = tuple(base for base in section.base if any(_within(kind, base) for kind in kinds))
            if bases or not section.base:
                left.append(dataclasses.replace(section, base=bases))
        return Pool(left + self.systems)

    def __len__(self) -> int:
        return sum(len(section.lines) for section in self.sections)

    def draw(self, clips: Sequence[Clip], values: Values, key: str) -> Instruction | None:
        """An instruction for these clips; the same for the same pool and key. None if none fits."""
        rng = random.Random(key)
        admitted = [section for section in self.sections if section.admits(clips)]
        while admitted:
            section = _pick(admitted, rng)
            line = self._fill(section, clips, values, rng, admitted)
            if line is not None:
                system = section.system or self._system(clips, rng)
                languages = _languages(section, clips)
                told = line if "en" in languages else _Line(line.text)  # the values are known by their English words
                return Instruction(line.text, section.category, system, languages, told.right, told.wrong)
            admitted = [other for other in admitted if other is not section]
        return None

    def _fill(
        self, section: Section, clips: Sequence[Clip], values: Values, rng: random.Random, admitted: Sequence[Section]
    ) -> _Line | None:
        """One line of the section with everything in braces but {audio} filled in; None if these clips cannot."""
        text = section.lines[_below(len(section.lines), rng)]
        if section.base:
            base = self._base(section, clips, values, rng, admitted)
            if base is None:
                return None
            within = "{instruction}" in text
            return base._replace(text=text.replace("{instruction}", base.text) if within else f"{base.text} {text}")
        if section.about:
            return _about(text, section.about, clips, values, rng)
        return _Line(text)

    def _base(
        self, section: Section, clips: Sequence[Clip], values: Values, rng: random.Random, admitted: Sequence[Section]
    ) -> _Line | None:
        bases = [
            other
            for other in admitted
            if not other.base
            and other.language in ("en", "either")
            and not other.system
            and any(_within(other.category, base) for base in section.base)
        ]
        while bases:
            chosen = _pick(bases, rng)
            line = self._fill(chosen, clips, values, rng, admitted)
            if line is not None:
                return line
            bases = [other for other in bases if other is not chosen]
        return None

    def _system(self, clips: Sequence[Clip], rng: random.Random) -> str:
        systems = [system for system in self.systems if system.admits(clips)]
        chosen = _pick(systems or self.systems, rng)
        return chosen.lines[_below(len(chosen.lines), rng)]


def load_pool(folders: Sequence[str] = ()) -> Pool:
    """The pool that comes with the project, and the .txt files of further folders.

    Raises:
        FileNotFoundError: no such folder, or none of these files in it.
        ValueError: a file says what is not understood; names the file and line.
    """
    sections: list[Section] = []
    for folder in (data_folder("instructions"), *map(pathlib.Path, folders)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of instructions")
        if not (files := sorted(folder.glob("*.txt"))):
            raise FileNotFoundError(f"{folder}: no .txt file of instructions in it")
        for path in files:
            sections += parse_pool(path.read_text(encoding="utf-8"), path.name)
    return Pool(sections)


def _about(line: str, about: str, clips: Sequence[Clip], values: Values, rng: random.Random) -> _Line | None:
    """The line with the attribute's name, options and a guess at its value; None if it cannot be so asked."""
    name = _attribute(about, clips[0], values, line, rng)
    if name is None:
        return None
    value = clips[0].uniform[name]
    others = values.others(name, value)
    chosen = [others.pop(_below(len(others), rng)) for _ in range(min(OPTIONS - 1, len(others)))]
    options = sorted([value, *chosen], key=lambda _: rng.random())
    guess = value if not chosen or rng.random() < 0.5 else chosen[0]
    text = line.replace("{attribute}", name if name.isupper() else name.lower())
    text = text.replace("{guess}", guess).replace("{options}", _list_options(options, rng))
    if "{guess}" in line:  # yes or no: the value need not be said
        return _Line(text)
    named = [clips[0].names(name, each) for each in (value, *values.others(name, value))]
    return _Line(text, named[0], tuple(word for words in named[1:] for word in words))


def _attribute(about: str, clip: Clip, values: Values, line: str, rng: random.Random) -> str | None:
    """The attribute that a line is about, of those that the clip has and of which the line can be said."""
    uniform = clip.uniform
    if about == "*":
        names = [name for name in uniform if name not in clip.unasked]
    else:
        names = [name for name in uniform if name.lower() == about.lower()]
    if "{options}" in line or "{guess}" in line:
        names = [name for name in names if values.others(name, uniform[name])]
    return names[_below(len(names), rng)] if names else None


def _list_options(options: Sequence[str], rng: random.Random) -> str:
    letters = "abcdefgh"
    quoted = [f'"{option}"' for option in options]
    forms = (
        " ".join(f"({letter}) {option}" for letter, option in zip(letters, options)),
        "\n".join(f"{letter.upper()}. {option}" for letter, option in zip(letters, options)),
        f"{', '.join(quoted[:-1])} or {quoted[-1]}",
        f"{', '.join(options[:-1])} or {options[-1]}",
    )
    return forms[_below(len(forms), rng)]


def _languages(section: Section, clips: Sequence[Clip]) -> tuple[str, ...]:
    if section.language == "any":
        return ()
    if section.language not in ("same", "either"):
        return (section.language,)
    spoken = {code_of(clip.language) for clip in clips}
    return () if "" in spoken else tuple(sorted(spoken | ({"en"} if section.language == "either" else set())))


def _within(category: str, base: str) -> bool:
    """Whether a category is `base` or one of its parts, as "speaker: emotion" is of "speaker"."""
    return category == base or category.startswith(f"{base}:")


def _pick(sections: Sequence[Section], rng: random.Random) -> Section:
    bounds = list(itertools.accumulate(section.weight for section in sections))
    return sections[min(bisect.bisect_right(bounds, rng.random() * bounds[-1]), len(sections) - 1)]


def _below(count: int, rng: random.Random) -> int:
    """Random.randrange may draw otherwise in another Python; Random.random is promised not to."""
    return int(rng.random() * count)
