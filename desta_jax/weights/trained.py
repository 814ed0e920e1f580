"""The adapter that a run has trained so far, out of its checkpoints."""

from __future__ import annotations

import contextlib

import jax
import orbax.checkpoint as ocp
from etils import epath

from desta_jax.files import absolute
from desta_jax.models.qformer import fold_frames
from desta_jax.tree import Tree

FOLDER = "checkpoints"  # of a work directory


def find_step(workdir: str, step: int | None = None) -> int:
    """The step of a run's newest checkpoint, or `step` if there is one of it.

    Raises:
        FileNotFoundError: there is no checkpoint, or none of that step.
    """
    steps = _steps(_folder(workdir))
    if not steps or (step is not None and step not in steps):
        asked = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        there = f"; there are {', '.join(map(str, steps))}" if steps else ""
        raise FileNotFoundError(f"{_folder(workdir)} holds {asked}{there}")
    return steps[-1] if step is None else step


def read_trained(workdir: str, step: int | None = None) -> tuple[int, Tree]:
    """The adapter of a run's checkpoint (the newest, unless `step` is given) as NumPy arrays, and its step.

    A connector that standardises its frames comes out as one that does not, and computes the same.

    Raises:
        FileNotFoundError: there is no checkpoint, or none of that step.
        ValueError: the checkpoint is damaged.
    """
    step, folder = find_step(workdir, step), _folder(workdir)
    try:
        adapter = _restore(folder / str(step) / "default")
    except (ValueError, FileNotFoundError, KeyError) as error:  # what Orbax and TensorStore say of damage
        others = ", ".join(str(other) for other in _steps(folder) if other != step)
        remedy = f"take another with --step: {others}" if others else "there is no other"
        raise ValueError(f"{folder / str(step)} cannot be read, {remedy}. {error}") from error
    return step, {**adapter, "connector": fold_frames(adapter["connector"])}


def _folder(workdir: str) -> epath.Path:
    return absolute(workdir) / FOLDER


def _steps(folder: epath.Path) -> list[int]:
    """Of whole checkpoints; in a bucket an unfinished one has its final name already, and lacks Orbax's mark."""
    if not folder.exists():
        return []
    found = [path for path in folder.iterdir() if path.name.isdigit()]
    return sorted(int(path.name) for path in found if ocp.utils.is_checkpoint_finalized(path))


def _restore(item: epath.Path) -> Tree:
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        shapes = handler.metadata(item).tree["adapter"]
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = {"adapter": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)}
        arguments = ocp.checkpoint_utils.construct_restore_args(like)
        restored = handler.restore(item, args=ocp.args.PyTreeRestore(like, arguments, partial_restore=True))
    return jax.device_get(restored["adapter"])
