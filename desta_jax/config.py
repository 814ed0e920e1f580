"""What a run is: every key with its default, and one error that names every wrong key and the remedy."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import math
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

DTYPES = ("bfloat16", "float32")
PRECISIONS = ("highest", "bfloat16")
REMAT = ("all", "matmuls", "scores", "none")
ELEMENTS = {"adapter.tap_layers": int, "data.weights": float}
"""What a tuple in the config holds; the others hold text."""
EXAMPLES = {int: "(7, 15)", float: "(1, 2.5)", str: "('a', 'b')"}


def default_config() -> ConfigDict:
    """The paper's run; a file in configs/ says only what differs from it."""
    config = ConfigDict()
    config.seed = 42
    config.compute_dtype = "bfloat16"  # of the frozen weights and of every matmul; the adapter is kept in float32
    config.matmul_precision = "highest"  # of float32; "bfloat16" rounds linear layers' inputs, not their sums
    config.model = ConfigDict(
        {
            "checkpoint": "",  # the folder that `desta-jax convert` wrote
            "llm": "",  # Hub names of what that folder is made from: for `plan` without weights, and for `export` where
            "encoder": "",  # it was made from folders
        }
    )
    config.adapter = ConfigDict(
        {
            "num_layers": 6,
            "prompt_size": 64,  # soft tokens a clip
            "tap_layers": (),  # encoder layers, from 0; () takes the reference's for the encoder at hand
            "dropout": 0.1,
            "standardize_clips": 0,  # clips by which the encoder's frames are standardised before they are learned from
            "placeholder_token": "<|reserved_special_token_87|>",
            "lora_rank": 0,  # 0 trains the connector alone
            "lora_alpha": 16.0,
            "lora_dropout": 0.1,
        }
    )
    config.data = ConfigDict(
        {
            "train": (),  # folders that `desta-jax records` wrote
            "weights": (),  # how often each is drawn from; () in proportion to their sizes
            "validation": (),
            "shuffle": True,
            "max_length": 300,  # tokens a sample, soft tokens included; longer is cut at the end
            "validation_max_length": 512,
            "pack": False,  # several samples a row
            "clips_per_row": 4,  # clips in a packed row
            "row_length": 0,  # tokens in a packed row; 0 picks it from the data
            "audio_seconds": 30,  # the encoder's window; longer clips are cut
            "threads": 4,  # readers in a process
            "workers": 0,  # reader processes; 0 reads in the training process
            "prefetch": 2,  # batches made ahead
        }
    )
    config.train = ConfigDict(
        {
            "batch_size": 96,  # samples in a global step (clips, when packed)
            "accumulate": 1,  # parts in which a step's batch is computed, one after the other
            "epochs": 5,
            "steps": 0,  # 0 follows epochs
            "max_skipped_steps": 10,  # updates skipped in a row, for a loss that is not finite, before the run stops
        }
    )
    config.optimizer = ConfigDict(
        {
            "peak_learning_rate": 1e-4,
            "warmup_steps": 5000,
            "b1": 0.9,
            "b2": 0.98,
            "eps": 1e-8,
            "weight_decay": 0.01,
            "clip_norm": 1.0,  # of all gradients together; 0 clips nothing
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})  # -1 takes the devices that are left
    config.remat = "all"  # computed again in the backward pass: "all", all but "matmuls", attention's "scores", "none"
    config.checkpoint = ConfigDict({"every_steps": 1000, "keep": 3})  # the newest `keep`, and the best by validation
    config.evaluate = ConfigDict(
        {
            "every_steps": 0,  # steps between looks at data.validation; 0: at the end only
            "samples": 4,  # answers to show each time, in a run of one process; they take a copy of the language model
            "benchmarks": (),  # "NAME=FOLDER", such as "mmau=data/mmau": scored while the run goes on
            "benchmark_every_steps": 0,  # 0: at the end only
            "benchmark_questions": 0,  # of each benchmark, the first so many; 0: all
        }
    )
    config.profile = ConfigDict({"start_step": 0, "steps": 5})  # traced into WORKDIR/profile; start_step 0: none
    config.stall = ConfigDict(
        {
            "alarm_seconds": 1800,  # without the end of a step: show what every thread does; 0: never
            "exit_seconds": 7200,  # end with an error, so that the run is started again; 0: never
        }
    )
    config.log = ConfigDict({"every_steps": 10, "samples": False, "tensorboard": True, "wandb_project": ""})
    return config


