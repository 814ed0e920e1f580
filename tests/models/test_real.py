"""The real small pair, whose activations are large, on clips that eSpeak NG speaks: the same numbers as transformers.

The weights are SmolLM2-135M-Instruct and Whisper base, as launch/real_models.py writes them; tests/run.sh says where.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

import spoken_clips
from desta_jax.audio.load import load_audio
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.weights.convert import convert
from desta_jax.weights.folder import ModelFolder

pytestmark = pytest.mark.real

TAPS = (1, 2, 3, 5)
TEXT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nThe capital of France is"
ROUNDING = 2e-5
"""Of the largest value: float32 sums in another order, 1e-7 each, through a hundred products one after the other."""


@pytest.fixture(scope="module")
def ours(real_folders, tmp_path_factory):
    """The model, its frozen weights and its folder."""
    folder = ModelFolder(convert(*real_folders, tmp_path_factory.mktemp("real") / "converted"))
    shapes = WhisperShape.from_hf(folder.whisper_config), DecoderShape.from_hf(folder.llm_config)
    model = AudioLM(*shapes, AdapterShape(num_layers=1, prompt_size=4, tap_layers=TAPS), jnp.float32)
    return model, {part: folder.restore(part, like) for part, like in model.abstract_frozen().items()}, folder


def clips(folder):
    """Two spoken sentences, int16, in a window of 30 s."""
    spoken_clips.make(folder, ["en-us", "de"], sentences=0)
    windows = np.zeros((2, 480_000), np.int16)
    for window, file in zip(windows, sorted((folder / "audio").glob("*.wav"))[::5]):
        samples = load_audio(file)
        window[: len(samples)] = np.round(samples * 32767)
    return windows


def test_taps_are_whispers_on_speech(real_folders, ours, tmp_path):
    model, frozen, _ = ours
    audio = clips(tmp_path)
    assert np.abs(audio).max(1).min() > 1000, "the clips are meant to be heard"
    whisper = transformers.WhisperModel.from_pretrained(real_folders[1], dtype=torch.float32).eval().encoder
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(real_folders[1])
    mel = extractor(list(audio / np.float32(32768)), sampling_rate=16000, return_tensors="pt").input_features
    expected = {}
    for layer in TAPS:
        whisper.layers[layer].register_forward_hook(
            lambda _, __, out, layer=layer: expected.__setitem__(layer, out[0] if isinstance(out, tuple) else out)
        )
    with torch.no_grad():
        whisper(mel)
    taps = np.asarray(jax.jit(model.taps)(frozen, audio))
    for index, layer in enumerate(TAPS):
        want = expected[layer].numpy()
        # Features may differ by 1e-4 (tests/audio/test_mel.py), and the first layers pass that on.
        np.testing.assert_allclose(taps[:, index], want, atol=1e-4 * np.abs(want).max(), err_msg=f"layer {layer}")


def test_logits_are_the_language_models(real_folders, ours):
    model, frozen, folder = ours
    tokens = np.array([folder.tokenizer().encode(TEXT)], np.int32)
    lm = transformers.AutoModelForCausalLM.from_pretrained(real_folders[0], dtype=torch.float32).eval()
    with torch.no_grad():
        expected = lm(torch.tensor(tokens).long()).logits.numpy()

    def logits(frozen, tokens):
        decoder = model.lm(frozen)
        embedded = jnp.take(frozen["lm"]["embed"], tokens, axis=0)
        positions = jnp.arange(tokens.shape[1])[None]
        return decoder(embedded, positions, jnp.ones_like(tokens)) @ decoder.output_table.T

    got = np.asarray(jax.jit(logits)(frozen, tokens))
    np.testing.assert_allclose(got, expected, atol=ROUNDING * np.abs(expected).max())
    assert folder.tokenizer().decode(got[0, -1].argmax()) == " Paris"
