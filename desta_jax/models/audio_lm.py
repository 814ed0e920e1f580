"""The audio language model: a frozen ear and a frozen tongue, joined by a trained bridge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16, Int32, Key

from desta_jax.audio.mel import log_mel
from desta_jax.batch import Batch
from desta_jax.models.attention import attend, attend_again
from desta_jax.models.decoder import Decoder
from desta_jax.models.layers import split_or_none, stack, to_tree, with_tree
from desta_jax.models.lora import LoRA
from desta_jax.models.qformer import Connector
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.models.whisper import Encoder
from desta_jax.sharding import constrain_rows
from desta_jax.tree import Tree

REMAT = {
    "all": lambda layer: jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable),
    "matmuls": lambda layer: jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "scores": lambda layer: layer,
    "none": lambda layer: layer,
}
"""What the backward pass keeps of a layer; with "scores" its attention keeps none of those by itself."""


@dataclasses.dataclass(frozen=True)
class AudioLM:
    """What the model is; its parameters are two trees given to each call.

    `frozen` = {encoder, lm}, in the compute dtype, never differentiated.
    `adapter` = {connector}, and {lora} where asked, in float32.
    """

    whisper: WhisperShape
    decoder: DecoderShape
    adapter: AdapterShape
    dtype: jnp.dtype = jnp.bfloat16

    def init_adapter(self, key: Key[Array, ""]) -> Tree:
        """A fresh adapter, as the reference's starts; float32."""
        connector_key, lora_key = jax.random.split(key)
        adapter = {"connector": to_tree(self._connector(connector_key))}
        if self.adapter.lora_rank:
            adapter["lora"] = to_tree(self._lora(lora_key))
        return adapter

    def abstract_adapter(self) -> Tree:
        """Shapes of the adapter tree."""
        return jax.eval_shape(self.init_adapter, jax.random.key(0))

    def abstract_frozen(self) -> Tree:
        """Shapes of the frozen tree, in the compute dtype."""
        trees = {"encoder": to_tree(self._abstract(self._encoder)), "lm": to_tree(self._abstract(self._decoder))}
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, self.dtype), trees)

    def encoder(self, frozen: Tree) -> Encoder:
        """The encoder over its arrays in the frozen tree."""
        return with_tree(self._abstract(self._encoder), frozen["encoder"])

    def lm(self, frozen: Tree) -> Decoder:
        """The language model over its arrays in the frozen tree."""
        return with_tree(self._abstract(self._decoder), frozen["lm"])

    def connector(self, adapter: Tree) -> Connector:
        """The connector over its arrays in the adapter tree."""
        return with_tree(self._abstract(self._connector), adapter["connector"])

    def lora(self, adapter: Tree) -> LoRA | None:
        """The stacked LoRA layers over their arrays in the adapter tree, if it has any."""
        return with_tree(self._abstract(self._lora), adapter["lora"]) if self.adapter.lora_rank else None

    def lora_update(self, layer: LoRA, x: Float[Array, "b t d"], key: Key[Array, ""] | None):
        """What one LoRA layer adds to q, k and v."""
        shape = self.adapter
        return layer(x, scale=shape.lora_alpha / shape.lora_rank, dropout_rate=shape.lora_dropout, key=key)

    def taps(self, frozen: Tree, audio: Int16[Array, "clips samples"]) -> Float[Array, "clips taps frames width"]:
        """What the frozen encoder hears; gradients stop here."""
        mel = constrain_rows(log_mel(audio, self.whisper.mels)).astype(self.dtype)
        taps, _ = self.encoder(frozen)(mel, self.adapter.tap_layers)
        return jax.lax.stop_gradient(taps)

    def soft_tokens(
        self,
        adapter: Tree,
        taps: Float[Array, "clips taps frames width"],
        *,
        key: Key[Array, ""] | None = None,
        remat: bool = False,
    ) -> Float[Array, "clips queries lm_width"]:
        """The connector's answer to each clip."""
        return self.connector(adapter)(taps, dropout_rate=self.adapter.dropout, key=key, remat=remat)

    def embed(
        self,
        frozen: Tree,
        tokens: Int32[Array, "rows tokens"],
        soft: Float[Array, "rows soft lm_width"],
        audio_slots: Int32[Array, "rows tokens"],
    ) -> Float[Array, "rows tokens lm_width"]:
        """Token embeddings, with soft tokens where `audio_slots` points at one of the row's."""
        embedded = jnp.take(frozen["lm"]["embed"], tokens, axis=0).astype(self.dtype)
        chosen = jnp.take_along_axis(soft, jnp.maximum(audio_slots, 0)[..., None], axis=1)
        return jnp.where((audio_slots >= 0)[..., None], chosen.astype(self.dtype), embedded)

    def hidden(
        self,
        adapter: Tree,
        frozen: Tree,
        batch: Batch,
        *,
        key: Key[Array, ""] | None = None,
        remat: str = "none",
    ) -> Float[Array, "rows tokens lm_width"]:
        """Hidden states of a batch after the language model's final norm; with a key, dropout is on."""
        connector_key, lora_key = split_or_none(key, 2)
        rows, clips, samples = batch.audio.shape
        taps = self.taps(frozen, batch.audio.reshape(rows * clips, samples))
        soft = self.soft_tokens(adapter, taps, key=connector_key, remat=remat in ("all", "matmuls"))
        soft = soft.reshape(rows, clips * self.adapter.prompt_size, -1)
        embedded = constrain_rows(self.embed(frozen, batch.tokens, soft, batch.audio_slots))
        return self.lm(frozen)(
            embedded,
            batch.positions,
            batch.segments,
            lora=self.lora(adapter),
            lora_update=self.lora_update,
            key=lora_key,
            checkpoint=REMAT[remat],
            attend=attend_again if remat == "scores" else attend,
        )

    def _encoder(self, key: Key[Array, ""]) -> Encoder:
        return Encoder(self.whisper, key=key)

    def _decoder(self, key: Key[Array, ""]) -> Decoder:
        return Decoder(self.decoder, key=key)

    def _connector(self, key: Key[Array, ""]) -> Connector:
        shape = self.adapter
        return Connector(
            len(shape.tap_layers),
            shape.prompt_size,
            self.whisper.width,
            self.whisper.encoder_heads,
            shape.num_layers,
            self.decoder.width,
            standardize=shape.standardize,
            key=key,
        )

    def _lora(self, key: Key[Array, ""]) -> LoRA:
        decoder, rank = self.decoder, self.adapter.lora_rank
        query_width, key_width = decoder.heads * decoder.head_width, decoder.key_heads * decoder.head_width
        return stack(lambda key: LoRA(decoder.width, query_width, key_width, rank, key=key), decoder.layers, key)

    @staticmethod
    def _abstract(make: Callable):
        return jax.eval_shape(make, jax.random.key(0))
