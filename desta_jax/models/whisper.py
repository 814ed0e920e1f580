"""The Whisper encoder, read from the inside: hidden states of chosen layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from desta_jax.models.attention import MultiHeadAttention
from desta_jax.models.layers import Conv1d, GeluMLP, LayerNorm, stack
from desta_jax.models.shapes import WhisperShape
from desta_jax.sharding import constrain_rows, gather_width

EPSILON = 1e-5


class EncoderLayer(nnx.Module):
    """Pre-norm self-attention over all frames, then an MLP."""

    def __init__(self, width: int, heads: int, mlp_width: int, *, key: Key[Array, ""]):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = LayerNorm(width, epsilon=EPSILON)
        self.attention = MultiHeadAttention(width, heads, key_bias=False, key=attention_key)
        self.mlp_norm = LayerNorm(width, epsilon=EPSILON)
        self.mlp = GeluMLP(width, mlp_width, key=mlp_key)

    def __call__(self, x: Float[Array, "clips frames width"]) -> Float[Array, "clips frames width"]:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, forward_only=True)
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nnx.Module):
    """Two convolutions, a position table and the blocks (Radford et al. 2022; transformers' WhisperEncoder)."""

    def __init__(self, shape: WhisperShape, *, key: Key[Array, ""]):
        conv1_key, conv2_key, layers_key = jax.random.split(key, 3)
        width, heads, mlp_width = shape.width, shape.encoder_heads, shape.encoder_mlp_width
        self.conv1 = Conv1d(shape.mels, width, stride=1, key=conv1_key)
        self.conv2 = Conv1d(width, width, stride=2, key=conv2_key)
        self.positions = nnx.Param(jnp.zeros((shape.max_frames, width)))
        self.layers = stack(
            lambda key: EncoderLayer(width, heads, mlp_width, key=key), shape.encoder_layers, layers_key
        )
        self.norm = LayerNorm(width, epsilon=EPSILON)

    def __call__(
        self, mel: Float[Array, "clips mel_frames mels"], tap_layers: tuple[int, ...], *, all_layers: bool = False
    ) -> tuple[Float[Array, "clips taps frames width"], Float[Array, "clips frames width"]]:
        """The residual stream after each tapped layer, and after the last layer that was run.

        Layers beyond the last tap are left out unless `all_layers`. The final norm is not applied: the connector
        never sees it; Whisper's own decoder does (`self.norm`).
        """
        x = jax.nn.gelu(self.conv1(mel), approximate=False)
        x = jax.nn.gelu(self.conv2(x), approximate=False)
        x = constrain_rows(x + self.positions[: x.shape[1]].astype(x.dtype))
        depth = jax.tree.leaves(self.layers)[0].shape[0] if all_layers else tap_layers[-1] + 1
        layers = jax.tree.map(lambda array: array[:depth], self.layers)

        # Each layer writes its output where the next tap goes; the tap itself writes there last.
        # Layers after the last tap write to one place more, which is dropped.
        slots = np.searchsorted(tap_layers, np.arange(depth)).astype(np.int32)
        taps = constrain_rows(jnp.zeros((x.shape[0], slots[-1] + 1, *x.shape[1:]), x.dtype))

        def run(carry, layer_and_slot):
            x, taps = carry
            layer, slot = layer_and_slot
            x = constrain_rows(gather_width(layer, "layers")(x))
            return (x, jax.lax.dynamic_update_index_in_dim(taps, x, slot, axis=1)), None

        (x, taps), _ = jax.lax.scan(run, (x, taps), (layers, slots))
        return taps[:, : len(tap_layers)], x
