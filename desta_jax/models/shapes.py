"""The numbers that shape a model, read from a checkpoint's own Hugging Face config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

REFERENCE_TAPS = {4: (0, 1, 2, 3), 6: (1, 2, 3, 5), 12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 32: (7, 15, 23, 31)}
"""Tapped layers by encoder depth: the reference's for tiny, small, medium and large-v3; base (6) is ours."""

REFERENCE_LORA = {"lora_rank": 16, "lora_alpha": 16.0, "lora_dropout": 0.1}
"""In the reference's code, not in its config.json."""


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary position settings; `factor` 1 is plain rotary, above it Llama 3's scaling by frequency."""

    theta: float = 10_000.0
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class DecoderShape:
    """A Llama, Qwen2 or Qwen3 decoder."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    mlp_width: int
    epsilon: float
    rotary: Rotary
    tied: bool
    attention_bias: bool  # on q, k, v (Qwen2)
    query_norm: bool  # on q and k (Qwen3)
    max_positions: int

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DecoderShape:
        """Reads a `config.json`; raises ValueError for an architecture that this decoder does not compute."""
        kind = config.get("model_type")
        if kind not in ("llama", "qwen2", "qwen3"):
            raise ValueError(f"model_type {kind!r}: the language model must be llama, qwen2 or qwen3")
        if config.get("hidden_act", "silu") not in ("silu", "swish"):  # two names of one function
            raise ValueError(f"hidden_act {config['hidden_act']!r}: only silu is computed")
        if _slides(config):
            raise ValueError("use_sliding_window: attention over a sliding window is not computed")
        if config.get("mlp_bias") or (config.get("attention_bias") and kind != "qwen2"):
            raise ValueError(f"{kind} with attention_bias or mlp_bias is not computed")
        heads, width = _count(config, "num_attention_heads"), _count(config, "hidden_size")
        key_heads = _count(config, "num_key_value_heads", heads)
        if heads % key_heads:
            raise ValueError(f"num_key_value_heads {key_heads} does not divide num_attention_heads {heads}")
        return cls(
            vocabulary=_count(config, "vocab_size"),
            width=width,
            layers=_count(config, "num_hidden_layers"),
            heads=heads,
            key_heads=key_heads,
            head_width=_count(config, "head_dim", 128 if kind == "qwen3" else width // heads),
            mlp_width=_count(config, "intermediate_size"),
            epsilon=float(config.get("rms_norm_eps", 1e-6)),
            rotary=_read_rotary(config),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=kind == "qwen2",
            query_norm=kind == "qwen3",
            max_positions=_count(config, "max_position_embeddings"),
        )

    @property
    def parameters(self) -> int:
        """Parameters that multiply activations: attention, MLP and output head, without norms, biases, embeddings."""
        attention = self.width * self.head_width * 2 * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.width * self.mlp_width) + self.vocabulary * self.width


@dataclasses.dataclass(frozen=True)
class WhisperShape:
    """A Whisper encoder and decoder."""

    mels: int
    width: int
    encoder_layers: int
    encoder_heads: int
    encoder_mlp_width: int
    max_frames: int  # encoder positions: half the mel frames
    decoder_layers: int
    decoder_heads: int
    decoder_mlp_width: int
    max_tokens: int
    vocabulary: int

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> WhisperShape:
        """Reads a `config.json`; raises ValueError if it is not Whisper's."""
        if config.get("model_type") != "whisper":
            raise ValueError(f"model_type {config.get('model_type')!r}: the encoder must be whisper")
        if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
            raise ValueError("a Whisper with another activation than gelu, or with scale_embedding, is not computed")
        return cls(
            mels=_count(config, "num_mel_bins"),
            width=_count(config, "d_model"),
            encoder_layers=_count(config, "encoder_layers"),
            encoder_heads=_count(config, "encoder_attention_heads"),
            encoder_mlp_width=_count(config, "encoder_ffn_dim"),
            max_frames=_count(config, "max_source_positions"),
            decoder_layers=_count(config, "decoder_layers"),
            decoder_heads=_count(config, "decoder_attention_heads"),
            decoder_mlp_width=_count(config, "decoder_ffn_dim"),
            max_tokens=_count(config, "max_target_positions"),
            vocabulary=_count(config, "vocab_size"),
        )


