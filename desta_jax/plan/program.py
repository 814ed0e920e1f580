"""The step of a run, lowered for devices that are only described."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from desta_jax import sharding, tree
from desta_jax.batch import Batch
from desta_jax.inputs.pipeline import Shapes
from desta_jax.models.audio_lm import AudioLM
from desta_jax.training.optimizer import make_optimizer
from desta_jax.training.step import compile_step, configured_step, init_state, matmul_precision, state_shardings


def lower_step(config: ConfigDict, model: AudioLM, shapes: Shapes, steps: int, mesh: Mesh) -> jax.stages.Lowered:
    """The very step that `desta-jax train` runs, for a mesh of described or true devices."""
    state, frozen, batch = arguments(config, model, shapes, steps, mesh)
    step = configured_step(config, model, steps)
    with matmul_precision(config), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return compile_step(step, mesh, state, frozen).lower(state, frozen, batch)


def arguments(config: ConfigDict, model: AudioLM, shapes: Shapes, steps: int, mesh: Mesh) -> tuple:
    """State, frozen tree and batch, abstract, with their shardings."""
    optimizer = make_optimizer(config, steps)
    state = jax.eval_shape(lambda adapter: init_state(adapter, optimizer), model.abstract_adapter())
    state = jax.tree.map(_with_sharding, state, state_shardings(state, mesh))
    place = sharding.batch_sharding(mesh)
    batch = jax.tree.map(lambda leaf: _with_sharding(leaf, place), _abstract_batch(shapes))
    return state, sharding.placed(model.abstract_frozen(), mesh), batch


def _abstract_batch(shapes: Shapes) -> Batch:
    def rows(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((shapes.rows, *shape), dtype)

    text = {name: rows(shapes.tokens) for name in ("tokens", "positions", "segments", "audio_slots")}
    labels = {name: rows(shapes.labels) for name in ("label_positions", "labels")}
    return Batch(audio=rows(shapes.clips, shapes.samples, dtype=jnp.int16), **text, **labels)


def _with_sharding(leaf, place):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def bytes_by_part(config: ConfigDict, model: AudioLM, shapes: Shapes, steps: int, mesh: Mesh) -> dict[str, int]:
    """Bytes on one device of what the step is given."""
    state, frozen, batch = arguments(config, model, shapes, steps, mesh)
    parts = {
        "encoder": frozen["encoder"],
        "lm": frozen["lm"],
        "adapter": state.adapter,
        "optimizer": state.optimizer,
        "batch": batch,
    }
    return {name: sum(map(_local_bytes, jax.tree.leaves(part))) for name, part in parts.items()}


def whole_leaves(model: AudioLM, mesh: Mesh, least: int = 1 << 20) -> list[str]:
    """Frozen leaves of at least so many bytes that every device holds whole."""
    frozen = sharding.placed(model.abstract_frozen(), mesh)
    leaves = tree.flatten(frozen).items()
    return [path for path, leaf in leaves if leaf.sharding.is_fully_replicated and _bytes(leaf.shape, leaf) >= least]


def _local_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return _bytes(leaf.sharding.shard_shape(leaf.shape), leaf)


def _bytes(shape: Sequence[int], leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(shape) * jnp.dtype(leaf.dtype).itemsize
