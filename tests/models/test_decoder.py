"""Rotary frequencies and attention against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from desta_jax.models.attention import attend, causal_mask
from desta_jax.models.decoder import frequencies
from desta_jax.models.shapes import DecoderShape

LLAMA31 = {**oracle.LLAMA3_ROPE, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize("rope", [LLAMA31, {"rope_type": "default", "rope_theta": 10000.0}, oracle.LLAMA3_ROPE])
def test_frequencies_are_transformers(rope):
    config = transformers.LlamaConfig(hidden_size=4096, num_attention_heads=32, rope_parameters=rope)
    if rope["rope_type"] == "default":
        expected = 1.0 / 10000.0 ** (torch.arange(0, 128, 2).float() / 128)
    else:
        expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    ours = frequencies(DecoderShape.from_hf(config.to_dict()).rotary, 128)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6)  # float32: a few units in the last place


def test_both_spellings_of_the_rotary_settings_are_read():
    new = {**oracle.DECODER, "model_type": "llama", "rms_norm_eps": 1e-5, "rope_parameters": LLAMA31}
    scaling = {key: value for key, value in LLAMA31.items() if key != "rope_theta"}
    old = {**new, "rope_parameters": None, "rope_theta": LLAMA31["rope_theta"], "rope_scaling": scaling}
    assert DecoderShape.from_hf(new).rotary == DecoderShape.from_hf(old).rotary
    assert DecoderShape.from_hf(new).rotary.factor == 8


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True, "max_window_layers": 1}, "sliding"),
    ],
)
def test_what_is_not_computed_is_an_error(change, named):
    config = {**oracle.DECODER, "model_type": "llama", "rms_norm_eps": 1e-5, **change}
    with pytest.raises(ValueError, match=named):
        DecoderShape.from_hf(config)


def test_grouped_attention_is_pytorchs():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 7, 6, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 7, 3, 8)).astype(np.float32)
    segments = np.array([[1, 1, 1, 2, 2, 0, 0], [1] * 7], np.int32)
    mask = causal_mask(jnp.asarray(segments))
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(x).transpose(1, 2) for x in (q, k, v)),
        attn_mask=torch.tensor(np.asarray(mask))[:, None],
        enable_gqa=True,
    )
    np.testing.assert_allclose(attend(q, k, v, mask=mask), expected.transpose(1, 2).numpy(), atol=1e-6)


def test_padding_attends_to_itself_and_stays_finite():
    mask = causal_mask(jnp.zeros((1, 4), jnp.int32))
    assert mask[0].diagonal().all()
    zeros = jnp.zeros((1, 4, 2, 8))
    value, gradient = jax.value_and_grad(lambda q: attend(q, zeros, zeros, mask=mask).sum())(zeros)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
