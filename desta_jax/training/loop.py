"""The training loop: build, restore, iterate, log, save."""

from __future__ import annotations

import dataclasses
import functools
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from desta_jax import sharding
from desta_jax.config import to_json
from desta_jax.models.cost import step_flops
from desta_jax.programs import keep_programs
from desta_jax.training import checkpoint, distributed
from desta_jax.training.metrics import Journal, peak_flops
from desta_jax.training.run import Run, assemble, describe, first_adapter, load_frozen
from desta_jax.training.step import (
    TrainState,
    compile_step,
    configured_step,
    init_state,
    matmul_precision,
    mean_loss,
    state_shardings,
)
from desta_jax.tree import Tree

COMPLETE, STOPPED = 0, 75  # exit statuses: done; stopped by a signal after saving, to be started again (EX_TEMPFAIL)
MAY_CHANGE = ("mesh.", "remat", "checkpoint.", "evaluate.", "log.", "data.threads", "data.workers", "data.prefetch",
              "data.validation", "model.", "train.max_skipped_steps")  # fmt: skip
"""Keys that a resumed run may be given anew: they change no number, or only what is logged."""
IN_FLIGHT = 2
"""Steps that may run ahead of the last one whose metrics were looked at."""

Answers = Callable[[Run, Tree, Tree], list[dict]]
Scores = Callable[[Run, Tree, Tree, int], dict[str, float]]


def train(config: ConfigDict, workdir: str, *, answers: Answers | None = None, scores: Scores | None = None) -> int:
    """Trains until the run is complete, or resumes it where its newest checkpoint stands.

    Args:
        config: what the run is.
        workdir: where its config, metrics and checkpoints are; local or gs://.
        answers: shows what the model answers to a few validation samples: (run, frozen, adapter) -> rows of
            `prompt`, `expected`, `answer`.
        scores: has the model take evaluate.benchmarks: (run, frozen, adapter, step) -> figures by name.

    Returns:
        COMPLETE, or STOPPED when SIGTERM or SIGINT came: the state is saved, start the run again to go on.

    Raises:
        ValueError, FileNotFoundError: what cannot work, before anything long starts; or a loss that stays not finite.
    """
    distributed.start()
    keep_programs()
    with stop_on_signal() as stop:
        check_resumable(config, workdir)
        run = assemble(config, workdir)
        check_can_answer(config)
        checkpoints = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
        with jax.set_mesh(run.mesh), matmul_precision(config):
            frozen = load_frozen(run)
            state = restore_or_start(run, checkpoints)
            journal = Journal(workdir, config, start=int(state.step), steps=run.steps, silent=jax.process_index() != 0)
            if jax.process_index() == 0:
                checkpoint.write_config(workdir, to_json(config))
            journal.say(describe(run, frozen, state.adapter))
            try:
                return iterate(run, state, frozen, checkpoints, journal, stop, answers, scores)
            finally:
                checkpoints.close()
                journal.close()


def iterate(run, state, frozen, checkpoints, journal, stop, answers, scores) -> int:
    """Step after step, from the state's own to the last."""
    config, start = run.config, int(state.step)
    step = compile_step(configured_step(config, run.model, run.steps), run.mesh, state, frozen)
    validate = Validation(run, frozen, journal, answers)
    if start == 0 and config.evaluate.every_steps:
        validate(0, state.adapter)
    watch = Watch(run, journal, start)
    rows = run.inputs.shapes.rows
    with jax.transfer_guard("disallow"):
        batches = run.inputs.batches(start, sharding.local_rows(run.mesh, rows))
        for done, batch in zip(range(start + 1, run.steps + 1), batches):
            state, metrics = step(state, frozen, sharding.put_batch(batch, run.mesh, rows))
            watch(done, metrics)
            last = done == run.steps
            stopped = stop(done)
            validated = None
            if last or _due(done, config.evaluate.every_steps):
                with watch.aside():
                    validated = validate(done, state.adapter)
            if last or stopped or _due(done, config.checkpoint.every_steps):
                watch.settle()
                checkpoints.save(done, state, validated)
                journal.flush()
            if scores and not stopped and config.evaluate.benchmarks:
                if last or _due(done, config.evaluate.benchmark_every_steps):
                    with watch.aside(), jax.transfer_guard("allow"):
                        journal.scores(done, scores(run, frozen, state.adapter, done))
            if stopped and not last:
                journal.say(f"stopped after step {done}; saved. Start the same command again to go on.")
                return STOPPED
    watch.settle()
    journal.say(f"complete: {run.steps} steps")
    return COMPLETE


def check_can_answer(config: ConfigDict) -> None:
    """Answering needs all of the model on one process's devices."""
    if config.evaluate.benchmarks and jax.process_count() > 1:
        raise ValueError(
            "evaluate.benchmarks: a run of several processes does not answer questions; leave it empty, and have "
            "`desta-jax evaluate --model WORKDIR` look at its checkpoints"
        )


