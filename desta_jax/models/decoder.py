"""The language model: Llama 3, Qwen2.5 and Qwen3 decoders."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from desta_jax.models import attention
from desta_jax.models.layers import Linear, RMSNorm, stack
from desta_jax.models.shapes import DecoderShape, Rotary
from desta_jax.sharding import constrain_rows, gather_width

Rotation = tuple[Float[Array, "b t c"], Float[Array, "b t c"]]
LoRAUpdate = Callable[[Float[Array, "b t d"]], tuple[Array, Array, Array]]


class SelfAttention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, shape: DecoderShape, *, key: Key[Array, ""]):
        q_key, k_key, v_key, o_key = jax.random.split(key, 4)
        query_width, key_width = shape.heads * shape.head_width, shape.key_heads * shape.head_width
        self.q = Linear(shape.width, query_width, bias=shape.attention_bias, key=q_key)
        self.k = Linear(shape.width, key_width, bias=shape.attention_bias, key=k_key)
        self.v = Linear(shape.width, key_width, bias=shape.attention_bias, key=v_key)
        self.o = Linear(query_width, shape.width, bias=False, key=o_key)
        self.q_norm = RMSNorm(shape.head_width, epsilon=shape.epsilon) if shape.query_norm else None
        self.k_norm = RMSNorm(shape.head_width, epsilon=shape.epsilon) if shape.query_norm else None
        self.head_width = shape.head_width

    def project(
        self, x: Float[Array, "b t d"], rotation: Rotation, lora: LoRAUpdate | None = None
    ) -> tuple[Float[Array, "b t h c"], Float[Array, "b t k c"], Float[Array, "b t k c"]]:
        """Rotated queries and keys, and values, by head."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        if lora is not None:
            q, k, v = (base + update for base, update in zip((q, k, v), lora(x)))
        q, k, v = (part.reshape(*part.shape[:-1], -1, self.head_width) for part in (q, k, v))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, rotation), rotate(k, rotation), v

    def output(self, mixed: Float[Array, "b t h c"]) -> Float[Array, "b t d"]:
        """Heads back to the residual stream."""
        return self.o(mixed.reshape(*mixed.shape[:-2], -1))


