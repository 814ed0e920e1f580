"""How likely a backbone finds responses, given what it read: the paper's measure of match between data and model."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from desta_jax.batch import IGNORED
from desta_jax.clock import time_left
from desta_jax.generation.cache import empty_cache
from desta_jax.generation.decode import LanguageModel
from desta_jax.generation.talk import length_bucket, on
from desta_jax.generation.text import Backbone
from desta_jax.inputs.prompt import MARKERS
from desta_jax.records.rows import AUDIO_LOCATOR

ROWS = 8  # scored at a time
SECONDS_BETWEEN_LINES = 10.0


def perplexities(
    model: Backbone, rows: Sequence[Mapping[str, Any]], say: Callable[[str], None] = lambda line: None
) -> list[float | None]:
    """Perplexity of each row's response (its end-of-sequence token included), the description read as the audio.

    Args:
        model: the language model to ask.
        rows: with `messages`, `response` and `seed_description`, written by whatever model; None for one whose
            messages have no single place for the description.
        say: is given lines of progress.
    """
    encoded = [_encode(model, row) for row in rows]
    scored = [index for index, tokens in enumerate(encoded) if tokens is not None]
    scored.sort(key=lambda index: len(encoded[index][0]))
    result: list[float | None] = [None] * len(rows)
    lengths = np.cumsum([len(encoded[index][0]) for index in scored])  # time goes with tokens, not with rows
    started = spoke = time.monotonic()
    for start in range(0, len(scored), ROWS):
        part = scored[start : start + ROWS]
        for index, loss in zip(part, _score(model, [encoded[index] for index in part])):
            result[index] = math.exp(loss)
        now, done = time.monotonic(), start + len(part)
        if now - spoke >= SECONDS_BETWEEN_LINES:
            spoke = now
            left = time_left(lengths[done - 1], lengths[-1], now - started)
            say(f"construct: the perplexity of {done} of {len(scored)} rows is measured, {left}")
    return result


def overall(perplexity: Sequence[float | None]) -> dict[str, float] | None:
    """Geometric mean, median and 95th percentile of the rows that have one."""
    known = np.array([each for each in perplexity if each is not None])
    if not len(known):
        return None
    return {
        "rows": len(known),
        "geometric_mean": round(float(np.exp(np.log(known).mean())), 3),
        "median": round(float(np.median(known)), 3),
        "percentile_95": round(float(np.quantile(known, 0.95)), 3),
    }


def reading_of(row: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """A finished row's messages with the description where its audio is heard; None if it has no single place.

    Several clips that follow each other are one place, since their descriptions follow each other in the row.
    """
    heard = AUDIO_LOCATOR.join(MARKERS)
    description = row["seed_description"].join(MARKERS)
    messages = []
    for message in row["messages"]:
        content = message["content"]
        while f"{heard}\n{heard}" in content:
            content = content.replace(f"{heard}\n{heard}", heard)
        places = content.count(AUDIO_LOCATOR)
        if places > 1:
            return None
        content = content.replace(heard, description).replace(AUDIO_LOCATOR, description)
        messages.append({"role": message["role"], "content": content})
    return messages


def _encode(model: Backbone, row: Mapping[str, Any]) -> tuple[list[int], int] | None:
    """Token ids of prompt and response, and where the response begins."""
    messages = reading_of(row)
    if messages is None:
        return None
    prompt = [int(token) for token in model.prompts.context(messages).tokens]
    ending = row["response"] + model.tokenizer.eos_token
    response = model.tokenizer.encode(ending, add_special_tokens=False)
    return prompt + response, len(prompt)


def _score(model: Backbone, encoded: Sequence[tuple[list[int], int]]) -> Iterator[float]:
    """Mean negative log-likelihood (nats) of each response's tokens."""
    length = length_bucket(max(len(tokens) for tokens, _ in encoded))
    tokens = np.zeros((ROWS, length), np.int32)
    labels = np.full((ROWS, length), IGNORED, np.int32)
    present = np.zeros((ROWS, length), bool)
    for row, (ids, start) in enumerate(encoded):
        tokens[row, : len(ids)], present[row, : len(ids)] = ids, True
        labels[row, start - 1 : len(ids) - 1] = ids[start:]
    present[len(encoded) :, 0] = True
    with on(model.tongue.mesh):
        losses = _losses(model.tongue.model, model.tongue.audio_lm.dtype, tokens, present, labels)
    return iter(np.asarray(losses)[: len(encoded)].tolist())


@functools.partial(jax.jit, static_argnums=1)
def _losses(
    lm: LanguageModel,
    dtype: jnp.dtype,
    tokens: Int32[Array, "rows tokens"],
    present: Bool[Array, "rows tokens"],
    labels: Int32[Array, "rows tokens"],
) -> Float[Array, " rows"]:
    """Mean loss over each row's labels, which stand where they are predicted; one row's logits exist at a time."""
    x = jnp.take(lm.embed, tokens, axis=0).astype(dtype)
    cache = empty_cache(lm.shape, *tokens.shape, dtype)
    hidden, _ = lm(x, present, cache, jnp.int32(0))

    def loss(pair):
        states, wanted = pair
        scores = jax.nn.log_softmax(lm.logits(states))
        chosen = jnp.take_along_axis(scores, jnp.maximum(wanted, 0)[:, None], axis=1)[:, 0]
        counted = wanted != IGNORED
        return -jnp.where(counted, chosen, 0).sum() / jnp.maximum(counted.sum(), 1)

    return jax.lax.map(loss, (hidden, labels))
