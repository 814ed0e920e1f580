"""What the planned step is given, and how it lies on the chips."""

import jax
import pytest

from desta_jax import sharding
from desta_jax.plan.program import arguments, bytes_by_part, whole_leaves
from desta_jax.plan.shapes import find_models, find_work
from desta_jax.training.run import make_model

WIDTH, MLP, LAYERS, VOCABULARY, KEYS = 64, 128, 2, 256, 32


@pytest.fixture
def step(micro_config):
    models = find_models(micro_config)
    work = find_work(micro_config, models)
    return micro_config, make_model(micro_config, models), work.shapes, work.steps


def test_bytes_of_the_language_model_by_hand(step):
    parts = bytes_by_part(*step, sharding.make_mesh(devices=jax.devices()[:1]))
    attention = 2 * WIDTH * WIDTH + 2 * WIDTH * KEYS
    layer = attention + 3 * WIDTH * MLP + 2 * WIDTH
    assert parts["lm"] == 2 * (LAYERS * layer + 2 * VOCABULARY * WIDTH + WIDTH)  # bfloat16
    rows, audio, tokens, labels = 8, 2 * 16000, 64, 64  # 56 labels at most, in steps of 16
    assert parts["batch"] == rows * (2 * audio + 4 * 4 * tokens + 2 * 4 * labels)
    assert 0 <= parts["optimizer"] - 2 * parts["adapter"] < 100  # two moments, and counters


def test_a_part_of_the_bytes_lies_on_each_chip(step):
    one = bytes_by_part(*step, sharding.make_mesh(devices=jax.devices()[:1]))
    mesh = sharding.make_mesh(1, 8, 1)
    eight = bytes_by_part(*step, mesh)
    assert eight["batch"] * 8 == one["batch"]
    norms = 2 * (LAYERS * 2 * WIDTH + WIDTH)
    assert eight["lm"] == (one["lm"] - norms) / 8 + norms
    state, frozen, _ = arguments(*step, mesh)
    real = jax.tree.map(lambda leaf: jax.device_put(jax.numpy.zeros(leaf.shape, leaf.dtype), leaf.sharding), frozen)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(real["encoder"]))
    assert eight["encoder"] == held


def test_large_leaves_that_are_not_cut_are_named(step):
    _, model, _, _ = step
    assert "encoder.positions" in whole_leaves(model, sharding.make_mesh(1, 8, 1), least=1000)
    assert "lm.embed" not in whole_leaves(model, sharding.make_mesh(1, 8, 1), least=1000)
    assert "lm.embed" in whole_leaves(model, sharding.make_mesh(8, 1, 1), least=1000)
