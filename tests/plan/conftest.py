"""Compiled programs kept as text, and a run of micro models that have names but no weights."""

import importlib.util
import json
import pathlib

import pytest

from desta_jax.config import make_config
from desta_jax.plan.network import Network
from desta_jax.plan.topology import parse_topology

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not here")
HLO = pathlib.Path(__file__).parent / "hlo"
LLM = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
}
WHISPER = {
    "model_type": "whisper",
    "num_mel_bins": 80,
    "d_model": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "max_source_positions": 1500,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 128,
    "max_target_positions": 448,
    "vocab_size": 256,
}


@pytest.fixture
def program():
    """A program that the TPU compiler wrote: three layers tanh(x w), w [1024, 1024] sharded over the rows of w.

    gather_v5e_4 is the sum of what comes out; slices_2xv5e_4 its gradient by w, over two slices. The
    others are cut from the paper's step: async_gather_v5e_4 gathers weights while a product of others goes on,
    fused_scatter_v5p_8 sums a gradient, flash_attend_v5e_16 is the encoder's attention.
    """
    return lambda name: (HLO / f"{name}.txt").read_text()


@pytest.fixture
def ring():
    """A network of slices of four v5e chips in a square, all along fsdp."""

    def make(name="v5e-4"):
        topology = parse_topology(name)
        square = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))
        places = [(number, *place) for number in range(topology.slices) for place in square]
        return Network(topology, {"data": topology.slices, "fsdp": 4, "tensor": 1}, places)

    return make


@pytest.fixture
def micro(tmp_path):
    """The changes that make a micro run."""
    for name, settings in (("llm", LLM), ("encoder", WHISPER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
    return {
        "model.llm": str(tmp_path / "llm"),
        "model.encoder": str(tmp_path / "encoder"),
        "adapter.num_layers": 1,
        "adapter.prompt_size": 8,
        "adapter.tap_layers": (0, 1),
        "data.max_length": 64,
        "data.audio_seconds": 2,
        "train.batch_size": 8,
        "train.steps": 864,
    }


@pytest.fixture
def micro_config(micro):
    return make_config(micro)
