"""A batch of answers from prompt to last token: shapes in buckets, so that a handful of programs serves everything."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32

from desta_jax import sharding
from desta_jax.generation import cache as kv
from desta_jax.generation.cache import Cache
from desta_jax.generation.decode import NOTHING, LanguageModel, Speech, begin, read, speak
from desta_jax.generation.sampling import Chooser, Sampling, make_chooser, not_heeded
from desta_jax.inputs.prompt import Prompt
from desta_jax.models.audio_lm import AudioLM

END_OF_TURN = "<|eot_id|>"  # Llama 3's: the reference stops there whatever the generation config says
PATIENCE = 16  # tokens said before it is seen which rows have ended
READ_AT_ONCE = 1024  # tokens of a prompt: attention over more at a time would fill the memory


@dataclasses.dataclass(frozen=True)
class Tongue:
    """The language model on its devices, and where it stops."""

    audio_lm: AudioLM
    model: LanguageModel
    mesh: Mesh
    stops: Int32[np.ndarray, " stops"]
    generation_config: Mapping[str, Any]
    """The model's own, for what a request leaves open."""

    @property
    def rows(self) -> int:
        """Rows of a batch come in multiples of this."""
        return sharding.row_shards(self.mesh)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked of one row."""

    prompt: Prompt
    soft: Float[Array, "soft width"] | None
    """Soft tokens of its clips, one clip after the other; None without a clip."""
    sampling: Sampling
    limit: int
    """New tokens, at most."""
    number: int = 0
    """Among all requests; with the seed it fixes what is drawn."""


class Talk:
    """Answers under way."""

    def __init__(self, tongue: Tongue, wishes: Sequence[Wish], *, known: Cache | None = None, known_tokens: int = 0):
        """Reads the prompts.

        Args:
            known: a cache of one wish's row that holds the first `known_tokens` of its prompt already; it is used up.
        """
        self.tongue, self.wishes = tongue, wishes
        self._rows = row_bucket(len(wishes), tongue.rows)
        fill = [*wishes, *[dataclasses.replace(wishes[0], limit=1)] * (self._rows - len(wishes))]
        self._limits = np.array([wish.limit for wish in fill], np.int32)
        self._order = np.arange(len(wishes))  # of the rows that are still computed: which wish each is
        samplings = [wish.sampling.of_model(tongue.generation_config) for wish in fill]
        self._penalises = any(sampling.repetition_penalty != 1 for sampling in samplings)
        with on(tongue.mesh):
            self._chooser = make_chooser(samplings, [w.number for w in fill], tongue.model.shape.vocabulary)
            self.speech = self._start(fill, known, known_tokens)

    def chunks(self, size: int) -> Iterator[Int32[np.ndarray, "rows n"]]:
        """What each row says, at most `size` (up to decode.CHUNK) tokens at a time; -1 where a row has ended."""
        ended = np.asarray(self.speech.ended)
        yield np.asarray(self.speech.token)[: len(self.wishes), None]
        while not ended.all():
            with on(self.tongue.mesh):
                self._close_ranks(ended)
                self._make_room(size)
                self.speech, tokens = speak(
                    self.tongue.model, self.speech, self._chooser, self.tongue.stops, self._limits, np.int32(size)
                )
            ended = np.asarray(self.speech.ended)
            said = np.full((len(self.wishes), size), NOTHING, np.int32)
            said[self._order] = np.asarray(tokens)[: len(self._order), :size]
            yield said

    def answers(self) -> list[list[int]]:
        """All that each row says, its stop token included."""
        said = np.concatenate(list(self.chunks(PATIENCE)), axis=1)
        return [[int(token) for token in row if token != NOTHING] for row in said]

    def _start(self, wishes: Sequence[Wish], cache: Cache | None, known: int) -> Speech:
        length = max(len(wish.prompt.tokens) for wish in wishes)
        whole = known + length_bucket(length - known)
        if cache is None:
            cache = _empty(self.tongue.audio_lm, self._rows, whole)
        else:
            cache = _grow(cache, column_bucket(whole)) if cache.columns < whole else cache
            cache = _forget(cache, np.int32(known))
        logits = None
        for start in range(known, whole, READ_AT_ONCE):
            stop = min(start + READ_AT_ONCE, whole)
            tokens, soft, slots, present, ends = self._lay_out(wishes, start, stop)
            x = _embed(self.tongue.audio_lm, self.tongue.model.embed, tokens, soft, slots)
            new, cache = read(self.tongue.model, x, present, cache, np.int32(start))
            logits = new if logits is None else jnp.where(ends[:, None], new, logits)
        penalised = self._penalised(wishes) if self._penalises else None
        return begin(logits, cache, np.int32(length), self._chooser, self.tongue.stops, self._limits, penalised)

    def _penalised(self, wishes: Sequence[Wish]) -> Bool[Array, "rows vocabulary"]:
        """The tokens of each prompt without clips. One with clips comes as embeddings, in the reference too, and then
        transformers' penalty is for what is said alone."""
        penalised = np.zeros((len(wishes), self.tongue.model.shape.vocabulary), bool)
        for row, wish in enumerate(wishes):
            if not wish.prompt.clips:
                penalised[row, wish.prompt.tokens] = True
        return jax.device_put(penalised, sharding.batch_sharding(self.tongue.mesh))

    def _lay_out(self, wishes: Sequence[Wish], start: int, stop: int):
        """Columns `start` to `stop` of the prompts, padded on the right; and which rows end there."""
        shape = (len(wishes), stop - start)
        tokens, slots, present = np.zeros(shape, np.int32), np.full(shape, NOTHING, np.int32), np.zeros(shape, bool)
        for row, wish in enumerate(wishes):
            part = wish.prompt.tokens[start:stop]
            tokens[row, : len(part)] = part
            slots[row, : len(part)] = wish.prompt.audio_slots[start:stop]
            present[row, : len(part)] = True
        ends = np.array([start < len(wish.prompt.tokens) <= stop for wish in wishes])
        rows = sharding.batch_sharding(self.tongue.mesh)
        return (*jax.device_put((tokens, self._soft(wishes), slots, present, ends), rows),)

    def _soft(self, wishes: Sequence[Wish]) -> Float[np.ndarray, "rows soft width"]:
        """The soft tokens of each row, padded to the same number of clips; one position of nothing without a clip."""
        width, clip = self.tongue.model.shape.width, self.tongue.audio_lm.adapter.prompt_size
        most = max(wish.prompt.clips for wish in wishes)
        size = clip * (1 << (most - 1).bit_length()) if most else 1
        soft = np.zeros((len(wishes), size, width), self.tongue.audio_lm.dtype)
        for row, wish in enumerate(wishes):
            if wish.soft is not None:
                soft[row, : len(wish.soft)] = wish.soft
        return soft

    def _close_ranks(self, ended: Bool[np.ndarray, " rows"]) -> None:
        """Goes on with a smaller batch where at most half of the rows are left: a batch lasts as long as its longest
        answer, and need not be as wide all the while."""
        left = np.flatnonzero(~ended[: len(self._order)])
        rows = row_bucket(len(left), self.tongue.rows)
        if 2 * rows > self._rows:
            return
        keep = np.concatenate([left, np.repeat(np.flatnonzero(ended)[:1], rows - len(left))])
        self._rows, self._order, self._limits = rows, self._order[left], self._limits[keep]
        self.speech, self._chooser = _keep_rows(self.speech, self._chooser, keep)

    def _make_room(self, size: int) -> None:
        needed = int(self.speech.column) + size
        if needed > self.speech.cache.columns:
            grown = _grow(self.speech.cache, column_bucket(needed))
            self.speech = dataclasses.replace(self.speech, cache=grown)


