"""Compiles one step for one topology, in a process of its own: `python -m desta_jax.plan.worker REQUEST.json FOLDER`.

The process that plans keeps its own JAX: the TPU compiler wants an environment that must be set before JAX is there.
Says what it does in lines of JSON on its output: {"stage": ...}, and at the end {"key": ...} or {"error": ...}.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import sys
import threading
import time

import jax
from jax.experimental import topologies

from desta_jax import sharding
from desta_jax.config import check_rows, from_json
from desta_jax.files import write_whole
from desta_jax.inputs.rows import Shapes
from desta_jax.plan.program import bytes_by_part, lower_step, whole_leaves
from desta_jax.plan.shapes import Published
from desta_jax.training.run import make_model

OUT_OF_MEMORY = {
    re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm"): "all",
    re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT])\) exceeds available HBM"): "temporaries",
    re.compile(r"RESOURCE_EXHAUSTED.*?hbm.*?([\d.]+)([KMGT])", re.DOTALL | re.IGNORECASE): "all",
}
"""The ways in which the compiler says how much a program wants that does not fit, and of what."""
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MEMORY = ("argument_size_in_bytes", "output_size_in_bytes", "alias_size_in_bytes", "temp_size_in_bytes",
          "generated_code_size_in_bytes")  # fmt: skip


def main() -> None:
    """Writes FOLDER/<key>/{result.json, hlo.txt.gz} unless they are there, and says the key."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    request = json.loads(pathlib.Path(sys.argv[1]).read_text())
    try:
        _say(key=_answer(request, pathlib.Path(sys.argv[2])))
    except ValueError as error:  # of the run: in its own words
        _say(error=str(error))
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")


def _exit_with_parent() -> None:
    """The input ends when the process that plans does, however that happens; a compilation would go on for minutes."""
    sys.stdin.buffer.read()
    os._exit(1)


def _answer(request: dict, cache: pathlib.Path) -> str:
    config, shapes = from_json(request["config"]), Shapes(**request["shapes"])
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in request["options"].items()}
    devices = topologies.get_topology_desc(platform="tpu", topology_name=request["topology"], **options).devices
    mesh = sharding.make_mesh(**config.mesh, devices=devices)
    check_rows(config, sharding.row_shards(mesh))
    model = make_model(config, Published(request["llm"], request["whisper"]))
    _say(stage="tracing")
    lowered = lower_step(config, model, shapes, request["steps"], mesh)
    coordinates = [[getattr(device, "slice_index", None) or 0, *device.coords] for device in mesh.devices.flat]
    key = _key(lowered.as_text(), coordinates, request)
    if not (cache / key / "result.json").is_file():
        _say(stage="compiling")
        parts = bytes_by_part(config, model, shapes, request["steps"], mesh)
        result, text = _compile(lowered, sum(parts.values()))
        result |= {
            "mesh": dict(mesh.shape),
            "coordinates": coordinates,
            "parts": parts,
            "whole_leaves": whole_leaves(model, mesh),
        }
        _write(cache / key, result, text)
    return key


def _compile(lowered: jax.stages.Lowered, given: int) -> tuple[dict, str]:
    """What the compiler says of a step that is given so many bytes, and the program."""
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        wanted = wanted_bytes(str(error), given)
        if wanted is None:
            raise
        return {"fits": False, "wanted_bytes": wanted, "compile_seconds": time.perf_counter() - start}, ""
    memory = compiled.memory_analysis()
    result = {
        "fits": True,
        "memory": {name: getattr(memory, name, 0) for name in MEMORY},
        "compile_seconds": time.perf_counter() - start,
    }
    return result, compiled.as_text()


def wanted_bytes(error: str, given: int) -> float | None:
    """What a program that is given so many bytes would take of a chip's memory, from the compiler's refusal; None for
    another refusal."""
    for pattern, of in OUT_OF_MEMORY.items():
        if found := pattern.search(error):
            return float(found[1]) * UNITS[found[2]] + (given if of == "temporaries" else 0)
    return None


def _key(program: str, coordinates: list, request: dict) -> str:
    """What the compiler's answer depends on."""
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")]
    options = os.environ.get("LIBTPU_INIT_ARGS", "")
    parts = [program, versions, options, coordinates, request["topology"], request["options"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _write(folder: pathlib.Path, result: dict, text: str) -> None:
    """result.json last, so that a folder that has it is whole."""
    write_whole(folder / "hlo.txt.gz", gzip.compress(text.encode(), 5))
    write_whole(folder / "result.json", json.dumps(result))


def _say(**line: str) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
