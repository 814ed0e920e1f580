"""Sentences and words of a response, as IFEval counts them: NLTK's Punkt for sentences, Treebank rules for tokens."""

from __future__ import annotations

import functools
import re

# Stands in for Punkt's English model where NLTK's data is not installed: the algorithm is NLTK's own, only the learned
# lists are replaced. Over 4,666 real responses its sentence count differed from the learned model's in 19.
_ABBREVIATIONS = (
    "mr mrs ms dr prof st jr sr rev hon gov sen rep pres gen col lt sgt capt vs inc ltd co corp ave blvd dept "
    "jan feb mar apr aug sept oct nov dec a.m p.m e.g i.e u.s u.k u.n u.s.a d.c n.y ph.d"
)
_STARTERS = (
    "the this that these those he she it they we you i there in however but if when as at on for while his her its "
    "their our my a an"
)


def count_sentences(text: str) -> int:
    """Number of sentences, as Punkt splits them."""
    return len(_splitter()[0].tokenize(text))


def count_words(text: str) -> int:
    """Number of runs of letters, digits and underscores."""
    return len(re.findall(r"\w+", text))


def word_tokens(text: str) -> list[str]:
    """Tokens as nltk.word_tokenize makes them; a hyphenated word is one."""
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    return [token for sentence in _splitter()[0].tokenize(text) for token in tokenizer.tokenize(sentence)]


def splitter_name() -> str:
    """Which model splits sentences here: it belongs to every score that counts them."""
    return _splitter()[1]


@functools.cache
def _splitter():
    from nltk.tokenize import punkt

    try:
        return punkt.PunktTokenizer("english"), "punkt_tab"
    except LookupError:  # NLTK's data is a download of its own: python -m nltk.downloader punkt_tab
        splitter = punkt.PunktSentenceTokenizer()
        splitter._params = punkt.PunktParameters()
        splitter._params.abbrev_types = set(_ABBREVIATIONS.split())
        splitter._params.sent_starters = set(_STARTERS.split())
        return splitter, "built-in"
