"""What a run tells of itself: metrics.jsonl, TensorBoard, Weights & Biases, and a line of progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

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


class JsonLines:
    """A file of one JSON object a line that a kill leaves readable.

    On a local disk each line is appended at once. An object store cannot append: there the file is written anew by
    `flush`.
    """

    def __init__(self, path: epath.Path, *, keep_below: int):
        """Keeps the lines of steps up to `keep_below`: what came after them will be done, and written, again."""
        self._path, self._local = path, "://" not in str(path)
        self._lines = [line for line in _whole_lines(path) if json.loads(line)["step"] <= keep_below]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.flush(force=True)
        self._file = open(path, "a") if self._local else None  # noqa: SIM115

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a line."""
        line = json.dumps(row)
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
        else:
            self._lines.append(line)

    def flush(self, force: bool = False) -> None:
        """Writes the file anew where it is not appended to."""
        if force or not self._local:
            temporary = self._path.with_name(self._path.name + ".tmp")
            temporary.write_text("".join(line + "\n" for line in self._lines))
            temporary.replace(self._path)

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()


class Journal:
    """Where a run's figures go; only the first process keeps one (others are given `silent`)."""

    def __init__(self, workdir: str, config: Any, *, start: int, steps: int, silent: bool = False):
        self._silent, self._steps = silent, steps
        self._first: tuple[int, float] | None = None  # the first logged step and when that was: compilation is over
        if silent:
            return
        folder = epath.Path(workdir)
        self._metrics = JsonLines(folder / "metrics.jsonl", keep_below=start)
        self._validation = JsonLines(folder / "validation.jsonl", keep_below=start or -1)  # step 0 is validated again
        self._benchmarks = (
            JsonLines(folder / "benchmarks.jsonl", keep_below=start) if config.evaluate.benchmarks else None
        )
        self._board = _tensorboard(folder, start) if config.log.tensorboard else None
        self._wandb = _wandb(config, workdir) if config.log.wandb_project else None

    def step(self, step: int, row: Mapping[str, Any]) -> None:
        """A logged training step."""
        if self._silent:
            return
        self._metrics.write({"step": step, **row})
        self._send("train", step, row)
        mfu = f"  MFU {row['mfu']:.1%}" if row["mfu"] is not None else ""
        self.say(
            f"step {step}/{self._steps}  loss {row['loss']:.4f}  gradient {row['grad_norm']:.3g}  "
            f"rate {row['learning_rate']:.2e}  {row['samples_per_second']:.3g} samples/s{mfu}  "
            f"{self._time_left(step)} left"
        )

    def validation(self, step: int, loss: float, label_tokens: int, answers: list[dict]) -> None:
        """A validation pass after `step` steps."""
        if self._silent:
            return
        self._validation.write({"step": step, "loss": loss, "label_tokens": label_tokens, "answers": answers})
        self._send("validation", step, {"loss": loss})
        self.say(f"step {step}/{self._steps}  held-out loss {loss:.4f} over {label_tokens} label tokens")
        for answer in answers:
            self.say(f"  asked    {answer['prompt']}\n  expected {answer['expected']}\n  answered {answer['answer']}")

    def scores(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of benchmarks after `step` steps."""
        if self._silent:
            return
        self._benchmarks.write({"step": step, **figures})
        self._send("benchmark", step, figures)
        self.say(f"step {step}/{self._steps}  " + "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))

    def say(self, line: str) -> None:
        """A line for the person who watches."""
        if not self._silent:
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Brings remote files up to date."""
        if not self._silent:
            for file in filter(None, (self._metrics, self._validation, self._benchmarks)):
                file.flush()

    def close(self) -> None:
        if self._silent:
            return
        for file in filter(None, (self._metrics, self._validation, self._benchmarks)):
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

    def _time_left(self, step: int) -> str:
        """From the pace since the first logged step."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (step, now)
            return "?"
        first, then = self._first
        return duration((now - then) / (step - first) * (self._steps - step))


def duration(seconds: float) -> str:
    """Such as 3d 04h, 2h 05m, 1m 09s."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def _whole_lines(path: epath.Path) -> list[str]:
    """The lines of a file that are JSON objects: a kill may have left half a line at the end."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [line for line in lines if line.startswith("{") and line.endswith("}")]


def _tensorboard(folder: epath.Path, start: int):
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)


def _wandb(config: Any, workdir: str):
    try:
        import wandb
    except ImportError as error:
        raise ValueError("log.wandb_project is set, but wandb is not installed: pip install wandb") from error
    name = str(workdir).rstrip("/").split("/")[-1]
    return wandb.init(project=config.log.wandb_project, name=name, id=name, resume="allow", config=config.to_dict())
