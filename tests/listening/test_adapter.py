"""The adapter that comes with the project: small enough, whole, and what the quickstart trains on from."""

import json
import pathlib

import pytest
import soundfile

from desta_jax.config import load_config
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.plan.shapes import find_models
from desta_jax.tree import differences
from desta_jax.weights.adapter import read_adapter
from desta_jax.weights.tensors import read_header

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "data" / "listening" / "adapter"


def test_it_is_small_and_in_bfloat16():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 20e6
    assert {tensor.kind for tensor in read_header(FOLDER / "model.safetensors").values()} == {"BF16"}


@pytest.mark.parametrize("name", ["smol", "listening"])
def test_the_runs_train_on_from_it(name):
    config = load_config(str(ROOT / "configs" / f"{name}.py"), ["model.checkpoint=''"])
    models = find_models(config)  # their published shapes
    whisper, lm = WhisperShape.from_hf(models.whisper_config), DecoderShape.from_hf(models.llm_config)
    trained, settings = read_adapter(FOLDER, encoder=whisper, lm=lm)
    shape = AdapterShape(config.adapter.num_layers, config.adapter.prompt_size, config.adapter.tap_layers)
    assert not differences(trained, AudioLM(whisper, lm, shape).abstract_adapter())
    assert settings["audio_seconds"] == config.data.audio_seconds
    assert settings["placeholder_token"] == config.adapter.placeholder_token
    assert tuple(settings["target_layer_ids"]) == config.adapter.tap_layers
    assert (settings["llm_model_id"], settings["encoder_model_id"]) == (config.model.llm, config.model.encoder)


def test_its_card_says_what_it_is():
    card = (FOLDER / "README.md").read_text()
    for word in ("CC0", "ODbL", "chance", "cannot"):
        assert word in card
    assert not any(mark in card for mark in ("@", "TODO"))


def test_the_clip_of_the_quickstart_is_one_to_listen_to():
    sound = soundfile.info(ROOT / "data" / "listening" / "clip.flac")
    assert (sound.samplerate, sound.channels) == (16000, 1) and 2 < sound.duration <= 8


def test_its_config_is_json_of_the_reference():
    assert json.loads((FOLDER / "config.json").read_text())["model_type"] == "desta25"
