"""What a run needs to go on: adapter, optimizer, and the step, which is also where the input stands."""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl.logging import get_absl_logger
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from desta_jax.config import default_config, to_json
from desta_jax.files import absolute, is_remote, lock, write_whole
from desta_jax.training.step import TrainState
from desta_jax.tree import Tree, differences, flatten
from desta_jax.weights.trained import FOLDER, find_step

CONFIG = "config.json"
"""In the work directory: the run's config."""
SAMPLES = "samples.json"
"""Likewise: which samples the run goes through, in how many steps, beside which models."""


@contextlib.contextmanager
def alone(workdir: str) -> Iterator[None]:
    """The work directory for this run alone, on a local disk: its files are cut and written anew at the start.

    Raises:
        ValueError: another process trains there, or it is a file.
    """
    if pathlib.Path(workdir).is_file():
        raise ValueError(f"{workdir} is a file: give a folder as --workdir")
    if is_remote(workdir) or jax.process_index():
        yield
        return
    path = pathlib.Path(workdir, "lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        lock(file, f"{workdir}: another process trains here")
        yield


def check_shared(workdir: str) -> None:
    """Every process of a run sees the same work directory; where one does not, the first checkpoint would never end.

    Raises:
        ValueError: in every process alike.
    """
    if jax.process_count() == 1:
        return
    number = multihost_utils.broadcast_one_to_all(np.random.default_rng().integers(1 << 31, dtype=np.int32))
    mark = epath.Path(workdir) / f".seen-by-all-{number}"
    if jax.process_index() == 0:
        write_whole(mark, "")
    multihost_utils.sync_global_devices("the mark is there")
    seen = multihost_utils.process_allgather(np.array(mark.exists()))
    if jax.process_index() == 0:
        mark.unlink()
    if not seen.all():
        raise ValueError(
            f"--workdir must be seen by every process: {workdir} is another folder for process "
            f"{', '.join(map(str, np.flatnonzero(~seen)))}; name a folder that all hosts share, or one in a bucket"
        )


def _unless_of_steps_without_validation(record: logging.LogRecord) -> bool:
    """Not all checkpoints have a validation loss, which Orbax warns of at each."""
    return "did not provide metrics" not in record.getMessage()


class Checkpoints:
    """The checkpoints of a work directory: the newest few, and the best by validation loss.

    Saving goes on beside training; a checkpoint counts only when it is whole: on a disk it is given its step's number
    then, in a bucket commit_success.txt. Every process writes and reads its own shards.
    """

    def __init__(self, workdir: str, *, keep: int):
        def loss(metrics):
            return metrics["loss"]

        best = checkpoint_managers.BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        policy = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), best])
        self._manager = ocp.CheckpointManager(
            absolute(workdir) / FOLDER,
            item_handlers=ocp.StandardCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=loss,  # without it the losses are forgotten when the process ends
                best_mode="min",
                cleanup_tmp_directories=True,
            ),
        )
        get_absl_logger().addFilter(_unless_of_steps_without_validation)
        # Orbax would ask JAX for itself, one process more often than the others, who then never agree when to stop.
        self._manager.reached_preemption = lambda step: False

    def newest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, validation_loss: float | None = None) -> None:
        """Starts to save the state after `step` steps; a step that is saved already is left as it is."""
        if step == self.newest():
            return
        metrics = None if validation_loss is None else {"loss": validation_loss}
        with jax.transfer_guard("allow"):  # Orbax copies to the host without saying so, which only a CPU lets pass
            self._manager.save(step, args=ocp.args.StandardSave(to_dict(state)), metrics=metrics)

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state after `step` steps, each shard straight to the device that `like` names.

        Raises:
            ValueError: the checkpoint is of another adapter or optimizer: names every leaf that differs; or it cannot
                be read.
        """
        abstract = to_dict(like)
        try:
            saved = self._manager.item_metadata(step)
            if saved is None:
                raise ValueError("it has no metadata")
            wrong = differences(dict(saved), abstract)
            restored = None if wrong else self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except ValueError as error:
            raise ValueError(self._unreadable(step, error)) from error
        if wrong:
            raise ValueError(
                f"{self._manager.directory / str(step)} is of another adapter than the config describes:\n  "
                + "\n  ".join(wrong)
            )
        return from_dict(restored, like)

    def _unreadable(self, step: int, why: object) -> str:
        older = [other for other in self._manager.all_steps() if other < step]
        there = f"from step {max(older)}" if older else "from its beginning"
        return (
            f"{self._manager.directory / str(step)} cannot be read; if it is damaged, delete it, and the run goes on "
            f"{there}: {why}"
        )

    def wait(self) -> None:
        """Until what was started is saved."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until what was started is saved."""
        self.wait()
        self._manager.close()


