"""Which language a text is in, as far as its letters and commonest words tell: enough to notice a wrong one."""

from __future__ import annotations

import re
from collections import Counter

NAMES = {
    "ar": "arabic",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "hi": "hindi",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "nl": "dutch",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "th": "thai",
    "tr": "turkish",
    "vi": "vietnamese",
    "zh": "chinese",
}

_THREE_LETTERS = {
    **{"ara": "ar", "deu": "de", "ger": "de", "eng": "en", "spa": "es", "fra": "fr", "fre": "fr", "hin": "hi"},
    **{"ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl", "dut": "nl", "pol": "pl", "por": "pt", "rus": "ru"},
    **{"tha": "th", "tur": "tr", "vie": "vi", "zho": "zh", "chi": "zh", "cmn": "zh"},
}  # of ISO 639-2 and 639-3

_SCRIPTS = (  # first and last letter of the ranges that a script is written in
    ("ja", "\u3040", "\u30ff"),
    ("zh", "\u4e00", "\u9fff"),
    ("ko", "\uac00", "\ud7a3"),
    ("ru", "\u0400", "\u04ff"),
    ("ar", "\u0600", "\u06ff"),
    ("hi", "\u0900", "\u097f"),
    ("th", "\u0e00", "\u0e7f"),
)
_WORDS = {  # words that a text of some length cannot do without, and that the other languages here lack
    "en": "the and of to is that it with was this are for you they be or by from which their has not there an",
    "fr": "le les des est et une dans pour qui sur avec au ce il elle pas vous sont cette du je nous plus aux",
    "es": "el los las una y es por con para su lo está se como más pero muy hay este esta son al del ella",
    "de": "der die das und ist ein eine nicht mit von auf für den dem zu sich im auch als wird es ich sie einen",
    "it": "il di che è gli una per con sono della nel le non più si alla questo anche del come dei lo ha",
    "pt": "o os as um uma em para não com do da é são por mais no na dos ao que pelo está como ele ela",
    "nl": "de het een en van is dat niet zijn op met voor die aan er wordt ook deze heeft naar door maar",
}
_COMMON = {code: frozenset(words.split()) for code, words in _WORDS.items()}
_LEAST = 8  # words: a shorter text may be a name, a number or an option


def code_of(name: str) -> str:
    """The code of a language given by name or code: "French", "French (Canada)", "fr", "fr-CA", "fra"; as it is given
    where it is not known ("common_voice fr")."""
    name = name.strip().lower()
    for code, english in NAMES.items():
        if name == code or re.match(rf"{code}[-_]|{english}( *[(,]|\Z)", name):
            return code
    return _THREE_LETTERS.get(name, name)


def guess_language(text: str) -> str | None:
    """The code of a text's language; None where it is too short or too mixed to tell."""
    letters = [letter for letter in text if letter.isalpha()]
    if scripted := _by_script(letters):
        return scripted
    words = re.findall(r"[^\W\d_]+", text.lower())
    if len(words) < _LEAST:
        return None
    hits = Counter({code: sum(word in common for word in words) for code, common in _COMMON.items()})
    (best, most), (_, second) = hits.most_common(2)
    return best if most >= 0.12 * len(words) and most >= 1.5 * second else None


def _by_script(letters: list[str]) -> str | None:
    """The language of a script that holds at least half of the letters; a little kana makes Chinese signs Japanese."""
    counts = Counter({code: sum(first <= letter <= last for letter in letters) for code, first, last in _SCRIPTS})
    if counts["ja"] > 0.1 * (counts["ja"] + counts["zh"]):
        counts["ja"], counts["zh"] = counts["ja"] + counts["zh"], 0
    code, most = counts.most_common(1)[0]
    return code if len(letters) >= 2 and most >= 0.5 * len(letters) else None


def known_languages() -> frozenset[str]:
    """Codes that `guess_language` can return."""
    return frozenset(_COMMON) | {code for code, _, _ in _SCRIPTS}
