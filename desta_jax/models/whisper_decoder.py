"""The Whisper decoder: what its encoder hears, as text."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from desta_jax.models.attention import MultiHeadAttention, attend_by_head, by_head
from desta_jax.models.layers import GeluMLP, LayerNorm, stack
from desta_jax.models.shapes import WhisperShape
from desta_jax.models.whisper import EPSILON

Memory = tuple[Float[Array, "b h c s"], Float[Array, "b h s c"]]  # as `by_head` lays them


class WhisperDecoderLayer(nnx.Module):
    """Pre-norm self-attention, attention to the encoder's frames, then an MLP.

    `mix` is how queries meet the keys and values of the text: in generation, over a cache.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, *, key: Key[Array, ""]):
        attention_key, cross_key, mlp_key = jax.random.split(key, 3)
        self.attention_norm = LayerNorm(width, epsilon=EPSILON)
        self.attention = MultiHeadAttention(width, heads, key_bias=False, key=attention_key)
        self.cross_norm = LayerNorm(width, epsilon=EPSILON)
        self.cross = MultiHeadAttention(width, heads, key_bias=False, key=cross_key)
        self.mlp_norm = LayerNorm(width, epsilon=EPSILON)
        self.mlp = GeluMLP(width, mlp_width, key=mlp_key)

    def __call__(
        self, x: Float[Array, "b t d"], memory: Memory, mix: Callable[[Array, Array, Array], Float[Array, "b t h c"]]
    ) -> Float[Array, "b t d"]:
        normed = self.attention_norm(x)
        keys, values = self.attention.project_memory(normed)
        mixed = mix(self.attention.split(self.attention.q(normed)), keys, values)
        x = x + self.attention.o(mixed.reshape(x.shape))
        heard = attend_by_head(self.cross.split(self.cross.q(self.cross_norm(x))), *memory)
        x = x + self.cross.o(heard.reshape(x.shape))
        return x + self.mlp(self.mlp_norm(x))

    def remember(self, frames: Float[Array, "b s d"]) -> Memory:
        """Keys and values of the encoder's frames: computed once, looked at by every token."""
        return by_head(*self.cross.project_memory(frames))


class WhisperDecoder(nnx.Module):
    """Token and position embeddings, the blocks, a final norm; the embeddings are also the output head.

    Radford et al. 2022; transformers' WhisperDecoder. It is run layer by layer: see generation/transcribe.py.
    """

    def __init__(self, shape: WhisperShape, *, key: Key[Array, ""]):
        embed_key, layers_key = jax.random.split(key)
        width, heads, mlp_width = shape.width, shape.decoder_heads, shape.decoder_mlp_width
        self.embed = nnx.Param(0.02 * jax.random.normal(embed_key, (shape.vocabulary, width)))
        self.positions = nnx.Param(jnp.zeros((shape.max_tokens, width)))
        self.layers = stack(
            lambda key: WhisperDecoderLayer(width, heads, mlp_width, key=key), shape.decoder_layers, layers_key
        )
        self.norm = LayerNorm(width, epsilon=EPSILON)
