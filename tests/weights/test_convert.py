"""Converted weights are PyTorch's, leaf by leaf; all that is amiss is one error that names it, before writing."""

import json
import shutil
import struct

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from safetensors.torch import load_file, save_file

from desta_jax import tree
from desta_jax.weights import stream
from desta_jax.weights.convert import convert


def stacked(layers, of):
    return torch.stack([of(layer) for layer in layers])


def linear(layers, of):
    """The kernel and, where there is one, the bias of a Linear in every layer."""
    leaf = {"kernel": stacked(layers, lambda layer: of(layer).weight.T)}
    return leaf | ({"bias": stacked(layers, lambda layer: of(layer).bias)} if of(layers[0]).bias is not None else {})


def norm(layers, of):
    leaf = {"scale": stacked(layers, lambda layer: of(layer).weight)}
    return leaf | ({"bias": stacked(layers, lambda x: of(x).bias)} if hasattr(of(layers[0]), "bias") else {})


def decoder_tree(model):
    """Our tree, read from transformers' modules by attribute rather than by name."""
    layers = model.model.layers
    attention = {
        "q": linear(layers, lambda x: x.self_attn.q_proj),
        "k": linear(layers, lambda x: x.self_attn.k_proj),
        "v": linear(layers, lambda x: x.self_attn.v_proj),
        "o": linear(layers, lambda x: x.self_attn.o_proj),
    }
    if model.config.model_type == "qwen3":
        attention["q_norm"] = norm(layers, lambda x: x.self_attn.q_norm)
        attention["k_norm"] = norm(layers, lambda x: x.self_attn.k_norm)
    mlp = {
        "gate": linear(layers, lambda x: x.mlp.gate_proj),
        "up": linear(layers, lambda x: x.mlp.up_proj),
        "down": linear(layers, lambda x: x.mlp.down_proj),
    }
    leaves = {
        "embed": model.model.embed_tokens.weight,
        "layers": {
            "attention_norm": norm(layers, lambda x: x.input_layernorm),
            "attention": attention,
            "mlp_norm": norm(layers, lambda x: x.post_attention_layernorm),
            "mlp": mlp,
        },
        "norm": {"scale": model.model.norm.weight},
    }
    return leaves | ({} if model.config.tie_word_embeddings else {"head": model.lm_head.weight})


def whisper_attention(layers, of):
    return {
        "q": linear(layers, lambda x: of(x).q_proj),
        "k": linear(layers, lambda x: of(x).k_proj),
        "v": linear(layers, lambda x: of(x).v_proj),
        "o": linear(layers, lambda x: of(x).out_proj),
    }


def whisper_block(layers):
    return {
        "attention_norm": norm(layers, lambda x: x.self_attn_layer_norm),
        "attention": whisper_attention(layers, lambda x: x.self_attn),
        "mlp_norm": norm(layers, lambda x: x.final_layer_norm),
        "mlp": {"up": linear(layers, lambda x: x.fc1), "down": linear(layers, lambda x: x.fc2)},
    }


def encoder_tree(model):
    encoder = model.model.encoder
    return {
        # conv weights are [out, in, time] there and [time, in, out] here
        "conv1": {"kernel": encoder.conv1.weight.permute(2, 1, 0), "bias": encoder.conv1.bias},
        "conv2": {"kernel": encoder.conv2.weight.permute(2, 1, 0), "bias": encoder.conv2.bias},
        "positions": encoder.embed_positions.weight,
        "layers": whisper_block(encoder.layers),
        "norm": {"scale": encoder.layer_norm.weight, "bias": encoder.layer_norm.bias},
    }


def transcriber_tree(model):
    decoder = model.model.decoder
    cross = {
        "cross_norm": norm(decoder.layers, lambda x: x.encoder_attn_layer_norm),
        "cross": whisper_attention(decoder.layers, lambda x: x.encoder_attn),
    }
    return {
        "embed": decoder.embed_tokens.weight,
        "positions": decoder.embed_positions.weight,
        "layers": whisper_block(decoder.layers) | cross,
        "norm": {"scale": decoder.layer_norm.weight, "bias": decoder.layer_norm.bias},
    }