class GatedMLP(nnx.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, width: int, mlp_width: int, *, key: Key[Array, ""]):
        gate_key, up_key, down_key = jax.random.split(key, 3)
        self.gate = Linear(width, mlp_width, bias=False, key=gate_key)
        self.up = Linear(width, mlp_width, bias=False, key=up_key)
        self.down = Linear(mlp_width, width, bias=False, key=down_key)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class DecoderLayer(nnx.Module):
    """Pre-norm attention, then a gated MLP.

    `mix` is how queries meet keys and values: over the whole sequence in training, over a cache in generation. `keep`
    takes the tokens (axis 1) that are asked for: the others give their keys and values, and go no further.
    """

    def __init__(self, shape: DecoderShape, *, key: Key[Array, ""]):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = RMSNorm(shape.width, epsilon=shape.epsilon)
        self.attention = SelfAttention(shape, key=attention_key)
        self.mlp_norm = RMSNorm(shape.width, epsilon=shape.epsilon)
        self.mlp = GatedMLP(shape.width, shape.mlp_width, key=mlp_key)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        rotation: Rotation,
        mix: Callable[[Array, Array, Array], Float[Array, "b t h c"]],
        lora: LoRAUpdate | None = None,
        keep: Callable[[Array], Array] = lambda tokens: tokens,
    ) -> Float[Array, "b kept d"]:
        queries, keys, values = self.attention.project(self.attention_norm(x), rotation, lora)
        x = keep(x) + self.attention.output(mix(keep(queries), keys, values))
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nnx.Module):
    """Embeddings, blocks, final norm, output head (the embeddings themselves where they are tied)."""

    def __init__(self, shape: DecoderShape, *, key: Key[Array, ""]):
        embed_key, layers_key, head_key = jax.random.split(key, 3)
        table = (shape.vocabulary, shape.width)
        self.embed = nnx.Param(0.02 * jax.random.normal(embed_key, table))
        self.layers = stack(lambda key: DecoderLayer(shape, key=key), shape.layers, layers_key)
        self.norm = RMSNorm(shape.width, epsilon=shape.epsilon)
        self.head = None if shape.tied else nnx.Param(0.02 * jax.random.normal(head_key, table))
        self.rotary, self.head_width = shape.rotary, shape.head_width

    def __call__(
        self,
        x: Float[Array, "b t d"],
        positions: Int32[Array, "b t"],
        segments: Int32[Array, "b t"],
        *,
        lora: nnx.Module | None = None,
        lora_update: Callable[..., tuple[Array, Array, Array]] | None = None,
        key: Key[Array, ""] | None = None,
        checkpoint: Callable[[Callable], Callable] = lambda layer: layer,
        attend: Callable[..., Float[Array, "b t h c"]] = attention.attend,
    ) -> Float[Array, "b t d"]:
        """Hidden states after the final norm.

        Args:
            x: embeddings.
            positions: rotary positions.
            segments: tokens see their own segment only, and only backwards.
            lora: stacked LoRA layers; `lora_update(layer, x, key)` computes one's updates.
            key: of LoRA's dropout.
            checkpoint: wraps a layer to say what the backward pass keeps of it.
            attend: takes queries, keys, values and the mask of which token sees which.
        """
        rotation = rotation_of(positions, self.rotary, self.head_width, x.dtype)
        mask = attention.causal_mask(segments)

        def run(x, scanned):
            layer, lora_layer, layer_key = scanned
            update = None if lora_layer is None else lambda x: lora_update(lora_layer, x, layer_key)
            x = gather_width(layer, "layers")(x, rotation, lambda q, k, v: attend(q, k, v, mask=mask), update)
            return constrain_rows(x), None

        depth = jax.tree.leaves(self.layers)[0].shape[0]
        keys = None if key is None or lora is None else jax.random.split(key, depth)
        x, _ = jax.lax.scan(checkpoint(run), x, (self.layers, lora, keys))
        return self.norm(x)

    @property
    def output_table(self) -> Float[Array, "vocabulary width"]:
        """logits = hidden @ output_table.T"""
        return (self.embed if self.head is None else self.head)[...]


def rotation_of(positions: Int32[Array, "b t"], rotary: Rotary, head_width: int, dtype) -> Rotation:
    """Cosines and sines of each position's angles, computed in float32 as transformers does."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(rotary, head_width)
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def frequencies(rotary: Rotary, head_width: int) -> Float[np.ndarray, "half"]:
    """Radians a position for each rotary pair.

    With a factor above 1, Llama 3's scaling: long wavelengths are stretched by the factor, short ones kept, those
    between blended (transformers' `_compute_llama3_parameters`).
    """
    inverse = 1.0 / rotary.theta ** (np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width))
    inverse = inverse.astype(np.float32)
    if rotary.factor == 1:
        return inverse
    wavelengths = 2 * np.pi / inverse
    low, high = rotary.low_frequency_factor, rotary.high_frequency_factor
    kept = np.clip((rotary.original_positions / wavelengths - low) / (high - low), 0, 1)
    return ((1 - kept) * inverse / rotary.factor + kept * inverse).astype(np.float32)


def rotate(x: Float[Array, "b t h c"], rotation: Rotation) -> Float[Array, "b t h c"]:
    """Turns each pair (i, i + c/2) by its angle, as in Hugging Face's layout of the weights.

    The halves are swapped by reversing an axis of two: compilers fuse that with what comes before and after, where they
    write two concatenated halves to memory first.
    """
    cos, sin = (part[:, :, None, None, :] for part in rotation)
    halves = x.reshape(*x.shape[:-1], 2, -1)
    turned = halves * cos + halves[..., ::-1, :] * jnp.concatenate([-sin, sin], axis=-2)
    return turned.reshape(x.shape)