def to_dict(state: TrainState) -> Tree:
    """The state as plain nested dicts: what stands on disk, whatever becomes of optax's classes."""
    adam = _find(state.optimizer, optax.ScaleByAdamState)
    return {
        "step": state.step,
        "skipped": state.skipped,
        "adapter": state.adapter,
        "adam": {"count": adam.count, "mean": adam.mu, "variance": adam.nu},
    }


def from_dict(tree: Tree, like: TrainState) -> TrainState:
    """The state whose plain form this is; `like` gives the optimizer's structure."""
    adam = tree["adam"]
    kinds = {
        optax.ScaleByAdamState: lambda _: optax.ScaleByAdamState(adam["count"], adam["mean"], adam["variance"]),
        # A copy: the step is donated, and one buffer given away twice ends in a crash.
        optax.ScaleByScheduleState: lambda _: optax.ScaleByScheduleState(jnp.copy(tree["step"])),
    }
    optimizer = jax.tree.map(
        lambda node: kinds[type(node)](node) if type(node) in kinds else node,
        like.optimizer,
        is_leaf=lambda node: type(node) in kinds,
    )
    return TrainState(tree["step"], tree["skipped"], tree["adapter"], optimizer)


def begun(workdir: str) -> bool:
    """Whether a run has saved anything here: until then it may begin again, with another config or other samples."""
    try:
        return bool(find_step(workdir))
    except FileNotFoundError:
        return False


def changed_keys(workdir: str, config: dict) -> dict[str, tuple]:
    """Keys whose value differs from the config that the work directory keeps, with both values. A key that is younger
    than the work directory had its default there."""
    path = epath.Path(workdir) / CONFIG
    if not path.exists():
        return {}
    try:
        before = flatten(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); put back the config of this run") from error
    now = flatten(json.loads(json.dumps(config)))
    younger = flatten(json.loads(to_json(default_config())))
    before |= {key: younger[key] for key in now.keys() & younger.keys() - before.keys()}
    return {key: (before.get(key), now.get(key)) for key in {*before, *now} if before.get(key) != now.get(key)}


def check_samples(workdir: str, now: Mapping[str, str | int]) -> None:
    """A run goes on with the samples, the steps and the models that it began with.

    Args:
        workdir: of the run; holds SAMPLES.
        now: `fingerprint` of the samples, `steps` through them, and `model`, the frozen models' identity, once it is
            known.

    Raises:
        ValueError: the run began with others: it would repeat some samples and leave out others without a word, or
            its adapter would go on beside models that it does not know.
    """
    path = epath.Path(workdir) / SAMPLES
    before = json.loads(path.read_text()) if path.exists() and begun(workdir) else now
    if "model" in before and before["model"] != now.get("model", before["model"]):
        raise ValueError(
            f"model.checkpoint: these are not the frozen models that {workdir} began with. Give it back those it had, "
            f"wherever they lie now; or delete {path}, and the run goes on with those of now"
        )
    if any(before[key] != now[key] for key in ("fingerprint", "steps")):
        raise ValueError(
            f"data.train: these are not the samples that {workdir} began with ({before['steps']} steps then, "
            f"{now['steps']} now). Give it back the records it had, readable or not; or delete {path}, and the run "
            "goes on with those of now: some samples it may hear twice, others never"
        )


def _find(tree, kind: type):
    found = [node for node in jax.tree.leaves(tree, is_leaf=lambda n: isinstance(n, kind)) if isinstance(node, kind)]
    return found[0]