def assert_part_equals(out, part, expected, dtype):
    """Bit for bit, as plain Orbax restores it."""
    with ocp.StandardCheckpointer() as checkpointer:
        got = tree.flatten(checkpointer.restore(out / "params" / part))
    want = tree.flatten(expected)
    assert sorted(got) == sorted(want)
    for path, leaf in want.items():
        assert got[path].dtype == dtype, path
        np.testing.assert_array_equal(
            np.asarray(got[path], np.float32), leaf.detach().to(getattr(torch, dtype)).float().numpy(), err_msg=path
        )


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen2", "qwen3"])
def test_every_leaf_is_pytorchs(decoders, whisper, tmp_path, family):
    llm, model = decoders[family]
    convert(llm, whisper[0], tmp_path / "out")
    assert_part_equals(tmp_path / "out", "lm", decoder_tree(model), "bfloat16")
    assert_part_equals(tmp_path / "out", "encoder", encoder_tree(whisper[1]), "float16")
    assert_part_equals(tmp_path / "out", "transcriber", transcriber_tree(whisper[1]), "float16")


def test_a_large_model_is_converted_in_blocks_from_shards(tmp_path, save_decoder, whisper, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(stream, "PENDING_BYTES", 2048)
    monkeypatch.setattr(stream, "READ_BYTES", 256)
    model = save_decoder(tmp_path / "llm", "llama", torch.bfloat16, max_shard_size="20KB")
    assert len(list((tmp_path / "llm").glob("model-*.safetensors"))) > 2
    convert(tmp_path / "llm", whisper[0], tmp_path / "out")
    assert_part_equals(tmp_path / "out", "lm", decoder_tree(model), "bfloat16")
    assert_part_equals(tmp_path / "out", "transcriber", transcriber_tree(whisper[1]), "float16")
    written = {file.name for file in (tmp_path / "out/params/lm/layers.mlp.gate.kernel/c").iterdir()}
    assert written == {"0", "1", "2"}  # a layer a file


def test_a_float16_language_model_becomes_bfloat16(tmp_path, save_decoder, whisper):
    model = save_decoder(tmp_path / "llm", "qwen2", torch.float16)
    convert(tmp_path / "llm", whisper[0], tmp_path / "out")
    assert_part_equals(tmp_path / "out", "lm", decoder_tree(model), "bfloat16")


def test_settings_are_carried_along(decoders, whisper, tmp_path):
    convert(decoders["llama"][0], whisper[0], tmp_path / "out")
    template = "chat_template.jinja"
    assert (tmp_path / "out/llm" / template).read_text() == (decoders["llama"][0] / template).read_text()
    for folder, source in (("llm", decoders["llama"][0]), ("whisper", whisper[0])):
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "out" / folder / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "out/whisper/preprocessor_config.json").exists()
    described = json.loads((tmp_path / "out/desta_jax.json").read_text())
    assert described["format"] == 1
    assert described["parts"] == ["lm", "encoder", "transcriber"]
    assert described["llm"] == {"source": str(decoders["llama"][0]), "dtype": "bfloat16"}
    assert described["encoder"]["dtype"] == "float16"


def test_progress_tells_the_time_left(decoders, whisper, tmp_path, monkeypatch):
    monkeypatch.setattr("desta_jax.weights.convert.SECONDS_BETWEEN_LINES", 0.0)
    lines = []
    convert(decoders["llama"][0], whisper[0], tmp_path / "out", progress=lines.append)
    assert lines[-1].startswith("converted 0.0 of 0.0 GB, ") and lines[-1].endswith("left")


def test_both_spellings_of_rotary_settings_are_read(decoders, whisper, tmp_path):
    llm = shutil.copytree(decoders["llama"][0], tmp_path / "llm")
    edit_json(llm / "config.json", lambda c: c | {"rope_scaling": c.pop("rope_parameters"), "rope_theta": 5e5})
    convert(llm, whisper[0], tmp_path / "out")