def open_tongue(
    audio_lm: AudioLM, model: LanguageModel, mesh: Mesh, generation: Mapping[str, Any], tokenizer
) -> Tongue:
    """A tongue that stops at the generation config's tokens (one or several), at the tokenizer's, and at Llama 3's end
    of turn."""
    configured = generation.get("eos_token_id")
    stops = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    stops.add(tokenizer.get_vocab().get(END_OF_TURN))
    if others := not_heeded(generation):
        told = ", ".join(f"{key} {value!r}" for key, value in others.items())
        warnings.warn(f"the model's generation_config.json asks for what is not done here: {told}", stacklevel=2)
    return Tongue(audio_lm, model, mesh, np.array(sorted(stops - {None}), np.int32), generation)


def on(mesh: Mesh):
    """Computation on this mesh; on a single device, nothing."""
    return jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext()


def row_bucket(rows: int, multiple: int = 1) -> int:
    """The next power of two that the devices share evenly."""
    bucket = 1 << (rows - 1).bit_length()
    return -(-bucket // multiple) * multiple


def length_bucket(length: int) -> int:
    """At least 32; above, four to an octave: little is read in vain, and few programs are compiled."""
    if length <= 32:
        return 32
    step = 1 << max((length - 1).bit_length() - 3, 0)
    return -(-length // step) * step


def column_bucket(columns: int) -> int:
    """At least 128; above, two to an octave."""
    whole = max(128, 1 << (columns - 1).bit_length())
    return whole * 3 // 4 if 128 < columns <= whole * 3 // 4 else whole


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _empty(audio_lm: AudioLM, rows: int, columns: int) -> Cache:
    return kv.empty_cache(audio_lm.decoder, rows, columns, audio_lm.dtype)


@functools.partial(jax.jit, static_argnums=1)
def _grow(cache: Cache, columns: int) -> Cache:
    return kv.grow(cache, columns)


@jax.jit
def _keep_rows(speech: Speech, chooser: Chooser, keep: Int32[Array, " kept"]) -> tuple[Speech, Chooser]:
    """Some of the rows, in this order."""

    def take(array):
        return array if array.ndim == 0 else array[keep]

    speech = jax.tree.map(take, speech)
    return dataclasses.replace(speech, cache=kv.constrain(speech.cache)), jax.tree.map(take, chooser)


@functools.partial(jax.jit, donate_argnums=0)
def _forget(cache: Cache, known: Int32[Array, ""]) -> Cache:
    """All but the first `known` columns."""
    return dataclasses.replace(cache, held=cache.held & (jnp.arange(cache.columns) < known))


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    audio_lm: AudioLM,
    embed: Float[Array, "v d"],
    tokens: Int32[Array, "rows tokens"],
    soft: Float[Array, "rows soft d"],
    slots: Int32[Array, "rows tokens"],
) -> Float[Array, "rows tokens d"]:
    return audio_lm.embed({"lm": {"embed": embed}}, tokens, soft, slots)