def load_config(file: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The run described by a Python file whose get_config() says what differs from the default.

    Args:
        file: path of the config file.
        overrides: "a.b=value", Python literals; a value that is none is taken as a string.

    Raises:
        FileNotFoundError, ValueError: naming every wrong key and value, and what to write instead.
    """
    changes = _flatten(_read_file(file))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"--config.{override}: expected --config.KEY=VALUE")
        changes[key] = _literal(text)
    return make_config(changes)


def make_config(changes: Mapping[str, Any]) -> ConfigDict:
    """The default with changes by dotted key; raises one ValueError that lists every problem."""
    config = default_config()
    defaults = _flatten(config)
    problems = []
    for key, value in changes.items():
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, 1, cutoff=0.6) or _same_last_name(key, defaults)
            problems.append(f"{key}: no such key" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        try:
            value = _as_type_of(defaults[key], value)
            if isinstance(value, tuple):
                _check_elements(value, ELEMENTS.get(key, str))
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            problems.append(f"{key}: {error}")
    problems += _check_values(config)
    if problems:
        raise ValueError("The config has problems:\n  " + "\n  ".join(problems))
    config.lock()
    return config


def mesh_sizes(data: int, fsdp: int, tensor: int, *, devices: int) -> dict[str, int]:
    """The mesh's axes over so many devices; one of the sizes may be -1 and takes the devices that are left.

    Raises:
        ValueError: sizes that do not multiply to the number of devices.
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = " x ".join(map(str, sizes.values()))
    known = math.prod(size for size in sizes.values() if size != -1)
    sizes = {axis: devices // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != devices:
        raise ValueError(
            f"mesh: data x fsdp x tensor = {asked} does not fit {devices} devices; choose sizes that multiply to "
            f"{devices}, or set one of mesh.data, mesh.fsdp, mesh.tensor to -1 and let the others divide it"
        )
    return sizes


def rows_per_step(config: ConfigDict) -> int:
    """Rows of a global step."""
    return config.train.batch_size // (config.data.clips_per_row if config.data.pack else 1)


def check_rows(config: ConfigDict, row_shards: int) -> None:
    """Raises ValueError unless each part of a step lies evenly over so many parts of the mesh (data x fsdp)."""
    rows, shards = rows_per_step(config), row_shards * config.train.accumulate
    if rows % shards:
        packed = f" (packed, {config.data.clips_per_row} clips a row)" if config.data.pack else ""
        raise ValueError(
            f"train.batch_size: its {rows} rows{packed} do not divide into {shards} parts "
            f"(mesh.data x mesh.fsdp = {row_shards}, train.accumulate = {config.train.accumulate}); "
            f"take a multiple of {shards * (config.data.clips_per_row if config.data.pack else 1)}"
        )


def to_json(config: ConfigDict) -> str:
    """The whole config as JSON, as a work directory keeps it."""
    return json.dumps(config.to_dict(), indent=1)


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote."""
    return make_config(_flatten(json.loads(text)))


def read_run(file: epath.Path) -> ConfigDict:
    """The config.json of a work directory; raises ValueError, naming it, where it is damaged."""
    try:
        return from_json(file.read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not the config of a run, or is damaged: {error}") from error


def _read_file(file: str) -> Mapping:
    path = pathlib.Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"--config: no file {file}; see configs/ for those that come with desta_jax")
    if path.suffix != ".py":
        raise ValueError(f"--config: {file} is no Python file; a work directory's config.json is not one either")
    spec = importlib.util.spec_from_file_location("desta_jax_run_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config() if callable(getattr(module, "get_config", None)) else None
    except SyntaxError as error:
        raise ValueError(f"--config: {file}:{error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
    except Exception as error:  # whatever the file's own code raises
        own = [f for f in traceback.extract_tb(error.__traceback__) if pathlib.Path(f.filename) == path.absolute()]
        raise ValueError(f"--config: {file}:{own[-1].lineno}: {type(error).__name__}: {error}") from error
    if not isinstance(config, (Mapping, ConfigDict)):
        raise ValueError(f"--config: {file} has no get_config() that returns a dict or ConfigDict of what differs")
    return config


def _flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, (Mapping, ConfigDict)):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _same_last_name(key: str, keys: Mapping) -> list[str]:
    return [other for other in keys if other.split(".")[-1] == key.split(".")[-1]]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _as_type_of(default: Any, value: Any) -> Any:
    """The value in its default's type: a lone value for a tuple is a tuple of one, an int will do for a float."""
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, (tuple, list)) else (value,) if value not in ("", None) else ()
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, bool) != isinstance(value, bool) or not isinstance(value, type(default)):
        raise TypeError(f"expected {type(default).__name__} such as {default!r}, got {value!r}")
    return value


def _check_elements(values: tuple, kind: type) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"expected {kind.__name__} values, such as {EXAMPLES[kind]}, got {value!r}")


