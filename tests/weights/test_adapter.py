"""The adapter goes to the PyTorch reference's folder and back without a bit lost; what does not fit is named."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from desta_jax import tree
from desta_jax.models.shapes import DecoderShape, WhisperShape
from desta_jax.weights import hub
from desta_jax.weights.adapter import read_adapter, write_adapter
from desta_jax.weights.card import reference_limits
from desta_jax.weights.convert import convert
from desta_jax.weights.folder import ModelFolder

WIDTH, LM_WIDTH, HEADS, LAYERS, PROMPTS, TAPS = 32, 32, 4, 2, 6, 4  # of the models in conftest.py
IDENTITY = {
    "llm_model_id": "meta-llama/Llama-3.1-8B-Instruct",
    "encoder_model_id": "openai/whisper-tiny",
    "tap_layers": (0, 1, 2, 3),
    "placeholder_token": "<|reserved_special_token_87|>",
}


class Connector(torch.nn.Module):
    """The reference's, module by module: a BERT encoder with cross-attention, run eagerly."""

    def __init__(self):
        super().__init__()
        self.layer_prompts = torch.nn.ParameterList([torch.randn(1, PROMPTS, WIDTH) for _ in range(TAPS)])
        self.layer_weights = torch.nn.Parameter(torch.randn(PROMPTS, TAPS))
        config = BertConfig(
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=LAYERS,
            add_cross_attention=True,
            is_decoder=True,
            attn_implementation="eager",
        )
        self.qformer = BertEncoder(config)
        self.proj = torch.nn.Sequential(torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, LM_WIDTH))


class Reference(torch.nn.Module):
    """What of the reference's model carries trained parameters, under the reference's names."""

    def __init__(self, lora_rank=0):
        super().__init__()
        self.perception = torch.nn.Module()
        self.perception.connector = Connector()
        if lora_rank:
            self.llm_model = lora_on_a_decoder(lora_rank)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_()


def lora_on_a_decoder(rank):
    """PEFT's modules as they stand in the decoder: lora_A and lora_B, each a dictionary of adapters."""
    decoder = torch.nn.Module()
    decoder.model = torch.nn.Module()
    decoder.model.layers = torch.nn.ModuleList()
    for _ in range(3):
        layer = torch.nn.Module()
        layer.self_attn = torch.nn.Module()
        for name, outputs in (("q_proj", 32), ("k_proj", 16), ("v_proj", 16)):
            projection = torch.nn.Module()
            projection.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(LM_WIDTH, rank, bias=False)})
            projection.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(rank, outputs, bias=False)})
            setattr(layer.self_attn, name, projection)
        decoder.model.layers.append(layer)
    return decoder


