"""Speech to text: the Whisper decoder, greedy, over what the encoder has heard already."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from desta_jax.generation.cache import write
from desta_jax.models.attention import attend_by_head, by_head
from desta_jax.models.layers import LayerNorm
from desta_jax.models.whisper_decoder import Memory, WhisperDecoderLayer

MAX_TOKENS = 128  # of a transcript, as the reference asks for


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a Whisper checkpoint's generation config says of its tokens."""

    start: int
    stops: tuple[int, ...]
    languages: tuple[int, ...]
    """To choose from by ear; () for a checkpoint that is told, or that knows one language only."""
    forced: tuple[int, ...]
    """After the start and the language: the task, and that no timestamps are wanted."""
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]

    @classmethod
    def read(cls, generation: Mapping[str, Any], model: Mapping[str, Any]) -> Rules:
        """From generation_config.json and config.json, by the rules of transformers' Whisper."""

        def get(name):
            return generation[name] if generation.get(name) is not None else model.get(name)

        told = _prefix_after_start(generation, model)
        languages = tuple((generation.get("lang_to_id") or {}).values()) if not told or told[0] is None else ()
        forced = [token for token in told if token is not None]
        tasks = generation.get("task_to_id") or {}
        if languages and not set(forced) & set(tasks.values()):
            # transformers would leave the task open here, and such a model then repeats itself.
            forced += [tasks["transcribe"]] if "transcribe" in tasks else []
        plain = generation.get("no_timestamps_token_id")
        if plain is not None and (not forced or forced[-1] != plain):
            forced.append(plain)
        stop = get("eos_token_id")
        return cls(
            start=get("decoder_start_token_id"),
            stops=tuple(stop) if isinstance(stop, (list, tuple)) else (stop,),
            languages=languages,
            forced=tuple(forced),
            suppressed=tuple((generation or model).get("suppress_tokens") or ()),
            suppressed_first=tuple((generation or model).get("begin_suppress_tokens") or ()),
        )


def _prefix_after_start(generation: Mapping[str, Any], model: Mapping[str, Any]) -> list[int | None]:
    """Language (None: to be found) and task, from the newer settings or from `forced_decoder_ids`."""
    language, task = generation.get("language"), generation.get("task")
    if language is None and task is None:
        forced = generation.get("forced_decoder_ids") or model.get("forced_decoder_ids") or []
        return [token for place, (position, token) in enumerate(forced, 1) if position == place]
    return [
        _language_token(language, generation.get("lang_to_id") or {}),
        (generation.get("task_to_id") or {}).get(task or "transcribe"),
    ]


