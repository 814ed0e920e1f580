"""What a run is asked on the way: its loss on what was held out, some answers, and benchmarks."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

from desta_jax import sharding
from desta_jax.training.metrics import Journal
from desta_jax.training.run import Run
from desta_jax.training.step import mean_loss
from desta_jax.training.watch import Watch
from desta_jax.tree import Tree

Stop = Callable[[], bool]
Answers = Callable[[Run, Tree, Tree], list[dict]]
Scores = Callable[[Run, Tree, Tree, int], dict[str, float]]


class Validation:
    """Mean loss over the validation samples, the same ones each time, without dropout; and what is answered to some of
    them, which is asked for apart: it is for people to read, and the state is saved before."""

    def __init__(self, run: Run, frozen: Tree, journal: Journal, watch: Watch, stop: Stop, answers: Answers | None):
        self._run, self._frozen, self._journal, self._watch = run, frozen, journal, watch
        self._stop, self._answers = stop, answers
        self._loss = jax.jit(functools.partial(mean_loss, run.model))

    def loss(self, step: int, adapter: Tree) -> float | None:
        """The loss (nats a label token), written to the journal; None without validation data, and where a signal cut
        it short."""
        if self._run.validation is None:
            return None
        with self._watch.aside("evaluation"):
            mean, count = self._mean(adapter)
            if mean is not None:
                self._journal.validation(step, mean, count)
        return mean if mean is not None and np.isfinite(mean) else None

    def show(self, step: int, adapter: Tree) -> None:
        """Writes some answers to the journal, where one process can give them."""
        settings = self._run.config.evaluate
        if self._run.validation is None or not self._answers or not settings.samples or jax.process_count() > 1:
            return
        with self._watch.aside("evaluation"), jax.transfer_guard("allow"):
            self._journal.answers(step, self._answers(self._run, self._frozen, adapter))

    def _mean(self, adapter: Tree) -> tuple[float | None, int]:
        """Over all label tokens, and how many there are; None where a signal came."""
        run = self._run
        rows, total, count = run.validation.shapes.rows, 0.0, 0
        for batch in run.validation.batches(0, sharding.local_rows(run.mesh, rows)):
            if self._stop():
                return None, count
            placed = sharding.put_batch(batch, run.mesh, rows)
            loss, labels = (value.item() for value in jax.device_get(self._loss(adapter, self._frozen, placed)))
            total, count = total + loss * labels, count + labels
            self._watch.alive()
        return total / max(1, count), count


class Scoring:
    """Figures on benchmarks while the run goes on."""

    def __init__(self, run: Run, frozen: Tree, journal: Journal, watch: Watch, scores: Scores | None):
        self._run, self._frozen, self._journal, self._watch, self._scores = run, frozen, journal, watch, scores

    def is_due(self, step: int) -> bool:
        """Whether the benchmarks are taken after this step."""
        evaluate = self._run.config.evaluate
        its_turn = step == self._run.steps or due(step, evaluate.benchmark_every_steps)
        return bool(its_turn and self._scores and evaluate.benchmarks)

    def __call__(self, step: int, adapter: Tree) -> None:
        with self._watch.aside("evaluation"), self._watch.unhurried(), jax.transfer_guard("allow"):
            self._journal.scores(step, self._scores(self._run, self._frozen, adapter, step))


def due(step: int, every: int) -> bool:
    """Whether what is done `every` so many steps, 0 for never, is done after this one."""
    return every > 0 and step % every == 0
