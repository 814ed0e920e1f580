"""The mean of adapters is an adapter like them."""

import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "data" / "listening"))
import average

from desta_jax.weights.adapter import read_adapter, write_adapter

SHIPPED = pathlib.Path(average.__file__).parent / "adapter"


@pytest.fixture
def export(tmp_path):
    """export(name, factor, **others): the shipped adapter with its weights multiplied."""
    adapter, config = read_adapter(SHIPPED)
    names = {key: config[key] for key in ("llm_model_id", "encoder_model_id", "placeholder_token", "audio_seconds")}

    def export(name, factor, **others):
        tree = jax.tree.map(lambda leaf: factor * leaf, adapter)
        return write_adapter(tmp_path / name, tree, tap_layers=config["target_layer_ids"], **names | others)

    return export


def test_the_mean_is_an_adapter_like_them(export, tmp_path):
    average.average([export("one", 1), export("three", 3)], tmp_path / "mean", "float32", False)
    (mean, config), (expected, known) = read_adapter(tmp_path / "mean"), read_adapter(export("two", 2))
    assert config == known
    jax.tree.map(np.testing.assert_array_equal, mean, expected)
    with pytest.raises(ValueError, match="--overwrite"):
        average.average([tmp_path / "one"], tmp_path / "mean", "float32", False)


def test_adapters_with_lora_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(average, "read_adapter", lambda folder: ({"connector": {}, "lora": {}}, {}))
    with pytest.raises(SystemExit, match="LoRA"):
        average.average([tmp_path, tmp_path], tmp_path / "mean", "float32", False)


def test_adapters_for_other_windows_are_refused(export, tmp_path):
    with pytest.raises(SystemExit, match="config.json differ"):
        average.average([export("one", 1), export("long", 1, audio_seconds=30)], tmp_path / "mean", "float32", False)
    assert not (tmp_path / "mean").exists()