def save_reference(folder, model, dtype=torch.float32, **config):
    """As the reference saves: trained parameters under their names, and its config.json."""
    folder.mkdir()
    weights = {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base = {
        "model_type": "desta25",
        "llm_model_id": "some/llm",
        "encoder_model_id": "openai/whisper-tiny",
        "connector_mode": "qformer_1",
        "qformer_num_hidden_layers": LAYERS,
        "prompt_size": PROMPTS,
        "audio_locator": "<|AUDIO|>",
        "placeholder_token": "w9",
        "use_lora": False,
    }
    (folder / "config.json").write_text(json.dumps(base | config))
    return folder


@pytest.fixture
def reference():
    torch.manual_seed(2)
    return Reference()


@pytest.fixture
def saved(tmp_path, reference):
    return save_reference(tmp_path / "saved", reference)


def linear(module):
    return {"kernel": module.weight.T, "bias": module.bias}


def norm(module):
    return {"scale": module.weight, "bias": module.bias}


def attention(module):
    names = {"q": module.self.query, "k": module.self.key, "v": module.self.value, "o": module.output.dense}
    return {name: linear(of) for name, of in names.items()}


def connector_tree(connector):
    """Our tree, read from the torch modules by attribute."""
    layers = [
        tree.flatten(
            {
                "attention": attention(layer.attention),
                "attention_norm": norm(layer.attention.output.LayerNorm),
                "cross": attention(layer.crossattention),
                "cross_norm": norm(layer.crossattention.output.LayerNorm),
                "mlp": {"up": linear(layer.intermediate.dense), "down": linear(layer.output.dense)},
                "mlp_norm": norm(layer.output.LayerNorm),
            }
        )
        for layer in connector.qformer.layer
    ]
    leaves = {
        "prompts": torch.stack([prompt[0] for prompt in connector.layer_prompts]),
        "tap_weights": connector.layer_weights,
        "layers": tree.unflatten({path: torch.stack([layer[path] for layer in layers]) for path in layers[0]}),
        "norm": norm(connector.proj[0]),
        "proj": linear(connector.proj[1]),
    }
    return {path: leaf.detach().numpy() for path, leaf in tree.flatten(leaves).items()}


def assert_equal(got, want):
    got, want = tree.flatten(got), tree.flatten(want)
    assert sorted(got) == sorted(want)
    for path in want:
        assert got[path].dtype == np.float32
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


def test_the_references_adapter_is_read_leaf_by_leaf(saved, reference):
    adapter, config = read_adapter(saved)
    assert_equal(adapter["connector"], tree.unflatten(connector_tree(reference.perception.connector)))
    assert sorted(adapter) == ["connector"]
    assert config["llm_model_id"] == "some/llm"


def test_bfloat16_is_read_as_float32(tmp_path, reference):
    adapter, _ = read_adapter(save_reference(tmp_path / "saved", reference, torch.bfloat16))
    expected = reference.perception.connector.layer_weights.detach().bfloat16().float().numpy()
    np.testing.assert_array_equal(adapter["connector"]["tap_weights"], expected)


@pytest.mark.parametrize("rank", [0, 16])
def test_an_export_loads_into_pytorch_with_nothing_missing_or_unexpected(tmp_path, rank):
    adapter = random_adapter(tmp_path, rank)
    write_adapter(tmp_path / "out", adapter, **IDENTITY)
    fresh = Reference(rank)
    weights = load_file(tmp_path / "out/model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    fresh.load_state_dict(weights, strict=True)
    assert_equal(adapter["connector"], tree.unflatten(connector_tree(fresh.perception.connector)))
    if rank:
        layer = fresh.llm_model.model.layers[1].self_attn
        np.testing.assert_array_equal(adapter["lora"]["k"]["a"][1], layer.k_proj.lora_A["default"].weight.detach().T)
        np.testing.assert_array_equal(adapter["lora"]["v"]["b"][1], layer.v_proj.lora_B["default"].weight.detach().T)


def random_adapter(tmp_path, rank=0):
    torch.manual_seed(3)
    return read_adapter(save_reference(tmp_path / "random", Reference(rank), use_lora=rank > 0))[0]


@pytest.mark.parametrize("rank", [0, 4])
def test_export_and_import_keep_every_bit(tmp_path, rank):
    adapter = random_adapter(tmp_path, rank)
    write_adapter(tmp_path / "out", adapter, lora_alpha=8.0, **IDENTITY)
    again, config = read_adapter(tmp_path / "out")
    assert_equal(again, adapter)
    assert config["use_lora"] == (rank > 0)
    assert (config.get("lora_rank"), config.get("lora_alpha")) == ((4, 8.0) if rank else (None, None))


def test_a_bfloat16_export_is_rounded_once(tmp_path):
    adapter = random_adapter(tmp_path)
    write_adapter(tmp_path / "out", adapter, dtype="bfloat16", **IDENTITY)
    again, _ = read_adapter(tmp_path / "out")
    leaves = tree.flatten(adapter)
    rounded = {path: leaf.astype(ml_dtypes.bfloat16).astype(np.float32) for path, leaf in leaves.items()}
    assert_equal(again, tree.unflatten(rounded))


def test_the_config_is_what_the_reference_asks_for(tmp_path):
    write_adapter(tmp_path / "out", random_adapter(tmp_path), **IDENTITY)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == {
        "architectures": ["DeSTA25AudioModel"],
        "model_type": "desta25",
        "llm_model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "encoder_model_id": "openai/whisper-tiny",
        "connector_mode": "qformer_1",
        "qformer_num_hidden_layers": LAYERS,
        "prompt_size": PROMPTS,
        "audio_locator": "<|AUDIO|>",
        "placeholder_token": "<|reserved_special_token_87|>",
        "use_lora": False,
        "target_layer_ids": [0, 1, 2, 3],
        "audio_seconds": 30,
    }


def test_the_card_names_the_models_and_what_the_reference_would_not_load(tmp_path):
    write_adapter(tmp_path / "out", random_adapter(tmp_path), **IDENTITY)
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\n") and "- meta-llama/Llama-3.1-8B-Instruct\n- openai/whisper-tiny\n" in card
    assert "Note:" not in card
    write_adapter(tmp_path / "other", random_adapter_again(tmp_path), **IDENTITY | {"encoder_model_id": "/data/ear"})
    assert "Note: the PyTorch code knows openai/whisper-tiny" in (tmp_path / "other/README.md").read_text()


def random_adapter_again(tmp_path):
    return read_adapter(tmp_path / "random")[0]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, []),
        ({"target_layer_ids": [0, 1, 2, 2]}, ["taps layers [0, 1, 2, 3]"]),
        ({"use_lora": True, "lora_rank": 8, "lora_alpha": 16.0}, ["rank 16 and alpha 16 only"]),
        ({"use_lora": True, "lora_rank": 16, "lora_alpha": 16.0}, []),
        ({"audio_seconds": 8}, ["pads every clip to 30 s"]),
    ],
)
def test_limits_of_the_reference_are_known(changes, expected):
    config = {
        "encoder_model_id": "openai/whisper-tiny",
        "target_layer_ids": [0, 1, 2, 3],
        "use_lora": False,
        "audio_seconds": 30,
    }
    limits = reference_limits(config | changes)
    assert len(limits) == len(expected) and all(text in limit for text, limit in zip(expected, limits))


