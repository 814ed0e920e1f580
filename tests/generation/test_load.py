"""A model is a converted folder and an adapter, from wherever the adapter is."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from desta_jax import generation
from desta_jax.config import make_config, to_json
from desta_jax.generation import chosen_step, export_digest
from desta_jax.training import checkpoint
from desta_jax.training.step import init_state
from desta_jax.weights.adapter import read_adapter
from desta_jax.weights.convert import convert


def connector(model):
    return model.ear.adapter["connector"]


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def load(folder, **settings):
    return generation.load(folder, dtype="float32", cache_programs=False, **settings)


@pytest.fixture(scope="module")
def adapters(made):
    return read_adapter(made["llama"].adapter)[0]


def test_an_adapter_that_was_converted_with_the_models(made, adapters, tmp_path):
    parts = made["llama"].adapter.parent
    convert(parts / "llm", parts.parent / "whisper", tmp_path / "model", adapter=parts / "adapter")
    assert_equal(connector(load(tmp_path / "model")), adapters["connector"])


def test_a_work_directory_is_a_model_and_an_adapter(made, adapters, tmp_path):
    adapter = {"num_layers": 1, "prompt_size": 4, "tap_layers": (0, 1), "placeholder_token": "<|spare|>"}
    changes = {f"adapter.{name}": value for name, value in adapter.items()}
    config = make_config(changes | {"model.checkpoint": str(made["llama"].folder), "data.audio_seconds": 4})
    (tmp_path / "config.json").write_text(to_json(config))
    checkpoints, optimizer = checkpoint.Checkpoints(str(tmp_path), keep=2), optax.adam(0.1)
    older = jax.tree.map(lambda x: x + 1, adapters)
    for step, adapter in ((3, older), (5, adapters)):
        checkpoints.save(step, init_state(jax.tree.map(jnp.asarray, adapter), optimizer))
    checkpoints.close()
    newest = load(tmp_path)
    assert_equal(connector(newest), adapters["connector"])
    assert newest.ear.seconds == 4
    assert_equal(connector(load(made["llama"].folder, adapter=tmp_path, step=3)), older["connector"])
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 4; there are 3, 5"):
        load(tmp_path, step=4)
    # What settings record, so that a file of answers notices a newer checkpoint.
    assert [chosen_step(tmp_path), chosen_step(made["llama"].folder, tmp_path, 3)] == [5, 3]
    assert chosen_step(made["llama"].folder, made["llama"].adapter) is None


def test_an_export_is_known_by_its_weights(made, tmp_path):
    there, copy = made["llama"].adapter, tmp_path / "copy"
    shutil.copytree(there, copy)
    assert export_digest(there) == export_digest(copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert export_digest(there) != export_digest(copy)
    assert export_digest(None) is export_digest(tmp_path) is export_digest("house/of-the-hub") is None


def test_the_reference_s_own_placeholder_needs_no_setting(made, tmp_path):
    shutil.copytree(made["llama"].adapter, tmp_path / "adapter")
    file = tmp_path / "adapter" / "config.json"
    config = json.loads(file.read_text())
    del config["placeholder_token"]
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="reserved_special_token_87"):  # which the small tokenizer lacks
        load(made["llama"].folder, adapter=tmp_path / "adapter")


def test_a_work_directory_whose_models_have_moved_says_how_to_name_them(tmp_path):
    workdir, moved = tmp_path / "run", tmp_path / "models"
    (workdir / "checkpoints").mkdir(parents=True)
    (workdir / "config.json").write_text(to_json(make_config({"model.checkpoint": str(moved)})))
    remedy = f"{moved} is no converted folder.* {workdir}'s config names it.* as --model and {workdir} as --adapter"
    with pytest.raises(ValueError, match=remedy):
        load(workdir)


def test_lora_is_added_to_the_weights_once(made, adapter_with_lora):
    folder, lora, scale = adapter_with_lora
    plain = load(made["llama"].folder, adapter=made["llama"].adapter)
    merged = load(made["llama"].folder, adapter=folder)
    for index, (before, after) in enumerate(zip(plain.tongue.model.layers, merged.tongue.model.layers)):
        for name in "qkv":
            a, b = (lora[name][side][index].astype(np.float64) for side in "ab")
            added = getattr(after.attention, name).kernel - getattr(before.attention, name).kernel
            # Rounding of float32 sums below 4.
            np.testing.assert_allclose(added, a @ b * scale, atol=2e-6)
        np.testing.assert_array_equal(before.attention.o.kernel[...], after.attention.o.kernel[...])


def test_what_is_missing_is_said_with_the_remedy(made, tmp_path):
    llama = made["llama"]
    with pytest.raises(ValueError, match="has no adapter: name a work directory, an export"):
        load(llama.folder)
    with pytest.raises(ValueError, match="is an adapter: give the folder that `desta-jax convert` wrote"):
        load(llama.adapter)
    with pytest.raises(ValueError, match="step: .* is no work directory"):
        load(llama.folder, adapter=llama.adapter, step=3)
    with pytest.raises(ValueError, match="dtype: 'float16' is none of"):
        generation.load(llama.folder, adapter=llama.adapter, dtype="float16", cache_programs=False)
    with pytest.raises(ValueError, match="no desta_jax.json"):
        load(tmp_path)
    config = json.loads((llama.adapter / "config.json").read_text()) | {"prompt_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(llama.adapter / "model.safetensors")
    with pytest.raises(ValueError, match="prompts"):
        load(llama.folder, adapter=tmp_path)


@pytest.mark.parametrize(
    ("here", "trained_with", "told"),
    [
        ({"source": "Some/Llama-Instruct@v1", "revision": "1a"}, "some/llama-base", True),
        ({"source": "Some/Llama-Instruct@v1", "revision": "1a"}, "some/llama-instruct@v2", False),
        ({"source": "Some/Llama-Instruct@v1", "revision": "1a"}, "/models/llama-base", False),
        ({"source": "/models/llama"}, "some/llama-base", False),
    ],
)
def test_an_adapter_of_another_model_of_that_shape_is_told_of(made, tmp_path, recwarn, here, trained_with, told):
    model = shutil.copytree(made["llama"].folder, tmp_path / "model")
    adapter = shutil.copytree(made["llama"].adapter, tmp_path / "adapter")
    edit(model / "desta_jax.json", llm=here)
    edit(adapter / "config.json", llm_model_id=trained_with)
    load(model, adapter=adapter)
    lines = [str(each.message) for each in recwarn if "trained with" in str(each.message)]
    assert bool(lines) == told
    if told:
        assert lines == [
            f"{adapter}: the adapter was trained with some/llama-base and is put beside Some/Llama-Instruct: unless "
            "these are the same weights, it will hear little"
        ]


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
