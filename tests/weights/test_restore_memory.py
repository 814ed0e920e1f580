"""What the memory of a host must hold while weights come onto a mesh of several processes."""

import json
import os
import socket
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from desta_jax.weights.convert import FORMAT, MARKER
from desta_jax.weights.stream import StreamedLeaf, write_checkpoint

TENSORS, SHAPE = 4, (8, 2048, 3840)  # 126 MB each in bfloat16, 503 MB in all
ONE = int(np.prod(SHAPE)) * 2

RESTORE = f"""
import json, sys
import jax
from desta_jax import sharding
from desta_jax.weights import folder as folders

folders.IN_FLIGHT_BYTES = {ONE // 2}  # 2 GB would be all of this model, and are half a tensor of one of 8B
folder, address, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(address, 2, index)
mesh = sharding.make_mesh(data=1, fsdp=jax.device_count())

def like(tensors, shape):
    leaf = jax.ShapeDtypeStruct(shape, jax.numpy.bfloat16)
    return sharding.placed({{"layers": {{f"mlp{{i}}": {{"gate": {{"kernel": leaf}}}} for i in range(tensors)}}}}, mesh)

def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

folders.ModelFolder(folder).restore("encoder", like(1, (1, 8, 8)))  # loads what restoring needs of code
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again
before = memory("VmRSS")
weights = jax.block_until_ready(folders.ModelFolder(folder).restore("lm", like({TENSORS}, {SHAPE})))
part = sum(shard.data.nbytes for leaf in jax.tree.leaves(weights) for shard in leaf.addressable_shards)
print(json.dumps({{"part": part, "peak": memory("VmHWM") - before, "kept": memory("VmRSS") - before}}))
"""


def tensor(shape):
    rng = np.random.default_rng(0)

    def blocks():
        for row in range(shape[0]):
            yield row, rng.normal(size=(1, *shape[1:])).astype(ml_dtypes.bfloat16)

    return StreamedLeaf(shape, np.dtype(ml_dtypes.bfloat16), 1, blocks)


@pytest.fixture
def folder(tmp_path):
    """A converted folder whose language model is a few large random tensors."""
    (tmp_path / "params").mkdir()
    write_checkpoint(tmp_path / "params" / "lm", {f"layers.mlp{i}.gate.kernel": tensor(SHAPE) for i in range(TENSORS)})
    write_checkpoint(tmp_path / "params" / "encoder", {"layers.mlp0.gate.kernel": tensor((1, 8, 8))})
    for name in ("llm", "whisper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / MARKER).write_text(json.dumps({"format": FORMAT, "parts": ["lm", "encoder"]}))
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory is read from /proc")
def test_a_process_holds_its_part_and_no_more_than_one_tensor_beside_it(folder):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=4"
    # What is freed goes back to the system at once, so that the peak is of what was held.
    environment = os.environ | {"XLA_FLAGS": flags, "MALLOC_MMAP_THRESHOLD_": "65536"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESTORE, folder, address, str(index)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    for process in processes:
        said, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
        print(said)
        found = json.loads(said.splitlines()[-1])
        assert found["part"] == TENSORS * ONE // 2
        assert found["peak"] < found["part"] + ONE