def test_lora_is_a_peft_adapter_by_itself(tmp_path):
    adapter = random_adapter(tmp_path, 4)
    write_adapter(tmp_path / "out", adapter, lora_alpha=8.0, lora_dropout=0.05, **IDENTITY)
    weights = load_file(tmp_path / "out/lora/adapter_model.safetensors")
    assert len(weights) == 3 * 3 * 2
    name = "base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight"
    np.testing.assert_array_equal(weights[name], adapter["lora"]["v"]["b"][2].T)
    config = json.loads((tmp_path / "out/lora/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 4, 8.0, 0.05)
    assert config["target_modules"] == ["q_proj", "k_proj", "v_proj"]
    assert config["base_model_name_or_path"] == "meta-llama/Llama-3.1-8B-Instruct"


def test_an_export_is_not_replaced_unasked(tmp_path):
    adapter = random_adapter(tmp_path)
    write_adapter(tmp_path / "out", adapter, **IDENTITY)
    with pytest.raises(ValueError, match="exists"):
        write_adapter(tmp_path / "out", adapter, **IDENTITY)
    write_adapter(tmp_path / "out", adapter, overwrite=True, **IDENTITY)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("checkpoints/8/_METADATA", {"model": {"checkpoint": "models/smol"}}),
        ("checkpoints/8/_METADATA", {"model_type": "desta25", "qformer_num_hidden_layers": 2, "prompt_size": 4}),
        ("model.safetensors", {"model_type": "llama"}),
        ("notes.txt", None),
    ],
    ids=["run", "checkpoints", "model", "no config"],
)
def test_only_an_older_export_is_ever_replaced(tmp_path, file, config, overwrite):
    kept = tmp_path / "out" / file
    kept.parent.mkdir(parents=True)
    kept.touch()
    if config:
        (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="never replaced: give another folder$"):
        write_adapter(tmp_path / "out", random_adapter(tmp_path), overwrite=overwrite, **IDENTITY)
    assert kept.exists()