def _check_values(config: ConfigDict) -> list[str]:
    """Problems that the config shows by itself; those that need the model or the devices are found when they are."""
    problems = []

    def require(condition: bool, line: str):
        if not condition:
            problems.append(line)

    require(config.compute_dtype in DTYPES, f"compute_dtype: {config.compute_dtype!r} is none of {DTYPES}")
    precision = config.matmul_precision
    require(precision in PRECISIONS, f"matmul_precision: {precision!r} is none of {PRECISIONS}")
    require(
        precision == "highest" or config.compute_dtype == "float32",
        f"matmul_precision: {precision!r} goes with compute_dtype float32, not {config.compute_dtype}",
    )
    require(config.remat in REMAT, f"remat: {config.remat!r} is none of {REMAT}")
    adapter, data, train = config.adapter, config.data, config.train
    require(0 <= config.seed < 2**32, f"seed: must be from 0 to 2^32 - 1, got {config.seed}")
    for key in ("num_layers", "prompt_size"):
        require(adapter[key] >= 1, f"adapter.{key}: must be at least 1, got {adapter[key]}")
    for key in ("dropout", "lora_dropout"):
        require(0 <= adapter[key] < 1, f"adapter.{key}: must be from 0 to below 1, got {adapter[key]}")
    require(adapter.lora_rank >= 0, f"adapter.lora_rank: must be 0 (no LoRA) or more, got {adapter.lora_rank}")
    require(adapter.lora_alpha > 0, f"adapter.lora_alpha: must be above 0, got {adapter.lora_alpha}")
    require(adapter.standardize_clips >= 0, "adapter.standardize_clips: must be 0 (as the reference: not) or more")
    require(list(adapter.tap_layers) == sorted(set(adapter.tap_layers)), "adapter.tap_layers: must rise")
    require(all(layer >= 0 for layer in adapter.tap_layers), "adapter.tap_layers: count from 0")
    for key in ("max_length", "validation_max_length"):
        require(data[key] > adapter.prompt_size, f"data.{key}: {data[key]} leaves no room beside adapter.prompt_size")
    require(data.clips_per_row >= 1, f"data.clips_per_row: must be at least 1, got {data.clips_per_row}")
    require(1 <= data.audio_seconds <= 30, f"data.audio_seconds: must be from 1 to 30, got {data.audio_seconds}")
    require(not data.weights or len(data.weights) == len(data.train), "data.weights: one for each of data.train, or ()")
    require(all(weight > 0 for weight in data.weights), "data.weights: must be above 0")
    for key in ("row_length", "threads", "workers", "prefetch"):
        require(data[key] >= 0, f"data.{key}: must be 0 or more, got {data[key]}")
    require(data.prefetch >= 1 or not data.workers, "data.prefetch: must be at least 1 with data.workers")
    require(train.batch_size >= 1, f"train.batch_size: must be at least 1, got {train.batch_size}")
    require(train.accumulate >= 1, f"train.accumulate: must be at least 1, got {train.accumulate}")
    require(train.steps >= 0, f"train.steps: must be 0 (as train.epochs say) or more, got {train.steps}")
    require(train.steps > 0 or train.epochs > 0, "train.steps: set it or train.epochs above 0")
    require(
        not data.pack or train.batch_size % max(1, data.clips_per_row) == 0,
        f"train.batch_size: {train.batch_size} clips are no whole number of rows of data.clips_per_row",
    )
    if min(train.accumulate, train.batch_size, data.clips_per_row) >= 1:
        rows = rows_per_step(config)
        require(
            rows >= 1 and rows % train.accumulate == 0,
            f"train.accumulate: {train.accumulate} does not divide the {rows} rows of a step (train.batch_size)",
        )
    for key, size in config.mesh.items():
        require(size == -1 or size >= 1, f"mesh.{key}: must be at least 1, or -1 for the rest, got {size}")
    require(list(config.mesh.values()).count(-1) <= 1, "mesh: only one axis can be -1")
    for key in ("every_steps", "keep"):
        require(config.checkpoint[key] >= 1, f"checkpoint.{key}: must be at least 1, got {config.checkpoint[key]}")
    for key in ("every_steps", "samples", "benchmark_every_steps", "benchmark_questions"):
        require(config.evaluate[key] >= 0, f"evaluate.{key}: must be 0 or more, got {config.evaluate[key]}")
    for entry in config.evaluate.benchmarks:
        name, _, folder = entry.partition("=")
        require(bool(name and folder), f'evaluate.benchmarks: {entry!r} is not NAME=FOLDER, such as "mmau=data/mmau"')
    require(config.profile.start_step >= 0, "profile.start_step: must be 0 (no profile) or more")
    require(config.profile.steps >= 1, f"profile.steps: must be at least 1, got {config.profile.steps}")
    for key in ("alarm_seconds", "exit_seconds"):
        require(config.stall[key] >= 0, f"stall.{key}: must be 0 (never) or more, got {config.stall[key]}")
    require(config.log.every_steps >= 1, f"log.every_steps: must be at least 1, got {config.log.every_steps}")
    optimizer = config.optimizer
    for key in ("peak_learning_rate", "eps"):
        require(0 < optimizer[key] < math.inf, f"optimizer.{key}: must be above 0, got {optimizer[key]}")
    for key in ("b1", "b2"):
        require(0 <= optimizer[key] < 1, f"optimizer.{key}: must be from 0 to below 1, got {optimizer[key]}")
    require(0 <= optimizer.weight_decay < math.inf, "optimizer.weight_decay: must be 0 or more")
    require(config.optimizer.warmup_steps >= 0, "optimizer.warmup_steps: must be 0 or more")
    require(config.optimizer.clip_norm >= 0, "optimizer.clip_norm: must be 0 (no clipping) or more")
    require(train.max_skipped_steps >= 1, f"train.max_skipped_steps: must be at least 1, got {train.max_skipped_steps}")
    return problems
