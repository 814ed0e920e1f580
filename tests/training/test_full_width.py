"""One step at the paper's widths, few layers deep, against PyTorch: what small models cannot show of the arithmetic."""

import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import transformers

from desta_jax.batch import empty_batch
from desta_jax.config import make_config
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.training.optimizer import learning_rate, make_optimizer
from desta_jax.training.step import init_state, train_step

LAYERS, TAPS, QUERIES, FRAMES = 2, (0, 1), 64, 1500
LLAMA = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,  # one table less of 2 GB; the head's arithmetic is the same
    "rope_parameters": oracle.LLAMA3_ROPE | {"original_max_position_embeddings": 8192},
}
WHISPER = {
    "d_model": 1280,
    "encoder_layers": LAYERS,
    "decoder_layers": 1,
    "encoder_attention_heads": 20,
    "decoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_ffn_dim": 64,  # the decoder has no part in training
    "num_mel_bins": 128,
    "vocab_size": 96,
    "max_source_positions": FRAMES,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 1,
}


class FullWidth(oracle.Reference):
    def __init__(self):
        torch.nn.Module.__init__(self)
        torch.manual_seed(0)
        self.build(transformers.WhisperConfig(**WHISPER), transformers.LlamaConfig(**LLAMA), TAPS, QUERIES, LAYERS)
        # The initial weights, exact in bfloat16: the converted language model is stored so.
        with torch.no_grad():
            for parameter in self.lm.parameters():
                parameter.copy_(parameter.bfloat16().float())


def batch_of_two(rng):
    """A clip of 30 s in each of two rows: the paper's lengths of prompt and answer, about."""
    rows, tokens, labels = 2, 160, 48
    batch = empty_batch(rows, 1, FRAMES * 320, tokens, labels)
    for row in range(rows):
        length = tokens - 20 * row
        batch.tokens[row, :length] = rng.integers(2, LLAMA["vocab_size"], length)
        batch.positions[row, :length] = np.arange(length)
        batch.segments[row, :length] = 1
        batch.audio_slots[row, 8 : 8 + QUERIES] = np.arange(QUERIES)
        batch.audio[row, 0] = oracle.speechlike(rng, FRAMES * 320)
        batch.labels[row] = batch.tokens[row, length - labels : length]
        batch.label_positions[row] = np.arange(length - labels, length) - 1
    return batch


@pytest.mark.slow
def test_a_step_at_full_width_is_pytorchs(tmp_path):
    """float32 sums of up to 14336 terms: loss within 1e-4, the gradient's norm within 1e-3."""
    batch = batch_of_two(np.random.default_rng(0))
    reference = FullWidth()
    loss = reference.loss(batch)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.trained().values(), 1.0).item()
    loss = loss.item()
    folder = reference.convert(tmp_path)
    del reference
    gc.collect()

    model = AudioLM(
        WhisperShape.from_hf(folder.whisper_config),
        DecoderShape.from_hf(folder.llm_config),
        AdapterShape(num_layers=LAYERS, prompt_size=QUERIES, tap_layers=TAPS, dropout=0.0),
        jnp.float32,
    )
    frozen = {part: folder.restore(part, like) for part, like in model.abstract_frozen().items()}
    config = make_config({})
    optimizer = make_optimizer(config, 10)
    step = functools.partial(
        train_step, model=model, optimizer=optimizer, schedule=learning_rate(config, 10), seed=0, remat="all"
    )
    state = init_state(folder.restore("adapter", model.abstract_adapter()), optimizer)
    _, metrics = jax.jit(step, donate_argnums=0)(state, frozen, batch)
    print(f"loss {metrics['loss']:.7f}, PyTorch {loss:.7f}; gradient {metrics['grad_norm']:.6f}, PyTorch {norm:.6f}")
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-3)
