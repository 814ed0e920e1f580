"""Attention whose scores never leave the chip's fast memory: a Pallas kernel for the encoder on TPUs.

A clip's 1500 frames are few enough that all keys and values of two heads stay in fast memory, so there is no running
softmax; and the kernel reads and writes the projections as they lie, heads side by side in the last axis, so that
nothing is transposed or padded.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from desta_jax.sharding import LOGICAL

LANES = 128  # of a TPU's registers: a program works on the heads that lie in so many columns
QUERIES = 256  # rows of scores that are in fast memory at a time
KEYS = range(256, 2049)  # fewer are soon done without a kernel; of more, the scores would not fit


def suits(queries: Float[Array, "b t h c"], keys: Float[Array, "b s k c"]) -> bool:
    """Whether the kernel is worth it, and exact enough: it multiplies in bfloat16, so float32 is left alone."""
    _, _, heads, width = queries.shape
    side_by_side = LANES % width == 0 and heads * width % LANES == 0
    return queries.shape == keys.shape and queries.dtype == jnp.bfloat16 and side_by_side and keys.shape[1] in KEYS


def flash_attend(
    queries: Float[Array, "b t h c"],
    keys: Float[Array, "b t h c"],
    values: Float[Array, "b t h c"],
    *,
    interpret: bool = False,
) -> Float[Array, "b t h c"]:
    """Every query looks at every key: attention.attend without mask and dropout, forward only.

    Each device works on its own rows, and on its own heads where the mesh divides them.

    Args:
        interpret: runs the kernel's steps as ordinary operations, anywhere; for tests.
    """
    columns = queries.shape[2] * queries.shape[3]
    attend = functools.partial(_on_one_device, width=queries.shape[3], interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        axis = LOGICAL["heads"]
        split = PartitionSpec(LOGICAL["rows"], None, axis if columns % (LANES * mesh.shape[axis]) == 0 else None)
        attend = jax.shard_map(attend, mesh=mesh, in_specs=(split,) * 3, out_specs=split, check_vma=False)
    side_by_side = (x.reshape(*x.shape[:2], columns) for x in (queries, keys, values))
    return attend(*side_by_side).reshape(queries.shape)


def _on_one_device(queries, keys, values, *, width, interpret):
    rows, length, columns = queries.shape
    some = pl.BlockSpec((1, min(QUERIES, length), LANES), lambda row, heads, part: (row, part, heads))
    all_of_them = pl.BlockSpec((1, length, LANES), lambda row, heads, part: (row, 0, heads))
    scores = rows * length * length * columns // width
    return pl.pallas_call(
        functools.partial(_attend_side_by_side, width=width),
        grid=(rows, columns // LANES, math.ceil(length / QUERIES)),
        in_specs=[some, all_of_them, all_of_them],
        out_specs=some,
        out_shape=jax.ShapeDtypeStruct(queries.shape, queries.dtype),
        cost_estimate=pl.CostEstimate(
            flops=4 * scores * width, transcendentals=scores, bytes_accessed=4 * queries.size * queries.dtype.itemsize
        ),
        name="flash_attend",
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
        interpret=interpret,
    )(queries, keys, values)


def _attend_side_by_side(queries, keys, values, mixed, *, width):
    """The heads of LANES columns. A head's scores are products over all columns, the other heads' set to zero: narrower
    products would take a TPU as long."""
    head_of = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1) // width
    q, k, v = queries[0], keys[0], values[0]
    out = jnp.zeros(q.shape, jnp.float32)
    for head in range(LANES // width):
        own = head_of == head
        looked = jnp.where(own, q, jnp.zeros_like(q))
        scores = jax.lax.dot_general(looked, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
        scores = scores * width**-0.5
        weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        total = weights.sum(axis=-1, keepdims=True)
        seen = jax.lax.dot_general(
            weights.astype(v.dtype), v, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        out = jnp.where(own, seen / total, out)
    mixed[0] = out.astype(mixed.dtype)