# With a language model and an encoder


def test_an_adapter_becomes_a_part_of_the_converted_folder(decoders, whisper, saved, reference, tmp_path):
    convert(decoders["llama"][0], whisper[0], tmp_path / "out", adapter=saved)
    folder = ModelFolder(tmp_path / "out")
    assert folder.parts == ("lm", "encoder", "transcriber", "adapter")
    expected = {"connector": tree.unflatten(connector_tree(reference.perception.connector))}
    restored = folder.restore("adapter", tree.abstract(expected))
    assert_equal(tree.map_with_path(lambda _, leaf: np.asarray(leaf), restored), expected)
    assert folder.adapter_config["placeholder_token"] == "w9"
    assert folder.adapter_config["target_layer_ids"] == [0, 1, 2, 3]  # the reference's for an encoder of 4 layers


def test_an_adapter_for_other_models_is_refused(decoders, whisper, saved, tmp_path):
    with pytest.raises(ValueError) as caught:
        lm = DecoderShape.from_hf(decoders["llama"][1].config.to_dict() | {"hidden_size": 48})
        read_adapter(saved, lm=lm)
    assert "perception.connector.proj.1.weight has shape [32, 32], expected [48, 32]" in str(caught.value)
    with pytest.raises(ValueError) as caught:
        encoder = WhisperShape.from_hf(whisper[1].config.to_dict() | {"d_model": 64})
        read_adapter(saved, encoder=encoder)
    assert "layer_prompts.3 has shape [1, 6, 32], expected [1, 6, 64]" in str(caught.value)


def test_an_adapter_beside_another_model_of_that_shape_is_told_of(decoders, whisper, saved, tmp_path, monkeypatch):
    cached = shutil.copytree(decoders["llama"][0], tmp_path / "models--x" / "snapshots" / "1a")
    monkeypatch.setattr(hub, "_download", lambda name, revision, patterns: str(cached))
    told = f"{saved}: the adapter was trained with some/llm and is put beside other/llm: unless"
    with pytest.warns(UserWarning, match=told):
        convert("other/llm@v1", whisper[0], tmp_path / "out", adapter=saved)


def test_taps_beyond_the_encoder_are_refused(decoders, whisper, reference, tmp_path):
    saved = save_reference(tmp_path / "saved", reference, target_layer_ids=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="tap_layers: 4 is beyond the encoder"):
        convert(decoders["llama"][0], whisper[0], tmp_path / "out", adapter=saved)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("taps", [[1, 0, 2, 3], [0, 0, 1, 2], [-4, -3, -2, -1], ["0", "1", "2", "3"]])
def test_taps_that_do_not_rise_from_0_are_refused(decoders, whisper, reference, tmp_path, taps):
    saved = save_reference(tmp_path / "saved", reference, target_layer_ids=taps)
    with pytest.raises(ValueError, match="config.json: target_layer_ids.* must be whole numbers from 0 that rise"):
        convert(decoders["llama"][0], whisper[0], tmp_path / "out", adapter=saved)


def test_without_taps_the_prompts_are_held_against_the_references(whisper, saved):
    edit_config = json.loads((saved / "config.json").read_text()) | {"target_layer_ids": None}
    (saved / "config.json").write_text(json.dumps(edit_config))
    edit(saved, lambda weights: weights.pop("perception.connector.layer_prompts.3"))
    encoder = WhisperShape.from_hf(whisper[1].config.to_dict())
    assert encoder.encoder_layers == 4
    with pytest.raises(ValueError, match="layer_prompts.3"):
        read_adapter(saved, encoder=encoder)


