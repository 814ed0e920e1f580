"""Attributes measured from the audio itself: duration, pitch, loudness, speaking rate, signal-to-noise ratio."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np
import soundfile
from jaxtyping import Float32

from desta_jax.audio.load import SAMPLE_RATE, load_audio
from desta_jax.construct.drafts import Draft
from desta_jax.construct.metadata import Problem
from desta_jax.construct.source import Attribute, Source
from desta_jax.machine import cores
from desta_jax.records.shard import find_audio

VERY = ("Very low", "Low", "Normal", "High", "Very high")
STANDARD = {
    "duration": Attribute("Duration", measure="duration", unit="s", decimals=0),
    "pitch": Attribute("Pitch", measure="pitch", buckets=VERY),
    "loudness": Attribute("Volume", measure="loudness", buckets=VERY),
    "rate": Attribute("Speaking speed", measure="rate", buckets=("Very slow", "Slow", "Normal", "Fast", "Very fast")),
    "snr": Attribute("Signal-to-noise ratio", measure="snr", unit=" dB", decimals=0),
}
"""What `--measure` adds to a source that does not ask for it itself."""

_FRAME, _HOP = 1024, 256  # samples at 16 kHz: 64 ms every 16 ms
_PITCH_RANGE = (60.0, 500.0)  # Hz: low male to high child voices
_ACTIVE = 30.0  # dB under the loudest frames: what is quieter is a pause
_SILENT = 1e-5  # root mean square of digital silence and of its dither


def with_measures(source: Source, names: Sequence[str]) -> Source:
    """The source with these measurements added, unless one of its attributes already has the name.

    Raises:
        ValueError: a name that is no measurement.
    """
    unknown = [name for name in names if name not in STANDARD]
    if unknown:
        raise ValueError(f"no measurement {unknown[0]!r}; there are {', '.join(STANDARD)}")
    known = {attribute.name for attribute in source.attributes}
    added = tuple(STANDARD[name] for name in names if STANDARD[name].name not in known)
    return dataclasses.replace(source, attributes=source.attributes + added)


def measure_drafts(drafts: Sequence[Draft], source: Source, audio_root: str) -> tuple[list[Draft], list[Problem]]:
    """Finds each clip's audio, its duration if unknown, and what the source wants measured; fills its drafts in.

    Returns:
        The drafts whose audio is there and can be read, and a Problem for each of the others.
    """
    wanted = [attribute for attribute in source.attributes if attribute.measure]
    clips: dict[str, list[Draft]] = {}
    for draft in drafts:
        clips.setdefault(draft.audio, []).append(draft)
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        outcomes = pool.map(
            lambda audio: _measure_clip(audio, clips[audio], wanted, audio_root, bool(source.start)), clips
        )
        troubles = {audio: trouble for audio, trouble in zip(clips, outcomes) if trouble}
    problems = [Problem(draft.place, *troubles[draft.audio]) for draft in drafts if draft.audio in troubles]
    return [draft for draft in drafts if draft.audio not in troubles], problems


def _measure_clip(
    audio: str, drafts: Sequence[Draft], wanted: Sequence[Attribute], audio_root: str, turns: bool
) -> tuple[str, str] | None:
    """Fills in all drafts of one clip, its turns or the same row again; or why it can't be measured, and in detail."""
    path = find_audio(audio_root, audio)
    if not os.path.isfile(path):
        return "missing_audio", f"no file {audio} under {audio_root}"
    found: dict[str, float | None] = {}
    try:
        if any(attribute.measure != "duration" for attribute in wanted):
            # A dict, since a row may be there twice.
            said = dict.fromkeys((draft.start, draft.end, draft.words) for draft in (drafts if turns else drafts[:1]))
            found = measure(load_audio(path), " ".join(words for _, _, words in said))
        elif any(draft.duration is None for draft in drafts):
            found = {"duration": _seconds(path)}
    except (ValueError, OSError) as error:
        return "bad_audio", str(error)
    for draft in drafts:
        if draft.duration is None or len(found) > 1:
            draft.duration = found["duration"]
        numbers = {**found, "duration": draft.duration}
        for attribute in wanted:
            if (number := numbers.get(attribute.measure)) is not None:
                draft.numbers[attribute.name] = number
    return None


def _seconds(path: str) -> float:
    """From the file's header, or where there is none that libsndfile reads, by decoding it."""
    try:
        return soundfile.info(path).duration
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a name that ends in .raw
        return len(load_audio(path)) / SAMPLE_RATE


def measure(samples: Float32[np.ndarray, "samples"], words: str = "") -> dict[str, float | None]:
    """What a clip at 16 kHz sounds like, in numbers; None where it has no such thing.

    duration: seconds. pitch: median Hz of voiced frames (YIN). loudness: dB of the frames that are not pauses, relative
    to full scale. rate: words of `words` a second without pauses (characters for scripts without spaces). snr: dB of
    the loud frames over the quiet ones, an estimate that takes pauses for noise.
    """
    energy = _frame_energies(samples)
    floor = max(float(np.quantile(energy, 0.95)) * 10 ** (-_ACTIVE / 10), _SILENT**2)
    active = energy > floor
    spoken = active.sum() * _HOP / SAMPLE_RATE
    count = count_words(words)
    return {
        "duration": len(samples) / SAMPLE_RATE,
        "pitch": _pitch(samples, active),
        "loudness": 10 * math.log10(energy[active].mean()) if active.any() else None,
        "rate": count / spoken if count and spoken else None,
        "snr": _signal_to_noise(energy),
    }


def count_words(words: str) -> int:
    """Words, or characters where a script has no spaces between words (Chinese, Japanese, Thai)."""
    dense = sum("\u0e00" <= letter <= "\u0e7f" or "\u3040" <= letter <= "\u9fff" for letter in words)
    return dense if dense > len(words) / 3 else len(words.split())


def _frame_energies(samples: np.ndarray) -> np.ndarray:
    import librosa

    padded = np.pad(samples, (0, max(0, _FRAME - len(samples))))
    return (librosa.util.frame(padded, frame_length=_FRAME, hop_length=_HOP).astype(np.float64) ** 2).mean(axis=0)


def _pitch(samples: np.ndarray, active: np.ndarray) -> float | None:
    """Median of YIN's estimates in active frames, without those at the ends of the range, which are no periods."""
    import librosa

    padded = np.pad(samples, (0, max(0, _FRAME - len(samples))))
    low, high = _PITCH_RANGE
    track = librosa.yin(padded, fmin=low, fmax=high, sr=SAMPLE_RATE, frame_length=_FRAME, hop_length=_HOP, center=False)
    track = track[: len(active)][active[: len(track)]]
    voiced = track[(track > low * 1.05) & (track < high * 0.95)]
    return float(np.median(voiced)) if len(voiced) else None


def _signal_to_noise(energy: np.ndarray) -> float | None:
    loud, quiet = np.quantile(energy, [0.95, 0.1])
    quiet = max(quiet, _SILENT**2)
    return 10 * math.log10(max(loud - quiet, quiet) / quiet) if loud > quiet else None
