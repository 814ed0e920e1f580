"""The whole model against the PyTorch oracle, in float32.

Both sides sum the same float32 products in other orders: a few parts in 10^6 a layer. Losses are held to 1e-5
relative, gradients to 1e-3 of the largest in each tensor, well below what a wrong mask, norm or position does.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch

from desta_jax import tree
from desta_jax.batch import Batch
from desta_jax.weights import names


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_loss_and_gradients_are_the_references(pairs, family):
    pair, batch = pairs(family), oracle.random_batch()
    expected = pair.reference.loss(batch)
    pair.reference.zero_grad()
    expected.backward()
    loss, gradient = pair.gradient(batch)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)

    rules = names.connector_rules(taps=3, prompt_size=5, width=32, layers=2, lm_width=32)
    flat, torch_gradient = tree.flatten(gradient), {k: p.grad.numpy() for k, p in pair.reference.trained().items()}
    for rule in rules:
        ours = rule.outward(np.asarray(flat["connector." + rule.path.removeprefix("connector.")]))
        for name, array in ours.items():
            want = torch_gradient[name]
            # A bias that softmax cancels (keys) has a true gradient of zero: what is left is rounding.
            scale = max(np.abs(want).max(), 1e-3)
            np.testing.assert_allclose(array, want, atol=1e-3 * scale, err_msg=name)


def test_logits_are_the_references_at_every_real_token(llama):
    batch = oracle.random_batch()
    hidden = llama.hidden(batch)
    logits = hidden @ llama.model.lm(llama.frozen).output_table.T
    with torch.no_grad():
        expected = llama.reference.logits(batch).numpy()
    real = batch.segments > 0
    np.testing.assert_allclose(logits[real], expected[real], atol=1e-4 * np.abs(expected).max())


def test_padding_changes_nothing(llama):
    batch = oracle.random_batch()
    noisy = dataclasses.replace(batch, tokens=np.where(batch.segments > 0, batch.tokens, 7))
    assert llama.loss(batch)[0] == llama.loss(noisy)[0]


def test_packed_rows_have_the_loss_of_their_samples_apart(llama):
    apart = oracle.random_batch(rows=2, clips=1, tokens=30)
    together = Batch(
        audio=apart.audio.reshape(1, 2, -1),
        tokens=apart.tokens.reshape(1, -1),
        positions=apart.positions.reshape(1, -1),
        segments=np.where(apart.segments > 0, [[1], [2]], 0).reshape(1, -1).astype(np.int32),
        audio_slots=np.where(apart.audio_slots >= 0, apart.audio_slots + [[0], [5]], -1)
        .reshape(1, -1)
        .astype(np.int32),
        label_positions=(apart.label_positions + [[0], [30]]).reshape(1, -1).astype(np.int32),
        labels=apart.labels.reshape(1, -1),
    )
    loss, count = llama.loss(apart)
    packed, packed_count = llama.loss(together)
    assert count == packed_count
    np.testing.assert_allclose(packed, loss, rtol=2e-6)  # float32 sums in another order


def test_each_remat_gives_the_same_gradients(llama):
    batch, key = oracle.random_batch(), jax.random.key(3)

    def gradient(remat):
        def loss(adapter):
            return jnp.square(llama.model.hidden(adapter, llama.frozen, batch, key=key, remat=remat)).mean()

        return tree.flatten(jax.jit(jax.grad(loss))(llama.adapter))

    plain = gradient("none")
    for remat in ("all", "matmuls", "scores"):
        for path, leaf in gradient(remat).items():
            np.testing.assert_allclose(leaf, plain[path], atol=2e-5 * np.abs(plain[path]).max() + 1e-9, err_msg=path)


def test_dropout_follows_its_key_alone(llama):
    batch = oracle.random_batch()
    one, again, other, none = (
        llama.hidden(batch, k) for k in (jax.random.key(1), jax.random.key(1), jax.random.key(2), None)
    )
    assert (one == again).all()
    assert (one != other).any() and (one != none).any()


def test_only_soft_tokens_hear_the_audio(llama):
    batch = oracle.random_batch()
    deaf = dataclasses.replace(batch, audio=batch.audio[:, :, ::-1].copy())
    before, after = (llama.hidden(b) for b in (batch, deaf))
    silent_row = 2  # has no clip
    assert (before[silent_row] == after[silent_row]).all()
    assert (before[0] != after[0]).any()


def test_lora_adds_its_product_to_the_projections(llama):
    rank, scale = 4, 16.0 / 4
    shape = dataclasses.replace(llama.model.adapter, lora_rank=rank, dropout=0.0)
    model = dataclasses.replace(llama.model, adapter=shape)
    lora = jax.tree.map(
        lambda leaf: 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), model.abstract_adapter()["lora"]
    )
    batch = oracle.random_batch()
    adapted = jax.jit(model.hidden)({**llama.adapter, "lora": lora}, llama.frozen, batch)

    merged = jax.tree.map(lambda x: x, llama.frozen)
    for name, update in lora.items():
        kernel = merged["lm"]["layers"]["attention"][name]["kernel"]
        merged["lm"]["layers"]["attention"][name]["kernel"] = kernel + scale * update["a"] @ update["b"]
    expected = llama.hidden(batch, frozen=merged)
    np.testing.assert_allclose(adapted, expected, atol=1e-4 * float(jnp.abs(expected).max()))
    assert jnp.abs(expected - llama.hidden(batch)).max() > 1e-2


def test_fresh_lora_changes_nothing(llama):
    model = dataclasses.replace(llama.model, adapter=dataclasses.replace(llama.model.adapter, lora_rank=2))
    fresh = model.init_adapter(jax.random.key(0))["lora"]
    batch = oracle.random_batch()
    with_lora = jax.jit(model.hidden)({**llama.adapter, "lora": fresh}, llama.frozen, batch)
    np.testing.assert_allclose(with_lora, llama.hidden(batch), rtol=1e-6, atol=1e-6)  # two compilations of one sum


def test_a_fresh_adapter_starts_as_pytorch_would(llama):
    adapter = tree.flatten(llama.model.init_adapter(jax.random.key(0)))
    assert tree.differences(tree.unflatten(adapter), llama.model.abstract_adapter()) == []
    for path, fan_in in (("connector.layers.mlp.down.kernel", 3072), ("connector.layers.mlp.down.bias", 3072)):
        bound = fan_in**-0.5
        assert np.abs(adapter[path]).max() <= bound
        assert np.std(adapter[path]) == pytest.approx(bound / 3**0.5, rel=0.15)  # 64 biases: 4 standard errors
    assert np.std(adapter["connector.prompts"]) == pytest.approx(1, rel=0.15)
    assert (adapter["connector.tap_weights"] == 0).all()
    assert (adapter["connector.layers.mlp_norm.scale"] == 1).all()
    assert adapter["connector.layers.attention.q.kernel"].dtype == np.float32
