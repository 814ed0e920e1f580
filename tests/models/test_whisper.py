"""The encoder's taps against transformers' WhisperEncoder."""

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch

from desta_jax.audio.mel import log_mel


@pytest.fixture(scope="module")
def mel():
    rng = np.random.default_rng(1)
    return np.asarray(log_mel(np.stack([oracle.speechlike(rng) for _ in range(2)]), 80))


def hidden_states(llama, mel):
    """After each block: transformers lists the input first, and puts the final norm on the last."""
    with torch.no_grad():
        encoder = llama.reference.whisper.model.encoder
        out = encoder(torch.tensor(mel).transpose(1, 2), output_hidden_states=True)
    return [state.numpy() for state in out.hidden_states[1:-1]], out.last_hidden_state.numpy()


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())  # float32, four blocks deep


def test_taps_are_whole_blocks_before_the_final_norm(llama, mel):
    expected, _ = hidden_states(llama, mel)
    taps, last = llama.model.encoder(llama.frozen)(jnp.asarray(mel), (0, 2))
    close(taps[:, 0], expected[0])
    close(taps[:, 1], expected[2])
    np.testing.assert_array_equal(last, taps[:, 1])  # nothing beyond the last tap is run


@pytest.mark.parametrize("tap_layers", [(0,), (1, 2), (0, 1, 2, 3), (3,)])
def test_all_layers_end_in_what_whispers_decoder_sees(llama, mel, tap_layers):
    blocks, normed = hidden_states(llama, mel)
    encoder = llama.model.encoder(llama.frozen)
    taps, last = encoder(jnp.asarray(mel), tap_layers, all_layers=True)
    close(encoder.norm(last), normed)
    assert taps.shape[1] == len(tap_layers)
    for index, layer in enumerate(tap_layers):
        close(taps[:, index], blocks[layer] if layer < 3 else last)


def test_a_shorter_window_uses_the_first_positions(llama, mel):
    taps, _ = llama.model.encoder(llama.frozen)(jnp.asarray(mel[:, : oracle.FRAMES]), (0, 2))
    assert taps.shape[2] == oracle.FRAMES // 2
