"""Everything a run is made of, checked and put together before anything long starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, UInt32
from ml_collections import ConfigDict

from desta_jax import sharding
from desta_jax.config import check_rows, rows_per_step
from desta_jax.inputs.pipeline import Inputs, evaluation_inputs, steps_of, training_inputs
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.training.optimizer import make_optimizer
from desta_jax.tree import Tree, flatten
from desta_jax.weights.folder import ModelFolder


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, ready to start."""

    config: ConfigDict
    mesh: Mesh
    folder: ModelFolder
    model: AudioLM
    prompts: PromptBuilder
    inputs: Inputs
    validation: Inputs | None
    steps: int
    optimizer: optax.GradientTransformation


def assemble(config: ConfigDict, workdir: str) -> Run:
    """Reads the model's shapes and the records' index; loads no weights.

    Raises:
        ValueError, FileNotFoundError: what in the config does not fit the model, the devices or the data.
    """
    if not config.model.checkpoint:
        raise ValueError("model.checkpoint: name the folder that `desta-jax convert` wrote")
    folder = ModelFolder(config.model.checkpoint)
    model = make_model(config, folder)
    mesh = sharding.make_mesh(**config.mesh)
    prompts = PromptBuilder(folder.tokenizer(), config.adapter.prompt_size, config.adapter.placeholder_token)
    rows = rows_per_step(config)
    check_rows(config, sharding.row_shards(mesh))
    inputs = training_inputs(config, prompts, rows_per_step=rows, cache=workdir)
    validation = None
    if config.data.validation:
        at_once = rows // config.train.accumulate
        validation = evaluation_inputs(config, prompts, rows_per_step=at_once, cache=workdir)
    check_same_everywhere("data.train", inputs)
    if validation is not None:
        check_same_everywhere("data.validation", validation)
    steps = steps_of(config, inputs.rows_per_epoch, rows)
    return Run(
        config=config,
        mesh=mesh,
        folder=folder,
        model=model,
        prompts=prompts,
        inputs=inputs,
        validation=validation,
        steps=steps,
        optimizer=make_optimizer(config, steps),
    )


def make_model(config: ConfigDict, folder: ModelFolder) -> AudioLM:
    """The model whose frozen parts the folder holds and whose adapter the config describes."""
    whisper = WhisperShape.from_hf(folder.whisper_config)
    adapter = AdapterShape.of_run(config.adapter, whisper.encoder_layers)
    return AudioLM(whisper, DecoderShape.from_hf(folder.llm_config), adapter, jnp.dtype(config.compute_dtype))


def check_same_everywhere(key: str, inputs: Inputs) -> None:
    """Processes that plan other rows would train on other samples without a word, or wait for each other for ever."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    mine = np.frombuffer(bytes.fromhex(inputs.fingerprint), np.uint8)
    if not (multihost_utils.process_allgather(mine) == mine).all():
        raise ValueError(f"{key}: the processes see different records; copy the same folder to every host")


def load_frozen(run: Run) -> Tree:
    """The encoder and the language model, each shard straight to its device."""
    like = sharding.placed(run.model.abstract_frozen(), run.mesh)
    return {part: run.folder.restore(part, like[part]) for part in ("encoder", "lm")}


def identity(run: Run, frozen: Tree) -> str:
    """The same for the same frozen models, on whatever mesh: their settings, their prompts, sums over their weights."""
    settings = json.dumps([run.folder.llm_config, run.folder.whisper_config], sort_keys=True)
    sums = jax.jit(_sums, out_shardings=sharding.replicated(run.mesh))(frozen)
    return hashlib.sha256(f"{settings}{run.prompts.fingerprint}{jax.device_get(sums).tolist()}".encode()).hexdigest()


def _sums(tree: Tree) -> UInt32[Array, "leaves"]:
    """Of each leaf the sum of its bits' words, modulo 2^32: exact, in whatever order it is summed."""

    def sum_of(leaf):
        words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        return jnp.sum(words, dtype=jnp.uint32)

    return jnp.stack([sum_of(leaf) for leaf in jax.tree.leaves(tree)])


def first_adapter(run: Run) -> Tree:
    """The adapter that training starts from: the converted folder's where it has one, else a fresh one. Neither
    standardises its frames yet: see `standardized`."""
    model = dataclasses.replace(run.model, adapter=dataclasses.replace(run.model.adapter, standardize=False))
    like = sharding.placed(model.abstract_adapter(), run.mesh)
    if "adapter" not in run.folder.parts:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        return jax.jit(model.init_adapter, out_shardings=shardings)(jax.random.key(run.config.seed))
    _check_heard_alike(run)
    try:
        return run.folder.restore("adapter", like)
    except ValueError as error:
        raise ValueError(
            f"the adapter in {run.folder.path} is not the one that adapter.* describes "
            "(set adapter.num_layers, prompt_size, tap_layers, lora_rank as there, or convert without --adapter): "
            f"{error}"
        ) from error


def _check_heard_alike(run: Run) -> None:
    """What no shape shows: other layers, or LoRA at another strength, would be taken for those it was trained with."""
    mine = run.model.adapter
    told = AdapterShape.of_reference(run.folder.adapter_config, run.model.whisper.encoder_layers)
    wrong = [("adapter.tap_layers", told.tap_layers, mine.tap_layers)]
    if mine.lora_rank:
        wrong.append(("adapter.lora_alpha", told.lora_alpha, mine.lora_alpha))
    lines = [f"{key}: {theirs} there, {ours} in the config" for key, theirs, ours in wrong if theirs != ours]
    if lines:
        raise ValueError(
            f"the adapter in {run.folder.path} was trained otherwise; set these as there, or convert without "
            "--adapter:\n  " + "\n  ".join(lines)
        )


def describe(run: Run, frozen: Tree, adapter: Tree) -> str:
    """A table of parameters by part: trainable or frozen, their number, and their bytes on one device; and what the
    mesh cannot divide."""
    parts = [("encoder", frozen["encoder"], False), ("lm", frozen["lm"], False)]
    parts += [(name, adapter[name], True) for name in adapter]
    lines = [f"{'part':12} {'':10} {'parameters':>15} {'dtype':>9} {'MB on a device':>15}"]
    for name, tree, trained in parts:
        leaves = flatten(tree).values()
        count = sum(leaf.size for leaf in leaves)
        local = sum(map(sharding.local_bytes, leaves))
        kind = "trainable" if trained else "frozen"
        dtype = str(next(iter(leaves)).dtype)
        lines.append(f"{name:12} {kind:10} {count:15,} {dtype:>9} {local / 1e6:15,.1f}")
    moments = 2 * sum(map(sharding.local_bytes, flatten(adapter).values()))
    lines.append(f"{'optimizer':12} {'':10} {'':15} {'float32':>9} {moments / 1e6:15,.1f}")
    for axis, paths in sharding.undivided({**frozen, **adapter}, run.mesh).items():
        lines.append(f"mesh.{axis}={run.mesh.shape[axis]} does not divide, and so does not split: {', '.join(paths)}")
    return "\n".join(lines)
