"""The training loop: build, restore, iterate, log, save."""

from __future__ import annotations

import itertools
import json
import signal
from contextlib import contextmanager

import jax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from desta_jax import distributed, sharding
from desta_jax.config import to_json
from desta_jax.files import write_whole
from desta_jax.programs import keep_programs
from desta_jax.training import checkpoint
from desta_jax.training.examine import Answers, Scores, Scoring, Validation, due
from desta_jax.training.goodput import Account, now
from desta_jax.training.heartbeat import Heartbeat, last_seen
from desta_jax.training.metrics import Journal
from desta_jax.training.profiler import Profiler
from desta_jax.training.run import Run, assemble, describe, first_adapter, identity, load_frozen
from desta_jax.training.standardize import standardized
from desta_jax.training.step import (
    TrainState,
    abstract_state,
    compile_step,
    configured_step,
    init_state,
    matmul_precision,
    state_shardings,
)
from desta_jax.training.watch import Watch
from desta_jax.tree import Tree

COMPLETE, STOPPED = 0, 75  # exit statuses: done; stopped by a signal after saving, to be started again (EX_TEMPFAIL)
MAY_CHANGE = ("mesh.", "remat", "checkpoint.", "evaluate.", "log.", "profile.", "stall.", "data.threads",
              "data.workers", "data.prefetch", "data.train", "data.validation", "model.",
              "train.max_skipped_steps")  # fmt: skip
"""Keys that a resumed run may be given anew: they change no number, or only what is logged. Models and records may lie
elsewhere by then: that they are the same ones is checked by itself."""


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
    began = now()
    distributed.start()
    keep_programs()
    with stop_on_signal() as stop, checkpoint.alone(workdir):
        checkpoint.check_shared(workdir)
        check_resumable(config, workdir)
        run = assemble(config, workdir)
        samples = {"fingerprint": run.inputs.fingerprint, "steps": run.steps}
        checkpoint.check_samples(workdir, samples)
        check_can_answer(config)
        checkpoints = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
        start, others = checkpoints.newest() or 0, jax.process_index() != 0
        journal = Journal(workdir, config, start=start, steps=run.steps, silent=others)
        counted = not others and start < run.steps
        account = Account(workdir, step=start, began=began, last_seen=last_seen(workdir), kept=counted)
        profiler = Profiler(workdir, config.profile, journal, silent=others)
        heart = Heartbeat(workdir, config.stall, jax.process_index(), beat=profiler.look_for_request)
        watch = Watch(run, journal, account, heart, start)
        try:
            with jax.set_mesh(run.mesh), matmul_precision(config), heart, watch:
                frozen = load_frozen(run)
                samples["model"] = identity(run, frozen)
                checkpoint.check_samples(workdir, samples)
                state = restore_or_start(run, frozen, checkpoints)
                if not others:
                    write_whole(epath.Path(workdir) / checkpoint.CONFIG, to_json(config))  # others may be reading it
                    write_whole(epath.Path(workdir) / checkpoint.SAMPLES, json.dumps(samples))
                journal.say(describe(run, frozen, state.adapter))
                if counted and account.starts > 1:
                    journal.say(account.table())
                validate = Validation(run, frozen, journal, watch, stop, answers)
                score = Scoring(run, frozen, journal, watch, scores)
                status = iterate(run, state, frozen, checkpoints, journal, watch, profiler, stop, validate, score)
                if counted:
                    journal.say(account.table())
                return status
        finally:
            checkpoints.close()
            account.close()
            journal.close()