# Bad input


def edit(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_missing_misshapen_and_unknown_tensors_are_named(saved):
    root = "perception.connector"

    def spoil(weights):
        del weights[f"{root}.qformer.layer.1.crossattention.self.key.bias"]
        weights[f"{root}.layer_weights"] = torch.zeros(PROMPTS, 3)
        weights[f"{root}.qformer.layer.2.output.dense.bias"] = torch.zeros(WIDTH)
        weights["llm_model.model.norm.weight"] = torch.zeros(LM_WIDTH)

    edit(saved, spoil)
    with pytest.raises(ValueError) as caught:
        read_adapter(saved)
    for text in (
        "qformer.layer.1.crossattention.self.key.bias is missing",
        "layer_weights has shape [6, 3], expected [6, 4]",
        "qformer.layer.2.output.dense.bias is not known",
        "llm_model.model.norm.weight is not known",
    ):
        assert text in str(caught.value)


def test_the_voice_activity_detector_that_the_reference_saves_along_is_left_out(saved):
    before, _ = read_adapter(saved)
    edit(saved, lambda weights: weights.update({"vad_model._model.decoder.rnn.bias_hh": torch.zeros(512)}))
    assert_equal(read_adapter(saved)[0], before)


def test_lora_that_the_config_promises_must_be_there(tmp_path, reference):
    saved = save_reference(tmp_path / "saved", reference, use_lora=True)
    with pytest.raises(ValueError, match="has use_lora, but .*lora_A.default.weight"):
        read_adapter(saved)


def test_lora_that_lacks_a_layer_is_named(tmp_path):
    saved = save_reference(tmp_path / "saved", Reference(4), use_lora=True)
    name = "llm_model.model.layers.1.self_attn.k_proj.lora_B.default.weight"
    edit(saved, lambda weights: weights.pop(name))
    with pytest.raises(ValueError, match=f"{name} is missing"):
        read_adapter(saved)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"connector_mode": "orca_hybrid"}, "connector_mode 'orca_hybrid'"),
        ({"prompt_size": "many"}, "prompt_size must be a whole number above 0, not 'many'"),
        ({"qformer_num_hidden_layers": 0}, "qformer_num_hidden_layers must be a whole number"),
        ({"audio_seconds": None}, "audio_seconds must be a whole number above 0, not None"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, reference, change, expected):
    with pytest.raises(ValueError, match=expected):
        read_adapter(save_reference(tmp_path / "saved", reference, **change))


def test_a_config_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="model_type None: an adapter's is 'desta25'"):
        read_adapter(tmp_path)


def test_a_folder_without_config_or_weights_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "bare")
    (tmp_path / "bare/config.json").unlink()
    with pytest.raises(ValueError, match="config.json can't be read"):
        read_adapter(tmp_path / "bare")
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="neither model.safetensors"):
        read_adapter(saved)


def test_a_tree_that_is_no_adapter_is_refused(tmp_path):
    adapter = random_adapter(tmp_path)
    del adapter["connector"]["layers"]["cross"]["q"]["bias"]
    with pytest.raises(ValueError, match="connector.layers.cross.q.bias is missing"):
        write_adapter(tmp_path / "out", adapter, **IDENTITY)
    with pytest.raises(ValueError, match="prompts for 4 taps"):
        write_adapter(tmp_path / "out", random_adapter_again(tmp_path), **IDENTITY | {"tap_layers": (0, 1)})
    with pytest.raises(ValueError, match="dtype 'int8'"):
        write_adapter(tmp_path / "out", random_adapter_again(tmp_path), dtype="int8", **IDENTITY)
    assert not (tmp_path / "out").exists()


def test_an_export_can_be_read_by_whoever_can_read_its_folder(tmp_path):
    write_adapter(tmp_path / "out", random_adapter(tmp_path), **IDENTITY)
    assert len({file.stat().st_mode for file in (tmp_path / "out").iterdir()}) == 1
