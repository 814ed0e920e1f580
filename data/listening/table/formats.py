"""Whether a format that was asked for is followed, with audio as a share of what is followed in text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from figures import average, ratio, share
from held_out import Clip, spread
from perception import HEARING, described

from desta_jax.evaluation.ifeval import SPEECH_IFEVAL, follows
from desta_jax.evaluation.question import Question

MAX_NEW_TOKENS = 64
FOLLOWED = 40.0  # percent of the answers in text, or the format is not counted
CHOOSING, COUNTING = "choosing", "counting"  # clips by which formats are chosen, and others that are counted


@dataclasses.dataclass(frozen=True)
class Format:
    """An instruction about a clip, whose form is checked by a rule of IFEval, a pattern of all of it, or both."""

    text: str
    rule: str = ""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pattern: str = ""

    def followed(self, answer: str) -> bool:
        """Whether an answer has the form."""
        if self.pattern and not re.fullmatch(self.pattern, answer.strip(), re.DOTALL | re.IGNORECASE):
            return False
        return not self.rule or follows([self.rule], [self.arguments], answer, SPEECH_IFEVAL)[0]


def _at_most(words: int) -> dict[str, Any]:
    return {"num_words": words + 1, "relation": "less than"}


def _in_language(name: str, code: str) -> Format:
    """As langdetect has it, which names some language for a word, and accepts what has no letters."""
    words = r"(.*?\b[^\W\d_]+\b){3}.*"
    return Format(f"Describe the audio in {name}.", "language:response_language", {"language": code}, words)


FORMATS = {
    "fewer than ten words": Format(
        "Say what you hear in fewer than ten words.", "length_constraints:number_words", _at_most(9)
    ),
    "at most twenty words": Format(
        "Describe the audio in at most twenty words.", "length_constraints:number_words", _at_most(20)
    ),
    "at least thirty words": Format(
        "Describe the audio in at least thirty words.",
        "length_constraints:number_words",
        {"num_words": 30, "relation": "at least"},
    ),
    "one sentence": Format(
        "Describe the audio in one sentence.",
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
    ),
    "at least three sentences": Format(
        "Describe the audio in three sentences or more.",
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
    ),
    "one word": Format("Describe the audio in one word.", pattern=r"\S+"),
    "in French": _in_language("French", "fr"),
    "in Spanish": _in_language("Spanish", "es"),
    "in German": _in_language("German", "de"),
    "a list": Format(
        "List what you can tell about the audio, one point a line.", pattern=r"(.*\n)?\s*([-*•]|\d+[.)])\s.*"
    ),
    "a numbered list": Format(
        "Make a numbered list of what you can tell about the audio.", pattern=r"(.*\n)?\s*\d+[.)]\s.*"
    ),
    "upper case": Format("Describe the audio in capital letters only.", "change_case:english_capital"),
    "lower case": Format("Describe the audio in lower case only.", "change_case:english_lowercase"),
    "JSON": Format(
        "Describe the audio as a JSON object.", "detectable_format:json_format", pattern=r"(```\w*)?\s*[\[{].*"
    ),
    "no commas": Format("Describe the audio without using any commas.", "punctuation:no_comma"),
    "quotation marks": Format(
        "Put your whole answer in double quotation marks: what do you hear?", "startend:quotation"
    ),
    "a question": Format("Ask one question about the audio.", pattern=r".*\?[\"']?"),
    "starts with a phrase": Format(
        'Start your answer with "In this audio" and describe what you hear.', pattern=r"[\"']?in this audio\b.*"
    ),
    "ends with a phrase": Format(
        'Describe the audio and end your answer with "That is all."',
        "startend:end_checker",
        {"end_phrase": "That is all."},
    ),
    "a word in it": Format(
        'Describe the audio and use the word "listen" in your answer.', "keywords:existence", {"keywords": ["listen"]}
    ),
    "a word left out": Format(
        'Describe the audio without the word "audio".', "keywords:forbidden_words", {"forbidden_words": ["audio"]}
    ),
    "a title": Format(
        "Give the audio a title in double angular brackets, such as <<title>>.", "detectable_format:title"
    ),
    "yes or no": Format("Does somebody speak in the audio? Answer yes or no only.", pattern=r"(yes|no)\W*"),
    "an exclamation": Format("Describe the audio and end with an exclamation mark.", pattern=r".*![\"']?"),
}


def ask(clips: Sequence[Clip], count: int) -> list[Question]:
    """Every format about the same clips: `count` of them to choose formats by, and as many to count."""
    drawn = _of_all_kinds(clips, 2 * count)
    return [
        Question(
            f"{name}/{half}/{clip.kind}/{clip.name}",
            (clip.path,),
            {"question": form.text, "description": described(clip)},
            HEARING,
            {"format": name, "half": half, "clip": str(clip.path)},
        )
        for name, form in FORMATS.items()
        for turn, clip in enumerate(drawn)
        for half in [(CHOOSING, COUNTING)[turn % 2]]
    ]


def _of_all_kinds(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Clips of every kind in equal numbers, in turn by twos, so that each half has as many of a kind."""
    kinds = sorted({clip.kind for clip in clips})
    each = -(-count // len(kinds))
    drawn = [spread([clip for clip in clips if clip.kind == kind], each, f"formats {kind}") for kind in kinds]
    pairs = [group[at : at + 2] for at in range(0, each, 2) for group in drawn]
    return [clip for pair in pairs for clip in pair][:count]


def marks(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, bool]:
    """Whether each answer has the form, by id."""
    return {
        question.id: FORMATS[question.row["format"]].followed(answers[question.id])
        for question in questions
        if question.id in answers
    }


def followed_in_text(questions: Sequence[Question], read: Mapping[str, bool]) -> dict[str, Any]:
    """The share of each format that is followed by who reads the description, and whether it is counted."""
    report = {}
    for name in dict.fromkeys(question.row["format"] for question in questions):
        halves = {half: share(_of(questions, read, name, half)) for half in (CHOOSING, COUNTING)}
        report[name] = halves[COUNTING] | {
            "chosen by": halves[CHOOSING],
            "counted": (halves[CHOOSING]["value"] or 0) >= FOLLOWED,
        }
    return report


def counted(questions: Sequence[Question], text: Mapping[str, Any]) -> list[Question]:
    """What is asked with audio: formats that are followed in text, about the clips that are counted."""
    return [q for q in questions if q.row["half"] == COUNTING and text[q.row["format"]]["counted"]]


def score(questions: Sequence[Question], read: Mapping[str, bool], heard: Mapping[str, bool]) -> dict[str, Any]:
    """The share followed with audio, by format; and all of it in percent of what is followed in text, with a bootstrap
    over clips."""
    both = [question for question in questions if question.id in heard and question.id in read]
    names = dict.fromkeys(question.row["format"] for question in both)
    by_hearing, by_reading = _by_clip(both, heard), _by_clip(both, read)
    return {
        "of text": ratio([(sum(one), sum(other)) for one, other in zip(by_hearing, by_reading)]),
        "followed": average([100 * sum(marks) / len(marks) for marks in by_hearing]),
        "followed in text": average([100 * sum(marks) / len(marks) for marks in by_reading]),
        "by_format": {name: share(_of(both, heard, name, COUNTING)) for name in names},
    }


def _by_clip(questions: Sequence[Question], known: Mapping[str, bool]) -> list[list[bool]]:
    clips: dict[str, list[bool]] = {}
    for question in questions:
        clips.setdefault(question.row["clip"], []).append(known[question.id])
    return list(clips.values())


def _of(questions: Sequence[Question], known: Mapping[str, bool], name: str, half: str) -> list[bool]:
    return [known[q.id] for q in questions if q.id in known and (q.row["format"], q.row["half"]) == (name, half)]
