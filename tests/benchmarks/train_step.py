"""Our training step against the same model in PyTorch and transformers, on this machine, in one run.

    python tests/benchmarks/train_step.py                   the shapes of Whisper base and SmolLM2 135M, 8 s of audio
    python tests/benchmarks/train_step.py --batch 8 --steps 5 --dtype bfloat16
    python tests/benchmarks/train_step.py --shapes paper --device cuda --dtype bfloat16 --remat all \\
        --batch 12 --seconds 30 --tokens 300 --labels 150   Whisper large-v3 and Llama 3.1 8B, on a GPU of 80 GB

Random weights of true shapes; the same rows, clips, dropout and AdamW on both sides. PyTorch computes features with
WhisperFeatureExtractor on the host, as the reference does, and attends with its fused kernels; a --device cuda
measures the GPU on both sides, and their memory. The two take turns, so that a machine that slows down slows both.
"""

import argparse
import functools
import os
import pathlib
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch lives on the same GPU

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
from desta_jax.training.metrics import peak_flops
from desta_jax.training.optimizer import learning_rate, make_optimizer
from desta_jax.training.step import compile_step, init_state, state_shardings, train_step

SHAPES = {
    "small": {
        "whisper": dict(
            num_mel_bins=80, d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048
        ),
        "lm": dict(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True,
        ),
        "adapter": AdapterShape(num_layers=2, prompt_size=16, tap_layers=(1, 2, 3, 5)),
    },
    "paper": {
        "whisper": dict(
            num_mel_bins=128, d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120
        ),
        "lm": dict(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
            num_key_value_heads=8, tie_word_embeddings=False,
        ),
        "adapter": AdapterShape(num_layers=6, prompt_size=64, tap_layers=(7, 15, 23, 31)),
    },
}  # fmt: skip


def hf_configs(seconds, shapes="small"):
    """transformers' configs of the two frozen models; of Whisper's decoder, which no step runs, one layer."""
    heads = SHAPES[shapes]["whisper"]["encoder_attention_heads"]
    decoder = {"decoder_layers": 1, "decoder_attention_heads": heads, "decoder_ffn_dim": 2048}
    whisper = transformers.WhisperConfig(**SHAPES[shapes]["whisper"], **decoder, max_source_positions=seconds * 50)
    return whisper, transformers.LlamaConfig(**SHAPES[shapes]["lm"])


def make_batch(rows, seconds, tokens, labels, prompt_size):
    rng = np.random.default_rng(0)
    batch = empty_batch(rows, 1, 16000 * seconds, tokens, labels)
    batch.audio[:] = np.stack([oracle.speechlike(rng, 16000 * seconds) for _ in range(rows)])[:, None]
    batch.tokens[:] = rng.integers(2, 49152, batch.tokens.shape)
    batch.positions[:], batch.segments[:] = np.arange(tokens), 1
    batch.audio_slots[:, 8 : 8 + prompt_size] = np.arange(prompt_size)
    batch.labels[:] = batch.tokens[:, -labels:]
    batch.label_positions[:] = np.arange(tokens - labels, tokens) - 1
    return batch


def ours(batch, seconds, shapes, dtype, remat):
    """A function that takes one step; and the model."""
    whisper, lm = (config.to_dict() for config in hf_configs(seconds, shapes))
    model = AudioLM(
        WhisperShape.from_hf(whisper), DecoderShape.from_hf(lm), SHAPES[shapes]["adapter"], jnp.dtype(dtype)
    )
    config = make_config({})
    optimizer = make_optimizer(config, 1000)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    frozen = jax.tree.map(
        lambda leaf: 0.02 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype), model.abstract_frozen()
    )
    frozen = jax.device_put(frozen, sharding.parameter_shardings(frozen, mesh))
    state = init_state(model.init_adapter(jax.random.key(0)), optimizer)
    state = jax.device_put(state, state_shardings(state, mesh))
    run = functools.partial(
        train_step, model=model, optimizer=optimizer, schedule=learning_rate(config, 1000), seed=0, remat=remat
    )
    step = compile_step(run, mesh, state, frozen)

    def take():
        nonlocal state
        state, metrics = step(state, frozen, sharding.put_batch(batch, mesh, batch.rows))
        return float(metrics["loss"])

    return take, model


def pytorchs(batch, seconds, shapes, dtype, device, remat):
    """A function that takes one step, made on the device: 8 B parameters in float32 would not fit many hosts."""
    adapter = SHAPES[shapes]["adapter"]
    reference = oracle.Reference.__new__(oracle.Reference)
    torch.nn.Module.__init__(reference)
    with torch.device(device):
        whisper, lm = hf_configs(seconds, shapes)
        lm.dtype = dtype
        reference.build(
            whisper, lm, adapter.tap_layers, adapter.prompt_size, adapter.num_layers, dropout=adapter.dropout
        )
    reference.to(device)
    reference.qformer.train()
    if remat != "none":
        reference.lm.gradient_checkpointing_enable({"use_reentrant": False})
        reference.lm.train()  # transformers checkpoints in training alone; Llama has no dropout
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


def most_memory(device):
    """Bytes of the GPU that each side took at its fullest; None on a CPU."""
    if device == "cpu":
        return None
    ours = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return {"desta_jax": ours, "PyTorch": torch.cuda.max_memory_allocated()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="small")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=8, help="of audio a clip")
    parser.add_argument("--tokens", type=int, default=128, help="a row")
    parser.add_argument("--labels", type=int, default=64, help="a row")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--remat", choices=["all", "matmuls", "scores", "none"], default="none")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    jax.config.update("jax_platforms", options.device)
    prompt_size = SHAPES[options.shapes]["adapter"].prompt_size
    batch = make_batch(options.batch, options.seconds, options.tokens, options.labels, prompt_size)
    assert (batch.audio_slots != IGNORED).sum() == options.batch * prompt_size
    mine, model = ours(batch, options.seconds, options.shapes, options.dtype, options.remat)
    theirs = pytorchs(batch, options.seconds, options.shapes, options.dtype, options.device, options.remat)
    times = {"desta_jax": [], "PyTorch": []}
    for step in range(options.steps + 1):
        for name, take in (("desta_jax", mine), ("PyTorch", theirs)):
            start = time.perf_counter()
            take()
            if step:  # the first compiles
                times[name].append(time.perf_counter() - start)
    shapes = {"rows": options.batch, "clips": 1, "samples": 16000 * options.seconds}
    flops = step_flops(model, **shapes, tokens=options.tokens, labels=options.labels)
    peak, memory = peak_flops(jax.devices()[0]), most_memory(options.device)
    for name, seconds in times.items():
        median = float(np.median(seconds))
        print(
            f"{name:10} {median:7.3f} s a step  {options.batch / median:6.2f} samples/s  "
            f"{flops / median / 1e9:6.0f} GFLOP/s"
            + (f"  MFU {flops / median / peak:.1%}" if peak else "")
            + (f"  {memory[name] / 1e9:.1f} GB at most" if memory else "")
        )
    pairs = np.array(times["PyTorch"]) / np.array(times["desta_jax"])
    print(f"desta_jax is {np.median(pairs):.2f} times as fast (pairs from {pairs.min():.2f} to {pairs.max():.2f})")


if __name__ == "__main__":
    main()
