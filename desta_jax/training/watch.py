"""Looks at steps a little behind them: when they ended, how fast they are, whether they go wrong."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager

import jax

from desta_jax.models.cost import step_flops
from desta_jax.training.goodput import Account, now
from desta_jax.training.heartbeat import Heartbeat
from desta_jax.training.metrics import Journal, peak_flops
from desta_jax.training.run import Run

IN_FLIGHT = 2
"""Steps that may run ahead of the last one whose metrics were looked at."""
TRAINING = ("step", "input", "checkpoint")
"""What the pace of a run is made of; evaluation is not."""


class Watch:
    """Looks at metrics a little behind the steps, so that the devices never wait for the host; keeps the account."""

    def __init__(self, run: Run, journal: Journal, account: Account, heart: Heartbeat, start: int):
        self._run, self._journal, self._account, self._heart = run, journal, account, heart
        self._pending, self._ends = deque(), _Ends()
        self._first: tuple[int, float] | None = None  # the first step that ended, and when: compilation is over
        self._logged, self._logged_at = start, 0.0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_) -> None:
        self._ends.close()

    def __call__(self, step: int, metrics: dict, began: float) -> None:
        """Takes note of a step that was started at `began`."""
        self._pending.append((step, metrics, began, self._ends.of(metrics)))
        while len(self._pending) > IN_FLIGHT:
            self._look(*self._pending.popleft())

    def settle(self) -> None:
        """Looks at every step that was started."""
        while self._pending:
            self._look(*self._pending.popleft())

    @contextmanager
    def aside(self, kind: str):
        """Settles, and gives the time of what follows to a kind of its own."""
        self.settle()
        self._account.spend(self._between, now())
        yield
        self._account.spend(kind, now())

    def write(self, step: int) -> None:
        """Leaves the account on the disk; a checkpoint of this step is being saved."""
        self._account.write(step)

    def alive(self) -> None:
        """Something went on beside the steps."""
        self._heart.alive()

    def unhurried(self):
        """A context that takes as long as it takes: no alarm."""
        return self._heart.paused()

    @property
    def _between(self) -> str:
        """What the time goes to in which the devices have no step to do."""
        return "input" if self._first else "start"

    def _look(self, step: int, metrics: dict, began: float, end: Future) -> None:
        ended = end.result()
        self._account.spend(self._between, began)
        self._account.spend("step" if self._first else "start", ended)
        self._first = self._first or (step, ended)
        self._heart.alive(step)
        values = {key: value.item() for key, value in jax.device_get(metrics).items()}
        self._check_finite(step, values.pop("skipped"))
        if step % self._run.config.log.every_steps == 0 or step == self._run.steps:
            self._log(step, values)

    def _check_finite(self, step: int, skipped: int) -> None:
        if skipped:
            self._journal.say(
                f"step {step}: the loss or its gradient is not finite; update skipped, {skipped} in a row"
            )
        if skipped >= self._run.config.train.max_skipped_steps:
            raise ValueError(
                f"loss or gradient was not finite in {skipped} steps in a row, up to step {step}: lower "
                "optimizer.peak_learning_rate in another --workdir, or look at these samples (log.samples). To keep "
                "what was learned before, `desta-jax export --step` a checkpoint from before the first of these "
                "steps, and `desta-jax convert --adapter` it"
            )

    def _log(self, step: int, values: dict) -> None:
        run, first = self._run, self._first
        steps = step - max(self._logged, first[0])  # the first one's time is mostly compilation
        seconds = self._account.own(*TRAINING) - self._logged_at
        peak = peak_flops(jax.devices()[0])
        flops = step_flops(run.model, **dataclasses.asdict(run.inputs.shapes))
        row = {
            **values,
            "samples_per_second": run.config.train.batch_size * steps / seconds if steps else None,
            "mfu": flops * steps / seconds / (peak * jax.device_count()) if peak and steps else None,
            "goodput": self._account.goodput(),
        }
        if run.inputs.unreadable:
            row["unreadable_samples"] = run.inputs.unreadable
        if run.config.log.samples:
            row["samples"] = run.inputs.sample_ids(step - 1)
        self._logged, self._logged_at = step, self._logged_at + seconds
        pace = (self._account.until - first[1]) / (step - first[0]) if step > first[0] else None
        self._journal.step(step, row, pace and pace * (run.steps - step))


class _Ends:
    """When steps end on the devices: a thread waits for each in turn, as the host has other things to wait for."""

    def __init__(self):
        self._started: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._see, name="ends of steps", daemon=True).start()

    def of(self, metrics: dict) -> Future:
        """The time when these are computed, or the error that stood in the way."""
        end: Future = Future()
        self._started.put((metrics, end))
        return end

    def close(self) -> None:
        self._started.put(None)

    def _see(self) -> None:
        while started := self._started.get():
            metrics, end = started
            try:
                jax.block_until_ready(metrics)
                end.set_result(now())
            except Exception as error:  # the host hears of it when it asks
                end.set_exception(error)
