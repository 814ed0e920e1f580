"""A converted folder restores onto the devices that ask for it, or says what is wrong with it."""

import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from jax.sharding import NamedSharding, PartitionSpec

from desta_jax import tree
from desta_jax.models.decoder import Decoder
from desta_jax.models.layers import to_tree
from desta_jax.models.shapes import DecoderShape, WhisperShape
from desta_jax.models.whisper import Encoder
from desta_jax.models.whisper_decoder import WhisperDecoder
from desta_jax.weights.convert import convert
from desta_jax.weights.folder import ModelFolder


@pytest.fixture(scope="module")
def converted(decoders, whisper, tmp_path_factory):
    return convert(decoders["llama"][0], whisper[0], tmp_path_factory.mktemp("converted") / "model")


def shapes(dtype=jnp.float32):
    """A few layers' worth of the Llama in conftest.py, written out."""
    kernel = {"q": (32, 32), "k": (32, 16), "v": (32, 16), "o": (32, 32)}
    leaves = {f"layers.attention.{name}.kernel": (3, *shape) for name, shape in kernel.items()}
    leaves |= {"layers.mlp.gate.kernel": (3, 32, 48), "layers.mlp.up.kernel": (3, 32, 48)}
    leaves |= {"layers.mlp.down.kernel": (3, 48, 32), "embed": (96, 32), "head": (96, 32), "norm.scale": (32,)}
    leaves |= {"layers.attention_norm.scale": (3, 32), "layers.mlp_norm.scale": (3, 32)}
    return {path: jax.ShapeDtypeStruct(shape, dtype) for path, shape in leaves.items()}


def test_a_folder_knows_its_models(converted, decoders):
    folder = ModelFolder(converted)
    assert folder.parts == ("lm", "encoder", "transcriber")
    assert folder.llm_config["model_type"] == "llama" and folder.whisper_config["model_type"] == "whisper"
    assert folder.generation_config["eos_token_id"] == 1
    assert folder.whisper_generation_config["decoder_start_token_id"] == 1
    assert folder.adapter_config is None
    assert folder.tokenizer().apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<user>hi"
    assert folder.whisper_tokenizer().convert_tokens_to_ids("w7") == 7
    assert folder.tokenizer() is folder.tokenizer(), "read once"


def test_without_a_generation_config_the_models_own_config_counts(converted, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    (folder / "llm/generation_config.json").unlink()
    config = json.loads((folder / "llm/config.json").read_text())
    config |= {"eos_token_id": [3, 4], "repetition_penalty": 1.7, "top_k": 7}
    (folder / "llm/config.json").write_text(json.dumps(config))
    theirs = transformers.GenerationConfig.from_model_config(dict(config))
    ours = ModelFolder(folder).generation_config
    assert [ours[key] for key in ("eos_token_id", "repetition_penalty", "top_k")] == [[3, 4], 1.7, 7]
    assert [theirs.eos_token_id, theirs.repetition_penalty, theirs.top_k] == [[3, 4], 1.7, 7]


def test_a_part_is_restored_in_the_dtype_asked_for(converted, decoders):
    restored = tree.flatten(ModelFolder(converted).restore("lm", tree.unflatten(shapes(jnp.float32))))
    weight = decoders["llama"][1].model.layers[2].self_attn.q_proj.weight
    got = restored["layers.attention.q.kernel"]
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got[2], weight.detach().bfloat16().float().numpy().T)


