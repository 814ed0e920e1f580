"""Distances between what was said and what was expected: error rates, BLEU, and numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np


def normalize(text: str) -> str:
    """Whisper's BasicTextNormalizer: lower case, no brackets, no punctuation."""
    return _normalizer()(text)


def word_error_rate(references: Sequence[str], answers: Sequence[str]) -> float:
    """Edits over words of the references, over the corpus (jiwer)."""
    import jiwer

    return float(jiwer.wer(list(references), list(answers)))


def character_error_rate(references: Sequence[str], answers: Sequence[str]) -> float:
    """Edits over characters of the references, over the corpus (jiwer)."""
    import jiwer

    return float(jiwer.cer(list(references), list(answers)))


def bleu(references: Sequence[str], answers: Sequence[str], tokenize: str = "13a") -> float:
    """Corpus BLEU from 0 to 100 (sacrebleu); `tokenize` is sacrebleu's, "zh" or "char" for scripts without spaces."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize=tokenize).score)


def mean_squared_error(references: Sequence[float], answers: Sequence[float]) -> float:
    return float(np.mean(np.square(np.subtract(references, answers))))


def mean_absolute_error(references: Sequence[float], answers: Sequence[float]) -> float:
    return float(np.mean(np.abs(np.subtract(references, answers))))


def correlation(references: Sequence[float], answers: Sequence[float]) -> float | None:
    """Pearson's, from -1 to 1; None where one side does not vary, for then there is none."""
    if len(answers) < 2 or np.ptp(references) == 0 or np.ptp(answers) == 0:
        return None
    return float(np.corrcoef(references, answers)[0, 1])


@functools.cache
def _normalizer():
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    return BasicTextNormalizer()
