"""Audio files to 16 kHz mono, as the reference loads them; and to the 16-bit samples and FLAC that are stored."""

from __future__ import annotations

import functools
import io
import os
import re

import numpy as np
import soundfile
from jaxtyping import Float32, Int16

SAMPLE_RATE = 16_000

_SHORTEST_SHARE = 0.9  # of the samples that a file's header promises; MP3 headers only estimate
_UNKNOWN_SIZE = 0x7FFF_0000  # WAV data sizes from here on were written by streams that did not know the size
_UNKNOWN_FRAMES = 1 << 62  # what libsndfile takes for the length of a FLAC file that a stream wrote
_RATES = range(1_000, 1_000_000)  # Hz; a header that names another is damaged


class AudioError(ValueError):
    """A clip that cannot be used; `reason` is "empty", "undecodable", "truncated" or "not_finite"."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return AudioError, (self.reason, str(self))


class _NoLength(Exception):
    """What libsndfile opens, but cannot read to its end."""


_UNREADABLE = (soundfile.LibsndfileError, _NoLength, TypeError)  # TypeError: a name that ends in .raw


def load_audio(source: str | os.PathLike | bytes) -> Float32[np.ndarray, "samples"]:
    """A clip at 16 kHz, mono: channels are averaged, then resampled with librosa's default (soxr, high quality).

    Bit for bit what librosa.load(source, sr=16000) gives, for fewer than eight channels. Formats are libsndfile's
    (WAV, FLAC, Ogg, MP3, ...), and for a path also those of audioread (with ffmpeg installed: AAC, M4A, ...).

    Args:
        source: path of a file, or the bytes of one.

    Raises:
        FileNotFoundError: no such file.
        AudioError: (a ValueError) no samples, not decodable, cut short, or NaN or infinite samples; names the file.
    """
    name = f"{len(source)} bytes of audio" if isinstance(source, bytes) else os.fspath(source)
    samples, rate = _read_bytes(source, name) if isinstance(source, bytes) else _read_path(name)
    if rate not in _RATES:
        raise AudioError("undecodable", f"{name}: its header says {rate} samples a second")
    if not len(samples):
        raise AudioError("empty", f"{name}: holds no samples")
    mono = _finite(_average(samples.T) if samples.ndim > 1 else samples, name)
    if rate == SAMPLE_RATE:
        return mono
    import librosa  # takes seconds to import, and files at 16 kHz do without it

    return _finite(librosa.resample(mono, orig_sr=rate, target_sr=SAMPLE_RATE), name)


def to_int16(samples: Float32[np.ndarray, "samples"]) -> Int16[np.ndarray, "samples"]:
    """Samples times 32768, rounded to the nearest integer (half to even), clipped to 16 bits.

    16-bit files at 16 kHz come through unchanged, bit for bit.
    """
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def encode_flac(samples: Int16[np.ndarray, "samples"]) -> bytes:
    """A FLAC file of 16 kHz mono samples, lossless."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_flac(data: bytes) -> Int16[np.ndarray, "samples"]:
    """The samples that `encode_flac` was given; raises ValueError for anything else than 16 kHz mono FLAC."""
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise ValueError(f"not a FLAC file: {error}") from None
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"expected {SAMPLE_RATE} Hz mono, got {rate} Hz with shape {samples.shape}")
    return samples


def _finite(samples: Float32[np.ndarray, "samples"], name: str) -> Float32[np.ndarray, "samples"]:
    """The samples; raises AudioError where one of them is NaN or infinite, or too large to be added up."""
    if not np.isfinite(samples).all():
        raise AudioError("not_finite", f"{name}: holds NaN or infinite samples, or some near the largest float")
    return samples


def _average(channels: Float32[np.ndarray, "channels samples"]) -> Float32[np.ndarray, "samples"]:
    """The mean over channels, adding one after the other: five times as fast as np.mean over two interleaved ones.

    The result is np.mean's, bit for bit, below eight channels; from there on NumPy adds in another order.
    """
    return functools.reduce(np.add, channels) / np.float32(len(channels))


def _read_bytes(data: bytes, name: str) -> tuple[np.ndarray, int]:
    if not data:
        raise AudioError("empty", "0 bytes of audio")
    try:
        return _read(io.BytesIO(data), name)
    except _UNREADABLE as error:
        raise AudioError("undecodable", f"{name}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why libsndfile gave up. Of some bytes that are no MP3 it says that there is no file, or that it is a pipe."""
    reason = getattr(error, "error_string", str(error))
    return "not audio that can be decoded" if reason.startswith("File does not exist") else reason


def _read_path(path: str) -> tuple[np.ndarray, int]:
    """Samples [samples] or [samples, channels] at the file's own rate, and that rate."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if not os.path.isfile(path):
        raise AudioError("undecodable", f"{path}: not a file")
    if os.path.getsize(path) == 0:
        raise AudioError("empty", f"{path}: the file is empty")
    try:
        return _read(path, path)
    except _UNREADABLE as error:
        return _read_otherwise(path, _reason(error))


def _read(file, name: str) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(file) as sound:
        if sound.frames >= _UNKNOWN_FRAMES:
            raise _NoLength("its header does not say how long it is; ffmpeg reads such files")
        try:
            samples = sound.read(-1 if sound.seekable() else sound.frames, dtype="float32")
        except MemoryError:
            raise _NoLength(f"its header promises {sound.frames} samples, more than fit in memory") from None
        promised = max(sound.frames, _frames_in_wav_header(sound))
        if len(samples) < _SHORTEST_SHARE * promised:
            raise AudioError("truncated", f"{name}: cut short or damaged: {len(samples)} of {promised} samples")
        return samples, sound.samplerate


def _frames_in_wav_header(sound: soundfile.SoundFile) -> int:
    """Frames that a WAV header announces where the file ends before them; libsndfile only logs that."""
    found = re.search(r"data : (\d+) \(should be \d+\)", sound.extra_info)
    if not found or sound.format not in ("WAV", "WAVEX") or int(found[1]) >= _UNKNOWN_SIZE or not len(sound):
        return 0
    width = re.search(r"Block Align\s*: ([1-9]\d*)", sound.extra_info)
    return int(found[1]) // int(width[1]) if width else 0


def _read_otherwise(path: str, why: str) -> tuple[np.ndarray, int]:
    """As `_read`, by audioread: what ffmpeg decodes, to 16 bits. What it raises for damaged headers has no limits."""
    import audioread

    try:
        with audioread.audio_open(path) as sound:
            samples = np.frombuffer(b"".join(sound), "<i2").reshape(-1, sound.channels)
            rate = sound.samplerate
    except Exception:
        raise AudioError("undecodable", f"{path}: {why}") from None
    samples = samples.astype(np.float32) / 32768.0
    return samples if samples.shape[1] > 1 else samples[:, 0], rate
