"""Several processes as one run."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import jax


def start(
    coordinator: str | None = None, processes: int | None = None, index: int | None = None, **options: Any
) -> None:
    """Joins this process to the others of its run; on one machine it does nothing.

    On Cloud TPU and GKE nothing needs to be said: JAX finds the others. Elsewhere give all three arguments, or the
    environment's JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. `options` are further ones of
    jax.distributed.initialize.

    Raises:
        ValueError: some of the arguments are given and some are not.
    """
    if jax.distributed.is_initialized():
        return
    given = {
        "JAX_COORDINATOR_ADDRESS": coordinator,
        "JAX_NUM_PROCESSES": processes,
        "JAX_PROCESS_ID": index,
    }
    given = {name: os.environ.get(name) if value is None else value for name, value in given.items()}
    if any(value is not None for value in given.values()):
        if None in given.values():
            raise ValueError(
                "--coordinator, --processes and --process_index go together, or JAX_COORDINATOR_ADDRESS, "
                "JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment: give all three"
            )
        address, count, number = given.values()
        jax.distributed.initialize(address, int(count), int(number), **options)
    elif _several_tpu_hosts():
        jax.distributed.initialize(**options)


def _several_tpu_hosts() -> bool:
    """Whether this is a worker of a TPU slice with several hosts, or of several slices."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or int(os.environ.get("MEGASCALE_NUM_SLICES", 1)) > 1 or _cloud_tpu_without_hostnames()


def _cloud_tpu_without_hostnames() -> bool:
    """A TPU VM made by hand has no TPU_* variables; its metadata server knows the slice, and JAX asks it. A device of
    that name without libtpu is something else."""
    devices = os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0")
    return devices and importlib.util.find_spec("libtpu") is not None
