"""What is heard, by attribute: open questions, and answers read by the words that name a value."""

from __future__ import annotations

import collections
import dataclasses
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from figures import share
from held_out import Clip, spread

from desta_jax.evaluation.question import Prompt, Question
from desta_jax.evaluation.sakura import FORMS
from desta_jax.generation.model import SYSTEM

HEARING = Prompt(SYSTEM, "{audio} {question}")
READING = Prompt(SYSTEM, "{description} {question}")
MAX_NEW_TOKENS = 24
LEAST = 5  # clips of a value, or it is not asked about


@dataclasses.dataclass(frozen=True)
class Attribute:
    """Something that can be heard.

    Attributes:
        kind: of the clips that have it.
        column: of their metadata.
        questions: a clip is asked one of them.
        names: further words for its values.
    """

    kind: str
    column: str
    questions: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


LANGUAGES = {
    "English": ("anglais", "inglese", "inglés", "englisch", "英语"),
    "German": ("deutsch", "allemand", "tedesco", "alemán"),
    "French": ("français", "française", "francese", "francés", "französisch"),
    "Spanish": ("español", "española", "castellano", "espagnol", "spagnolo", "spanisch"),
    "Italian": ("italiano", "italiana", "italien", "italienne", "italienisch"),
    "Chinese": ("mandarin", "中文", "汉语", "普通话"),
    "Japanese": ("日本語",),
    "Korean": ("한국어",),
    "Portuguese": ("português",),
    "Russian": ("русский",),
    "Dutch": ("nederlands",),
    "Polish": ("polski",),
}

ATTRIBUTES = (
    Attribute(
        "speech",
        "language",
        ("What language is spoken in this clip?", "Which language does the speaker use?"),
        LANGUAGES,
    ),
    Attribute(
        "speech",
        "gender",
        ("Is the speaker a man or a woman?", "What is the gender of the speaker?"),
        {value: FORMS[value] for value in ("male", "female")},
    ),
    Attribute(
        "speech",
        "emotion",
        ("How does the speaker feel?", "What emotion is in the speaker's voice?"),
        {value: FORMS[value] for value in ("happy", "sad", "angry", "disgust", "fear")},
    ),
    Attribute(
        "speech",
        "rate",
        ("How fast does the speaker talk?", "Is the speech slow, normal or fast?"),
        {"slow": ("slowly",), "normal": ("moderate", "average", "medium"), "fast": ("quick", "quickly", "rapidly")},
    ),
    Attribute(
        "speech",
        "pitch",
        ("How high is the voice?", "Is the pitch of the voice low, medium or high?"),
        {"low": ("deep",), "medium": ("moderate", "average", "normal"), "high": ()},
    ),
    Attribute(
        "speech",
        "loudness",
        ("How loud is the speech?", "Is the recording quiet, normal or loud?"),
        {"quiet": ("quietly", "soft", "softly"), "normal": ("moderate", "average", "medium"), "loud": ("loudly",)},
    ),
    Attribute(
        "speech",
        "background",
        ("What can be heard behind the speech?", "What background noise is there?"),
        {"none": ("no noise", "no background", "no background noise", "no other sound", "nothing", "silence")},
    ),
    Attribute(
        "speech",
        "room",
        ("Is the room dry or reverberant?", "What does the room sound like?"),
        {"dry": ("no echo", "no reverberation", "without echo"), "reverberant": ("reverberation", "echo", "echoing")},
    ),
    Attribute("sound", "label", ("What makes this sound?", "What do you hear?")),
    Attribute("sound", "category", ("What kind of sound is this?", "Which category of sound do you hear?")),
    Attribute("music", "instrument", ("Which instrument is playing?", "What instrument do you hear?")),
    Attribute(
        "music",
        "tempo",
        ("How fast is the music?", "What is the tempo of the music?"),
        {"slow": ("slowly",), "medium": ("moderate", "average", "normal"), "fast": ("quick", "quickly", "rapid")},
    ),
    Attribute("music", "mode", ("Is the music in a major or a minor key?", "What is the mode of the music?")),
)


def ask(clips: Sequence[Clip], made: int, real: int) -> list[Question]:
    """Questions on a balanced sample: up to so many made clips and real recordings a value, apart, each asked once."""
    questions = []
    for attribute in ATTRIBUTES:
        for source, count in {"real": real, "made": made}.items():
            questions += _ask_one(attribute, source, clips, count)
    return questions


