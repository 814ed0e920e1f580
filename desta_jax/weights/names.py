"""The one place that knows foreign tensor names: tables of rules, read in both directions.

Foreign are Whisper, Llama, Qwen2 and Qwen3 as transformers names them, the PyTorch reference's connector, PEFT's LoRA.
A rule says which foreign tensors make up one leaf of ours, and how: a Linear weight of PyTorch is [out, in], our kernel
[in, out]; its convolution [out, in, time], ours [time, in, out]; its layers lie apart, ours in one stack.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from desta_jax.models.qformer import MLP_WIDTH
from desta_jax.models.shapes import DecoderShape, WhisperShape


@dataclasses.dataclass(frozen=True)
class Rule:
    """One leaf of ours and the foreign tensors that it is made of."""

    foreign: str  # with "{}" for the layer's (or tap's) number where the leaf is a stack
    path: str
    foreign_shape: tuple[int, ...]  # of each tensor
    layers: int = 0  # tensors in the stack; 0 where the leaf is one tensor, unstacked
    reversed: bool = False  # the axes
    squeezed: bool = False  # a leading axis of one

    @property
    def names(self) -> list[str]:
        return [self.foreign.format(layer) for layer in range(self.layers)] if self.layers else [self.foreign]

    @property
    def shape(self) -> tuple[int, ...]:
        """Ours."""
        one = self.foreign_shape[1:] if self.squeezed else self.foreign_shape
        one = one[::-1] if self.reversed else one
        return (self.layers, *one) if self.layers else one

    def inward(self, tensor: np.ndarray) -> np.ndarray:
        """One foreign tensor in our axes; a view."""
        tensor = tensor[0] if self.squeezed else tensor
        return tensor.T if self.reversed else tensor

    def outward(self, leaf: np.ndarray) -> dict[str, np.ndarray]:
        """Our leaf as foreign tensors by name."""
        slices = leaf if self.layers else [leaf]
        return {name: self._outward(part) for name, part in zip(self.names, slices, strict=True)}

    def _outward(self, part: np.ndarray) -> np.ndarray:
        part = part.T if self.reversed else part
        return np.ascontiguousarray(part).reshape(self.foreign_shape)


@dataclasses.dataclass(frozen=True)
class Table:
    """The rules of one model, and what else its file may hold."""

    rules: tuple[Rule, ...]
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)  # a tied tensor's second name: its first
    unused: Sequence[str] = ()  # patterns of names that carry no weight of ours

    def problems(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """A line for each foreign tensor that is missing, misshapen or not known, by name."""
        wanted = {name: rule.foreign_shape for rule in self.rules for name in rule.names}
        known = wanted | {copy: wanted[first] for copy, first in self.copies.items() if first in wanted}
        lines = [f"{name} is missing (shape {list(shape)})" for name, shape in wanted.items() if name not in shapes]
        lines += [
            f"{name} has shape {list(shapes[name])}, expected {list(shape)}"
            for name, shape in known.items()
            if name in shapes and tuple(shapes[name]) != tuple(shape)
        ]
        return lines + [
            f"{name} is not known (shape {list(shapes[name])})"
            for name in sorted(set(shapes) - set(known))
            if not self.is_unused(name)
        ]

    def is_unused(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.unused)


def decoder_table(shape: DecoderShape) -> Table:
    """transformers' LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM."""
    width, layer = shape.width, "model.layers.{}"
    query, key = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    block = [
        _scale(f"{layer}.input_layernorm", "layers.attention_norm", width),
        *_linear(f"{layer}.self_attn.q_proj", "layers.attention.q", query, width, bias=shape.attention_bias),
        *_linear(f"{layer}.self_attn.k_proj", "layers.attention.k", key, width, bias=shape.attention_bias),
        *_linear(f"{layer}.self_attn.v_proj", "layers.attention.v", key, width, bias=shape.attention_bias),
        *_linear(f"{layer}.self_attn.o_proj", "layers.attention.o", width, query, bias=False),
        _scale(f"{layer}.post_attention_layernorm", "layers.mlp_norm", width),
        *_linear(f"{layer}.mlp.gate_proj", "layers.mlp.gate", shape.mlp_width, width, bias=False),
        *_linear(f"{layer}.mlp.up_proj", "layers.mlp.up", shape.mlp_width, width, bias=False),
        *_linear(f"{layer}.mlp.down_proj", "layers.mlp.down", width, shape.mlp_width, bias=False),
    ]
    if shape.query_norm:
        block += [
            _scale(f"{layer}.self_attn.q_norm", "layers.attention.q_norm", shape.head_width),
            _scale(f"{layer}.self_attn.k_norm", "layers.attention.k_norm", shape.head_width),
        ]
    rules = [
        Rule("model.embed_tokens.weight", "embed", (shape.vocabulary, width)),
        *_stacked(block, shape.layers),
        _scale("model.norm", "norm", width),
    ]
    if not shape.tied:
        rules.append(Rule("lm_head.weight", "head", (shape.vocabulary, width)))
    return Table(
        tuple(rules),
        copies={"lm_head.weight": "model.embed_tokens.weight"} if shape.tied else {},
        unused=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),  # a table that old versions saved
    )