# Bad input


@pytest.fixture
def llm(decoders, tmp_path):
    """A copy of the Llama's folder, to be spoilt."""
    return shutil.copytree(decoders["llama"][0], tmp_path / "llm")


def edit_json(file, change):
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def assert_refused(llm, encoder, out, *expected, **options):
    """Every expected text is in one error, and no output is there."""
    with pytest.raises(ValueError) as caught:
        convert(llm, encoder, out, **options)
    for text in expected:
        assert text in str(caught.value)
    assert not out.exists() and not out.with_name(out.name + ".partial").exists()


def test_missing_extra_and_misshapen_tensors_are_one_error(llm, whisper, tmp_path):
    def spoil(weights):
        del weights["model.layers.1.mlp.up_proj.weight"]
        weights["model.layers.3.mlp.up_proj.weight"] = torch.zeros(48, 32)
        weights["model.norm.weight"] = torch.zeros(31)

    edit_weights(llm, spoil)
    encoder = shutil.copytree(whisper[0], tmp_path / "encoder")
    edit_weights(encoder, lambda weights: weights.pop("model.encoder.conv1.bias"))
    assert_refused(
        llm,
        encoder,
        tmp_path / "out",
        "model.layers.1.mlp.up_proj.weight is missing (shape [48, 32])",
        "model.layers.3.mlp.up_proj.weight is not known (shape [48, 32])",
        "model.norm.weight has shape [31], expected [32]",
        f"encoder {encoder}: model.encoder.conv1.bias is missing",
    )


def test_an_untied_model_without_its_head_is_refused(llm, whisper, tmp_path):
    edit_weights(llm, lambda weights: weights.pop("lm_head.weight"))
    assert_refused(llm, whisper[0], tmp_path / "out", "lm_head.weight is missing")


def test_a_tied_duplicate_and_old_rotary_tables_are_accepted(decoders, whisper, tmp_path):
    llm = shutil.copytree(decoders["llama-tied"][0], tmp_path / "llm")

    def add(weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)

    edit_weights(llm, add)
    encoder = shutil.copytree(whisper[0], tmp_path / "encoder")
    edit_weights(encoder, lambda w: w.update({"proj_out.weight": w["model.decoder.embed_tokens.weight"].clone()}))
    convert(llm, encoder, tmp_path / "out")
    assert_part_equals(tmp_path / "out", "lm", decoder_tree(decoders["llama-tied"][1]), "bfloat16")


def test_a_tied_duplicate_with_other_values_is_refused(decoders, whisper, tmp_path):
    llm = shutil.copytree(decoders["llama-tied"][0], tmp_path / "llm")
    edit_weights(llm, lambda weights: weights.update({"lm_head.weight": torch.zeros(96, 32)}))
    assert_refused(llm, whisper[0], tmp_path / "out", "lm_head.weight differs from model.embed_tokens.weight", "tie_")


def test_a_quantised_model_is_refused(llm, whisper, tmp_path):
    edit_weights(llm, lambda w: w.update({"model.embed_tokens.weight": torch.zeros(96, 32, dtype=torch.int8)}))
    assert_refused(llm, whisper[0], tmp_path / "out", "model.embed_tokens.weight has dtype I8", "quantised")


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(llm, whisper, tmp_path, value):
    name = "model.layers.1.mlp.up_proj.weight"
    edit_weights(llm, lambda weights: weights[name][3].fill_(value))
    assert_refused(llm, whisper[0], tmp_path / "out", f"{llm / 'model.safetensors'} holds NaN or infinity in {name}")


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def corrupt_header(file):
    content = bytearray(file.read_bytes())
    content[8:16] = b"\xff" * 8
    file.write_bytes(content)


def shorten_header(file):
    file.write_bytes(struct.pack("<Q", 10**12) + file.read_bytes()[8:])


