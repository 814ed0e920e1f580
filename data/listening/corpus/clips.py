"""What a source plans, and what all sources share: chance by name, levels, mixing, writing."""

import dataclasses
import pathlib
import zlib
from typing import Any

import numpy as np
import soundfile
import soxr

RATE = 16_000
SECONDS = 8.0  # longer clips are cut
SEED = 1
LOUDNESS = {"quiet": -36.0, "normal": -24.0, "loud": -13.0}  # root mean square, dB of full scale


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip that a source plans: what it is called, what is known of it, and what its maker needs."""

    audio: str
    """Its file, relative to the folder audio."""
    kind: str
    """speech, dialogue, sound or music."""
    fields: dict[str, Any]
    held_out: str = ""
    """Why it is for testing only: clip, voice, sentence, recording; empty in training."""
    recipe: Any = None


@dataclasses.dataclass(frozen=True)
class Places:
    """Folders that a source reads from."""

    cache: pathlib.Path
    sakura: pathlib.Path | None = None


def chance(name: str) -> np.random.Generator:
    """A generator of random numbers that depends on the name alone, so that new clips change no old ones."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def pick(rng: np.random.Generator, options: Any, weights: Any = None) -> Any:
    """One of the options; numpy's `choice` would make them numpy's own types."""
    options = list(options)
    return options[rng.choice(len(options), p=weights)]


def power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def at_level(samples: np.ndarray, decibels: float) -> np.ndarray:
    """The samples at a root mean square of so many dB of full scale; silence stays silence."""
    here = power(samples)
    return samples * np.float32(10 ** (decibels / 20) / here**0.5) if here else samples


def limited(samples: np.ndarray) -> np.ndarray:
    """The samples, made quieter as a whole where their peak is beyond full scale."""
    peak = float(np.max(np.abs(samples), initial=0.0))
    return (samples * np.float32(min(1.0, 0.98 / max(peak, 1e-9)))).astype(np.float32)


def mixed(speech: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Speech on noise of the same length, the speech's mean power `snr` dB above the noise's."""
    return speech + at_level(noise[: len(speech)], 10 * np.log10(power(speech)) - snr)


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples (frames or frames by channels) at any rate, as one channel at 16 kHz, float32."""
    if samples.ndim > 1:
        samples = samples.mean(axis=1)
    samples = samples.astype(np.float32)
    return soxr.resample(samples, rate, RATE) if rate != RATE else samples


def joined(parts: list[np.ndarray], pause: float) -> np.ndarray:
    """Sounds one after the other, with so many seconds of silence between."""
    gap = np.zeros(int(pause * RATE), np.float32)
    return np.concatenate([piece for part in parts for piece in (gap, part)][1:])


def read(source: Any) -> np.ndarray:
    """A sound file (a path or an open binary file) as one channel at 16 kHz."""
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return resampled(samples, rate)


def write(path: pathlib.Path, samples: np.ndarray) -> tuple[float, bool]:
    """Writes a FLAC of at most SECONDS; returns its seconds and whether it was cut."""
    frames = int(SECONDS * RATE)
    kept = limited(samples[:frames])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    soundfile.write(partial, (kept * 32767).round().astype(np.int16), RATE, format="FLAC", subtype="PCM_16")
    partial.rename(path)
    return round(len(kept) / RATE, 2), len(samples) > frames