@dataclasses.dataclass(frozen=True)
class AdapterShape:
    """The trained part: a Q-Former connector, and LoRA on q, k, v where `lora_rank` is above 0."""

    num_layers: int
    prompt_size: int
    tap_layers: tuple[int, ...]
    dropout: float = 0.1
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.1
    standardize: bool = False
    """Whether the connector standardises the encoder's frames first: in training only, for an export has that folded
    into its weights."""

    @classmethod
    def of_run(cls, settings: ConfigDict, encoder_layers: int) -> AdapterShape:
        """As the `adapter` part of a run's config describes it."""
        return cls(
            num_layers=settings.num_layers,
            prompt_size=settings.prompt_size,
            tap_layers=tap_layers_for(encoder_layers, settings.tap_layers),
            dropout=settings.dropout,
            lora_rank=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            standardize=settings.standardize_clips > 0,
        )

    @classmethod
    def of_reference(cls, config: Mapping[str, Any], encoder_layers: int) -> AdapterShape:
        """As the config.json of an export, or of the PyTorch reference, describes it."""
        rank = (config.get("lora_rank") or REFERENCE_LORA["lora_rank"]) if config.get("use_lora") else 0
        return cls(
            num_layers=config["qformer_num_hidden_layers"],
            prompt_size=config["prompt_size"],
            tap_layers=tap_layers_for(encoder_layers, tuple(config.get("target_layer_ids") or ())),
            lora_rank=int(rank),
            lora_alpha=float(config.get("lora_alpha", REFERENCE_LORA["lora_alpha"])),
        )


NO_ADAPTER = AdapterShape(num_layers=0, prompt_size=1, tap_layers=())  # where a part of the model works by itself


def tap_layers_for(encoder_layers: int, asked: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The tapped encoder layers, from 0: those asked for, or the reference's for an encoder of this depth.

    Raises:
        ValueError: they do not rise from 0 within the encoder, or the reference names none for it.
    """
    if not asked:
        if encoder_layers not in REFERENCE_TAPS:
            raise ValueError(
                f"adapter.tap_layers: the reference names none for an encoder of {encoder_layers} layers; set them"
            )
        return REFERENCE_TAPS[encoder_layers]
    if not all(isinstance(layer, int) and layer >= 0 for layer in asked) or list(asked) != sorted(set(asked)):
        raise ValueError(f"adapter.tap_layers: {list(asked)} must be whole numbers from 0 that rise")
    if max(asked) >= encoder_layers:
        raise ValueError(
            f"adapter.tap_layers: {max(asked)} is beyond the encoder, whose layers are 0 to {encoder_layers - 1}"
        )
    return tuple(asked)


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number above 0; KeyError where it is missing and has no default."""
    value = config[key] if default is None else config.get(key) or default
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} must be a whole number above 0, not {value!r}")
    return value


def _slides(config: Mapping[str, Any]) -> bool:
    """Whether some layer's attention slides; Qwen's own config.json names a window that no layer uses."""
    if (types := config.get("layer_types")) is not None:
        return any(kind != "full_attention" for kind in types)
    return bool(config.get("use_sliding_window")) and config.get("max_window_layers", 28) < config["num_hidden_layers"]


def _read_rotary(config: Mapping[str, Any]) -> Rotary:
    """Both spellings, `rope_theta` with `rope_scaling` and the newer `rope_parameters`; with both, as transformers."""
    settings = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in settings.values()):
        raise ValueError("rope_parameters: rotary settings by type of layer are not computed")
    share = settings.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if share != 1.0:
        raise ValueError(f"partial_rotary_factor {share}: only rotation of the whole head is computed")
    theta = float(settings.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind == "default":
        return Rotary(theta)
    if kind != "llama3":
        raise ValueError(f"rope type {kind!r}: only the plain one and llama3's are computed")
    original = "original_max_position_embeddings"
    return Rotary(
        theta,
        factor=float(settings["factor"]),
        low_frequency_factor=float(settings["low_freq_factor"]),
        high_frequency_factor=float(settings["high_freq_factor"]),
        original_positions=int(config.get(original) or settings.get(original) or config["max_position_embeddings"]),
    )
