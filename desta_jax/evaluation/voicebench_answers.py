"""What an answer to VoiceBench says: the letter it chooses, yes or no, a refusal; None where it cannot be told."""

from __future__ import annotations

import re
from collections.abc import Sequence

from desta_jax.evaluation.voicebench_phrases import CHOICES, REFUSALS

_LETTERS = "abcd"


def choice(response: str) -> str | None:
    """The letter, A to D, that a multiple-choice answer settles on, by the official phrases in their order."""
    text = _without_turn_marks(response.lower())
    for phrase in CHOICES:
        for letter in _LETTERS:
            if phrase.replace("#", letter) in text:
                return letter.upper()
    if text[:1] in tuple(_LETTERS) and (len(text) == 1 or text[1] in ".,:)"):
        return text[0].upper()
    return "A" if 'would be "a.' in text else None


def is_refusal(response: str) -> bool:
    """Whether the answer refuses; an empty one does."""
    text = response.lower()
    return not text.strip() or any(phrase in text for phrase in REFUSALS)


def bbh(response: str, task: str) -> int | None:
    """1 for yes, true or (b), 0 for no, false or (a), by the rules of the BBH task that `task` (a row's id) names.

    The official parser lists phrases of certain models one by one; these are the families that they belong to. Each
    of its phrases is read here as it is there, slips included: hyperbaton's lone "b" is read as (a), and someone who
    "must be lying" as truthful.

    Raises:
        ValueError: the row belongs to no known task.
    """
    text = _plain(response)
    for name, read in _TASKS.items():
        if name in task:
            return read(text)
    raise ValueError(f"row {task!r} belongs to none of BBH's tasks {', '.join(_TASKS)}")


def _without_turn_marks(text: str) -> str:
    return text[3:].strip() if text.startswith(("<1>", "<2>", "<3>")) else text


def _plain(response: str) -> str:
    text = response.lower()
    text = _without_turn_marks(text.removesuffix("<|user|>").strip() if text.endswith("<|user|>") else text)
    text = text.replace("<|turn_end|>", "")
    return " ".join(re.sub(r"\*\*|[:\"\-,.：]", " ", text).split())


def _first(text: str, rules: Sequence[tuple[str, int]]) -> int | None:
    return next((answer for pattern, answer in rules if re.search(pattern, text)), None)


_BOXED = r"\$?\\boxed\{(?:\\text\{)?"
_YES_NO = [
    (frame + word, answer)
    for frame, words in (
        ("answer is ", ("no", "yes")),
        ("the answer ", ("no", "yes")),
        ("final answer ", ("no", "yes")),
        ("i would answer ", ("no", "yes")),
        ("the answer is without any modification ", ("no", "yes")),
        ("the answer to the question is ", ("no", "yes")),
        ("the answer is ", ("false", "true")),
        ("answer ", ("false", "true")),
        (f"the answer is {_BOXED}", ("(?:no|false)", "(?:yes|true)")),
        ("i will provide the answer as ", ("no", "yes")),
        ("prefix answer ", ("no", "yes")),
        ("conclusion ", ("no", "yes")),
    )
    for answer, word in enumerate(words)
]
_EDGES = [("^no", 0), ("^yes", 1)]
_ENDS = [("no$", 0), ("yes$", 1)]

