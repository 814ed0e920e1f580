"""The trained part, from and to the folder that the PyTorch reference saves: model.safetensors and config.json."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save

from desta_jax import tree
from desta_jax.models.shapes import REFERENCE_LORA, DecoderShape, WhisperShape, tap_layers_for
from desta_jax.weights import hub, names, tensors
from desta_jax.weights.card import model_card
from desta_jax.weights.trained import FOLDER
from desta_jax.weights.whole import whole_folder, write_json

DTYPES = {"float32": np.dtype("float32"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
A, B = "lora_A.default.weight", "lora_B.default.weight"


def read_adapter(
    source: str | os.PathLike, *, encoder: WhisperShape | None = None, lm: DecoderShape | None = None
) -> tuple[tree.Tree, dict[str, Any]]:
    """The adapter tree (float32 numpy) and the config.json of a folder that the reference, or `write_adapter`, wrote.

    With LoRA the config also has lora_rank, lora_alpha and lora_dropout.

    Args:
        source: a folder, or a name on the Hub with an optional @revision.
        encoder, lm: the models that it shall join; where given, its shapes are held against theirs.

    Raises:
        ValueError: not such a folder, or it does not fit: names every missing, misshapen and unknown tensor.
    """
    folder = hub.resolve(source, ("config.json", *hub.WEIGHT_FILES))
    config = read_adapter_config(folder)
    stored = tensors.list_tensors(folder)
    rules = _rules(config, {name: tensor.shape for name, tensor in stored.items()}, encoder, lm, folder)
    problems = names.Table(rules, unused=names.REFERENCE_UNUSED).problems({n: t.shape for n, t in stored.items()})
    problems += tensors.unreadable(stored, {name for rule in rules for name in rule.names})
    if problems:
        raise ValueError(f"{folder} is no adapter for these models:\n  " + "\n  ".join(problems))
    adapter = tree.unflatten({rule.path: _read_leaf(rule, stored) for rule in rules})
    if "lora" in adapter:
        config = REFERENCE_LORA | config | {"lora_rank": adapter["lora"]["q"]["a"].shape[-1]}
    return adapter, config


def read_adapter_config(folder: pathlib.Path) -> dict[str, Any]:
    """The reference's config.json, checked; raises ValueError if it describes something else."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} can't be read ({error}): is {folder} an adapter folder of the reference?") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "desta25":
        raise ValueError(f"{file} has model_type {kind!r}: an adapter's is 'desta25'")
    if config.get("connector_mode", "qformer_1") != "qformer_1":
        raise ValueError(f"{file} has connector_mode {config['connector_mode']!r}: only 'qformer_1' is known")
    for key in ("qformer_num_hidden_layers", "prompt_size", "audio_seconds"):
        value = config.get(key, 30 if key == "audio_seconds" else None)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{file}: {key} must be a whole number above 0, not {value!r}")
    return config


def other_models(config: Mapping[str, Any], description: Mapping[str, Any]) -> list[str]:
    """A line for each model of a converted folder that is not the one the adapter was trained with, where both have
    names on the Hub; what no shape shows.

    Args:
        config: the adapter's config.json.
        description: the converted folder's desta_jax.json.
    """
    trained_with = {part: str(config.get(f"{part}_model_id", "")).partition("@")[0] for part in ("llm", "encoder")}
    here = {part: hub.name_of(description[part]) for part in trained_with}
    return [
        f"the adapter was trained with {name} and is put beside {here[part]}: unless these are the same weights, it "
        "will hear little"
        for part, name in trained_with.items()
        if here[part] and hub.NAME.fullmatch(name) and name.casefold() != here[part].casefold()
    ]


def write_adapter(
    out: str | os.PathLike,
    adapter: tree.Tree,
    *,
    llm_model_id: str,
    encoder_model_id: str,
    tap_layers: Sequence[int],
    placeholder_token: str,
    audio_locator: str = "<|AUDIO|>",
    audio_seconds: int = 30,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.1,
    dtype: str = "float32",
    overwrite: bool = False,
) -> pathlib.Path:
    """A folder that the reference's `DeSTA25AudioModel.from_pretrained` reads: weights, config.json, a model card.

    With LoRA the reference's file has it too, and OUT/lora is a PEFT adapter by itself.

    Args:
        out: the folder to make.
        adapter: {"connector": ..., "lora": ... if there is one}, arrays that the host can read.
        llm_model_id, encoder_model_id: what the reference loads beside it: Hub names, or paths.
        tap_layers: the encoder layers that the connector looks at, from 0.
        placeholder_token, audio_locator, audio_seconds, lora_alpha, lora_dropout: as in training.
        dtype: of the written tensors; "float32" loses nothing, "bfloat16" is half as large.
        overwrite: whether an older export in `out` may be replaced.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    rules = _rules_of_tree(adapter)
    arrays = _outward(rules, adapter, DTYPES[dtype])
    prompts = adapter["connector"]["prompts"]
    config = {
        "architectures": ["DeSTA25AudioModel"],
        "model_type": "desta25",
        "llm_model_id": llm_model_id,
        "encoder_model_id": encoder_model_id,
        "connector_mode": "qformer_1",
        "qformer_num_hidden_layers": int(adapter["connector"]["layers"]["mlp_norm"]["scale"].shape[0]),
        "prompt_size": int(prompts.shape[1]),
        "audio_locator": audio_locator,
        "placeholder_token": placeholder_token,
        "use_lora": "lora" in adapter,
        "target_layer_ids": [int(layer) for layer in tap_layers],
        "audio_seconds": audio_seconds,
    }
    if len(tap_layers) != prompts.shape[0]:
        raise ValueError(f"tap_layers {list(tap_layers)}: the adapter has prompts for {prompts.shape[0]} taps")
    if "lora" in adapter:
        rank = int(adapter["lora"]["q"]["a"].shape[-1])
        config |= {"lora_rank": rank, "lora_alpha": lora_alpha, "lora_dropout": lora_dropout}
    with whole_folder(out, overwrite=overwrite, is_older=_is_export) as partial:
        _write_tensors(partial / tensors.WEIGHTS, arrays)
        write_json(partial / "config.json", config)
        (partial / "README.md").write_text(model_card(config, tree.count(adapter)))
        if "lora" in adapter:
            _write_peft(partial / "lora", _lora(rules), adapter, config, dtype)
    return pathlib.Path(out)


def _is_export(folder: pathlib.Path) -> bool:
    """Not every config.json is an export's: a run has one beside its checkpoints, and so has any model."""
    try:
        read_adapter_config(folder)
    except ValueError:
        return False
    return not (folder / FOLDER).exists()


