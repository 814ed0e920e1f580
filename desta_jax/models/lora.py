"""Low-rank updates (LoRA, arXiv 2106.09685) of a decoder's query, key and value projections."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from desta_jax.models.layers import dropout


class LowRank(nnx.Module):
    """x A B: A drawn as PEFT's default, B zero, so that training starts from the untouched decoder."""

    def __init__(self, inputs: int, outputs: int, rank: int, *, key: Key[Array, ""]):
        bound = inputs**-0.5
        self.a = nnx.Param(jax.random.uniform(key, (inputs, rank), minval=-bound, maxval=bound))
        self.b = nnx.Param(jnp.zeros((rank, outputs)))

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return (x @ self.a.astype(x.dtype)) @ self.b.astype(x.dtype)


class LoRA(nnx.Module):
    """The updates of one decoder layer."""

    def __init__(self, width: int, query_width: int, key_width: int, rank: int, *, key: Key[Array, ""]):
        q_key, k_key, v_key = jax.random.split(key, 3)
        self.q = LowRank(width, query_width, rank, key=q_key)
        self.k = LowRank(width, key_width, rank, key=k_key)
        self.v = LowRank(width, key_width, rank, key=v_key)

    def __call__(
        self, x: Float[Array, "*batch width"], *, scale: float, dropout_rate: float, key: Key[Array, ""] | None
    ) -> tuple[Float[Array, "*batch q"], Float[Array, "*batch k"], Float[Array, "*batch k"]]:
        """What to add to q, k and v; each sees its own dropout of x, as PEFT's layers do."""
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        return tuple(scale * update(dropout(x, dropout_rate, k)) for update, k in zip((self.q, self.k, self.v), keys))
