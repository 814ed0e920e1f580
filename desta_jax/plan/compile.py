"""Asks the TPU compiler, in another process, and remembers its answer."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import importlib.util
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable

from ml_collections import ConfigDict

from desta_jax.config import to_json
from desta_jax.plan.shapes import Published, Work
from desta_jax.plan.topology import Topology

TIMEOUT = 3600.0
"""Seconds after which a compilation is given up."""
SAY_EVERY = 30.0


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's answer; without a program where the step does not fit."""

    fits: bool
    hbm_bytes: float
    """What the step takes, or would take, of a chip's memory at its fullest."""
    parts: dict[str, int]
    """Bytes on a chip of what the step is given: encoder, lm, adapter, optimizer, batch."""
    whole_leaves: tuple[str, ...]
    """Large frozen leaves that every chip holds whole."""
    mesh: dict[str, int]
    coordinates: tuple[tuple[int, ...], ...]
    """Slice and place of the chips, in the order of the mesh."""
    compile_seconds: float
    program: str


def compile_step(
    config: ConfigDict,
    models: Published,
    work: Work,
    topology: Topology,
    *,
    cache: str | os.PathLike | None = None,
    timeout: float = TIMEOUT,
    report: Callable[[str], None] = lambda line: None,
) -> Compiled:
    """Compiles the run's step for a topology, or takes what an earlier compilation of the same program said.

    Args:
        config: the run's.
        models: whose config.json say the shapes.
        work: shapes and steps.
        topology: the chips.
        cache: where answers are kept; by default under ~/.cache/desta_jax.
        timeout: seconds.
        report: is given a line of progress now and then.

    Raises:
        ValueError: no TPU compiler, a mesh or batch that the topology does not divide, or what the compiler refuses
            for another reason than memory.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError('the TPU compiler is not installed: pip install -e ".[tpu]" (no TPU is needed)')
    folder = pathlib.Path(cache) if cache else _default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    request = {
        "config": to_json(config),
        "shapes": dataclasses.asdict(work.shapes),
        "steps": work.steps,
        "llm": models.llm_config,
        "whisper": models.whisper_config,
        "topology": topology.compiler_name,
        "options": topology.compiler_options,
    }
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary) / "request.json"
        path.write_text(json.dumps(request))
        answer = folder / _run_worker([str(path), str(folder)], topology, timeout, report)
        try:
            return read_answer(answer)
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            report(f"{answer} is damaged ({error}); compiling again")
            shutil.rmtree(answer, ignore_errors=True)
            return read_answer(folder / _run_worker([str(path), str(folder)], topology, timeout, report))


def read_answer(folder: pathlib.Path) -> Compiled:
    """The answer that the worker kept in a folder; raises what gzip, zlib or JSON raise where it is damaged."""
    result = json.loads((folder / "result.json").read_text())
    return Compiled(
        fits=result["fits"],
        hbm_bytes=result["wanted_bytes"] if not result["fits"] else _used(result["memory"]),
        parts=result["parts"],
        whole_leaves=tuple(result["whole_leaves"]),
        mesh=result["mesh"],
        coordinates=tuple(map(tuple, result["coordinates"])),
        compile_seconds=result["compile_seconds"],
        program=gzip.decompress((folder / "hlo.txt.gz").read_bytes()).decode(),
    )


def _used(memory: dict[str, int]) -> int:
    """What the step is given, what it makes beside that, what it needs on the way, and its own instructions."""
    sizes = {name.removesuffix("_size_in_bytes"): size for name, size in memory.items()}
    return sizes["argument"] + sizes["output"] - sizes["alias"] + sizes["temp"] + sizes["generated_code"]


def _run_worker(arguments: list[str], topology: Topology, timeout: float, report: Callable[[str], None]) -> str:
    """The key of the worker's answer."""
    command = [sys.executable, "-m", "desta_jax.plan.worker", *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(command, env=tpu_environment(topology), text=True, **pipes)
        try:
            answer = _follow(process, topology.name, timeout, report)
        finally:
            process.kill()
            process.wait()
        if "error" in answer:
            raise ValueError(answer["error"])
        if "key" not in answer:
            errors.seek(0)
            raise ValueError(f"{topology.name}: {_last_words(errors.read())}")
        return answer["key"]


def _follow(process: subprocess.Popen, name: str, timeout: float, report: Callable[[str], None]) -> dict[str, str]:
    """Tells the stage and how long it has taken, until the worker says its last line; {} if it says none."""
    lines: queue.Queue = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # the compiler may write lines of its own
                said = json.loads(line)
                if isinstance(said, dict):
                    lines.put(said)
        lines.put({})

    threading.Thread(target=read, daemon=True).start()
    start, stage = time.monotonic(), "starting"
    while (left := timeout - (time.monotonic() - start)) > 0:
        try:
            line = lines.get(timeout=min(SAY_EVERY, left))
        except queue.Empty:
            report(f"{name}: {stage}, {time.monotonic() - start:.0f} s")
            continue
        if "stage" not in line:
            return line
        stage = line["stage"]
    raise ValueError(f"{name}: the compiler took more than {timeout:.0f} s")


def tpu_environment(topology: Topology) -> dict[str, str]:
    """Nothing that makes JAX look for a TPU, or that was meant for another device."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return environment | {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is taken, so another process may compile too
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": topology.accelerator_type,
    }


def _last_words(errors: str) -> str:
    """The last line of a traceback, or of what else there is."""
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith(" ")]
    return lines[-1] if lines else "the compiler ended without a word"


def _default_cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "desta_jax" / "plan"
