"""The connector: a Q-Former that turns tapped encoder layers into soft tokens. The trained part."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from desta_jax.models.attention import MultiHeadAttention
from desta_jax.models.layers import GeluMLP, LayerNorm, Linear, dropout, split_or_none, stack
from desta_jax.sharding import constrain_rows, gather_width
from desta_jax.tree import Tree

BLOCK_EPSILON = 1e-12
MLP_WIDTH = 3072  # whatever the width: the reference leaves BERT's default


class QFormerLayer(nnx.Module):
    """Queries look at one another, then at the encoder's frames, then pass an MLP; norms come after each (BERT).

    No mask anywhere: the reference's BERT runs eagerly and is bidirectional.
    """

    def __init__(self, width: int, heads: int, *, key: Key[Array, ""]):
        attention_key, cross_key, mlp_key = jax.random.split(key, 3)
        self.attention = MultiHeadAttention(width, heads, key_bias=True, key=attention_key)
        self.attention_norm = LayerNorm(width, epsilon=BLOCK_EPSILON)
        self.cross = MultiHeadAttention(width, heads, key_bias=True, key=cross_key)
        self.cross_norm = LayerNorm(width, epsilon=BLOCK_EPSILON)
        self.mlp = GeluMLP(width, MLP_WIDTH, key=mlp_key)
        self.mlp_norm = LayerNorm(width, epsilon=BLOCK_EPSILON)

    def __call__(
        self,
        queries: Float[Array, "batch queries width"],
        frames: Float[Array, "batch frames width"],
        *,
        dropout_rate: float = 0.0,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch queries width"]:
        keys = split_or_none(key, 5)

        def look(attention, memory, weights_key):
            return attention(queries, memory, dropout_rate=dropout_rate, dropout_key=weights_key)

        heard = dropout(look(self.attention, queries, keys[0]), dropout_rate, keys[1])
        queries = self.attention_norm(heard + queries)
        heard = dropout(look(self.cross, frames, keys[2]), dropout_rate, keys[3])
        queries = self.cross_norm(heard + queries)
        return self.mlp_norm(dropout(self.mlp(queries), dropout_rate, keys[4]) + queries)


class Standardize(nnx.Module):
    """(x - mean) * scale with a mean and a scale that are measured once and never trained: `training.standardize`
    puts them in, `fold_frames` takes them out."""

    def __init__(self, width: int):
        self.mean = nnx.Param(jnp.zeros(width))
        self.scale = nnx.Param(jnp.ones(width))

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        mean, scale = (jax.lax.stop_gradient(part[...]).astype(jnp.float32) for part in (self.mean, self.scale))
        return ((x.astype(jnp.float32) - mean) * scale).astype(x.dtype)


class Connector(nnx.Module):
    """One Q-Former for all taps, asked with each tap's own prompts; a weighted sum over taps; a projection.

    The living path of the reference (the loop in its WhisperPerception), with the taps as one batch.
    """

    def __init__(
        self,
        taps: int,
        prompt_size: int,
        width: int,
        heads: int,
        layers: int,
        lm_width: int,
        *,
        standardize: bool = False,
        key: Key[Array, ""],
    ):
        prompts_key, layers_key, proj_key = jax.random.split(key, 3)
        self.prompts = nnx.Param(jax.random.normal(prompts_key, (taps, prompt_size, width)))
        self.tap_weights = nnx.Param(jnp.zeros((prompt_size, taps)))
        self.frames = Standardize(width) if standardize else None
        self.layers = stack(lambda key: QFormerLayer(width, heads, key=key), layers, layers_key)
        self.norm = LayerNorm(width, epsilon=1e-5)
        self.proj = Linear(width, lm_width, key=proj_key)

    def __call__(
        self,
        frames: Float[Array, "clips taps frames width"],
        *,
        dropout_rate: float = 0.0,
        key: Key[Array, ""] | None = None,
        remat: bool = False,
    ) -> Float[Array, "clips queries lm_width"]:
        """Soft tokens; with a key, dropout is on. `remat` computes each layer again in the backward pass."""
        clips, taps, *_ = frames.shape
        prompts = self.prompts.astype(frames.dtype)
        queries = jnp.broadcast_to(prompts, (clips, *prompts.shape)).reshape(clips * taps, *prompts.shape[1:])
        queries = constrain_rows(queries)
        if self.frames is not None:
            frames = self.frames(frames)
        frames = constrain_rows(frames.reshape(clips * taps, *frames.shape[2:]))
        depth = jax.tree.leaves(self.layers)[0].shape[0]

        def run(queries, layer_and_key):
            layer, layer_key = layer_and_key
            layer = gather_width(layer, "layers")
            return constrain_rows(layer(queries, frames, dropout_rate=dropout_rate, key=layer_key)), None

        layer_keys = None if key is None else jax.random.split(key, depth)
        queries, _ = jax.lax.scan(jax.checkpoint(run) if remat else run, queries, (self.layers, layer_keys))

        weights = jax.nn.softmax(self.tap_weights.astype(jnp.float32), axis=-1).astype(frames.dtype)
        mixed = jnp.einsum("ntqd,qt->nqd", queries.reshape(clips, taps, *queries.shape[1:]), weights)
        return self.proj(self.norm(mixed))


def standardize_frames(connector: Tree, mean: Float[Array, " width"], scale: Float[Array, " width"]) -> Tree:
    """A connector's tree that standardises frames first, of one that does not. A trained one computes the same as
    before; `fold_frames` takes it back."""
    return {**_with_memory(connector, 1 / scale, mean), "frames": {"mean": mean, "scale": scale}}


def fold_frames(connector: Tree) -> Tree:
    """A connector's tree without `frames`, as the reference's has none: what they did to the frames, the weights of
    the cross-attention's keys and values do. Without `frames`, the tree itself."""
    if "frames" not in connector:
        return connector
    mean, scale = connector["frames"]["mean"], connector["frames"]["scale"]
    rest = {name: part for name, part in connector.items() if name != "frames"}
    return _with_memory(rest, scale, -mean * scale)


def _with_memory(connector: Tree, scale: Float[Array, " width"], shift: Float[Array, " width"]) -> Tree:
    """The tree whose cross-attention sees x * scale + shift where it saw x."""
    cross = dict(connector["layers"]["cross"])
    for name in ("k", "v"):
        kernel, bias = cross[name]["kernel"], cross[name]["bias"]
        cross[name] = {"kernel": scale[:, None] * kernel, "bias": bias + jnp.dot(shift, kernel, precision="highest")}
    return {**connector, "layers": {**connector["layers"], "cross": cross}}
