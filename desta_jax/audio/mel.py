"""Log-mel features as Whisper's, computed on the device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16

from desta_jax.audio.load import SAMPLE_RATE

WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
BINS = WINDOW // 2 + 1


def log_mel(
    audio: Int16[Array, "clips samples"] | Float[Array, "clips samples"], mels: int
) -> Float[Array, "clips frames mels"]:
    """Log-mel spectrogram of 16 kHz audio, one frame every 10 ms, in float32.

    Agrees with transformers' WhisperFeatureExtractor on the same window: reflected edges, periodic Hann window, power
    spectrum, Slaney mel filters, log10, floored at 8 below the clip's loudest, scaled to about -1 ... 1.

    Args:
        audio: PCM as int16, or as float from -1 to 1; a whole number of 10 ms steps.
        mels: number of mel bands (80, or 128 for large-v3).
    """
    scale = 32768 if jnp.issubdtype(audio.dtype, jnp.integer) else 1
    frames = _frames(audio.astype(jnp.float32))
    # A discrete Fourier transform as two matmuls is what a TPU does best. The window is folded about its middle first:
    # cosines see the sum of its two halves, sines the difference, which are exact for int16 samples. That is half the
    # work, and a loud tone's rounding stays below what is 80 dB quieter. Full float32 precision: with bfloat16 operands
    # quiet bands are off by up to 0.3.
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    early, late = frames[..., 1 : WINDOW // 2], frames[..., : WINDOW // 2 : -1]
    even = jnp.concatenate([frames[..., :1], early + late, frames[..., WINDOW // 2 : WINDOW // 2 + 1]], axis=-1)
    cosines, sines = _fourier()
    power = jnp.square(product("nfw,wb->nfb", even / scale, cosines)) + jnp.square(
        product("nfw,wb->nfb", (early - late) / scale, sines)
    )
    energies = product("nfb,bm->nfm", power, mel_filters(mels))
    log = jnp.log10(jnp.maximum(energies, 1e-10))
    return (jnp.maximum(log, log.max((1, 2), keepdims=True) - 8) + 4) / 4


def _frames(samples: Float[Array, "clips samples"]) -> Float[Array, "clips frames window"]:
    """Overlapping windows, from slices of whole hops: a window is two hops and a half."""
    clips, length = samples.shape
    if length % HOP or length < WINDOW:
        raise ValueError(f"{length} samples: the window must be a multiple of {HOP} samples, and at least {WINDOW}")
    count = length // HOP
    padded = jnp.pad(samples, ((0, 0), (WINDOW // 2, WINDOW // 2)), mode="reflect")
    hops = padded[:, : (count + 2) * HOP].reshape(clips, count + 2, HOP)
    return jnp.concatenate([hops[:, :count], hops[:, 1 : count + 1], hops[:, 2:, : WINDOW - 2 * HOP]], axis=-1)


@functools.cache
def _fourier() -> tuple[Float[np.ndarray, "even bins"], Float[np.ndarray, "odd bins"]]:
    """Cosines and sines for the folded window's samples, the Hann window multiplied in."""
    time = np.arange(WINDOW // 2 + 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW)
    angles = 2 * np.pi * np.outer(time, np.arange(BINS)) / WINDOW
    cosines, sines = ((part(angles) * hann[:, None]).astype(np.float32) for part in (np.cos, np.sin))
    return cosines, sines[1:-1]


@functools.cache
def mel_filters(mels: int) -> Float[np.ndarray, "bins mels"]:
    """Triangular filters on Slaney's mel scale (linear below 1 kHz, logarithmic above), each of unit area."""
    edges = _mel_to_hertz(np.linspace(0, _hertz_to_mel(SAMPLE_RATE / 2), mels + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, BINS)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return (np.maximum(0, np.minimum(rise, fall)) * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


_LINEAR = 200 / 3  # Hz a mel, below 1 kHz
_STEP = np.log(6.4) / 27  # log Hz a mel, above


def _hertz_to_mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < 1000 else 1000 / _LINEAR + np.log(hertz / 1000) / _STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    corner = 1000 / _LINEAR
    return np.where(mel < corner, mel * _LINEAR, 1000 * np.exp(_STEP * (mel - corner)))
