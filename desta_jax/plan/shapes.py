"""What the plan knows of a run before any weight or record is at hand: the model's numbers and the batch's shape."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from ml_collections import ConfigDict

from desta_jax.audio.load import SAMPLE_RATE
from desta_jax.config import rows_per_step
from desta_jax.inputs.pipeline import round_up, steps_of, training_inputs
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.inputs.rows import Shapes
from desta_jax.weights.folder import ModelFolder

AQA5M_SAMPLES = 4_963_845
"""Rows of DeSTA-AQA5M."""

_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3 |= {"original_max_position_embeddings": 8192}


def _llm(kind: str, vocabulary: int, width: int, mlp: int, layers: int, heads: int, keys: int, **more) -> dict:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "rms_norm_eps": 1e-6 if kind != "llama" else 1e-5,
        "rope_theta": {"llama": 5e5, "qwen2": 1e6, "qwen3": 1e6}[kind],
        "max_position_embeddings": {"llama": 131072, "qwen2": 32768, "qwen3": 40960}[kind],
        **more,
    }


def _llama3(width, mlp, layers, heads, keys, factor, **more):
    scaling = _LLAMA3 | {"factor": factor}
    return _llm("llama", 128256, width, mlp, layers, heads, keys, rope_scaling=scaling, **more)


def _qwen3(width, mlp, layers, heads, keys, tied):
    return _llm("qwen3", 151936, width, mlp, layers, heads, keys, head_dim=128, tie_word_embeddings=tied)


def _smol(width, mlp, layers, heads, keys):
    more = {"rope_theta": 1e5 if layers != 24 else 1.3e5, "max_position_embeddings": 8192}
    return _llm("llama", 49152, width, mlp, layers, heads, keys, tie_word_embeddings=True, **more)


LLMS = {
    "Llama-3.1-8B-Instruct": _llama3(4096, 14336, 32, 32, 8, 8.0),
    "Llama-3.2-1B-Instruct": _llama3(2048, 8192, 16, 32, 8, 32.0, tie_word_embeddings=True, head_dim=64),
    "Llama-3.2-3B-Instruct": _llama3(3072, 8192, 28, 24, 8, 32.0, tie_word_embeddings=True, head_dim=128),
    "Qwen2.5-0.5B-Instruct": _llm("qwen2", 151936, 896, 4864, 24, 14, 2, tie_word_embeddings=True),
    "Qwen2.5-1.5B-Instruct": _llm("qwen2", 151936, 1536, 8960, 28, 12, 2, tie_word_embeddings=True),
    "Qwen2.5-3B-Instruct": _llm("qwen2", 151936, 2048, 11008, 36, 16, 2, tie_word_embeddings=True),
    "Qwen2.5-7B-Instruct": _llm("qwen2", 152064, 3584, 18944, 28, 28, 4),
    "Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, 8, tied=True),
    "Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, 8, tied=True),
    "Qwen3-4B": _qwen3(2560, 9728, 36, 32, 8, tied=True),
    "Qwen3-8B": _qwen3(4096, 12288, 36, 32, 8, tied=False),
    "SmolLM2-135M-Instruct": _smol(576, 1536, 30, 9, 3),
    "SmolLM2-360M-Instruct": _smol(960, 2560, 32, 15, 5),
    "SmolLM2-1.7B-Instruct": _smol(2048, 8192, 24, 32, 32),
}
"""config.json of published language models, as far as it shapes the step; names without their owner."""


def _whisper(mels: int, width: int, layers: int, heads: int, decoder_layers: int, vocabulary: int) -> dict:
    return {
        "model_type": "whisper",
        "num_mel_bins": mels,
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "max_source_positions": 1500,
        "decoder_layers": decoder_layers,
        "decoder_attention_heads": heads,
        "decoder_ffn_dim": 4 * width,
        "max_target_positions": 448,
        "vocab_size": vocabulary,
    }


ENCODERS = {
    "whisper-tiny": _whisper(80, 384, 4, 6, 4, 51865),
    "whisper-base": _whisper(80, 512, 6, 8, 6, 51865),
    "whisper-small": _whisper(80, 768, 12, 12, 12, 51865),
    "whisper-medium": _whisper(80, 1024, 24, 16, 24, 51865),
    "whisper-large-v3": _whisper(128, 1280, 32, 20, 32, 51866),
    "whisper-large-v3-turbo": _whisper(128, 1280, 32, 20, 4, 51866),
}


@dataclasses.dataclass(frozen=True)
class Published:
    """Stands for a converted folder where only the models' names are known."""

    llm_config: dict[str, Any]
    whisper_config: dict[str, Any]


