"""Which responses are no training data: filters with names, each of which says why it drops what it drops."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence

from desta_jax.construct.language import guess_language, known_languages
from desta_jax.records.rows import AUDIO_LOCATOR


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a generator wrote, and what the filters need to know of the request."""

    text: str
    cut: bool = False
    """Whether it reached the limit of new tokens without coming to an end."""
    error: str = ""
    languages: tuple[str, ...] = ()
    """Codes of those that it may be in; none where it may be in any."""
    prompt: str = ""
    """The instruction that it answers."""
    right: tuple[str, ...] = ()
    """Words one of which it must say: those that name the value asked for."""
    wrong: tuple[str, ...] = ()
    """Words that it must not say: those that name another value."""
    words: str = ""
    """What is said in the clips: to say it again is no fault."""
    brackets: tuple[str, ...] = ()
    """What stands in brackets in the clips' descriptions."""


Filter = Callable[[Reply], str | None]
"""Says what is wrong with a reply, or None."""


def judge(reply: Reply, filters: Mapping[str, Filter] | None = None) -> tuple[str, str] | None:
    """The first filter that drops the reply, by name, and what it says; None if the reply is kept."""
    for name, check in (FILTERS if filters is None else filters).items():
        if (detail := check(reply)) is not None:
            return name, detail
    return None


def failed(reply: Reply) -> str | None:
    """The generator reported an error in place of a text."""
    return reply.error or None


def empty(reply: Reply) -> str | None:
    """Nothing was written, or nothing but marks."""
    return None if any(letter.isalnum() for letter in reply.text) else f"no letter and no digit in {reply.text!r}"


def cut_off(reply: Reply) -> str | None:
    """The limit came before the end: training on it would teach to stop in mid-sentence."""
    return "reached the limit of new tokens" if reply.cut else None


_LOOP = re.compile(r"(?=\S*\w)(.{2,150}?)\1{4,}", re.DOTALL)
_LOOP_LETTERS = 30  # a loop of less may be a laugh
_VARIED_WORDS = 40  # how many words a text must have to be judged by its variety
_VARIETY = 0.45  # distinct groups of four words, of all such groups


def repetition(reply: Reply) -> str | None:
    """A loop: a stretch said five times running, or a long text made of the same groups of words."""
    for found in _LOOP.finditer(reply.text):
        if len(found[0]) >= _LOOP_LETTERS and any(letter.isalnum() for letter in found[1]):
            return f"{found[1]!r} {len(found[0]) // len(found[1])} times running"
    words = reply.text.lower().split()
    groups = list(zip(*(words[start:] for start in range(4))))
    if len(words) >= _VARIED_WORDS and len(set(groups)) < _VARIETY * len(groups):
        return f"only {len(set(groups))} of {len(groups)} groups of four words are distinct"
    return None


_REFUSALS = re.compile(
    r"sorry,? (but )?(as an\b|I\b.{0,25}?(\b(not|cannot|unable|an? (AI|language model))\b|n['’]?t\b))"
    r"|\bas an? (AI|artificial|text|(large )?language model)"
    r"|\bI(['’]m| am) (just |only )?(an? )?(AI|text-based|(large )?language model)"
    r"|\bI(['’]m| am) (not able|unable) to (hear|listen|process|access|play|assist|help|analy[sz]e|transcribe|provide)"
    r"|\bI (can['’]?t|cannot|can not) (actually |directly )?"
    r"(hear(?! any (?!(audio|sounds?|recordings?|clips?)\b))|help(?! but)"
    r"|listen|process|access|play|assist|analy[sz]e|transcribe|fulfil|provide|comply)"
    r"|\bI (do not|don['’]t) have (the )?(ability|capability|access|audio|ears)"
    r"|\bno audio( (to|provided|attached|available|given|clip|file)\b|\s*([.,;:!?]|$))"
    r"|\baudio( clip| file|s)* (was|were|is|are|has|have)( not|n['’]t) (been )?(provid|attach|includ|giv)"
    r"|\b(haven['’]t|have not|did not|didn['’]t) (provided?|attach(ed)?) "
    r"((me|us|with|an?|any|the|your|actual|audio) )*(audio|clip|file|recording)"
    r"|\bplease (provide|share|upload|attach|send)( me)?( with)? (the|an|your) (audio|recording|clip|file)",
    re.IGNORECASE,
)
_OPENING = 250  # characters: a refusal comes first


def refusal(reply: Reply) -> str | None:
    """The model declines, or says that it cannot hear."""
    return _finds(_REFUSALS, reply.text[:_OPENING], reply.words)


def _finds(pattern: re.Pattern, text: str, words: str) -> str | None:
    """Says what of the pattern is in a text and is not taken from the clips' words."""
    words, start = _letters(words), 0
    while found := pattern.search(text, start):
        if _letters(found[0]) not in words:
            return f"says {found[0]!r}"
        start = found.start() + 1
    return None


