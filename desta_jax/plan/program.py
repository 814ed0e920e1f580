"""The step of a run, lowered for devices that are only described."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from desta_jax import sharding, tree
from desta_jax.batch import Batch
from desta_jax.inputs.rows import Shapes
from desta_jax.models.audio_lm import AudioLM
from desta_jax.training.optimizer import make_optimizer
from desta_jax.training.step import abstract_state, compile_step, configured_step, matmul_precision


def lower_step(config: ConfigDict, model: AudioLM, shapes: Shapes, steps: int, mesh: Mesh) -> jax.stages.Lowered:
    """The very step that `desta-jax train` runs, for a mesh of described or true devices."""
    state, frozen, batch = arguments(config, model, shapes, steps, mesh)
    step = configured_step(config, model, steps)
    with matmul_precision(config), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return compile_step(step, mesh, state, frozen).lower(state, frozen, batch)


def arguments(config: ConfigDict, model: AudioLM, shapes: Shapes, steps: int, mesh: Mesh) -> tuple:
    """State, frozen tree and batch, abstract, with their shardings."""
    state = abstract_state(model, make_optimizer(config, steps), mesh)
    return state, sharding.placed(model.abstract_frozen(), mesh), _abstract_batch(shapes, mesh)


def _abstract_batch(shapes: Shapes, mesh: Mesh) -> Batch:
    place = sharding.batch_sharding(mesh)

    def rows(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((shapes.rows, *shape), dtype, sharding=place)

    text = {name: rows(shapes.tokens) for name in ("tokens", "positions", "segments", "audio_slots")}
    labels = {name: rows(shapes.labels) for name in ("label_positions", "labels")}
    return Batch(audio=rows(shapes.clips, shapes.samples, dtype=jnp.int16), **text, **labels)


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
    return {name: sum(map(sharding.local_bytes, jax.tree.leaves(part))) for name, part in parts.items()}


def whole_leaves(model: AudioLM, mesh: Mesh, least: int = 1 << 20) -> list[str]:
    """Frozen leaves of at least so many bytes that every device holds whole."""
    frozen = sharding.placed(model.abstract_frozen(), mesh)
    leaves = tree.flatten(frozen).items()
    return [path for path, leaf in leaves if leaf.sharding.is_fully_replicated and sharding.local_bytes(leaf) >= least]
