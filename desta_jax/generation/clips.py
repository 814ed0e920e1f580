"""A request's clips: loaded, cut into windows, and searched for speech."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from desta_jax.audio.load import SAMPLE_RATE, load_audio
from desta_jax.audio.vad import has_speech
from desta_jax.inputs.prompt import MARKERS, is_text
from desta_jax.records.rows import NO_SPEECH


@dataclasses.dataclass
class Listening:
    """A request on its way to a prompt."""

    messages: list[dict[str, Any]]
    clips: list[np.ndarray]
    texts: list[str | None]
    """None where Whisper shall write down what is said."""


def open_clips(
    messages: Sequence[Mapping[str, Any]], locator: str, seconds: int, transcripts: str, long_audio: str
) -> Listening:
    """Loads the clips of messages that a prompt can be made from, and sees which have speech.

    Args:
        locator: stands for a clip in a message.
        seconds: the window.
        transcripts, long_audio: as for Model.generate.

    Raises:
        ValueError, FileNotFoundError: what is wrong with a clip, and with which.
    """
    listening = Listening([], [], [])
    for message in messages:
        message = dict(message)
        spans = []
        for clip in message.get("audios") or ():
            windows, texts = _windows(clip, seconds, transcripts, long_audio)
            listening.clips += windows
            listening.texts += texts
            spans.append(len(windows))
        message["content"] = _repeat_locators(message["content"], locator, spans)
        message["audios"] = [{"audio": "", "text": None}] * sum(spans)
        listening.messages.append(message)
    return listening


def _windows(
    clip: Mapping[str, Any], seconds: int, transcripts: str, long_audio: str
) -> tuple[list[Float[np.ndarray, " samples"]], list[str | None]]:
    """What is heard of a clip, and the transcript of each part, None where Whisper shall write it."""
    source, text = clip.get("audio"), clip.get("text")
    if text is not None and not is_text(text):
        raise ValueError(f'the clip {source!r}: "text" must be a transcript or null, got {text!r}')
    if transcripts == "given" and text is None:
        raise ValueError(f'the clip {source!r} has no "text"; give its transcript, or take transcripts "auto"')
    samples = _samples(source)
    window = seconds * SAMPLE_RATE
    if long_audio == "windows" and len(samples) > window:
        parts = [samples[start : start + window] for start in range(0, len(samples), window)]
        if text is None:
            return parts, [_text(part, None, transcripts) for part in parts]
        text = _text(samples, text, transcripts)  # of the whole clip: it may begin with silence
        return parts, [text, *[text if text == NO_SPEECH else ""] * (len(parts) - 1)]
    if len(samples) > window:
        warnings.warn(
            f"{source if isinstance(source, str) else 'a clip'}: {len(samples) / SAMPLE_RATE:.0f} s long, only the"
            f' first {seconds} s are heard; long_audio "windows" hears all of it',
            stacklevel=2,
        )
    return [samples[:window]], [_text(samples, text, transcripts)]


def _text(samples: Float[np.ndarray, " samples"], text: str | None, transcripts: str) -> str | None:
    """As the reference: without speech, " " even where a text was given; with it, the text if there is one."""
    return text if transcripts == "given" or has_speech(samples) else NO_SPEECH


def _samples(source: Any) -> Float[np.ndarray, " samples"]:
    if isinstance(source, np.ndarray):
        if source.ndim != 1 or not len(source) or not np.issubdtype(source.dtype, np.floating):
            raise ValueError(
                f"a clip given as an array must be float samples at 16 kHz, got {source.dtype} {source.shape}"
            )
        samples = source.astype(np.float32)
        if not np.isfinite(samples).all():
            raise ValueError("a clip given as an array holds NaN or infinite samples")
        return samples
    if not isinstance(source, (str, bytes, os.PathLike)):
        raise ValueError(f'"audio" must name a file, got {source!r}')
    return load_audio(source)


def _repeat_locators(content: str, locator: str, times: Sequence[int]) -> str:
    """The text with each locator as often as its clip has windows, and without markers: a prompt gets its own."""
    first, *rest = content.replace(locator.join(MARKERS), locator).split(locator)
    return first + "".join(locator * count + text for count, text in zip(times, rest, strict=True))