_GIVEN = r"(provided|given|above|following|supplied|written|accompanying|original|input|attached|transcribed)"
_WRITTEN = r"(text|description|transcript|transcription|caption|metadata|prompt|passage|annotation|label|tag)s?"
_READING = re.compile(
    rf"\bthe ({_GIVEN} )?(audio |audio clip |clip |seed )?(description|metadata|annotation)s?\b"
    rf"|\b(the|this) {_GIVEN} {_WRITTEN}\b|\b{_WRITTEN} {_GIVEN}\b"
    r"|\b(in|from|according to|based on|as (stated|mentioned|described|indicated) (in|by)) (the|this) "
    r"(text|transcript|transcription|caption|label|tag|brackets|parenthes[ie]s|information (provided|given))"
    r"|\b(is|are) described (as|in|by)\b"
    r"|\b(in|inside|within) (the )?(square )?(brackets|parenthes[ie]s)\b|\btime ?stamps?\b|\bseed[_ ]description\b",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"\b(the|this) text (says|said|states|mentions|describes|indicates|reads|is|does|suggests|appears|seems|could)\b",
    re.IGNORECASE,
)
_FORM = re.compile(  # times in square brackets, attributes in round ones, markers of audio
    r"\[\d\d+:\d\d ?- ?\d\d+:\d\d\]|\([A-Z][\w -]*: [^():,]+, [A-Z][\w -]*: [^():,]+[),]|</?(start|end)_\w+>"
)


def reading(reply: Reply) -> str | None:
    """The response speaks of what was read in place of the audio, or copies its form."""
    patterns = [_READING, _FORM] + ([] if "text" in reply.prompt else [_TEXT])  # what is asked may be of a text
    for pattern in patterns:
        if said := _finds(pattern, reply.text, reply.words):
            return said
    copied = next((copy for copy in (*reply.brackets, AUDIO_LOCATOR) if copy in reply.text), None)
    return copied and f"holds {copied!r}"


_ABOUT_PROMPT = re.compile(
    r"\baudio clips? and (the )?instructions?\b|\bthe user('s)?\b|\bsystem prompt\b", re.IGNORECASE
)


def echo(reply: Reply) -> str | None:
    """Nothing but the request again, or talk of the prompt in place of an answer."""
    if reply.prompt and _letters(reply.text) in _letters(reply.prompt) and len(reply.text.split()) > _OPTION_WORDS:
        return "repeats the request and says no more"
    return _finds(_ABOUT_PROMPT, reply.text, reply.words)


_OPTION_WORDS = 4  # an answer this short may be one of the options in the request


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def wrong_language(reply: Reply) -> str | None:
    """Another language than was asked for, where it can be told."""
    if not reply.languages or not set(reply.languages) <= known_languages():
        return None
    guessed = guess_language(reply.text)
    if guessed is None or guessed in reply.languages:
        return None
    return f"in {guessed}, not in {' or '.join(reply.languages)}"


def unfaithful(reply: Reply) -> str | None:
    """Asked for an attribute, it does not name the value, or names another one."""
    if reply.right and not any(re.search(_value(word), reply.text, re.IGNORECASE) for word in reply.right):
        return f"does not say {reply.right[0]!r}"
    for word in reply.wrong:  # "low" is not said where it is a part of "very low", which is right
        longer = [right for right in reply.right if _says(right, [word])]
        if _says(_without(reply.text, longer), [word]):
            return f"says {word!r}, not {reply.right[0]!r}"
    return None


def _value(word: str) -> str:
    """Finds a value; one that is a number with a unit (4s, 3.2/5.0) by its number, since units have many names."""
    number = re.match(r"-?\d+(\.\d+)?", word)
    return rf"(?<![\w.-]){number[0]}(?!\.?\d)" if number else _alone(word)


def _says(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words stands in the text as a word of its own."""
    return any(re.search(_alone(word), text, re.IGNORECASE) for word in words)


def _without(text: str, words: Sequence[str]) -> str:
    return functools.reduce(lambda rest, word: re.sub(_alone(word), "", rest, flags=re.IGNORECASE), words, text)


def _alone(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


FILTERS: dict[str, Filter] = {  # a loop comes before the cut that it ends in: it is the cause
    "failed": failed,
    "empty": empty,
    "repetition": repetition,
    "cut_off": cut_off,
    "refusal": refusal,
    "reading": reading,
    "echo": echo,
    "wrong_language": wrong_language,
}
FAITHFUL: dict[str, Filter] = {**FILTERS, "unfaithful": unfaithful}  # where small models write: on request


def count_drops(reasons: Sequence[str]) -> dict[str, int]:
    """How often each filter dropped a reply, in the order in which they are applied."""
    return {name: sum(reason == name for reason in reasons) for name in FAITHFUL}
