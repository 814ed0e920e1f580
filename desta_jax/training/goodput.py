"""Where a run's wall time goes, over all its restarts."""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from desta_jax.training.json_lines import JsonLines, read_json_lines

FILE = "goodput.jsonl"
KINDS = {
    "step": "training steps",
    "input": "waiting for input",
    "checkpoint": "waiting for checkpoints",
    "evaluation": "evaluation",
    "profile": "writing profiles",
    "start": "starts: weights, compilation, the first step",
    "repeated": "lost: after the last checkpoint before a kill",
    "down": "lost: from an end to the next start",
}
"""What a second can go to, in the order of the table."""

_EPOCH = time.time() - time.perf_counter()


def now() -> float:
    """Seconds since 1970, on a clock that is never set back."""
    return _EPOCH + time.perf_counter()


class Account:
    """Gives every second of this start of a run to one kind, and remembers those of earlier starts.

    WORKDIR/goodput.jsonl gets a line when the run is started, and one at each checkpoint with the seconds since the
    line before. Nothing of it is ever taken back: what a kill cost is seen by putting the lines together.
    """

    def __init__(self, workdir: str, *, step: int, began: float, last_seen: float | None, kept: bool = True):
        """
        Args:
            workdir: of the run.
            step: the checkpoint's that this start goes on from, or 0.
            began: when it was started.
            last_seen: when the start before it was alive for the last time, if that is known.
            kept: whether the file is; one process keeps it, and a run that is complete adds nothing.
        """
        path = epath.Path(workdir) / FILE
        lines = [*(read_json_lines(path) if kept else ()), {"step": step, "began": began, "last_seen": last_seen}]
        self.starts = sum("began" in line for line in lines)
        self._first = lines[0]["began"]
        self._earlier = spent_seconds(lines)
        self._own, self._unwritten = collections.Counter(), collections.Counter()
        self._until = began
        self._file = None
        if kept:
            self._file = JsonLines(path)
            self._file.write(lines[-1])
            self._file.flush()

    @property
    def until(self) -> float:
        """Up to when every second has its kind."""
        return self._until

    def spend(self, kind: str, until: float) -> None:
        """Gives what is not given yet, up to `until`, to a kind."""
        seconds = max(0.0, until - self._until)
        self._own[kind] += seconds
        self._unwritten[kind] += seconds
        self._until = max(until, self._until)

    def own(self, *kinds: str) -> float:
        """Seconds of some kinds since this start."""
        return sum(self._own[kind] for kind in kinds)

    def write(self, step: int) -> None:
        """Leaves a line on the disk, as the run goes on from here after a kill."""
        if self._file is not None:
            seconds = {kind: round(value, 3) for kind, value in self._unwritten.items()}
            self._file.write({"step": step, "time": self._until, "seconds": seconds})
            self._file.flush()
        self._unwritten.clear()

    def goodput(self) -> float:
        """The share of all the time, since the run was first started, in which devices did steps that were kept."""
        return (self._earlier["step"] + self._own["step"]) / max(1e-9, self._until - self._first)

    def table(self) -> str:
        """Hours and share of each kind."""
        spent, whole = self._earlier + self._own, max(1e-9, self._until - self._first)
        starts = f"{self.starts} start" + "s" * (self.starts > 1)
        lines = [f"wall time{'hours':>43} {whole / 3600:9.2f}  100.0 %  in {starts}"]
        lines += [
            f"  {name:50} {spent[kind] / 3600:9.2f}  {spent[kind] / whole:5.1%}".replace("%", " %")
            for kind, name in KINDS.items()
            if spent[kind]
        ]
        return "\n".join(lines)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def spent_seconds(lines: Sequence[Mapping[str, Any]]) -> collections.Counter:
    """Seconds by kind from a file's lines, up to the last start.

    What a start did after the step that a later one went on from is lost, and so is the time from its last line to its
    last sign of life. Where there was no such sign, that time counts as `down`.
    """
    places = [index for index, line in enumerate(lines) if "began" in line]
    spent = collections.Counter()
    for place, following in itertools.pairwise(places):
        kept_below = min(lines[later]["step"] for later in places if later > place)
        until = lines[place]["began"]
        for line in lines[place + 1 : following]:
            for kind, seconds in line["seconds"].items():
                spent[kind if line["step"] <= kept_below else "repeated"] += seconds
            until = line["time"]
        restarted = lines[following]
        seen = min(max(restarted["last_seen"] or until, until), restarted["began"])
        spent["repeated"] += seen - until
        spent["down"] += restarted["began"] - seen
    return spent
