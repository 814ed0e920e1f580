"""Voice activity against Silero's own network and rules."""

import importlib.util
import pathlib
import sys
import types

import librosa
import numpy as np
import pytest
import torch

from desta_jax.audio import vad
from desta_jax.audio.silero import WINDOW, speech_probabilities
from spoken_clips import Espeak


@pytest.fixture(scope="module")
def silero():
    """Silero's rules; its module imports torchaudio, which these do not use."""
    missing = importlib.util.find_spec("torchaudio") is None
    if missing:
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    from silero_vad import utils_vad

    if missing:
        del sys.modules["torchaudio"]
    return utils_vad


@pytest.fixture(scope="module")
def network():
    folder = pathlib.Path(importlib.util.find_spec("silero_vad").origin).parent
    return torch.jit.load(str(folder / "data" / "silero_vad.jit")).eval()


class Told:
    """Stands for the network: says given probabilities."""

    def __init__(self, probabilities):
        self.probabilities = iter(probabilities)

    def reset_states(self):
        pass

    def __call__(self, chunk, rate):
        return torch.tensor(next(self.probabilities))


def vowel(seconds, pitch=120.0):
    """A voice that says "ah": a train of pulses through three resonances, rising and falling in pitch."""
    time = np.arange(int(seconds * 16000)) / 16000
    phase = np.cumsum(pitch * (1 + 0.15 * np.sin(2 * np.pi * 2 * time)) / 16000)
    samples = np.diff(np.floor(phase), prepend=0)
    for centre, width in ((700, 90), (1200, 110), (2600, 160)):
        radius, angle = np.exp(-np.pi * width / 16000), 2 * np.pi * centre / 16000
        out = np.zeros(len(samples) + 2)
        for index, sample in enumerate(samples):
            out[index] = sample + 2 * radius * np.cos(angle) * out[index - 1] - radius**2 * out[index - 2]
        samples = out[: len(samples)]
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def sentence():
    with Espeak() as espeak:
        samples = np.frombuffer(espeak.say("My sister lives in a small house by the sea.", "en-us+f2"), np.int16)
    return librosa.resample(samples / np.float32(32768), orig_sr=espeak.rate, target_sr=16000)


@pytest.fixture(scope="module")
def sounds():
    quiet = 0.001 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    return {
        "noise": 100 * quiet,
        "voice": np.concatenate([quiet, vowel(1.0), quiet[:7777]]),
        "a short sound": np.concatenate([quiet, vowel(0.1), quiet]),
        "a clip of a few samples": vowel(1.0)[:100],
        "a sentence": sentence(),
    }


def test_the_network_is_sileros(sounds, network):
    seen = []
    for samples in sounds.values():
        network.reset_states()
        windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
        with torch.no_grad():
            expected = [network(torch.from_numpy(window), 16000).item() for window in windows]
        # The wheel's convolutions are float16: 5e-4 relative, which the recurrence adds up.
        np.testing.assert_allclose(speech_probabilities(samples), expected, atol=0.01)
        seen += expected
    assert max(seen) > 0.8 and min(seen) < 0.1, "the sounds tell little"


def test_speech_is_found_where_silero_finds_it(sounds, network, silero):
    for name, samples in sounds.items():
        with torch.no_grad():
            expected = silero.get_speech_timestamps(torch.from_numpy(samples), network)
        assert vad.has_speech(samples) == bool(expected), name
    assert (
        vad.has_speech(sounds["voice"]) and vad.has_speech(sounds["a sentence"]) and not vad.has_speech(sounds["noise"])
    )


def test_the_rules_are_sileros(silero):
    random, decided = np.random.default_rng(1), []
    for length in (1, 5, 8, 9, 20, 60):
        for _ in range(60):
            steps = random.normal(0, 0.25, length).cumsum() + random.uniform(0.2, 0.6)
            probabilities = np.clip(steps, 0, 1).astype(np.float32).tolist()
            samples = length * WINDOW - int(random.integers(0, WINDOW))
            expected = silero.get_speech_timestamps(torch.zeros(samples), Told(probabilities), speech_pad_ms=0)
            got = vad.speech_stretches(probabilities, samples)
            assert got == [(stretch["start"], stretch["end"]) for stretch in expected]
            decided.append(bool(got))
    assert 0.2 < np.mean(decided) < 0.8, "the sequences tell little"