def restore_or_start(run: Run, checkpoints: checkpoint.Checkpoints) -> TrainState:
    """The newest checkpoint's state, or the one before the first step."""
    newest = checkpoints.newest()
    if newest is None:
        state = init_state(first_adapter(run), run.optimizer)
        return jax.device_put(state, state_shardings(state, run.mesh))
    like = jax.eval_shape(lambda adapter: init_state(adapter, run.optimizer), run.model.abstract_adapter())
    like = jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed),
        like,
        state_shardings(like, run.mesh),
    )
    return checkpoints.restore(newest, like)


def check_resumable(config: ConfigDict, workdir: str) -> None:
    """A run is resumed as it was: what would change its numbers is an error, not a surprise."""
    changed = checkpoint.changed_keys(workdir, config.to_dict())
    lines = [f"{key}: was {before!r}, is {now!r}" for key, (before, now) in sorted(changed.items())
             if not key.startswith(MAY_CHANGE)]  # fmt: skip
    if lines:
        raise ValueError(
            f"{workdir} holds a run with another config; give it back its values or take another --workdir:\n  "
            + "\n  ".join(lines)
        )


class Watch:
    """Looks at metrics a little behind the steps, so that the devices never wait for the host."""

    def __init__(self, run: Run, journal: Journal, start: int):
        self._run, self._journal, self._pending = run, journal, deque()
        self._clock, self._logged = time.perf_counter(), start
        self._aside = 0.0

    def __call__(self, step: int, metrics: dict) -> None:
        """Takes note of a step that was started."""
        self._pending.append((step, metrics))
        while len(self._pending) > IN_FLIGHT:
            self._look(*self._pending.popleft())

    def settle(self) -> None:
        """Looks at every step that was started."""
        while self._pending:
            self._look(*self._pending.popleft())

    @contextmanager
    def aside(self):
        """Settles, and does not count the time of what follows as the steps'."""
        self.settle()
        start = time.perf_counter()
        yield
        self._aside += time.perf_counter() - start

    def _look(self, step: int, metrics: dict) -> None:
        config, values = self._run.config, {key: value.item() for key, value in jax.device_get(metrics).items()}
        skipped = values.pop("skipped")
        if skipped:
            self._journal.say(
                f"step {step}: the loss or its gradient is not finite; update skipped, {skipped} in a row"
            )
        if skipped >= config.train.max_skipped_steps:
            raise ValueError(
                f"loss or gradient was not finite in {skipped} steps in a row, up to step {step}: lower "
                "optimizer.peak_learning_rate, or look at these samples (log.samples); the checkpoints are from before"
            )
        if _due(step, config.log.every_steps) or step == self._run.steps:
            self._log(step, values)

    def _log(self, step: int, values: dict) -> None:
        run, now = self._run, time.perf_counter()
        seconds = (now - self._clock - self._aside) / max(1, step - self._logged)
        self._clock, self._logged, self._aside = now, step, 0.0
        peak = peak_flops(jax.devices()[0])
        flops = step_flops(run.model, **dataclasses.asdict(run.inputs.shapes))
        row = {
            **values,
            "samples_per_second": run.config.train.batch_size / seconds,
            "mfu": flops / seconds / (peak * jax.device_count()) if peak else None,
        }
        if run.inputs.unreadable:
            row["unreadable_samples"] = run.inputs.unreadable
        if run.config.log.samples:
            row["samples"] = run.inputs.sample_ids(step - 1)
        self._journal.step(step, row)


class Validation:
    """Mean loss over the validation samples, the same ones each time, without dropout."""

    def __init__(self, run: Run, frozen: Tree, journal: Journal, answers: Answers | None):
        self._run, self._frozen, self._journal, self._answers = run, frozen, journal, answers
        self._loss = jax.jit(functools.partial(mean_loss, run.model))

    def __call__(self, step: int, adapter: Tree) -> float | None:
        """The loss (nats a label token), written to the journal; None without validation data."""
        run = self._run
        if run.validation is None:
            return None
        rows, total, count = run.validation.shapes.rows, 0.0, 0
        for batch in run.validation.batches(0, sharding.local_rows(run.mesh, rows)):
            placed = sharding.put_batch(batch, run.mesh, rows)
            loss, labels = (value.item() for value in jax.device_get(self._loss(adapter, self._frozen, placed)))
            total, count = total + loss * labels, count + labels
        mean = total / max(1, count)
        shown = []
        if self._answers and run.config.evaluate.samples and jax.process_count() == 1:
            with jax.transfer_guard("allow"):
                shown = self._answers(run, self._frozen, adapter)
        self._journal.validation(step, mean, count, shown)
        return mean if np.isfinite(mean) else None


@contextmanager
def stop_on_signal():
    """Turns SIGTERM and SIGINT into a question that all processes answer alike: stop after this step?

    Several processes agree on the step through JAX, which catches SIGTERM itself. A second SIGINT ends a process at
    once.
    """
    several, caught = jax.process_count() > 1, []

    def catch(number, _):
        if caught:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        caught.append(number)
        if several:
            signal.raise_signal(signal.SIGTERM)

    def stop(step: int) -> bool:
        return multihost_utils.reached_preemption_sync_point(step) if several else bool(caught)

    ours = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, catch) for number in ours}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