def cut_to_nothing(file):
    file.write_bytes(b"abc")


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (truncate, "is truncated"),
        (corrupt_header, "has a corrupt header"),
        (shorten_header, "is truncated, or no safetensors file"),
        (cut_to_nothing, "is truncated, or no safetensors file"),
    ],
)
def test_a_damaged_file_is_refused(llm, whisper, tmp_path, spoil, expected):
    spoil(llm / "model.safetensors")
    assert_refused(llm, whisper[0], tmp_path / "out", str(llm / "model.safetensors"), expected, "again")


@pytest.fixture
def shards(tmp_path, save_decoder):
    save_decoder(tmp_path / "sharded", "llama", torch.bfloat16, max_shard_size="40KB")
    return tmp_path / "sharded"


def test_an_index_that_names_a_missing_shard_is_refused(shards, whisper, tmp_path):
    shard = sorted(shards.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert_refused(shards, whisper[0], tmp_path / "out", "names files that are not there", shard.name)


def test_an_index_that_disagrees_with_its_shards_is_refused(shards, whisper, tmp_path):
    index = shards / "model.safetensors.index.json"
    moved = json.loads(index.read_text())
    files = sorted(set(moved["weight_map"].values()))
    name = next(name for name, file in moved["weight_map"].items() if file == files[0])
    moved["weight_map"][name] = files[1]
    moved["weight_map"]["model.nothing"] = files[0]
    index.write_text(json.dumps(moved))
    assert_refused(
        shards, whisper[0], tmp_path / "out", f"{files[0]} holds {name}", f"{files[0]} lacks model.nothing", "disagree"
    )


def test_a_corrupt_index_is_refused(shards, whisper, tmp_path):
    (shards / "model.safetensors.index.json").write_text("{")
    assert_refused(shards, whisper[0], tmp_path / "out", "model.safetensors.index.json is corrupt")


def test_a_folder_of_pickles_is_refused(llm, whisper, tmp_path):
    (llm / "model.safetensors").rename(llm / "pytorch_model.bin")
    assert_refused(llm, whisper[0], tmp_path / "out", "pytorch_model.bin", "save_pretrained")


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"model_type": "mistral"}, "model_type 'mistral'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope type 'yarn'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ],
)
def test_an_architecture_that_is_not_computed_is_refused(llm, whisper, tmp_path, change, expected):
    edit_json(llm / "config.json", lambda config: config | change)
    assert_refused(llm, whisper[0], tmp_path / "out", f"language model {llm}", expected)


def test_a_language_model_is_no_encoder(llm, tmp_path):
    assert_refused(llm, llm, tmp_path / "out", f"encoder {llm}: model_type 'llama'")


def test_a_config_that_lacks_a_number_is_refused(llm, whisper, tmp_path):
    edit_json(llm / "config.json", lambda c: {key: value for key, value in c.items() if key != "intermediate_size"})
    assert_refused(llm, whisper[0], tmp_path / "out", "config.json lacks 'intermediate_size'")


def test_a_config_that_is_no_object_is_refused(llm, whisper, tmp_path):
    (llm / "config.json").write_text("[]")
    assert_refused(llm, whisper[0], tmp_path / "out", "config.json is no JSON object")


def test_a_folder_without_a_config_is_refused(llm, whisper, tmp_path):
    (llm / "config.json").unlink()
    assert_refused(llm, whisper[0], tmp_path / "out", f"language model {llm}: config.json can't be read")


def test_a_tokenizer_without_a_chat_template_is_refused(llm, whisper, tmp_path):
    (llm / "chat_template.jinja").unlink()
    assert_refused(llm, whisper[0], tmp_path / "out", "no chat template", "instruction-tuned", "chat_template.jinja")


@pytest.mark.parametrize(
    "file, content, expected",
    [
        ("chat_template.jinja", "{% unknown %}", "its chat template can't be used: Encountered unknown tag"),
        ("chat_template.jinja", "{{ raise_exception('no user') }}", "its chat template can't be used: no user"),
        ("generation_config.json", "{", "generation_config.json is not JSON"),
        ("generation_config.json", "[]", "generation_config.json is no JSON object"),
    ],
)
def test_settings_that_a_run_could_not_use_are_refused(llm, whisper, tmp_path, file, content, expected):
    (llm / file).write_text(content)
    assert_refused(llm, whisper[0], tmp_path / "out", f"{llm}: ", expected)


