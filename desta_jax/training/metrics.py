"""What a run tells of itself: metrics.jsonl, TensorBoard, Weights & Biases, and a line of progress."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from etils import epath

from desta_jax.clock import duration
from desta_jax.files import absolute, is_remote
from desta_jax.training.json_lines import JsonLines, read_json_lines

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 operations a second, by the start of a device's kind; the longest that fits counts."""


def peak_flops(device: jax.Device) -> float | None:
    """The device's peak, or None where it is not known (a CPU, say)."""
    names = [name for name in PEAK_FLOPS if device.device_kind.startswith(name)]
    return PEAK_FLOPS[max(names, key=len)] if names else None


class Journal:
    """Where a run's figures go; only the first process keeps one (others are given `silent`)."""

    def __init__(self, workdir: str, config: Any, *, start: int, steps: int, silent: bool = False):
        self._silent, self._steps = silent, steps
        folder = epath.Path(workdir)
        self._validated = {row["step"] for row in read_json_lines(folder / "validation.jsonl")}
        if silent:
            return
        self._metrics = JsonLines(folder / "metrics.jsonl", keep_below=start)
        self._validation = JsonLines(folder / "validation.jsonl", keep_below=start or -1)  # step 0 is validated again
        self._answers = JsonLines(folder / "answers.jsonl", keep_below=start or -1)
        self._benchmarks = (
            JsonLines(folder / "benchmarks.jsonl", keep_below=start) if config.evaluate.benchmarks else None
        )
        self._files = (self._metrics, self._validation, self._answers, self._benchmarks)
        self._board = _Board(folder, start) if config.log.tensorboard else None
        self._wandb = _wandb(config, workdir) if config.log.wandb_project else None

    def step(self, step: int, row: Mapping[str, Any], seconds_left: float | None) -> None:
        """A logged training step; `seconds_left` is None where there is nothing yet to estimate from."""
        if self._silent:
            return
        self._metrics.write({"step": step, **row})
        self._send("train", step, row)
        pace = f"{row['samples_per_second']:.3g} samples/s  " if row["samples_per_second"] is not None else ""
        mfu = f"MFU {row['mfu']:.1%}  " if row["mfu"] is not None else ""
        left = "estimating the time left" if seconds_left is None else f"{duration(seconds_left)} left"
        self.say(
            f"step {step}/{self._steps}  loss {row['loss']:.4f}  gradient {row['grad_norm']:.3g}  "
            f"rate {row['learning_rate']:.2e}  {pace}{mfu}{left}"
        )

    def validation(self, step: int, loss: float, label_tokens: int) -> None:
        """A validation pass after `step` steps."""
        if self._silent:
            return
        self._validation.write({"step": step, "loss": loss, "label_tokens": label_tokens})
        self._send("validation", step, {"loss": loss})
        self.say(f"step {step}/{self._steps}  held-out loss {loss:.4f} over {label_tokens} label tokens")

    def answers(self, step: int, answers: list[dict]) -> None:
        """What was answered after `step` steps: rows of `prompt`, `expected`, `answer`."""
        if self._silent:
            return
        for answer in answers:
            self._answers.write({"step": step, **answer})
            self.say(f"  asked    {answer['prompt']}\n  expected {answer['expected']}\n  answered {answer['answer']}")

    def scores(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of benchmarks after `step` steps."""
        if self._silent:
            return
        self._benchmarks.write({"step": step, **figures})
        self._send("benchmark", step, figures)
        self.say(f"step {step}/{self._steps}  " + "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))

    def scored(self, step: int) -> bool:
        """Whether an earlier start of the run took the benchmarks after this step."""
        return not self._silent and self._benchmarks.has(step)

    def validated(self, step: int) -> bool:
        """Whether an earlier start of the run validated after this step; every process knows."""
        return step in self._validated

    def say(self, line: str) -> None:
        """A line for the person who watches; a listener who left ends no run."""
        if not self._silent:
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Brings remote files up to date."""
        if not self._silent:
            for file in filter(None, self._files):
                file.flush()
            if self._board is not None:
                self._board.flush()

    def close(self) -> None:
        if self._silent:
            return
        for file in filter(None, self._files):
            file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _send(self, kind: str, step: int, row: Mapping[str, Any]) -> None:
        scalars = {f"{kind}/{key}": value for key, value in row.items() if isinstance(value, (int, float))}
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)


class _Board:
    """TensorBoard's files. For a bucket they are written to a local disk and taken there by `flush`: what writes them
    is a thread that a request that fails would end, and the run with it."""

    def __init__(self, folder: epath.Path, start: int):
        from tensorboardX import SummaryWriter

        self._there = folder if is_remote(folder) else None
        self._here = tempfile.TemporaryDirectory(prefix="desta_jax-board-") if self._there else None
        where = self._here.name if self._here else str(folder)
        self._writer = SummaryWriter(where, purge_step=start + 1 if start else None)
        self.add_scalar = self._writer.add_scalar

    def flush(self) -> None:
        self._writer.flush()
        self._take_there()

    def close(self) -> None:
        self._writer.close()
        self._take_there()
        if self._here is not None:
            self._here.cleanup()

    def _take_there(self) -> None:
        if self._here is None:
            return
        try:
            for file in epath.Path(self._here.name).iterdir():
                (self._there / file.name).write_bytes(file.read_bytes())
        except Exception as error:  # whatever a bucket's client raises: a run does not end for this
            logging.warning("TensorBoard's files cannot be written to %s: %s", self._there, error)


def _wandb(config: Any, workdir: str):
    try:
        import wandb
    except ImportError as error:
        raise ValueError("log.wandb_project is set, but wandb is not installed: pip install wandb") from error
    place = str(absolute(workdir))
    name = place.rstrip("/").split("/")[-1]
    known_by = f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"  # other folders may end in the same name
    return wandb.init(project=config.log.wandb_project, name=name, id=known_by, resume="allow", config=config.to_dict())