def test_a_path_may_go_up(decoders, whisper, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(decoders["llama"][0], whisper[0], "../model")
    restored = tree.flatten(ModelFolder("../model").restore("lm", tree.unflatten(shapes())))
    assert restored["embed"].shape == (96, 32)


def test_every_part_fits_the_models(converted):
    folder = ModelFolder(converted)
    lm, whisper = DecoderShape.from_hf(folder.llm_config), WhisperShape.from_hf(folder.whisper_config)
    builders = {
        "lm": lambda key: Decoder(lm, key=key),
        "encoder": lambda key: Encoder(whisper, key=key),
        "transcriber": lambda key: WhisperDecoder(whisper, key=key),
    }
    for part, build in builders.items():
        like = tree.abstract(jax.eval_shape(lambda key, build=build: to_tree(build(key)), jax.random.key(0)))
        assert not tree.differences(folder.restore(part, like), like)


def test_casting_rounds_to_nearest(converted, whisper):
    like = jax.eval_shape(lambda: encoder_like(whisper[1]))
    restored = ModelFolder(converted).restore("encoder", like)
    expected = whisper[1].model.encoder.embed_positions.weight.detach().float().numpy().astype(jnp.bfloat16)
    np.testing.assert_array_equal(restored["positions"], expected)


def encoder_like(model):
    d, layers = 32, 4
    bias, kernel = jnp.zeros((layers, d), jnp.bfloat16), jnp.zeros((layers, d, d), jnp.bfloat16)
    norm, linear = {"scale": bias, "bias": bias}, {"kernel": kernel, "bias": bias}
    up = {"kernel": jnp.zeros((layers, d, 40), jnp.bfloat16), "bias": jnp.zeros((layers, 40), jnp.bfloat16)}
    down = {"kernel": jnp.zeros((layers, 40, d), jnp.bfloat16), "bias": bias}
    attention = {"q": linear, "k": {"kernel": kernel}, "v": linear, "o": linear}
    blocks = {"attention_norm": norm, "attention": attention, "mlp_norm": norm, "mlp": {"up": up, "down": down}}
    return {
        "conv1": {"kernel": jnp.zeros((3, 8, d), jnp.bfloat16), "bias": bias[0]},
        "conv2": {"kernel": jnp.zeros((3, d, d), jnp.bfloat16), "bias": bias[0]},
        "positions": jnp.zeros((20, d), jnp.bfloat16),
        "layers": blocks,
        "norm": {"scale": bias[0], "bias": bias[0]},
    }


def test_each_shard_goes_to_its_device(converted, decoders):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    split, everywhere = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((None, "fsdp"), ()))
    gate = "layers.mlp.gate.kernel"
    like = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split if path == gate else everywhere)
        for path, x in shapes(jnp.bfloat16).items()
    }
    restored = tree.flatten(ModelFolder(converted).restore("lm", tree.unflatten(like)))[gate]
    assert restored.sharding == split
    layers = decoders["llama"][1].model.layers
    kernel = np.stack([layer.mlp.gate_proj.weight.detach().bfloat16().float().numpy().T for layer in layers])
    for shard in restored.addressable_shards:
        assert shard.data.shape == (3, 4, 48)
        np.testing.assert_array_equal(np.asarray(shard.data, np.float32), kernel[shard.index])


def test_every_difference_is_named(converted):
    like = shapes()
    like["norm.bias"] = like.pop("norm.scale")
    like["embed"] = jax.ShapeDtypeStruct((96, 64), jnp.float32)
    with pytest.raises(ValueError) as caught:
        ModelFolder(converted).restore("lm", tree.unflatten(like))
    for text in (
        "params/lm does not fit",
        "norm.bias is missing (shape (32,))",
        "norm.scale is unexpected",
        "embed has shape (96, 32), expected (96, 64)",
    ):
        assert text in str(caught.value)


def test_a_part_that_is_not_there_is_named(converted):
    with pytest.raises(ValueError, match="no part 'adapter'.*--adapter"):
        ModelFolder(converted).restore("adapter", {})


def assert_damaged(folder):
    with pytest.raises(ValueError, match="params/lm is damaged.*embed"):
        ModelFolder(folder).restore("lm", tree.unflatten(shapes()))
    gc.collect()  # Orbax leaves the reads of the other leaves behind, which complain when they go


@pytest.fixture
def copied(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "model")


def first_file(folder):
    return sorted(path for path in (folder / "params/lm/embed/c").rglob("*") if path.is_file())[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_is_found(copied):
    file = first_file(copied)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert_damaged(copied)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_file_is_found(copied):
    first_file(copied).unlink()
    assert_damaged(copied)


def test_a_list_of_leaves_that_is_cut_short_is_found(copied):
    file = copied / "params/lm/_METADATA"
    file.write_text(file.read_text()[:100])
    with pytest.raises(ValueError, match="params/lm is damaged.*_METADATA"):
        ModelFolder(copied).restore("lm", tree.unflatten(shapes()))


def test_folders_that_are_not_converted_ones_are_refused(decoders, copied, tmp_path):
    with pytest.raises(ValueError, match="no converted folder"):
        ModelFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="Hugging Face folder.*desta-jax convert"):
        ModelFolder(decoders["llama"][0])
    copied.rename(tmp_path / "other.partial")
    with pytest.raises(ValueError, match="not finished"):
        ModelFolder(tmp_path / "other")


def test_a_folder_that_is_not_whole_is_refused(copied):
    shutil.rmtree(copied / "params/encoder")
    with pytest.raises(ValueError, match="lacks params/encoder"):
        ModelFolder(copied)
    (copied / "llm/config.json").write_text("{")
    with pytest.raises(ValueError, match="llm/config.json can't be read"):
        ModelFolder(copied)


def test_another_format_is_refused(copied):
    described = json.loads((copied / "desta_jax.json").read_text()) | {"format": 2}
    (copied / "desta_jax.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="format 2.*convert it again"):
        ModelFolder(copied)
