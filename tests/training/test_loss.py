"""The chunked cross-entropy against optax on all logits at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from desta_jax.training.loss import CHUNK, cross_entropy, label_loss


def case(rows, labels, width=16, vocabulary=50, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    hidden = jax.random.normal(keys[0], (rows, labels, width))
    table = jax.random.normal(keys[1], (vocabulary, width))
    wanted = jax.random.randint(keys[2], (rows, labels), -1, vocabulary)
    return hidden, table, wanted


def plain(hidden, table, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(hidden @ table.T, jnp.maximum(labels, 0))
    return jnp.where(labels >= 0, losses, 0).sum()


@pytest.mark.parametrize("labels", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_loss_and_gradient_are_those_of_all_logits(labels):
    hidden, table, wanted = case(3, labels)
    expected, slope = jax.value_and_grad(plain)(hidden, table, wanted)
    loss, gradient = jax.value_and_grad(cross_entropy)(hidden, table, wanted)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)  # float32 sums of up to 400 terms
    np.testing.assert_allclose(gradient, slope, atol=1e-5)
    np.testing.assert_allclose(cross_entropy(hidden, table, wanted), expected, rtol=1e-5)


def test_the_gradient_scales_with_what_comes_after():
    hidden, table, wanted = case(2, 5)
    once = jax.grad(lambda h: cross_entropy(h, table, wanted))(hidden)
    thrice = jax.grad(lambda h: 3 * cross_entropy(h, table, wanted))(hidden)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-6)


def test_no_label_no_loss_no_gradient():
    hidden, table, wanted = case(2, 5)
    loss, gradient = jax.value_and_grad(cross_entropy)(hidden, table, jnp.full_like(wanted, -1))
    assert loss == 0 and (gradient == 0).all()


def test_large_logits_stay_finite():
    hidden, table, wanted = case(1, 4)
    loss, gradient = jax.value_and_grad(cross_entropy)(1e4 * hidden, table, wanted)
    assert jnp.isfinite(loss) and jnp.isfinite(gradient).all()


def test_labels_are_read_where_they_are_predicted():
    hidden, table, _ = case(2, 9)
    positions, labels = jnp.array([[4, 5, 0], [0, 8, 0]]), jnp.array([[3, 7, -1], [2, 9, -1]])
    loss, count = label_loss(hidden, table, positions, labels)
    expected = sum(
        plain(hidden[row, position], table, label)
        for row, position, label in ((0, 4, 3), (0, 5, 7), (1, 0, 2), (1, 8, 9))
    )
    assert count == 4
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_logits_of_all_labels_never_exist_at_once():
    hidden, table, wanted = case(2, 4 * CHUNK, vocabulary=1000)
    compiled = jax.jit(jax.value_and_grad(cross_entropy)).lower(hidden, table, wanted).compile()
    all_logits = 4 * 2 * 4 * CHUNK * 1000
    assert compiled.memory_analysis().temp_size_in_bytes < all_logits
