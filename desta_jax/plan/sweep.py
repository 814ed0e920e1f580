"""Tries batches, remat and meshes for a topology and ranks what fits."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from desta_jax.clock import time_left
from desta_jax.config import REMAT, from_json, to_json
from desta_jax.plan.report import plan
from desta_jax.plan.topology import Topology, parse_topology

MOST_TENSOR = 4
"""The largest tensor axis that a sweep tries by itself."""


def sweep(
    config: ConfigDict,
    topology_name: str,
    *,
    batches: Sequence[int] = (),
    remats: Sequence[str] = (),
    meshes: Sequence[str] = (),
    cache: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Plans of every combination, those that fit first and the most samples a second on top.

    Where a batch does not fit, larger ones with the same mesh and remat are not tried.

    Args:
        config: the run's.
        topology_name: such as v5e-256.
        batches: values of train.batch_size; by default the config's (or the least multiple of the chips above it),
            twice and four times that.
        remats: values of remat; by default all.
        meshes: data x fsdp x tensor, as 2x8x1; by default fsdp over a slice, and tensor 2 and 4 within it.
        cache: where the compiler's answers are kept, so that a sweep that was stopped goes on where it was.
        say: is given lines of progress.

    Raises:
        ValueError: a mesh or remat that is none, or nothing that can be tried.
    """
    topology = parse_topology(topology_name)
    for remat in remats:
        if remat not in REMAT:
            raise ValueError(f"remat: {remat!r} is none of {REMAT}")
    for mesh in meshes:
        _sizes(mesh)
    pairs = itertools.product(meshes or _meshes(topology), remats or REMAT)
    ladders = [(mesh, remat, sorted(batches) or _batches(config, topology, mesh)) for mesh, remat in pairs]
    results, refused = [], []
    done, total, started = 0, sum(len(ladder) for *_, ladder in ladders), time.monotonic()
    for mesh, remat, ladder in ladders:
        for rung, batch in enumerate(ladder):
            label = f"batch {batch}, remat {remat}, mesh {mesh}"
            try:
                result = plan(_with(config, batch, remat, mesh), topology_name, cache=cache, say=say)
                results.append(result)
                found, larger_too = _in_short(result), result["fits"]
            except ValueError as error:
                refused.append(f"{label}: {error}")
                found, larger_too = str(error), True
            done += 1 if larger_too else len(ladder) - rung
            say(f"{label}: {found} ({done} of {total}, {time_left(done, total, time.monotonic() - started)})")
            if not larger_too:
                break
    if not results:
        raise ValueError("nothing could be planned:\n  " + "\n  ".join(refused))
    return sorted(results, key=lambda result: (not result["fits"], -result.get("samples_per_second", 0)))


def describe(results: Sequence[dict[str, Any]]) -> str:
    """A line for each plan, the best first."""
    lines = [
        f"{'batch':>7} {'remat':>8} {'mesh':>11} {'HBM GB':>8} {'step ms':>9} {'samples/s':>10} {'MFU':>7} {'days':>7}"
    ]
    for result in results:
        mesh = "x".join(map(str, result["mesh"].values()))
        start = f"{result['batch_size']:7} {result['remat']:>8} {mesh:>11} {result['hbm_gb']:8.2f} "
        if not result["fits"]:
            lines.append(f"{start}does not fit in {result['hbm_limit_gb']:.2f}")
            continue
        lines.append(
            f"{start}{1e3 * result['step_seconds']:9.1f} {result['samples_per_second']:10.1f} "
            f"{100 * result['mfu']:5.1f} % {result['days']:7.2f}"
        )
    return "\n".join(lines)


def _meshes(topology: Topology) -> Iterator[str]:
    tensor = 1
    while tensor <= MOST_TENSOR and topology.slice_chips % tensor == 0:
        yield f"{topology.slices}x{topology.slice_chips // tensor}x{tensor}"
        tensor *= 2


def _batches(config: ConfigDict, topology: Topology, mesh: str) -> list[int]:
    data, fsdp, _ = _sizes(mesh)
    step = data * fsdp * config.train.accumulate * (config.data.clips_per_row if config.data.pack else 1)
    least = -(-config.train.batch_size // step) * step
    return [least, 2 * least, 4 * least]


def _with(config: ConfigDict, batch: int, remat: str, mesh: str) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.batch_size, config.remat = batch, remat
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = _sizes(mesh)
    return from_json(to_json(config))  # which refuses what a run would


def _sizes(mesh: str) -> tuple[int, ...]:
    sizes = mesh.split("x")
    if len(sizes) != 3 or not all(size.isdigit() and int(size) for size in sizes):
        raise ValueError(f"mesh {mesh!r}: expected data x fsdp x tensor, such as 2x8x1")
    return tuple(map(int, sizes))


def _in_short(result: dict[str, Any]) -> str:
    if not result["fits"]:
        return f"does not fit, {result['hbm_gb']:.1f} of {result['hbm_limit_gb']:.1f} GB"
    return f"{result['hbm_gb']:.1f} GB, {result['samples_per_second']:.0f} samples/s"
