"""The language model as it speaks: it reads a prompt into a cache, then says one token after the other."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from desta_jax.generation import cache as kv
from desta_jax.generation.cache import Cache
from desta_jax.generation.sampling import Chooser
from desta_jax.models.attention import attend_causally
from desta_jax.models.decoder import DecoderLayer, rotation_of
from desta_jax.models.layers import RMSNorm
from desta_jax.models.shapes import DecoderShape
from desta_jax.sharding import constrain_rows

NOTHING = -1  # in the tokens of a row that has ended
CHUNK = 32  # tokens said between two looks at them


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A decoder with its layers apart.

    Training scans over stacked layers. On a CPU that copies each layer's weights out of the stack before every
    matmul, which doubles what decoding reads; generation takes the layers one by one.
    """

    layers: list[DecoderLayer]
    embed: Float[Array, "v d"]
    norm: RMSNorm
    head: Float[Array, "v d"] | None
    shape: DecoderShape = dataclasses.field(metadata={"static": True})

    def __call__(
        self,
        x: Float[Array, "b t d"],
        present: Bool[Array, "b t"],
        cache: Cache,
        column: Int32[Array, ""],
        wanted: Int32[Array, "b 1"] | None = None,
    ) -> tuple[Float[Array, "b wanted d"], Cache]:
        """Hidden states before the final norm, and the cache with these tokens written from `column` on.

        Args:
            x: embeddings; anything where not `present`.
            present: where a token of the row stands. Each sees the row's tokens up to itself.
            wanted: of each row, the one token whose hidden state is asked for (the last layer computes no other); None
                for all of them.
        """
        count = cache.held.sum(axis=1, keepdims=True)
        positions = count + jnp.maximum(jnp.cumsum(present, axis=1) - 1, 0)
        rotation = rotation_of(positions, self.shape.rotary, self.shape.head_width, x.dtype)
        held = kv.hold(cache, present, column)
        mask = kv.visible(held, x.shape[1], column)
        written = []

        keeps = [_all_of] * len(self.layers)
        if wanted is not None:
            keeps[-1] = functools.partial(_take, columns=wanted)

        for layer, keep, keys, values in zip(self.layers, keeps, cache.keys, cache.values):

            def mix(queries, new_keys, new_values, keep=keep, keys=keys, values=values):
                written.append(kv.write(keys, values, new_keys, new_values, column))
                return attend_causally(queries, *written[-1], mask=keep(mask))

            x = layer(x, rotation, mix, keep=keep)
        keys, values = zip(*written)
        return x, kv.constrain(Cache([*keys], [*values], held))

    def logits(self, hidden: Float[Array, "b d"]) -> Float[Array, "b v"]:
        """Scores of the next token, float32."""
        table = self.embed if self.head is None else self.head
        return jnp.einsum("bd,vd->bv", self.norm(hidden), table).astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Speech:
    """A batch of answers under way."""

    cache: Cache
    column: Int32[Array, ""]
    """Where the next token is written."""
    token: Int32[Array, " rows"]
    """The last token said, which the cache does not hold yet."""
    said: Int32[Array, ""]
    """Tokens said so far by each row that has not ended."""
    ended: Bool[Array, " rows"]
    penalised: Bool[Array, "rows vocabulary"] | None
    """Tokens that a repetition penalty is for; None where no row has one."""


@functools.partial(jax.jit, donate_argnames="cache")
def read(
    model: LanguageModel,
    x: Float[Array, "rows tokens width"],
    present: Bool[Array, "rows tokens"],
    cache: Cache,
    column: Int32[Array, ""],
) -> tuple[Float[Array, "rows vocabulary"], Cache]:
    """Reads tokens into the cache; returns the scores of what follows each row's last one."""
    last = jnp.max(jnp.where(present, jnp.arange(present.shape[1]), 0), axis=1, keepdims=True)
    hidden, cache = model(constrain_rows(x), present, cache, column, last)
    return model.logits(hidden[:, 0]), cache


@functools.partial(jax.jit, donate_argnames="cache")
def begin(
    logits: Float[Array, "rows vocabulary"],
    cache: Cache,
    column: Int32[Array, ""],
    chooser: Chooser,
    stops: Int32[Array, " stops"],
    limits: Int32[Array, " rows"],
    penalised: Bool[Array, "rows vocabulary"] | None,
) -> Speech:
    """The first token of each answer."""
    token = chooser(logits, jnp.int32(0), penalised)
    return Speech(cache, column, token, jnp.int32(1), _ends(token, 1, stops, limits), _and(penalised, token))


@functools.partial(jax.jit, donate_argnames="speech")
def speak(
    model: LanguageModel,
    speech: Speech,
    chooser: Chooser,
    stops: Int32[Array, " stops"],
    limits: Int32[Array, " rows"],
    most: Int32[Array, ""],
) -> tuple[Speech, Int32[Array, "rows chunk"]]:
    """Says up to `most` (at most CHUNK) more tokens a row, fewer when all rows end; -1 in a row that has ended.

    The cache must have room for them.
    """

    def unfinished(carry):
        speech, _, count = carry
        return (count < most) & ~speech.ended.all()

    def say(carry):
        speech, tokens, count = carry
        x = jnp.take(model.embed, speech.token, axis=0)[:, None]
        x, cache = model(constrain_rows(x), jnp.ones((x.shape[0], 1), bool), speech.cache, speech.column)
        token = chooser(model.logits(x[:, 0]), speech.said, speech.penalised)
        tokens = jax.lax.dynamic_update_slice(tokens, jnp.where(speech.ended, NOTHING, token)[:, None], (0, count))
        ended = speech.ended | _ends(token, speech.said + 1, stops, limits)
        penalised = _and(speech.penalised, token)
        return Speech(cache, speech.column + 1, token, speech.said + 1, ended, penalised), tokens, count + 1

    tokens = jnp.full((speech.token.shape[0], CHUNK), NOTHING, jnp.int32)
    speech, tokens, _ = jax.lax.while_loop(unfinished, say, (speech, tokens, jnp.int32(0)))
    return speech, tokens


def _all_of(tokens):
    return tokens


def _take(array, columns):
    return jnp.take_along_axis(array, jnp.expand_dims(columns, range(2, array.ndim)), axis=1)


def _and(penalised, token):
    return None if penalised is None else penalised.at[jnp.arange(len(token)), token].set(True)


def _ends(token, said, stops, limits):
    return (token[:, None] == stops).any(axis=1) | (said >= limits)
