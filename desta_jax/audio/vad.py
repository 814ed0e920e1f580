"""Voice activity: is there speech in a clip? Silero VAD, by its own default rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from desta_jax.audio.load import SAMPLE_RATE
from desta_jax.audio.silero import WINDOW, speech_probabilities

THRESHOLD = 0.5  # speech starts at a window that is at least this probable
EXIT_THRESHOLD = 0.35  # and may end at one below this
SHORTEST_SPEECH = SAMPLE_RATE * 250 // 1000
SHORTEST_SILENCE = SAMPLE_RATE * 100 // 1000  # a shorter one does not end a stretch


def has_speech(samples: Float[np.ndarray, " samples"]) -> bool:
    """Whether some stretch of a 16 kHz clip, longer than 250 ms, is speech.

    The PyTorch reference asks Silero's `get_speech_timestamps` with its defaults; this decides as that does.
    """
    return bool(speech_stretches(speech_probabilities(samples), len(samples)))


def speech_stretches(probabilities: Sequence[float], length: int) -> list[tuple[int, int]]:
    """First and last sample (exclusive) of each stretch of speech, without Silero's padding of 30 ms.

    Args:
        probabilities: of each window.
        length: samples of the clip.
    """
    stretches: list[tuple[int, int]] = []
    start = silence = None  # where the current stretch began; where the silence that may end it began
    for index, probability in enumerate(probabilities):
        here = index * WINDOW
        if probability >= THRESHOLD:
            silence = None
            start = here if start is None else start
        elif probability < EXIT_THRESHOLD and start is not None:
            silence = here if silence is None else silence
            if here - silence >= SHORTEST_SILENCE:
                stretches.append((start, silence))
                start = silence = None
    if start is not None:
        stretches.append((start, length))
    return [(start, end) for start, end in stretches if end - start > SHORTEST_SPEECH]
