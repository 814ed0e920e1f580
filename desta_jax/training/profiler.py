"""Traces of a few steps, at a step that the config names or whenever they are asked for."""

from __future__ import annotations

import pathlib
import tempfile
from contextlib import contextmanager

import jax
from etils import epath
from ml_collections import ConfigDict

from desta_jax.files import is_remote
from desta_jax.training.metrics import Journal
from desta_jax.training.watch import Watch

REQUEST, FOLDER = "profile_request", "profile"


class Profiler:
    """Traces steps into WORKDIR/profile.

    Only the run's first process does: every process runs the same program, and where devices wait for another it
    shows. So nothing has to be agreed on.
    """

    def __init__(self, workdir: str, window: ConfigDict, journal: Journal, *, silent: bool):
        """`window` is the config's part `profile`; a `silent` one never traces."""
        self._workdir, self._window, self._journal, self._silent = epath.Path(workdir), window, journal, silent
        self._target = self._workdir / FOLDER
        self.requested = 0
        """Steps to trace as soon as a step begins."""
        self._first = self._last = 0  # of the steps that are being traced
        self._scratch: tempfile.TemporaryDirectory | None = None  # the profiler writes to local disks only

    def look_for_request(self) -> None:
        """Takes a file WORKDIR/profile_request, which holds a number of steps; called beside the steps."""
        file = self._workdir / REQUEST
        if self._silent or not file.exists():
            return
        text = file.read_text().strip()
        file.unlink()
        if text.isdigit() and int(text):
            self.requested = int(text)
        else:
            self._journal.say(f"{file}: expected a number of steps, got {text[:40]!r}")

    @contextmanager
    def step(self, step: int, watch: Watch):
        """Around the start of a step; a trace begins or ends before it where one is due."""
        if self._last and step > self._last:
            self.finish(watch)
        steps = self.requested or (self._window.steps if step == self._window.start_step else 0)
        if steps and not self._silent and not self._last:
            self._begin(step, steps, watch)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def finish(self, watch: Watch) -> None:
        """Writes the trace that is being taken, if one is."""
        if not self._last:
            return
        with watch.aside("profile"):
            jax.profiler.stop_trace()
            self._last = 0
            failed = self._take_there()
        if failed is not None:
            self._journal.say(f"the profile from step {self._first} on cannot be written to {self._target}: {failed}")
            return
        self._journal.say(
            f"profiled from step {self._first} on: to look at it, `pip install xprof` and "
            f"`xprof --logdir {self._target}`"
        )

    def _begin(self, step: int, steps: int, watch: Watch) -> None:
        with watch.aside("profile"):
            if is_remote(self._target):
                self._scratch = tempfile.TemporaryDirectory(prefix="desta_jax-profile-")
            jax.profiler.start_trace(self._scratch.name if self._scratch else str(self._target))
        self.requested, self._first, self._last = 0, step, step + steps - 1

    def _take_there(self) -> Exception | None:
        """Takes a trace to its bucket, where it is for one; gives the error that stood in the way."""
        if self._scratch is None:
            return None
        try:
            with self._scratch:
                _copy(pathlib.Path(self._scratch.name), self._target)
        except Exception as error:  # whatever a bucket's client raises: a run does not end for this
            return error
        finally:
            self._scratch = None


def _copy(source: pathlib.Path, target: epath.Path) -> None:
    for file in filter(pathlib.Path.is_file, source.rglob("*")):
        copy = target / str(file.relative_to(source))
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