def test_a_tokenizer_without_an_end_of_text_is_refused(llm, whisper, tmp_path):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (llm / file).exists():
            edit_json(llm / file, lambda c: {key: value for key, value in c.items() if key != "eos_token"})
    assert_refused(llm, whisper[0], tmp_path / "out", "its tokenizer has no eos_token")


def test_a_whisper_that_does_not_say_how_it_starts_is_refused(llm, whisper, tmp_path):
    encoder = shutil.copytree(whisper[0], tmp_path / "whisper")
    for file in ("config.json", "generation_config.json"):
        if (encoder / file).exists():
            edit_json(encoder / file, lambda c: c | {"decoder_start_token_id": None, "eos_token_id": None})
    expected = [f"has {key}: copy" for key in ("decoder_start_token_id", "eos_token_id")]
    assert_refused(llm, encoder, tmp_path / "out", *expected)


def test_a_config_with_a_value_of_another_kind_is_refused(llm, whisper, tmp_path):
    edit_json(llm / "config.json", lambda c: c | {"rope_parameters": [1]})
    assert_refused(llm, whisper[0], tmp_path / "out", f"language model {llm}: config.json has a value of the wrong")


def test_weights_under_another_name_are_named(llm, whisper, tmp_path):
    (llm / "model.safetensors").rename(llm / "model.fp16.safetensors")
    assert_refused(llm, whisper[0], tmp_path / "out", "has model.fp16.safetensors, but neither model.safetensors")


def test_a_tokenizer_larger_than_the_embeddings_is_refused(llm, whisper, tmp_path, save_tokenizer):
    save_tokenizer(llm, size=97)
    assert_refused(llm, whisper[0], tmp_path / "out", "goes up to id 96, its embeddings to 95 only")


@pytest.mark.parametrize("content", [None, "{"], ids=["missing", "corrupt"])
def test_a_folder_without_a_usable_tokenizer_is_refused(llm, whisper, tmp_path, content):
    (llm / "tokenizer.json").unlink()
    if content:
        (llm / "tokenizer.json").write_text(content)
    assert_refused(llm, whisper[0], tmp_path / "out", f"{llm}: it", "tokenizer")


# The output folder is whole or not there


def test_an_existing_folder_is_kept_unless_it_may_be_replaced(decoders, whisper, tmp_path):
    out = tmp_path / "out"
    convert(decoders["llama"][0], whisper[0], out)
    with pytest.raises(ValueError, match="exists.*--overwrite"):
        convert(decoders["qwen2"][0], whisper[0], out)
    convert(decoders["qwen2"][0], whisper[0], out, overwrite=True)
    assert json.loads((out / "llm/config.json").read_text())["model_type"] == "qwen2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_of_something_else_is_never_replaced(decoders, whisper, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        convert(decoders["llama"][0], whisper[0], tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/thesis.tex").read_text() == "years of work"


def test_a_bucket_is_not_written_to(decoders, whisper, tmp_path):
    with pytest.raises(ValueError, match="only local folders are written"):
        convert(decoders["llama"][0], whisper[0], "gs://bucket/out")


def test_an_interrupted_run_leaves_no_output_and_can_be_run_again(decoders, whisper, tmp_path, monkeypatch):
    write = stream.write_checkpoint

    def interrupted(path, *arguments):
        if path.name == "transcriber":
            raise KeyboardInterrupt
        write(path, *arguments)

    monkeypatch.setattr(stream, "write_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(decoders["llama"][0], whisper[0], tmp_path / "out")
    assert not any(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "out.partial/params").mkdir(parents=True)  # as a killed run leaves it
    convert(decoders["llama"][0], whisper[0], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert jax.tree.leaves(ocp.StandardCheckpointer().metadata(tmp_path / "out/params/lm").item_metadata.tree)
