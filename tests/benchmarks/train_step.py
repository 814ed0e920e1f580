"""Our training step against the same model in PyTorch and transformers, on this machine, in one run.

    python tests/benchmarks/train_step.py                   the shapes of Whisper base and SmolLM2 135M, 8 s of audio
    python tests/benchmarks/train_step.py --batch 8 --steps 5 --dtype bfloat16

Random weights of true shapes; the same rows, clips, dropout and AdamW on both sides. PyTorch computes features with
WhisperFeatureExtractor on the host, as the reference does, and attends with its fused kernels; a --device cuda
measures the GPU on both sides. The two take turns, so that a machine that slows down slows both.
"""

import argparse
import functools
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import oracle

from desta_jax import sharding
from desta_jax.batch import IGNORED, empty_batch
from desta_jax.config import make_config
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.cost import step_flops
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.training.optimizer import learning_rate, make_optimizer
from desta_jax.training.step import compile_step, init_state, train_step

TAPS, PROMPT_SIZE, NUM_LAYERS = (1, 2, 3, 5), 16, 2


def hf_configs(seconds):
    whisper = transformers.WhisperConfig(
        num_mel_bins=80, d_model=512, encoder_layers=6, decoder_layers=1, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_source_positions=seconds * 50,
    )  # fmt: skip
    lm = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return whisper, lm


def make_batch(rows, seconds, tokens, labels):
    rng = np.random.default_rng(0)
    batch = empty_batch(rows, 1, 16000 * seconds, tokens, labels)
    batch.audio[:] = np.stack([oracle.speechlike(rng, 16000 * seconds) for _ in range(rows)])[:, None]
    batch.tokens[:] = rng.integers(2, 49152, batch.tokens.shape)
    batch.positions[:], batch.segments[:] = np.arange(tokens), 1
    batch.audio_slots[:, 8 : 8 + PROMPT_SIZE] = np.arange(PROMPT_SIZE)
    batch.labels[:] = batch.tokens[:, -labels:]
    batch.label_positions[:] = np.arange(tokens - labels, tokens) - 1
    return batch


def ours(batch, seconds, dtype, remat):
    """A function that takes one step; and the model."""
    whisper, lm = (config.to_dict() for config in hf_configs(seconds))
    model = AudioLM(
        WhisperShape.from_hf(whisper),
        DecoderShape.from_hf(lm),
        AdapterShape(NUM_LAYERS, PROMPT_SIZE, TAPS),
        jnp.dtype(dtype),
    )
    config = make_config({})
    optimizer = make_optimizer(config, 1000)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    frozen = jax.tree.map(
        lambda leaf: 0.02 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype), model.abstract_frozen()
    )
    state = init_state(model.init_adapter(jax.random.key(0)), optimizer)
    run = functools.partial(
        train_step, model=model, optimizer=optimizer, schedule=learning_rate(config, 1000), seed=0, remat=remat
    )
    step = compile_step(run, mesh, state, frozen)

    def take():
        nonlocal state
        state, metrics = step(state, frozen, sharding.put_batch(batch, mesh, batch.rows))
        return float(metrics["loss"])

    return take, model


def pytorchs(batch, seconds, dtype, device):
    reference = oracle.Reference.__new__(oracle.Reference)
    torch.nn.Module.__init__(reference)
    reference.build(*hf_configs(seconds), TAPS, PROMPT_SIZE, NUM_LAYERS, dropout=0.1)
    reference.to(device)
    reference.qformer.train()
    if dtype == "bfloat16":
        reference.lm.bfloat16()
    optimizer = torch.optim.AdamW(reference.trained().values(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.01)

    def take():
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = reference.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.trained().values(), 1.0)
        optimizer.step()
        return loss.item()

    return take


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=8, help="of audio a clip")
    parser.add_argument("--tokens", type=int, default=128, help="a row")
    parser.add_argument("--labels", type=int, default=64, help="a row")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--remat", choices=["all", "matmuls", "none"], default="none")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    batch = make_batch(options.batch, options.seconds, options.tokens, options.labels)
    assert (batch.audio_slots != IGNORED).sum() == options.batch * PROMPT_SIZE
    mine, model = ours(batch, options.seconds, options.dtype, options.remat)
    theirs = pytorchs(batch, options.seconds, options.dtype, options.device)
    times = {"desta_jax": [], "PyTorch": []}
    for step in range(options.steps + 1):
        for name, take in (("desta_jax", mine), ("PyTorch", theirs)):
            start = time.perf_counter()
            take()
            if step:  # the first compiles
                times[name].append(time.perf_counter() - start)
    shapes = {"rows": options.batch, "clips": 1, "samples": 16000 * options.seconds}
    flops = step_flops(model, **shapes, tokens=options.tokens, labels=options.labels)
    for name, seconds in times.items():
        median = float(np.median(seconds))
        print(
            f"{name:10} {median:7.3f} s a step  {options.batch / median:6.2f} samples/s  "
            f"{flops / median / 1e9:6.0f} GFLOP/s"
        )
    pairs = np.array(times["PyTorch"]) / np.array(times["desta_jax"])
    print(f"desta_jax is {np.median(pairs):.2f} times as fast (pairs from {pairs.min():.2f} to {pairs.max():.2f})")


if __name__ == "__main__":
    main()