def iterate(run, state, frozen, checkpoints, journal, watch, profiler, stop, validate, score) -> int:
    """Step after step, from the state's own to the last."""
    config, start = run.config, int(state.step)
    step = compile_step(configured_step(config, run.model, run.steps), run.mesh, state, frozen)
    its_turn = start == run.steps or due(start, config.evaluate.every_steps)
    cut_short = start and its_turn and not journal.validated(start)  # after this step was saved
    if start == 0 and config.evaluate.every_steps or cut_short:
        validate.loss(start, state.adapter)
        if not stop():
            validate.show(start, state.adapter)
    rows, done, stopped = run.inputs.shapes.rows, start, stop()
    if start and not stopped and score.is_due(start) and not journal.scored(start):  # likewise
        score(start, state.adapter)
    ahead = () if stopped else range(start + 1, run.steps + 1)

    def save(loss=None):
        with watch.aside("checkpoint"):
            checkpoints.save(done, state, loss)
            journal.flush()
        watch.write(done)

    with jax.transfer_guard("disallow"):
        batches = run.inputs.batches(start, sharding.local_rows(run.mesh, rows))
        for done, batch in zip(ahead, batches):
            placed = sharding.put_batch(batch, run.mesh, rows)
            with profiler.step(done, watch):
                began = now()
                state, metrics = step(state, frozen, placed)
            watch(done, metrics, began)
            last = done == run.steps
            stopped = stop()
            validate_now = last or not stopped and due(done, config.evaluate.every_steps)
            loss = None
            if validate_now:
                watch.settle()
                try:
                    loss = validate.loss(done, state.adapter)
                except Exception:
                    if jax.process_count() == 1:  # several would wait for those that have not failed
                        save()
                    raise
                stopped = stop()
            if last or stopped or loss is not None or due(done, config.checkpoint.every_steps):
                save(loss)
            if validate_now and not stopped:
                validate.show(done, state.adapter)
            if not stopped and score.is_due(done):
                score(done, state.adapter)
            if stopped:
                break
        profiler.finish(watch)
        with watch.aside("checkpoint"):
            checkpoints.wait()
        watch.write(done)
    if stopped:
        saved = "; saved" if done else ""
        journal.say(f"stopped after step {done}{saved}. Start the same command again to go on.")
        return STOPPED
    journal.say(f"complete: {run.steps} steps")
    return COMPLETE


def check_can_answer(config: ConfigDict) -> None:
    """Answering needs all of the model on one process's devices."""
    if config.evaluate.benchmarks and jax.process_count() > 1:
        raise ValueError(
            "evaluate.benchmarks: a run of several processes does not answer questions; leave it empty, and have "
            "`desta-jax evaluate --model CONVERTED --adapter WORKDIR` look at its checkpoints"
        )


def restore_or_start(run: Run, frozen: Tree, checkpoints: checkpoint.Checkpoints) -> TrainState:
    """The newest checkpoint's state, or the one before the first step."""
    newest = checkpoints.newest()
    if newest is None:
        adapter = first_adapter(run)
        if run.model.adapter.standardize:
            adapter = standardized(run, frozen, adapter)
        state = init_state(adapter, run.optimizer)
        return jax.device_put(state, state_shardings(state, run.mesh))
    return checkpoints.restore(newest, abstract_state(run.model, run.optimizer, run.mesh))


def check_resumable(config: ConfigDict, workdir: str) -> None:
    """A run is resumed as it was: what would change its numbers is an error, not a surprise."""
    changed = checkpoint.changed_keys(workdir, config.to_dict()) if checkpoint.begun(workdir) else {}
    lines = [f"{key}: was {before!r}, is {now!r}" for key, (before, now) in sorted(changed.items())
             if not key.startswith(MAY_CHANGE)]  # fmt: skip
    if lines:
        raise ValueError(
            f"{workdir} holds a run with another config; give it back its values or take another --workdir:\n  "
            + "\n  ".join(lines)
        )


@contextmanager
def stop_on_signal():
    """Turns SIGTERM and SIGINT into a question that all processes answer alike: stop now?

    Several processes agree through JAX, which catches SIGTERM itself, on a time of asking that none of them has come to
    yet: so each asks as often as the others, between steps and in validation. A second SIGINT ends a process at once; a
    second SIGTERM does not, for a supervisor may pass on what the system sends too.
    """
    several, caught, times, stopped = jax.process_count() > 1, [], itertools.count(1), False

    def catch(number, _):
        if number == signal.SIGINT and number in caught:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        caught.append(number)
        if several:
            signal.raise_signal(signal.SIGTERM)

    def stop() -> bool:
        nonlocal stopped
        if not stopped:
            stopped = multihost_utils.reached_preemption_sync_point(next(times)) if several else bool(caught)
        return stopped

    ours = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, catch) for number in ours}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
