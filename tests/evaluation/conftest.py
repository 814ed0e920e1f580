"""Stand-ins for what evaluation is given, a model and a judge, and small files."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable

import jax
import numpy as np
import pytest
import soundfile

from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.weights.adapter import write_adapter
from desta_jax.weights.folder import ModelFolder


@pytest.fixture(scope="session")
def write_wav():
    """A tone of a tenth of a second at a path."""

    def write(path, hz=440):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.sin(2 * np.pi * hz * np.arange(1600) / 16000), 16000, subtype="PCM_16")
        return path

    return write


@pytest.fixture(scope="session")
def write_jsonl():
    def write(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@dataclasses.dataclass
class Reply:
    text: str = ""
    transcripts: tuple = ()
    token_ids: tuple = ()
    error: str | None = None


@dataclasses.dataclass
class StandInModel:
    """Answers by a function of the messages, an error where it gives one; what it was asked is in `asked`."""

    answer: Callable
    asked: list = dataclasses.field(default_factory=list)
    drawn: list = dataclasses.field(default_factory=list)

    def generate(self, messages, *, max_new_tokens, batch_size, **sampling):
        self.asked += messages
        self.drawn.append(sampling)
        given = [self.answer(each) for each in messages]
        return [
            Reply(error=str(each)) if isinstance(each, Exception) else Reply(each, ("heard",), (1, 2)) for each in given
        ]


@dataclasses.dataclass
class StandInJudge:
    """Says what a function of the inquiry says; a list of words, none for no verdict."""

    say: Callable
    name: str = "stand-in"
    asked: list = dataclasses.field(default_factory=list)

    def verdicts(self, inquiries):
        self.asked += inquiries
        return [self.say(inquiry) for inquiry in inquiries]


@pytest.fixture
def without(monkeypatch):
    """Makes a package look as if it were not installed."""
    find = importlib.util.find_spec

    def hide(package):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))

    return hide


@pytest.fixture
def model():
    return StandInModel


@pytest.fixture
def judge():
    return StandInJudge


@pytest.fixture(scope="session")
def micro_model(micro_models_folder):
    """A converted micro model without an adapter."""
    return micro_models_folder / "converted"


@pytest.fixture(scope="session")
def micro_adapter(micro_model, tmp_path_factory):
    """A random adapter for the micro model, as an export has it."""
    opened = ModelFolder(micro_model)
    shape = AdapterShape(num_layers=1, prompt_size=4, tap_layers=(0, 1))
    sizes = WhisperShape.from_hf(opened.whisper_config), DecoderShape.from_hf(opened.llm_config)
    random = np.random.default_rng(5)
    adapter = jax.tree.map(
        lambda leaf: random.normal(0, 0.1, leaf.shape).astype(np.float32), AudioLM(*sizes, shape).abstract_adapter()
    )
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    names = {"llm_model_id": "llama", "encoder_model_id": "whisper", "placeholder_token": "<|placeholder|>"}
    write_adapter(folder, adapter, tap_layers=shape.tap_layers, **names)
    return folder


@pytest.fixture(scope="session")
def mmau(tmp_path_factory, write_wav):
    """Three questions as MMAU distributes them, one of a difficulty each."""
    folder = tmp_path_factory.mktemp("mmau")
    rows = [
        {
            "id": f"q{number}",
            "audio_id": f"./clips/q{number}.wav",
            "question": "What is heard?",
            "choices": ["A tone", "A dog"],
            "answer": "A tone",
            "task": task,
            "split": "test-mini",
            "category": "Perception",
            "sub-category": "Tones",
            "difficulty": difficulty,
        }
        for number, (task, difficulty) in enumerate([("sound", "easy"), ("music", "medium"), ("speech", "hard")])
    ]
    for row in rows:
        write_wav(folder / row["audio_id"])
    (folder / "mmau-test-mini.json").write_text(json.dumps(rows))
    return folder