def find_models(config: ConfigDict) -> ModelFolder | Published:
    """The converted folder if it is on this disk, else the models of `model.llm` and `model.encoder`.

    Those are names of known models, or folders with a config.json.

    Raises:
        ValueError: a name that is not known.
    """
    if config.model.checkpoint and os.path.isdir(config.model.checkpoint):
        return ModelFolder(config.model.checkpoint)
    return Published(
        _named("model.llm", config.model.llm, LLMS, config),
        _named("model.encoder", config.model.encoder, ENCODERS, config),
    )


def _named(key: str, name: str, known: dict[str, dict], config: ConfigDict) -> dict:
    settings = pathlib.Path(name) / "config.json"
    if name and settings.is_file():
        try:
            return json.loads(settings.read_text())
        except ValueError as error:
            raise ValueError(f"{settings}: not JSON ({error}); copy or download the model again") from None
    short = name.rpartition("/")[2]
    for candidate in (short, f"{short}-Instruct", short.removesuffix("-Instruct")):
        if candidate in known:
            return known[candidate]
    missing = f"{config.model.checkpoint} is not on this disk, and " if config.model.checkpoint else ""
    raise ValueError(
        f"{key}: {missing}the shape of {name!r} is not known; run `desta-jax convert` first and set model.checkpoint, "
        f"or name a folder with its config.json, or one of {', '.join(known)}"
    )


@dataclasses.dataclass(frozen=True)
class Work:
    """The batch's shape, how many steps there are, and what of it is assumed."""

    shapes: Shapes
    steps: int
    samples: int
    """Of an epoch."""
    assumptions: tuple[str, ...]


def find_work(config: ConfigDict, models: ModelFolder | Published) -> Work:
    """From the run's records and tokenizer where both are on this disk, else from the config alone."""
    rows = rows_per_step(config)
    here = config.data.train and all(os.path.isdir(folder) for folder in config.data.train)
    if here and isinstance(models, ModelFolder):
        prompts = PromptBuilder(models.tokenizer(), config.adapter.prompt_size, config.adapter.placeholder_token)
        inputs = training_inputs(config, prompts, rows_per_step=rows)
        steps = steps_of(config, inputs.rows_per_epoch, rows)
        return Work(inputs.shapes, steps, inputs.samples_per_epoch, ())
    return _assumed(config, rows)


def _assumed(config: ConfigDict, rows: int) -> Work:
    data, clips = config.data, config.data.clips_per_row if config.data.pack else 1
    tokens = (data.row_length or clips * data.max_length) if data.pack else data.max_length
    soft = clips * config.adapter.prompt_size
    if tokens <= soft:
        raise ValueError(
            f"data.row_length: {tokens} tokens leave no room beside the {soft} soft ones of data.clips_per_row {clips}"
        )
    shapes = Shapes(rows, clips, data.audio_seconds * SAMPLE_RATE, round_up(tokens), round_up(tokens - soft))
    steps = steps_of(config, AQA5M_SAMPLES, rows * clips)
    assumptions = [
        f"the records are not read: rows of {shapes.tokens} tokens, one clip a sample, and every token after the soft "
        f"ones may be a label ({shapes.labels})",
    ]
    if not config.train.steps:
        assumptions.append(f"an epoch is DeSTA-AQA5M's {AQA5M_SAMPLES:,} samples")
    return Work(shapes, steps, AQA5M_SAMPLES, tuple(assumptions))