def whisper_encoder_rules(shape: WhisperShape) -> tuple[Rule, ...]:
    """The encoder of transformers' WhisperForConditionalGeneration."""
    width, layer = shape.width, "model.encoder.layers.{}"
    block = [
        *_norm(f"{layer}.self_attn_layer_norm", "layers.attention_norm", width),
        *_whisper_attention(f"{layer}.self_attn", "layers.attention", width),
        *_norm(f"{layer}.final_layer_norm", "layers.mlp_norm", width),
        *_linear(f"{layer}.fc1", "layers.mlp.up", shape.encoder_mlp_width, width),
        *_linear(f"{layer}.fc2", "layers.mlp.down", width, shape.encoder_mlp_width),
    ]
    return (
        Rule("model.encoder.conv1.weight", "conv1.kernel", (width, shape.mels, 3), reversed=True),
        Rule("model.encoder.conv1.bias", "conv1.bias", (width,)),
        Rule("model.encoder.conv2.weight", "conv2.kernel", (width, width, 3), reversed=True),
        Rule("model.encoder.conv2.bias", "conv2.bias", (width,)),
        Rule("model.encoder.embed_positions.weight", "positions", (shape.max_frames, width)),
        *_stacked(block, shape.encoder_layers),
        *_norm("model.encoder.layer_norm", "norm", width),
    )


def whisper_decoder_rules(shape: WhisperShape) -> tuple[Rule, ...]:
    """The decoder of transformers' WhisperForConditionalGeneration, whose embeddings are its output head too."""
    width, layer = shape.width, "model.decoder.layers.{}"
    block = [
        *_norm(f"{layer}.self_attn_layer_norm", "layers.attention_norm", width),
        *_whisper_attention(f"{layer}.self_attn", "layers.attention", width),
        *_norm(f"{layer}.encoder_attn_layer_norm", "layers.cross_norm", width),
        *_whisper_attention(f"{layer}.encoder_attn", "layers.cross", width),
        *_norm(f"{layer}.final_layer_norm", "layers.mlp_norm", width),
        *_linear(f"{layer}.fc1", "layers.mlp.up", shape.decoder_mlp_width, width),
        *_linear(f"{layer}.fc2", "layers.mlp.down", width, shape.decoder_mlp_width),
    ]
    return (
        Rule("model.decoder.embed_tokens.weight", "embed", (shape.vocabulary, width)),
        Rule("model.decoder.embed_positions.weight", "positions", (shape.max_tokens, width)),
        *_stacked(block, shape.decoder_layers),
        *_norm("model.decoder.layer_norm", "norm", width),
    )


WHISPER_COPIES = {"proj_out.weight": "model.decoder.embed_tokens.weight"}
REFERENCE_UNUSED = (r"vad_model\..*",)  # the reference saves its voice activity detector if it was used before


