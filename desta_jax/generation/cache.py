"""The key-value cache of a language model that generates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int32

from desta_jax.models.attention import by_head
from desta_jax.models.shapes import DecoderShape
from desta_jax.sharding import LOGICAL


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """What each layer remembers of the tokens read so far. Columns are shared by all rows; a row that is shorter
    than another has columns that hold nothing."""

    keys: list[Float[Array, "b k c s"]]
    values: list[Float[Array, "b k s c"]]
    held: Bool[Array, "b s"]
    """Which columns hold a token of the row."""

    @property
    def columns(self) -> int:
        return self.held.shape[1]


def empty_cache(shape: DecoderShape, rows: int, columns: int, dtype) -> Cache:
    """A cache of no tokens."""
    nothing = jnp.zeros((rows, columns, shape.key_heads, shape.head_width), dtype)
    keys, values = zip(*(by_head(nothing, nothing) for _ in range(shape.layers)))
    return constrain(Cache([*keys], [*values], jnp.zeros((rows, columns), bool)))


def grow(cache: Cache, columns: int) -> Cache:
    """The same with room for more."""

    def pad(array, axis):
        return jnp.pad(array, [(0, columns - cache.columns if at == axis else 0) for at in range(array.ndim)])

    keys, values = ([pad(layer, axis) for layer in layers] for layers, axis in ((cache.keys, 3), (cache.values, 2)))
    return constrain(Cache(keys, values, pad(cache.held, 1)))


def constrain(cache: Cache) -> Cache:
    """Keeps rows where the batch's are, and heads where the weights that make them are."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return cache

    def place(array):
        heads = LOGICAL["heads"] if array.ndim == 4 and array.shape[1] % mesh.shape[LOGICAL["heads"]] == 0 else None
        spec = PartitionSpec(LOGICAL["rows"], *([heads, None, None] if array.ndim == 4 else [None]))
        return jax.lax.with_sharding_constraint(array, spec)

    return jax.tree.map(place, cache)


def hold(cache: Cache, present: Bool[Array, "b t"], column: Int32[Array, ""]) -> Bool[Array, "b s"]:
    """Which columns hold a token once tokens (where `present`) are written from `column` on."""
    return jax.lax.dynamic_update_slice(cache.held, present, (0, column))


def visible(held: Bool[Array, "b s"], length: int, column: Int32[Array, ""]) -> Bool[Array, "b t s"]:
    """What `length` tokens written from `column` on may look at: the row's tokens up to themselves. Padding looks at
    itself, so that each query looks somewhere."""
    own = column + jnp.arange(length)[:, None]
    columns = jnp.arange(held.shape[1])
    return held[:, None, :] & (columns <= own) | (columns == own)


def write(
    keys: Float[Array, "b k c s"],
    values: Float[Array, "b k s c"],
    new_keys: Float[Array, "b t k c"],
    new_values: Float[Array, "b t k c"],
    column: Int32[Array, ""],
) -> tuple[Float[Array, "b k c s"], Float[Array, "b k s c"]]:
    """A layer's keys and values with new ones from `column` on, in place."""
    new_keys, new_values = by_head(new_keys.astype(keys.dtype), new_values.astype(values.dtype))
    keys = jax.lax.dynamic_update_slice(keys, new_keys, (0, 0, 0, column))
    return keys, jax.lax.dynamic_update_slice(values, new_values, (0, 0, column, 0))
