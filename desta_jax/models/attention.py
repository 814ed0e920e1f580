"""The one door to every attention kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, Key

from desta_jax.models import flash
from desta_jax.models.layers import Linear, dropout


def attend(
    queries: Float[Array, "b t h c"],
    keys: Float[Array, "b s k c"],
    values: Float[Array, "b s k c"],
    *,
    mask: Bool[Array, "b t s"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    forward_only: bool = False,
) -> Float[Array, "b t h c"]:
    """Scaled dot-product attention; heads may share keys and values in groups of h / k.

    Scores and softmax are float32, the products take the inputs' dtype. Where `mask` is False a query does not look;
    each query must look somewhere. What is `forward_only` has no gradient, and may take a kernel.
    """
    if forward_only and mask is None and not dropout_rate and flash.suits(queries, keys):
        return jax.lax.platform_dependent(queries, keys, values, tpu=flash.flash_attend, default=_attend)
    return _attend(queries, keys, values, mask, dropout_rate, dropout_key)


def _attend(queries, keys, values, mask=None, dropout_rate=0.0, dropout_key=None):
    b, t, h, c = queries.shape
    groups = h // keys.shape[2]
    grouped = queries.reshape(b, t, keys.shape[2], groups, c)
    scores = jnp.einsum("btkgc,bskc->bkgts", grouped, keys, preferred_element_type=jnp.float32) * c**-0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_key)
    mixed = jnp.einsum("bkgts,bskc->btkgc", weights.astype(values.dtype), values)
    return mixed.reshape(b, t, h, c)


def attend_by_head(
    queries: Float[Array, "b t h c"],
    keys: Float[Array, "b k c s"],
    values: Float[Array, "b k s c"],
    *,
    mask: Bool[Array, "b t s"] | None = None,
) -> Float[Array, "b t h c"]:
    """As `attend`, over keys and values that lie `by_head`: what many steps of generation look at, one token at a time.

    In any other order a CPU lays all of them out anew for each token, which takes up to ten times as long as reading
    them; and it reads them once, not once for each query of a group, where the group's queries are the rows of one
    matrix.
    """
    b, t, h, c = queries.shape
    heads, length = values.shape[1:3]
    rows = jnp.moveaxis(queries.reshape(b, t, heads, -1, c), 1, 3).reshape(b, heads, -1, c)
    scores = jnp.einsum("bkrc,bkcs->bkrs", rows, keys, preferred_element_type=jnp.float32) * c**-0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores.reshape(b, heads, -1, t, length), -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).reshape(b, heads, -1, length).astype(values.dtype)
    mixed = jnp.einsum("bkrs,bksc->bkrc", weights, values).reshape(b, heads, -1, t, c)
    return jnp.moveaxis(mixed, 3, 1).reshape(b, t, h, c)


def attend_causally(
    queries: Float[Array, "b t h c"],
    keys: Float[Array, "b k c s"],
    values: Float[Array, "b k s c"],
    *,
    mask: Bool[Array, "b t s"],
) -> Float[Array, "b t h c"]:
    """As `attend_by_head`, for queries that look at nothing after themselves and stand among the keys, with room for
    those behind them: query i of t at most at key s - t + i.

    What none of a block of queries can see is not computed for them: with four blocks, up to three eighths.
    """
    t, s = mask.shape[1:]
    size = max(-(-t // 4), 32)
    parts = []
    for start in range(0, t, size):
        stop = min(start + size, t)
        seen = s - t + stop
        near = mask[:, start:stop, :seen]
        parts.append(attend_by_head(queries[:, start:stop], keys[..., :seen], values[:, :, :seen], mask=near))
    return jnp.concatenate(parts, axis=1)


@jax.checkpoint
def attend_again(
    queries: Float[Array, "b t h c"],
    keys: Float[Array, "b t k c"],
    values: Float[Array, "b t k c"],
    *,
    mask: Bool[Array, "b t t"],
) -> Float[Array, "b t h c"]:
    """As `attend` with a causal mask, in blocks; the backward pass computes the scores again.

    On a CPU, over packed rows of 384 tokens, forward and backward take half the time of `attend`'s.
    """
    return attend_causally(queries, *by_head(keys, values), mask=mask)


def by_head(
    keys: Float[Array, "b s k c"], values: Float[Array, "b s k c"]
) -> tuple[Float[Array, "b k c s"], Float[Array, "b k s c"]]:
    """Keys and values in the order that `attend_by_head` takes: what each product sums over is not innermost."""
    return jnp.moveaxis(keys, 1, 3), jnp.swapaxes(values, 1, 2)


def causal_mask(segments: Int32[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Each token sees the tokens of its own segment up to itself (padding, segment 0, sees padding)."""
    time = jnp.arange(segments.shape[1])
    return (segments[:, :, None] == segments[:, None, :]) & (time[:, None] >= time[None, :])


class MultiHeadAttention(nnx.Module):
    """Attention with biases, as in Whisper (no bias on the keys) and in the Q-Former (a bias there too)."""

    def __init__(self, width: int, heads: int, *, key_bias: bool, key: Key[Array, ""]):
        q_key, k_key, v_key, o_key = jax.random.split(key, 4)
        self.q = Linear(width, width, key=q_key)
        self.k = Linear(width, width, bias=key_bias, key=k_key)
        self.v = Linear(width, width, key=v_key)
        self.o = Linear(width, width, key=o_key)
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "b t d"],
        memory: Float[Array, "b s d"],
        *,
        dropout_rate: float = 0.0,
        dropout_key: Key[Array, ""] | None = None,
        forward_only: bool = False,
    ) -> Float[Array, "b t d"]:
        """x looks at memory (itself, for self-attention), all of it."""
        keys, values = self.project_memory(memory)
        mixed = attend(
            self.split(self.q(x)),
            keys,
            values,
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
            forward_only=forward_only,
        )
        return self.o(mixed.reshape(x.shape))

    def project_memory(self, memory: Float[Array, "b s d"]) -> tuple[Float[Array, "b s h c"], Float[Array, "b s h c"]]:
        """Keys and values, by head."""
        return self.split(self.k(memory)), self.split(self.v(memory))

    def split(self, x: Float[Array, "b t d"]) -> Float[Array, "b t h c"]:
        """By head."""
        return x.reshape(*x.shape[:-1], self.heads, -1)
