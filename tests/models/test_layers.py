"""A linear layer in float32, as it is and rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from desta_jax.models.layers import Linear, to_tree, with_tree


@pytest.fixture
def layer():
    return Linear(96, 40, key=jax.random.key(0))


@pytest.fixture
def inputs():
    return jax.random.normal(jax.random.key(1), (3, 5, 96))


def gradients(layer, inputs, precision):
    """Of the sum of squares, for the inputs and the kernel; and the outputs."""

    def loss(inputs, tree):
        outputs = with_tree(layer, tree)(inputs)
        return jnp.square(outputs).sum() / 2, outputs

    with jax.default_matmul_precision(precision):
        (of_inputs, of_tree), outputs = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(inputs, to_tree(layer))
    return of_inputs, of_tree["kernel"], of_tree["bias"], outputs


def rounded(array):
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_a_rounded_product_rounds_what_it_multiplies_and_nothing_else(layer, inputs):
    of_inputs, of_kernel, of_bias, outputs = gradients(layer, inputs, "bfloat16")
    kernel, rows = rounded(layer.kernel[...]), rounded(inputs).reshape(-1, 96)
    wanted = rounded(inputs) @ kernel + np.asarray(layer.bias[...], np.float64)
    np.testing.assert_allclose(outputs, wanted, atol=2e-6)  # float32 sums of 96
    slope = rounded(outputs)  # of half the sum of squares
    np.testing.assert_allclose(of_inputs, slope @ kernel.T, atol=2e-6)
    np.testing.assert_allclose(of_kernel, rows.T @ slope.reshape(-1, 40), atol=2e-5)  # sums of 15, some 10 in size
    np.testing.assert_allclose(of_bias, np.asarray(outputs, np.float64).sum((0, 1)), atol=2e-5)


def test_the_highest_precision_rounds_nothing(layer, inputs):
    *_, outputs = gradients(layer, inputs, "highest")
    exact = np.asarray(inputs, np.float64) @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])
    np.testing.assert_allclose(outputs, exact, atol=2e-6)  # bfloat16 would be 2e-3 off


def test_bfloat16_stays_bfloat16_whatever_the_precision(layer, inputs):
    with jax.default_matmul_precision("bfloat16"):
        assert layer(inputs.astype(jnp.bfloat16)).dtype == jnp.bfloat16