def _language_token(language: str | None, ids: Mapping[str, int]) -> int | None:
    """Of a language by its token, its code or its name, such as <|hi|>, hi or Hindi."""
    if language is None:
        return None
    spelt = language.lower()
    for name in (spelt, f"<|{spelt}|>", f"<|{TO_LANGUAGE_CODE.get(spelt)}|>"):
        if name in ids:
            return ids[name]
    raise ValueError(f"generation_config.json: language {language!r} is none of lang_to_id")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transcriber:
    """The Whisper decoder with its layers apart (as generation.decode has the language model), and its rules."""

    layers: list[WhisperDecoderLayer]
    embed: Float[Array, "v d"]
    positions: Float[Array, "t d"]
    norm: LayerNorm
    rules: Rules = dataclasses.field(metadata={"static": True})

    def __call__(self, frames: Float[Array, "clips frames width"]) -> list[list[int]]:
        """The tokens of each clip's transcript, from the encoder's last hidden states after its norm."""
        memory = remember(self, frames)
        clips, rules = frames.shape[0], self.rules
        prefix = np.full((clips, 1), rules.start, np.int32)
        if rules.languages:
            prefix = np.concatenate([prefix, np.asarray(find_language(self, memory))[:, None]], axis=1)
        prefix = np.concatenate([prefix, np.tile(np.array(rules.forced, np.int32), (clips, 1))], axis=1)
        most = min(MAX_TOKENS, self.positions.shape[0] - prefix.shape[1])
        said = np.asarray(write_down(self, memory, prefix, most=most))
        return [[int(token) for token in row if token >= 0] for row in said]

    def step(
        self, tokens: Int32[Array, "b t"], memory: Sequence[Memory], cache: Sequence[Memory], column: Int32[Array, ""]
    ) -> tuple[Float[Array, "b v"], list[Memory]]:
        """Scores of what follows these tokens, and the cache that holds them too."""
        time = jnp.arange(cache[0][0].shape[3])
        mask = time <= column + jnp.arange(tokens.shape[1])[:, None]
        mask = jnp.broadcast_to(mask, (tokens.shape[0], *mask.shape))
        places = jax.lax.dynamic_slice_in_dim(self.positions, column, tokens.shape[1])
        x, new_cache = jnp.take(self.embed, tokens, axis=0) + places, []

        for layer, heard, (keys, values) in zip(self.layers, memory, cache):

            def mix(queries, new_keys, new_values, keys=keys, values=values):
                new_cache.append(write(keys, values, new_keys, new_values, column))
                return attend_by_head(queries, *new_cache[-1], mask=mask)

            x = layer(x, heard, mix)
        logits = jnp.einsum("bd,vd->bv", self.norm(x[:, -1]), self.embed).astype(jnp.float32)
        return logits, new_cache

    def empty_cache(self, clips: int, columns: int) -> list[Memory]:
        attention = self.layers[0].attention
        nothing = jnp.zeros((clips, columns, attention.heads, self.embed.shape[1] // attention.heads), self.embed.dtype)
        return [by_head(nothing, nothing) for _ in self.layers]


@jax.jit
def remember(transcriber: Transcriber, frames: Float[Array, "clips frames width"]) -> list[Memory]:
    """Each layer's memory of the frames."""
    return [layer.remember(frames) for layer in transcriber.layers]


@jax.jit
def find_language(transcriber: Transcriber, memory: list[Memory]) -> Int32[Array, " clips"]:
    """The likeliest language token."""
    rules, clips = transcriber.rules, memory[0][0].shape[0]
    start = jnp.full((clips, 1), rules.start, jnp.int32)
    logits, _ = transcriber.step(start, memory, transcriber.empty_cache(clips, 1), jnp.int32(0))
    languages = jnp.array(rules.languages, jnp.int32)
    return languages[jnp.argmax(logits[:, languages], axis=1)]


@functools.partial(jax.jit, static_argnames="most")
def write_down(
    transcriber: Transcriber, memory: list[Memory], prefix: Int32[Array, "clips prefix"], *, most: int
) -> Int32[Array, "clips most"]:
    """The likeliest token each time, until every clip has ended; -1 after a clip's end."""
    rules, (clips, start) = transcriber.rules, prefix.shape
    vocabulary = transcriber.embed.shape[0]
    banned = _mask(rules.suppressed, vocabulary)
    banned_first = banned | _mask(rules.suppressed_first, vocabulary)
    stops = jnp.array(rules.stops, jnp.int32)

    def choose(logits, banned):
        return jnp.argmax(jnp.where(banned, -jnp.inf, logits), axis=1).astype(jnp.int32)

    def unfinished(carry):
        _, _, ended, _, count = carry
        return (count < most) & ~ended.all()

    def say(carry):
        token, cache, ended, said, count = carry
        logits, cache = transcriber.step(token[:, None], memory, cache, start + count - 1)
        token = choose(logits, banned)
        said = said.at[:, count].set(jnp.where(ended, -1, token))
        return token, cache, ended | jnp.isin(token, stops), said, count + 1

    logits, cache = transcriber.step(prefix, memory, transcriber.empty_cache(clips, start + most), jnp.int32(0))
    token = choose(logits, banned_first)
    said = jnp.full((clips, most), -1, jnp.int32).at[:, 0].set(token)
    return jax.lax.while_loop(unfinished, say, (token, cache, jnp.isin(token, stops), said, jnp.int32(1)))[3]


def _mask(tokens: Sequence[int], vocabulary: int) -> Bool[np.ndarray, " vocabulary"]:
    mask = np.zeros(vocabulary, bool)
    mask[[token for token in tokens if 0 <= token < vocabulary]] = True
    return mask