def _ask_one(attribute: Attribute, source: str, clips: Sequence[Clip], count: int) -> list[Question]:
    groups: dict[str, list[Clip]] = collections.defaultdict(list)
    for clip in clips:
        if clip.kind == attribute.kind and clip.source == source and clip.row.get(attribute.column):
            groups[str(clip.row[attribute.column])].append(clip)
    groups = {value: group for value, group in sorted(groups.items()) if len(group) >= min(LEAST, count)}
    if len(groups) < 2:
        return []
    name = f"{source}/{attribute.kind} {attribute.column}"
    return [
        _question(attribute, name, value, list(groups), clip)
        for value, group in groups.items()
        for clip in spread(group, count, f"{name} {value}")
    ]


def _question(attribute: Attribute, name: str, value: str, values: list[str], clip: Clip) -> Question:
    wording = zlib.crc32(clip.path.name.encode()) % len(attribute.questions)  # the clip's own, whatever else is asked
    fields = {"question": attribute.questions[wording], "description": described(clip)}
    row = {"attribute": name, "column": attribute.column, "kind": attribute.kind, "value": value, "values": values}
    row |= {"speaker": clip.row.get("speaker"), "held_out": str(clip.row.get("held_out") or "clip")}
    row |= {"source": str(clip.row.get("source"))}
    return Question(f"{name}/{clip.name}", (clip.path,), fields, HEARING, row)


def described(clip: Clip) -> str:
    """The description where the audio would stand."""
    return f"<start_audio>{clip.description}<end_audio>"


def named(text: str, names: Mapping[str, Iterable[str]]) -> set[str]:
    """The values that a text names, by themselves or by one of their other names.

    Words count as whole (`female` does not name `male`), in the singular or plural; of names that overlap the longest
    counts (`no background noise` does not name `noise`). What a text denies it does not name ("not a man").
    """
    text = text.casefold().replace("’", "'")
    owner = {name.casefold(): value for value, others in names.items() for name in (value, *others)}
    longest_first = sorted(owner, key=len, reverse=True)
    found = re.finditer("|".join(f"({_pattern(name)})" for name in longest_first), text)
    return {owner[longest_first[match.lastindex - 1]] for match in found if not _DENIED.search(text, 0, match.start())}


_DENIED = re.compile(
    r"(?:\b(?:not|neither|nor|never|no|without)|n't) "
    r"(?:(?:be|been|feel|feeling|sound|sounding|speak|speaking|in|a|an|the|any|much|significant) )*$"
)


def _pattern(name: str) -> str:
    """Scripts without spaces between words have no whole words."""
    if any(ord(letter) > 0x2E80 for letter in name):
        return re.escape(name)
    return rf"(?<!\w){re.escape(name).replace('_', '[ _]')}(?:e?s)?(?!\w)"


def is_right(text: str, row: Mapping[str, Any]) -> bool:
    """Whether an answer names the true value and no other of those asked about."""
    return named(text, _names(row)) == {row["value"]}


def _names(row: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    (attribute,) = (each for each in ATTRIBUTES if (each.kind, each.column) == (row["kind"], row["column"]))
    return {value: attribute.names.get(value, ()) for value in row["values"]}


def score(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, Any]:
    """By attribute: the share that is right, with its interval, and by value."""
    groups: dict[str, list[Question]] = collections.defaultdict(list)
    for question in questions:
        if question.id in answers:
            groups[question.row["attribute"]].append(question)
    return {name: _score_one(group, answers) for name, group in groups.items()}


def _score_one(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, Any]:
    marks = {question.id: is_right(answers[question.id], question.row) for question in questions}
    return share(marks.values()) | {f"by_{key}": _by(key, questions, marks) for key in ("value", "source", "held_out")}


def _by(key: str, questions: Sequence[Question], marks: Mapping[str, bool]) -> dict[str, Any]:
    groups: dict[str, list[bool]] = collections.defaultdict(list)
    for question in questions:
        groups[question.row[key]].append(marks[question.id])
    return {value: share(group) for value, group in groups.items()}


def chance(questions: Sequence[Question]) -> dict[str, Any]:
    """By attribute: percent right by guessing evenly, and by always saying the most frequent value."""
    groups: dict[str, list[Question]] = collections.defaultdict(list)
    for question in questions:
        groups[question.row["attribute"]].append(question)
    report = {}
    for name, group in groups.items():
        counts = collections.Counter(question.row["value"] for question in group)
        report[name] = {
            "values": len(counts),
            "clips": len(group),
            "speakers": len({question.row["speaker"] for question in group} - {None}),
            "held_out": dict(collections.Counter(question.row["held_out"] for question in group)),
            "even": round(100 / len(counts), 4),
            "most_frequent": round(100 * max(counts.values()) / len(group), 4),
        }
    return report
