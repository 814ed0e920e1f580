"""Leaves written in blocks are Orbax checkpoints like any other."""

import math

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from desta_jax.weights import stream


def streamed(array, rows):
    blocks = [(start, array[start : start + rows]) for start in range(0, len(array), rows)]
    return stream.StreamedLeaf(array.shape, array.dtype, rows, lambda: blocks)


@pytest.mark.parametrize(
    "block, itemsize",
    [((1, 4096, 14336), 2), ((8192, 4096), 2), ((1, 1280, 5120), 4), ((51865, 384), 2), ((3, 7), 4), ((96,), 4)],
)
def test_a_block_is_whole_files_and_a_file_whole_parts(block, itemsize):
    file, part = stream.chunk_shapes(block, itemsize)
    assert all(f % p == 0 for f, p in zip(file, part))
    assert math.prod(part) * itemsize <= stream.READ_BYTES
    assert math.prod(file) * itemsize <= stream.FILE_BYTES
    assert block[0] % file[0] == 0 or block[0] == 51865  # one block alone may end within a file


def test_blocks_are_restored_with_shardings_and_dtypes(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "READ_BYTES", 512)
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((3, 64, 48)).astype(ml_dtypes.bfloat16)
    table = rng.standard_normal((50, 16)).astype(np.float16)
    zeros = np.zeros((4, 8), np.float32)  # equal to what an array holds where nothing was written
    leaves = {"layers.wide": streamed(wide, 1), "table": streamed(table, 16), "zeros": stream.from_array(zeros)}
    stream.write_checkpoint(tmp_path / "checkpoint", leaves)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def like(array, dtype, *spec):
        return jax.ShapeDtypeStruct(array.shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    wanted = {
        "layers": {"wide": like(wide, np.float32, None, "a", "b")},
        "table": like(table, np.float16, None, ("b", "a")),
        "zeros": like(zeros, np.float32),
    }
    with ocp.StandardCheckpointer() as checkpointer:
        got = checkpointer.restore(tmp_path / "checkpoint", wanted)
    np.testing.assert_array_equal(got["layers"]["wide"], wide.astype(np.float32))
    np.testing.assert_array_equal(got["table"], table)
    np.testing.assert_array_equal(got["zeros"], zeros)
    assert jax.tree.map(lambda x: x.sharding, got) == jax.tree.map(lambda x: x.sharding, wanted)


def test_one_leaf_at_a_time_is_in_memory(tmp_path):
    open_leaves, most = set(), 0

    def leaf(name):
        def blocks():
            nonlocal most
            for row in range(4):
                open_leaves.add(name)
                most = max(most, len(open_leaves))
                yield row, np.full((1, 8), row, np.float32)
            open_leaves.discard(name)

        return stream.StreamedLeaf((4, 8), np.dtype("float32"), 1, blocks)

    stream.write_checkpoint(tmp_path / "checkpoint", {name: leaf(name) for name in "abcdef"})
    assert most == 1


def test_an_error_while_reading_stops_the_writing(tmp_path):
    def blocks():
        yield 0, np.zeros((1, 8), np.float32)
        raise ValueError("the file ended")

    leaf = stream.StreamedLeaf((2, 8), np.dtype("float32"), 1, blocks)
    with pytest.raises(ValueError, match="the file ended"):
        stream.write_checkpoint(tmp_path / "checkpoint", {"leaf": leaf})
    assert not (tmp_path / "checkpoint").exists()
