"""Clips of tones and their metadata."""

import numpy as np
import pytest
import soundfile

from desta_jax.construct.clip import Clip, Segment
from desta_jax.construct.source import parse_source

MOODS = {"happy": 440, "sad": 110, "angry": 330, "calm": 165}


@pytest.fixture
def source_of():
    """A source of speech: source_of(words="text", ...)."""
    return lambda **keys: parse_source({"name": "Test", "kind": "speech", "audio": "audio", **keys})


@pytest.fixture
def clip_of():
    """A clip of one segment: clip_of("a.wav", "Hello.", Emotion="Happy")."""

    def make(audio="a.wav", words="", kind="speech", language="en", caption="", **attributes):
        return Clip(audio, "Test", kind, [Segment(words=words, attributes=attributes)], caption, {}, 2.0, language)

    return make


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """A folder of twelve clips with metadata.csv."""
    folder = tmp_path_factory.mktemp("spoken")
    lines = ["audio,text,emotion"]
    for index, (mood, pitch) in enumerate([*MOODS.items()] * 3):
        time = np.arange(8000 + 800 * index) / 16000
        soundfile.write(folder / f"{index}.wav", 0.2 * np.sin(2 * np.pi * pitch * time), 16000)
        lines.append(f"{index}.wav,This is sentence number {index} of them all.,{mood}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def model_folder(micro_models_folder):
    """A converted micro model without an adapter, and the Hugging Face folder of its language model."""
    return micro_models_folder / "converted", micro_models_folder / "llama"
