import numpy as np
import pytest
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from desta_jax.models.decoder import frequencies
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape, tap_layers_for

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("layers", "taps"), [(4, (0, 1, 2, 3)), (12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (32, (7, 15, 23, 31))]
)
def test_the_references_taps_by_encoder(layers, taps):
    assert tap_layers_for(layers) == taps


def test_a_tap_beyond_the_encoder_is_an_error_that_names_the_key():
    with pytest.raises(ValueError, match=r"adapter\.tap_layers: 4 is beyond .* 0 to 3"):
        tap_layers_for(4, (0, 4))


@pytest.mark.parametrize("taps", [(1, 0), (1, 1), (-2, -1), ("0", "1"), (0.5, 1)])
def test_taps_rise_from_0(taps):
    with pytest.raises(ValueError, match=r"adapter\.tap_layers: .* must be whole numbers from 0 that rise"):
        tap_layers_for(4, taps)


def test_an_adapter_has_lora_where_its_config_says_that_it_is_used():
    config = {"qformer_num_hidden_layers": 2, "prompt_size": 4, "lora_rank": 8}
    assert AdapterShape.of_reference(config | {"use_lora": True}, 4).lora_rank == 8
    assert AdapterShape.of_reference({**config, "use_lora": True, "lora_rank": None}, 4).lora_rank == 16
    assert AdapterShape.of_reference(config | {"use_lora": False}, 4).lora_rank == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64}},
        {"rope_parameters": LLAMA3 | {"rope_theta": 5e5, "original_max_position_embeddings": 64}},
        {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
        {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64}, "original_max_position_embeddings": 32},
        {  # as someone leaves it who adds the old form to a file that transformers 5 wrote
            "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64},
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        },
    ],
)
def test_rotary_frequencies_are_those_of_transformers(settings):
    """Both compute in float32, so equal to a few of its roundings."""
    config = LLAMA | settings
    shape = DecoderShape.from_hf(config)
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig.from_dict(dict(config))).inv_freq
    np.testing.assert_allclose(frequencies(shape.rotary, shape.head_width), theirs.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "by type of layer"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}}, "type 'yarn'"),
        ({"vocab_size": "64"}, "vocab_size must be a whole number above 0, not '64'"),
        ({"num_attention_heads": None}, "num_attention_heads must be a whole number above 0, not None"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
    ],
)
def test_what_is_not_computed_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DecoderShape.from_hf(LLAMA | settings)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (transformers.LlamaConfig, {}),
        (transformers.Qwen2Config, {"use_sliding_window": True, "max_window_layers": 2}),
        (transformers.Qwen3Config, {}),
        (transformers.Qwen3Config, {"head_dim": 16, "hidden_act": "swish"}),
    ],
)
def test_what_a_config_leaves_out_is_what_transformers_takes(family, settings):
    config = LLAMA | settings | {"model_type": family.model_type}
    theirs, ours = family.from_dict(dict(config)), DecoderShape.from_hf(config)
    width = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert (ours.epsilon, ours.head_width, ours.tied) == (theirs.rms_norm_eps, width, theirs.tie_word_embeddings)


def test_an_encoder_the_reference_does_not_know_needs_taps():
    with pytest.raises(ValueError, match=r"adapter\.tap_layers.*set them"):
        tap_layers_for(5)
    assert tap_layers_for(5, (1, 4)) == (1, 4)


def test_another_encoder_is_an_error():
    with pytest.raises(ValueError, match="wav2vec2"):
        WhisperShape.from_hf({"model_type": "wav2vec2"})
