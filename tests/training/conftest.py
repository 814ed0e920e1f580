"""A micro model and a few records: all that a run needs, in a second a step."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

from desta_jax.config import make_config
from desta_jax.records.write import write_records
from desta_jax.training.loop import COMPLETE, train

CLOCKED = {"samples_per_second", "mfu", "goodput"}
WORDS = ["red", "green", "blue", "seven", "nine"]


def write_rows(folder: pathlib.Path, count: int, seed: int) -> pathlib.Path:
    """Tones and their names; a row in four has two clips."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(count):
        clips = []
        for clip in range(1 + (index % 4 == 0)):
            word = rng.integers(len(WORDS))
            time = np.arange(int(16000 * rng.uniform(0.3, 1.2))) / 16000
            name = f"{seed}-{index}-{clip}.wav"
            soundfile.write(folder / name, 0.3 * np.sin(2 * np.pi * 200 * (1 + word) * time), 16000)
            clips.append({"audio": name, "text": WORDS[word]})
        heard = " ".join("<start_audio><|AUDIO|><end_audio>" for _ in clips)
        messages = [{"role": "user", "content": f"{heard} Which?", "audios": clips}]
        response = " and ".join(clip["text"] for clip in clips)
        rows.append({"id": f"row-{index}", "dataset": "tones", "messages": messages, "response": response})
    manifest = folder / f"rows-{seed}.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture
def tones():
    """The function that writes so many rows."""
    return write_rows


@pytest.fixture(scope="session")
def micro(tmp_path_factory, micro_models_folder):
    """A folder with model/, llama/, whisper/, train/ and validation/."""
    folder = tmp_path_factory.mktemp("micro")
    for name, made in (("model", "converted"), ("llama", "llama"), ("whisper", "whisper")):
        (folder / name).symlink_to(micro_models_folder / made)
    for split, count, seed in (("train", 21, 1), ("validation", 5, 2)):
        manifest = write_rows(folder, count, seed)
        write_records([str(manifest)], str(folder), str(folder / split), shards=2, workers=1, report=lambda line: None)
    return folder


def micro_changes(micro: pathlib.Path) -> dict:
    return {
        "compute_dtype": "float32",
        "model.checkpoint": str(micro / "model"),
        "adapter.num_layers": 1,
        "adapter.prompt_size": 4,
        "adapter.tap_layers": (0, 1),
        "adapter.placeholder_token": "<|placeholder|>",
        "data.train": (str(micro / "train"),),
        "data.validation": (str(micro / "validation"),),
        "data.max_length": 96,
        "data.validation_max_length": 96,
        "data.audio_seconds": 1,
        "data.threads": 1,
        "train.batch_size": 8,
        "train.steps": 6,
        "optimizer.peak_learning_rate": 1e-2,
        "optimizer.warmup_steps": 2,
        "checkpoint.every_steps": 2,
        "log.every_steps": 1,
        "log.samples": True,
        "log.tensorboard": False,
        "remat": "none",
    }


@pytest.fixture(scope="session")
def config_of(micro):
    """make_config over the micro run: config_of(**{"train.steps": 3})."""
    return lambda **changes: make_config(micro_changes(micro) | changes)


@pytest.fixture(scope="session")
def whole(config_of, tmp_path_factory):
    """The work directory of an uninterrupted run in one process: what others are held against."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert train(config_of(), str(workdir)) == COMPLETE
    return workdir


@pytest.fixture
def metrics_of():
    """The rows of a work directory's metrics.jsonl without what depends on the clock."""

    def read(workdir):
        rows = [json.loads(line) for line in (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()]
        return [{key: row[key] for key in row if key not in CLOCKED} for row in rows]

    return read