_SPORTS = [
    ("no the (?:original )?sentence is not (?:possible|plausible)", 0),
    ("(?:final answer|the answer is|yes|considering these (?:points|factors|elements)|(?:based on|given) this analysis|"
     "given these points|given the context(?: of sports particularly basketball this)?|i would say(?: that)?) "
     "(?:it is|the )?(?:sentence )?is (?:generally |structurally |the )?plausible", 1),
    ("answer is directly yes|to answer your original question yes|is the sentence plausible\\? yes", 1),
    ("answer is it is not possible|to answer your original question no|modification of answer not possible", 0),
    ("the (?:following )?sentence is not (?:particularly |entirely )?(?:plausible|possible|accurate)", 0),
    ("not a plausible|not entirely plausible|therefore not plausible|implausible|^not plausible$", 0),
    ("sentence is unlikely|say it.s unlikely|it seems unlikely", 0),
    ("making it plausible|indeed a plausible sentence|the answer is plausible|sentence is likely true", 1),
    ("the sentence (?:seems|appears)(?: to be)?(?: an?)? (?:plausible|possible)", 1),
    ("(?:considering these points|based on this analysis|based on these steps|given this information|given the context)"
     " the sentence .+? (?:is grammatically correct and makes sense|is plausible|(?:seems|appears)(?: to be)?(?: a)? "
     "(?:possible|plausible))", 1),
    ("considering these points the sentence .+? is unlikely", 0),
    ("the sentence .+? is not very plausible", 0),
    ("considering these points the sentence .+? is not a plausible statement", 0),
    ("considering these points .+? is a plausible sentence|the sentence .+? is flexible and realistic", 1),
    ("the sentence .+? is not plausible", 1),
    *_EDGES,
    ("^the following sentence is plausible", 1),
    *_ENDS,
]  # fmt: skip
_START = "(?:the |your |our )?(?:exact |original )*(?:starting (?:point|position)|where (?:you|i|we) started)"
_NAVIGATE = [
    (f"(?:not|n.t|cannot)(?: directly| yet)? (?:[a-z]+ ){{0,5}}?{_START}", 0),
    (f"(?:return|returned|returns|returning|bring|brings|be|back|end up|answer is) (?:[a-z]+ ){{0,4}}?{_START}", 1),
    ("yes following these instructions", 1),
    *_EDGES,
    *_ENDS,
]
_LIES = [
    ("prefix no applies to the statement|statement cannot be true", 0),
    ("(?:therefore truly|affirmatively) [a-z]+ tells the truth|answer is the truth", 1),
    ("answer is .+? (?:tells a lie|lies|says lie|(?:doesn.t|does not|didn.t) tell the truth)", 0),
    ("answer is .+? (?:tells|does tell) the truth", 1),
    ("answer to the question .+? is no", 0),
    ("answer to the question .+? is yes", 1),
    ("from the above steps we can conclude that .+? tells the truth", 1),
    ("must be lying$", 1),
    ("(?:does not tell the truth|cannot be telling the truth|is lying|tells the lie)$", 0),
    ("(?:tells the truth|does tell the truth|(?:is|is also|must be) telling the truth)$", 1),
    ("lies$", 0),
    *_EDGES,
    *_ENDS,
]
_GOOD = "(?:correct|accurate|closest|closer|logical|better|typical|general|standard|proper|right)"
_OPTION = r"[(\[]?(?:option |sentence )?[(\[]?{}(?![\w'])[)\]]?"


def _hyperbaton(text: str) -> int | None:
    if text in ("a", "b"):
        return 0
    if "option a is incorrect and option b is correct" in text:
        return 1
    for frame in (
        r"answer (?:directly )?is (?:is )?(?:without any modification )?@",
        r"final answer (?:without any modification is |should be )?@",
        rf"\b{_GOOD}\b(?: \w+){{0,6}}? (?:is|be)(?: found| provided)?(?: in)?(?: the)? @",
        rf"(?:option|sentence) @(?: \w+)* {_GOOD}",
        rf"{_GOOD} order for @",
        r"the correct adjective order is .+? option @",
    ):
        for answer, letter in enumerate("ab"):
            if re.search(frame.replace("@", _OPTION.format(letter)), text):
                return answer
    return _first(text, [("first option$", 0), ("second option$", 1), (r"first option", 0), ("second option", 1),
                         (r"^a[ )]", 0), (r"^b[ )]", 1)])  # fmt: skip


_TASKS = {
    "sports_understanding": lambda text: _first(text, _YES_NO + _SPORTS),
    "hyperbaton": _hyperbaton,
    "navigate": lambda text: _first(text, _YES_NO + _NAVIGATE),
    "web_of_lies": lambda text: _first(text, _YES_NO + _LIES),
}
