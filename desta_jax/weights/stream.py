"""Orbax checkpoints written leaf by leaf in blocks, so that a leaf larger than memory allows can be written.

Orbax keeps the checkpoint's metadata and restores it; only the writing of a leaf is ours, with TensorStore, as one
Zarr 3 array with sharding: files of some 10 MB, read in pieces of about a MiB, each with a checksum.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from absl import logging

from desta_jax import tree
from desta_jax.files import absolute

BLOCK_BYTES = 64 * 2**20  # a leaf up to this is one block
FILE_BYTES = 32 * 2**20
READ_BYTES = 2**20  # about what a reader can ask for by itself
PENDING_BYTES = 512 * 2**20  # blocks on their way to the disk

Block = tuple[int, np.ndarray]  # the first row, and the rows from there


@dataclasses.dataclass(frozen=True)
class StreamedLeaf:
    """An array known by its blocks of rows, each of `rows` rows but the last."""

    shape: tuple[int, ...]
    dtype: np.dtype
    rows: int
    blocks: Callable[[], Iterable[Block]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def from_array(array: np.ndarray) -> StreamedLeaf:
    """A leaf that is in memory."""
    return StreamedLeaf(array.shape, array.dtype, array.shape[0], lambda: [(0, array)])


def write_checkpoint(
    path: pathlib.Path, leaves: Mapping[str, StreamedLeaf], progress: Callable[[int], None] = lambda written: None
) -> None:
    """An Orbax checkpoint of leaves by path, which any Orbax checkpointer restores; `progress` gets bytes written."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (StreamedLeaf, _LeafWriter(progress)), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_ocdbt=False, use_zarr3=True)
    with _quiet(), ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(absolute(path), args=ocp.args.PyTreeSave(tree.unflatten(leaves)))


class _LeafWriter(ocp.type_handlers.NumpyHandler):
    """Writes a leaf's blocks as they come; reads it back as Orbax's handler of numpy arrays, whose type it takes."""

    def __init__(self, progress: Callable[[int], None]):
        super().__init__()
        self._progress = progress
        self._turn = asyncio.Lock()  # Orbax starts every leaf at once, and each would hold its own blocks

    async def serialize(self, values, infos, args=None):
        for leaf, info in zip(values, infos, strict=True):
            async with self._turn:
                await self._write(leaf, await ts.open(_zarr_spec(leaf, str(info.path))))
        return []

    async def _write(self, leaf: StreamedLeaf, store: ts.TensorStore) -> None:
        pending: collections.deque[tuple[int, ts.Future]] = collections.deque()
        for start, block in leaf.blocks():
            while sum(size for size, _ in pending) > PENDING_BYTES:
                await pending.popleft()[1]
            pending.append((block.nbytes, store[start : start + len(block)].write(block)))
            self._progress(block.nbytes)
        for _, written in pending:
            await written


def _zarr_spec(leaf: StreamedLeaf, path: str) -> dict:
    file_shape, read_shape = chunk_shapes((leaf.rows, *leaf.shape[1:]), leaf.dtype.itemsize)
    parts = {
        "chunk_shape": read_shape,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": path + "/"},
        "metadata": {
            "shape": leaf.shape,
            "data_type": leaf.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": file_shape}},
            "codecs": [{"name": "sharding_indexed", "configuration": parts}],
        },
        "create": True,
        "delete_existing": True,
        "store_data_equal_to_fill_value": True,  # else a block of zeros would be taken for a missing one
        "context": {"file_io_sync": False},  # the converter syncs everything once, at its end
    }


def chunk_shapes(block: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a file and of the parts that can be read by themselves, for blocks of one shape.

    The longest axis is halved until a part is small enough: whichever axis a mesh splits, a device reads little beyond
    its share. A file is as many parts as fit; a block is whole files, so that no file is written twice.
    """
    part, doublings = list(block), [0] * len(block)
    while math.prod(part) * itemsize > READ_BYTES:
        axis = part.index(max(part))
        part[axis] = -(-part[axis] // 2)
        doublings[axis] += 1
    while math.prod(part) * itemsize << sum(doublings) > FILE_BYTES:
        doublings[doublings.index(max(doublings))] -= 1
    return tuple(n << k for n, k in zip(part, doublings)), tuple(part)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warnings about features of a training checkpoint that are not used here."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
