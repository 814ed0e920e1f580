"""The shapes of attention that generation takes give what the plain one gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from desta_jax.generation.cache import visible
from desta_jax.models import flash
from desta_jax.models.attention import attend, attend_causally, by_head
from desta_jax.models.qformer import QFormerLayer


@pytest.mark.parametrize("t, s, start", [(1, 128, 5), (32, 32, 0), (40, 40, 0), (96, 128, 7), (256, 256, 0)])
def test_in_blocks_each_query_sees_what_it_saw(t, s, start):
    rng = np.random.default_rng(t)
    queries = jnp.asarray(rng.standard_normal((3, t, 6, 8)), jnp.float32)
    keys, values = (jnp.asarray(rng.standard_normal((3, s, 2, 8)), jnp.float32) for _ in range(2))
    held = jnp.asarray(rng.random((3, s)) < 0.8) & (jnp.arange(s) < start + t)
    mask = visible(held, t, start)
    got = attend_causally(queries, *by_head(keys, values), mask=mask)
    with jax.default_matmul_precision("highest"):
        want = attend(queries, keys, values, mask=mask)
    np.testing.assert_allclose(got, want, atol=2e-6)  # sums of up to 256 products of float32


def test_many_queries_of_the_connector_have_a_gradient():
    """As many as suit the encoder's kernel, which has none."""
    queries = jnp.zeros((1, 256, 128), jnp.bfloat16)
    assert flash.suits(queries.reshape(1, 256, 2, 64), queries.reshape(1, 256, 2, 64))
    layer = QFormerLayer(128, 2, key=jax.random.key(0))
    gradient = jax.grad(lambda x: layer(x, x).astype(jnp.float32).sum())
    assert jax.eval_shape(gradient, queries).shape == queries.shape