def _write_peft(
    folder: pathlib.Path, rules: Sequence[names.Rule], adapter: tree.Tree, config: Mapping[str, Any], dtype: str
) -> None:
    """The LoRA alone, as PEFT's PeftModel.from_pretrained reads it."""
    folder.mkdir()
    arrays = _outward(names.peft_rules(rules), adapter, DTYPES[dtype])
    _write_tensors(folder / "adapter_model.safetensors", arrays)
    peft_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config["llm_model_id"],
        "r": config["lora_rank"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config["lora_dropout"],
        "target_modules": list(PROJECTIONS),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(folder / "adapter_config.json", peft_config)


def _write_tensors(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    file.write_bytes(save(dict(arrays), metadata={"format": "pt"}))  # save_file's own files are for their owner only


def _outward(rules: Sequence[names.Rule], adapter: tree.Tree, dtype: np.dtype) -> dict[str, np.ndarray]:
    leaves = tree.flatten(adapter)
    arrays = {}
    for rule in rules:
        arrays |= rule.outward(np.asarray(leaves[rule.path]).astype(dtype))
    return arrays


def _read_leaf(rule: names.Rule, stored: Mapping[str, tensors.StoredTensor]) -> np.ndarray:
    parts = [rule.inward(stored[name].read()).astype(np.float32) for name in rule.names]
    return np.stack(parts) if rule.layers else np.ascontiguousarray(parts[0])


def _rules(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    encoder: WhisperShape | None,
    lm: DecoderShape | None,
    folder: pathlib.Path,
) -> tuple[names.Rule, ...]:
    """The rules for the sizes that the models, or else the file itself, give."""
    projection = shapes.get("perception.connector.proj.1.weight", ())
    if len(projection) != 2:
        raise ValueError(f"{folder / tensors.WEIGHTS} lacks perception.connector.proj.1.weight: it is no adapter")
    taps = tuple(config.get("target_layer_ids") or ())
    if encoder:
        try:
            taps = tap_layers_for(encoder.encoder_layers, taps)
        except ValueError as error:
            raise ValueError(f"{folder / 'config.json'}: target_layer_ids, here called {error}") from error
    prompts = [name for name in shapes if name.startswith("perception.connector.layer_prompts.")]
    rules = names.connector_rules(
        taps=len(taps) or len(prompts),
        prompt_size=config["prompt_size"],
        width=encoder.width if encoder else projection[1],
        layers=config["qformer_num_hidden_layers"],
        lm_width=lm.width if lm else projection[0],
    )
    return rules + _lora_rules(shapes, lm, folder) if config.get("use_lora") else rules


def _lora_rules(
    shapes: Mapping[str, tuple[int, ...]], lm: DecoderShape | None, folder: pathlib.Path
) -> tuple[names.Rule, ...]:
    module = "llm_model.model.layers.0.self_attn."
    a, q, k = (shapes.get(module + n, ()) for n in (f"q_proj.{A}", f"q_proj.{B}", f"k_proj.{B}"))
    if not len(a) == len(q) == len(k) == 2:
        raise ValueError(
            f"{folder / 'config.json'} has use_lora, but {folder / tensors.WEIGHTS} lacks {module}q_proj.{A} or its "
            "fellows: save the adapter with its LoRA weights, or set use_lora to false"
        )
    numbers = [int(found[1]) for name in shapes if (found := re.match(r"llm_model\.model\.layers\.(\d+)\.", name))]
    return names.lora_rules(
        layers=lm.layers if lm else 1 + max(numbers),
        width=lm.width if lm else a[1],
        query_width=lm.heads * lm.head_width if lm else q[0],
        key_width=lm.key_heads * lm.head_width if lm else k[0],
        rank=a[0],
    )


def _rules_of_tree(adapter: tree.Tree) -> tuple[names.Rule, ...]:
    connector = adapter["connector"]
    taps, prompt_size, width = connector["prompts"].shape
    rules = names.connector_rules(
        taps=taps,
        prompt_size=prompt_size,
        width=width,
        layers=connector["layers"]["mlp_norm"]["scale"].shape[0],
        lm_width=connector["proj"]["bias"].shape[0],
    )
    if "lora" in adapter:
        lora = adapter["lora"]
        layers, lm_width, rank = lora["q"]["a"].shape
        rules += names.lora_rules(
            layers=layers,
            width=lm_width,
            query_width=lora["q"]["b"].shape[-1],
            key_width=lora["k"]["b"].shape[-1],
            rank=rank,
        )
    wrong = tree.differences(adapter, tree.unflatten({rule.path: np.broadcast_to(0.0, rule.shape) for rule in rules}))
    if wrong:
        raise ValueError("This is no adapter tree:\n  " + "\n  ".join(wrong))
    return rules


def _lora(rules: Sequence[names.Rule]) -> list[names.Rule]:
    return [rule for rule in rules if rule.path.startswith("lora.")]
