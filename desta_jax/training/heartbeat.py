"""Signs of life of a run's processes, and an alarm when there are none."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from desta_jax.files import is_remote, write_whole
from desta_jax.training.goodput import now

BEAT_SECONDS, REMOTE_BEAT_SECONDS = 5.0, 60.0  # a beat in a bucket is a request, from every process
LAST_BEAT_SECONDS = 10.0  # at most, for the beat under way when a run ends
STALLED = 70  # exit status of a process that stopped itself because nothing went on (EX_SOFTWARE)


class Heartbeat:
    """Writes WORKDIR/heartbeat-N.json (step, time, process) in one thread, and watches in another that steps end.

    The step waits for none of it, and the watch for no request to a bucket: one may never be answered. When nothing has
    been `alive` for stall.alarm_seconds, what every thread is doing goes to standard error; after stall.exit_seconds
    the process ends, so that whoever launched it starts it again.
    """

    def __init__(self, workdir: str, stall: ConfigDict, process: int, *, beat: Callable[[], None] = lambda: None):
        """
        Args:
            workdir: of the run.
            stall: the config's part of this name.
            process: the number of this process.
            beat: what else is to be done now and then, beside the steps.
        """
        self._path, self._stall, self._process, self._beat_too = _file(workdir, process), stall, process, beat
        self._step, self._alive, self._alarmed, self._paused = 0, now(), False, False
        limits = [limit / 4 for limit in (stall.alarm_seconds, stall.exit_seconds) if limit]
        self._seconds = min([REMOTE_BEAT_SECONDS if is_remote(self._path) else BEAT_SECONDS, *limits])
        self._closed = threading.Event()
        self._beats = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)
        self._watch = threading.Thread(target=self._keep_watching, name="stall alarm", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beats.start()
        self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()
        self._watch.join()
        self._beats.join(LAST_BEAT_SECONDS)

    def alive(self, step: int | None = None) -> None:
        """Something went on; with a step, that step has ended."""
        self._step = self._step if step is None else step
        self._alive, self._alarmed = now(), False

    @contextmanager
    def paused(self):
        """No alarm in what follows: it takes as long as it takes."""
        self._paused = True
        yield
        self.alive()
        self._paused = False

    def _keep_watching(self) -> None:
        while not self._closed.wait(self._seconds):
            self._check()

    def _keep_beating(self) -> None:
        self._write()
        while not self._closed.wait(self._seconds):
            self._write()
            try:
                self._beat_too()
            except Exception as error:  # whatever a bucket's client raises: a run does not end for this
                logging.warning("beside the steps: %s", error)
        self._write()

    def _write(self) -> None:
        beat = {"step": self._step, "time": round(now(), 1), "process": self._process}
        try:
            write_whole(self._path, json.dumps(beat))
        except Exception as error:  # whatever a bucket's client raises: a run does not end for this
            logging.warning("%s cannot be written: %s", self._path, error)

    def _check(self) -> None:
        silent, stall = now() - self._alive, self._stall
        if self._paused:
            return
        if stall.exit_seconds and silent >= stall.exit_seconds:
            self._alarm(silent, "it ends now, to be started again (stall.exit_seconds)")
            os._exit(STALLED)  # the main thread cannot be asked: it hangs
        if stall.alarm_seconds and silent >= stall.alarm_seconds and not self._alarmed:
            self._alarmed = True
            self._alarm(silent, "it waits on (stall.alarm_seconds)")

    def _alarm(self, silent: float, what_next: str) -> None:
        faulthandler.dump_traceback(sys.stderr)
        with suppress(OSError):  # a listener who left keeps no process from ending
            print(
                f"STALLED: process {self._process} has ended no step for {silent:.0f} s, the last was step "
                f"{self._step}; what each of its threads is doing stands above; {what_next}",
                file=sys.stderr,
                flush=True,
            )


def last_seen(workdir: str) -> float | None:
    """When the run's first process was alive for the last time, in seconds since 1970; None if it never was."""
    try:
        return float(json.loads(_file(workdir, 0).read_text())["time"])
    except (OSError, ValueError, KeyError):
        return None


def _file(workdir: str, process: int) -> epath.Path:
    return epath.Path(workdir) / f"heartbeat-{process}.json"
