"""How the next token is chosen: greedy, or drawn by temperature, top-k and top-p with seeds that repeat; in either case
after what the model's own generation config asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, UInt32

_NEUTRAL: Mapping[str, tuple] = {  # by which transformers does nothing
    "num_beams": (1,),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "min_p": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "guidance_scale": (1,),
    "penalty_alpha": (0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ([], {}),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
}


def not_heeded(generation: Mapping[str, Any]) -> dict[str, Any]:
    """What a generation_config.json asks for, and transformers does, and is not done here."""
    return {
        key: value
        for key, neutral in _NEUTRAL.items()
        if (value := generation.get(key)) is not None and value not in neutral
    }


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to choose tokens; temperature 0 is greedy, top_k 0 and top_p 1 leave every token in.

    None takes what the model's generation_config.json says, as the reference does, which names neither.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int | None = None
    seed: int = 0
    repetition_penalty: float | None = None
    """Above 1, tokens that were said become less likely, and in a prompt without clips those that were read."""

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature: must be 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: must be above 0 and at most 1, got {self.top_p}")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"top_k: must be 0 (all tokens) or more, got {self.top_k}")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty: must be above 0 (1 is none), got {self.repetition_penalty}")

    def of_model(self, generation: Mapping[str, Any]) -> Sampling:
        """With nothing left open, by a model's generation_config.json, and by transformers' defaults for what it leaves
        open."""
        top_k, penalty = (generation.get(key) for key in ("top_k", "repetition_penalty"))
        return dataclasses.replace(
            self,
            top_k=(50 if top_k is None else top_k) if self.top_k is None else self.top_k,
            repetition_penalty=(penalty or 1.0) if self.repetition_penalty is None else self.repetition_penalty,
        )


DEFAULT = Sampling()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chooser:
    """The sampling of each row of a batch, on the device."""

    temperature: Float[Array, " rows"]
    top_p: Float[Array, " rows"]
    top_k: Int32[Array, " rows"]
    penalty: Float[Array, " rows"]
    keys: Key[Array, " rows"]
    candidates: int = dataclasses.field(metadata={"static": True})
    """How many of the likeliest tokens are looked at: all that any row's top_k lets in, 0 if no row asks for any."""
    whole: bool = dataclasses.field(metadata={"static": True})
    """Whether any row draws from all tokens, which needs no order among them (sorting a vocabulary takes longer than
    a small model's step)."""

    def __call__(
        self,
        logits: Float[Array, "rows vocabulary"],
        step: Int32[Array, ""],
        penalised: Bool[Array, "rows vocabulary"] | None = None,
    ) -> Int32[Array, " rows"]:
        """A token for each row; `step` counts the tokens of an answer, so that each has its own random number.

        `penalised` are the tokens that the penalty is for; None where no row has one.
        """
        if penalised is not None:
            penalty = self.penalty[:, None]
            logits = jnp.where(penalised, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        if not (self.candidates or self.whole):
            return token
        scaled = logits / jnp.maximum(self.temperature, 1e-6)[:, None]
        # One uniform number a token, inverted: what is drawn does not depend on the other rows of the batch.
        uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, step)))(self.keys)
        every = (self.top_k == 0) & (self.top_p == 1)
        if self.whole:
            drawn = _invert(jax.nn.softmax(scaled, axis=-1), uniform)
            token = jnp.where((self.temperature > 0) & every, drawn, token)
        if self.candidates:
            token = jnp.where((self.temperature > 0) & ~every, self._draw_likely(scaled, uniform), token)
        return token

    def _draw_likely(self, scaled: Float[Array, "rows v"], uniform: Float[Array, " rows"]) -> Int32[Array, " rows"]:
        """A token of those that top_k and top_p leave in."""
        best, tokens = jax.lax.top_k(scaled, self.candidates)
        allowed = jnp.arange(self.candidates) < jnp.where(self.top_k > 0, self.top_k, self.candidates)[:, None]
        weights = jax.nn.softmax(jnp.where(allowed, best, -jnp.inf), axis=-1)
        before = jnp.cumsum(weights, axis=-1) - weights
        # As transformers: the fewest of the likeliest tokens whose probabilities reach top_p.
        drawn = _invert(jnp.where(before < self.top_p[:, None], weights, 0), uniform)
        return jnp.take_along_axis(tokens, drawn[:, None], axis=-1)[:, 0].astype(jnp.int32)


def _invert(weights: Float[Array, "rows n"], uniform: Float[Array, " rows"]) -> Int32[Array, " rows"]:
    """Where a number from 0 to 1 falls among weights laid end to end; never where a weight is 0."""
    cumulative = jnp.cumsum(weights, axis=-1)
    place = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(axis=-1)
    last = weights.shape[-1] - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1)
    return jnp.minimum(place, last).astype(jnp.int32)


def make_chooser(samplings: list[Sampling], requests: list[int], vocabulary: int) -> Chooser:
    """The chooser of a batch.

    Args:
        samplings: of each row; nothing is left open in them.
        requests: the number of each row's request among all: with the seed it fixes what is drawn, whatever else
            is in the batch.
        vocabulary: number of tokens.
    """
    drawn = [sampling for sampling in samplings if sampling.temperature > 0]
    likely = [sampling for sampling in drawn if sampling.top_k > 0 or sampling.top_p < 1]
    seeds = np.array([sampling.seed & 0xFFFFFFFF for sampling in samplings], np.uint32)
    return Chooser(
        temperature=np.array([sampling.temperature for sampling in samplings], np.float32),
        top_p=np.array([sampling.top_p for sampling in samplings], np.float32),
        top_k=np.array([sampling.top_k for sampling in samplings], np.int32),
        penalty=np.array([sampling.repetition_penalty for sampling in samplings], np.float32),
        keys=_keys(seeds, np.array(requests, np.uint32)),
        candidates=_candidates(likely, vocabulary),
        whole=len(likely) < len(drawn),
    )


@jax.jit
@jax.vmap
def _keys(seed: UInt32[Array, ""], request: UInt32[Array, ""]) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(seed), request)


def _candidates(sampled: list[Sampling], vocabulary: int) -> int:
    """A power of two, so that few programs are compiled."""
    if not sampled:
        return 0
    if any(sampling.top_k == 0 for sampling in sampled):
        return vocabulary
    return min(vocabulary, 1 << (max(sampling.top_k for sampling in sampled) - 1).bit_length())