def connector_rules(*, taps: int, prompt_size: int, width: int, layers: int, lm_width: int) -> tuple[Rule, ...]:
    """The reference's QformerConnector: BERT layers with cross-attention, the prompts of each tap, a projection."""
    root, layer = "perception.connector", "perception.connector.qformer.layer.{}"
    block = []
    for foreign, ours in (("attention", "attention"), ("crossattention", "cross")):
        for theirs, name in (("self.query", "q"), ("self.key", "k"), ("self.value", "v"), ("output.dense", "o")):
            block += _linear(f"{layer}.{foreign}.{theirs}", f"layers.{ours}.{name}", width, width)
        block += _norm(f"{layer}.{foreign}.output.LayerNorm", f"layers.{ours}_norm", width)
    block += [
        *_linear(f"{layer}.intermediate.dense", "layers.mlp.up", MLP_WIDTH, width),
        *_linear(f"{layer}.output.dense", "layers.mlp.down", width, MLP_WIDTH),
        *_norm(f"{layer}.output.LayerNorm", "layers.mlp_norm", width),
    ]
    rules = (
        Rule(f"{root}.layer_prompts.{{}}", "prompts", (1, prompt_size, width), layers=taps, squeezed=True),
        Rule(f"{root}.layer_weights", "tap_weights", (prompt_size, taps)),
        *_stacked(block, layers),
        *_norm(f"{root}.proj.0", "norm", width),
        *_linear(f"{root}.proj.1", "proj", lm_width, width),
    )
    return _under("connector", rules)


def lora_rules(*, layers: int, width: int, query_width: int, key_width: int, rank: int) -> tuple[Rule, ...]:
    """LoRA on q, k and v as the reference saves it: PEFT's modules without PEFT's wrapper, its adapter "default"."""
    rules = []
    for name, outputs in (("q", query_width), ("k", key_width), ("v", key_width)):
        module = f"llm_model.model.layers.{{}}.self_attn.{name}_proj"
        rules += [
            Rule(f"{module}.lora_A.default.weight", f"{name}.a", (rank, width), layers, reversed=True),
            Rule(f"{module}.lora_B.default.weight", f"{name}.b", (outputs, rank), layers, reversed=True),
        ]
    return _under("lora", rules)


def peft_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same with the names of PEFT's own adapter_model.safetensors."""

    def rename(name: str) -> str:
        return name.replace("llm_model.", "base_model.model.", 1).replace(".default.", ".")

    return tuple(dataclasses.replace(rule, foreign=rename(rule.foreign)) for rule in rules)


def _linear(foreign: str, path: str, outputs: int, inputs: int, *, bias: bool = True) -> list[Rule]:
    kernel = Rule(f"{foreign}.weight", f"{path}.kernel", (outputs, inputs), reversed=True)
    return [kernel, Rule(f"{foreign}.bias", f"{path}.bias", (outputs,))] if bias else [kernel]


def _scale(foreign: str, path: str, width: int) -> Rule:
    return Rule(f"{foreign}.weight", f"{path}.scale", (width,))


def _norm(foreign: str, path: str, width: int) -> list[Rule]:
    return [_scale(foreign, path, width), Rule(f"{foreign}.bias", f"{path}.bias", (width,))]


def _whisper_attention(foreign: str, path: str, width: int) -> list[Rule]:
    names = (("q_proj", "q", True), ("k_proj", "k", False), ("v_proj", "v", True), ("out_proj", "o", True))
    return [
        rule
        for theirs, ours, bias in names
        for rule in _linear(f"{foreign}.{theirs}", f"{path}.{ours}", width, width, bias=bias)
    ]


def _stacked(rules: Iterable[Rule], layers: int) -> list[Rule]:
    return [dataclasses.replace(rule, layers=layers) for rule in rules]


def _under(root: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(dataclasses.replace(rule, path=f"{root}.{rule.path}") for rule in rules)
