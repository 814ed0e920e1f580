"""Tokens are drawn as often as they are likely, and the same whatever else is in the batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from desta_jax.generation.sampling import Sampling, make_chooser, not_heeded

LIKELY = np.array([0.5, 0.3, 0.1, 0.1, 0.0])
DRAWS = 20_000


def choose(samplings, numbers):
    logits = jnp.tile(jnp.log(jnp.asarray(LIKELY)), (len(samplings), 1))
    return np.asarray(make_chooser([s.of_model({}) for s in samplings], numbers, len(LIKELY))(logits, jnp.int32(3)))


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(1.0, 1.0, 0), LIKELY),
        (Sampling(1.0, 1.0, 5), LIKELY),
        (Sampling(1.0, 1.0, 2), [0.625, 0.375, 0, 0, 0]),
        (Sampling(1.0, 0.75, 0), [0.625, 0.375, 0, 0, 0]),
        (Sampling(0.5, 1.0, 0), LIKELY**2 / (LIKELY**2).sum()),
        (Sampling(0.0, 1.0, 0), [1, 0, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling, expected):
    drawn = choose([sampling] * DRAWS, list(range(DRAWS)))
    frequency = np.bincount(drawn, minlength=len(LIKELY)) / DRAWS
    # Five standard deviations of a frequency of one half.
    np.testing.assert_allclose(frequency, expected, atol=5 * 0.5 / np.sqrt(DRAWS))
    assert not frequency[np.asarray(expected) == 0].any()


def test_what_a_request_leaves_open_is_as_the_models_generation_config_says():
    config = {"top_k": 20, "repetition_penalty": 1.05, "temperature": 0.1, "top_p": 0.8}
    assert Sampling(0.7, 0.9).of_model(config) == Sampling(0.7, 0.9, 20, repetition_penalty=1.05)
    assert Sampling().of_model({"top_k": None}) == Sampling(top_k=50, repetition_penalty=1.0)
    chosen = Sampling(top_k=0, repetition_penalty=1.0)
    assert chosen.of_model(config) == chosen


def test_what_a_generation_config_asks_for_in_vain_is_named():
    neutral = {
        "num_beams": 1,
        "no_repeat_ngram_size": 0,
        "typical_p": 1.0,
        "suppress_tokens": None,
        "bad_words_ids": [],
    }
    assert not_heeded(neutral | {"top_k": 20, "eos_token_id": [1, 2], "do_sample": True}) == {}
    assert not_heeded(neutral | {"no_repeat_ngram_size": 3, "min_p": 0.1}) == {"no_repeat_ngram_size": 3, "min_p": 0.1}


def test_what_is_drawn_does_not_depend_on_the_rest_of_the_batch():
    samplings = [Sampling(1.0, 1.0, 0), Sampling(0.0), Sampling(1.0, 0.7, 3), Sampling(0.5, 1.0, 0)] * 8
    alone = [choose([sampling], [number])[0] for number, sampling in enumerate(samplings)]
    assert choose(samplings, list(range(len(samplings)))).tolist() == alone and len(set(alone)) > 1
