"""The device mesh, and one table that says how every array lies on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from desta_jax import tree
from desta_jax.config import mesh_sizes
from desta_jax.tree import Tree

AXES = ("data", "fsdp", "tensor")

LOGICAL = {
    "rows": ("data", "fsdp"),  # of a batch
    "width": "fsdp",  # of the residual stream, in weights: gathered layer by layer as they are used
    "heads": "tensor",  # query, key and value features
    "mlp": "tensor",
    "vocabulary": "tensor",
}
"""Where each logical axis lies; an axis that is not named here is whole on every device."""

PARAMETERS = (
    (r"(embed|head)", ("vocabulary", "width")),
    (r"layers\..*\.(q|k|v)\.kernel", (None, "width", "heads")),
    (r"layers\..*\.o\.kernel", (None, "heads", "width")),
    (r"layers\..*\.(gate|up)\.kernel", (None, "width", "mlp")),
    (r"layers\..*\.down\.kernel", (None, "mlp", "width")),
    (r"connector\.proj\.kernel", (None, "width")),
    (r"lora\.(q|k|v)\.a", (None, "width", None)),
    (r"lora\.(q|k|v)\.b", (None, None, "heads")),
)
"""Logical axes of parameters by path; the first pattern that matches counts, and what matches none is replicated."""


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or those given); one size may be -1 and takes the devices that are left.

    Several TPU slices lie along `data`, so that only it crosses the network between them.

    Raises:
        ValueError: sizes that do not multiply to the number of devices, or a `data` that slices do not divide.
    """
    devices = list(devices if devices is not None else jax.devices())
    shape = tuple(mesh_sizes(data, fsdp, tensor, devices=len(devices)).values())
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if shape[0] % slices:
        raise ValueError(f"mesh.data: {shape[0]} must be a multiple of the {slices} slices")
    try:
        grid = _arranged(shape, slices, devices, split=False)
    except NotImplementedError:  # no axis of the mesh is made of whole axes of the torus
        grid = _arranged(shape, slices, devices, split=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def _arranged(shape: tuple[int, ...], slices: int, devices: Sequence[jax.Device], *, split: bool) -> np.ndarray:
    """The devices in the mesh's order, neighbours near each other; `split` lets several axes share one of the torus."""
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=split)
    inner, outer = (shape[0] // slices, *shape[1:]), (slices, *(1 for _ in shape[1:]))
    return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=split)


def partition(path: str, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """How the parameter at this path lies on the mesh; an axis that its mesh axis does not divide stays whole."""
    return _spec(_axes(path), shape, mesh)


def _axes(path: str) -> tuple[str | None, ...]:
    return next((axes for pattern, axes in PARAMETERS if tree.match(pattern, path)), ())


def _spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    places = [LOGICAL.get(axis) for axis in axes]
    return PartitionSpec(
        *(place if place and size % mesh.shape[place] == 0 else None for size, place in zip(shape, places))
    )


def undivided(parameters: Tree, mesh: Mesh) -> dict[str, list[str]]:
    """Paths of leaves that a mesh axis would split and does not divide, by that axis: along it they are whole."""
    found: dict[str, list[str]] = {}
    for path, leaf in tree.flatten(parameters).items():
        for axis, place in zip(_axes(path), partition(path, leaf.shape, mesh)):
            if place != (wanted := LOGICAL.get(axis)):
                found.setdefault(wanted, []).append(path)
    return found


def parameter_shardings(parameters: Tree, mesh: Mesh) -> Tree:
    """The sharding of every leaf."""
    return tree.map_with_path(lambda path, leaf: NamedSharding(mesh, partition(path, leaf.shape, mesh)), parameters)


def placed(parameters: Tree, mesh: Mesh) -> Tree:
    """Abstract parameters with their shardings: what a checkpoint is restored into."""
    return with_shardings(parameters, parameter_shardings(parameters, mesh))


def with_shardings(leaves: Any, shardings: Any) -> Any:
    """Any tree's shapes and dtypes, each with its sharding."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), leaves, shardings
    )


def local_bytes(leaf: jax.Array | jax.ShapeDtypeStruct) -> int:
    """Bytes of what one device holds of a leaf."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data and fsdp axes; everything else of a batch is whole."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL["rows"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in LOGICAL["rows"])


def local_rows(mesh: Mesh, rows: int) -> list[int]:
    """The rows of a global batch that this process's devices hold, in rising order."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    return sorted({row for (part,) in slices for row in range(*part.indices(rows))})


def put_batch(local: Tree, mesh: Mesh, rows: int) -> Tree:
    """Global arrays from this process's rows (`local_rows`), each shard placed on its device."""
    sharding = batch_sharding(mesh)
    place = {row: index for index, row in enumerate(local_rows(mesh, rows))}

    def put(array: np.ndarray) -> jax.Array:
        shape = (rows, *array.shape[1:])
        shards = []
        for device, index in sharding.addressable_devices_indices_map(shape).items():
            start, stop, _ = index[0].indices(rows)
            shards.append(jax.device_put(array[place[start] : place[stop - 1] + 1], device))
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    return jax.tree.map(put, local)


def constrain_rows(x: jax.Array) -> jax.Array:
    """Keeps an activation's rows where the batch's are, the rest whole: weights come to it, not it to the weights.

    Outside a mesh it does nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(LOGICAL["rows"]))


def gather_width(parameters, path: str):
    """Parameters on their way into a computation: whole along the residual stream's width, else as they lie.

    Said where a layer's work begins, so that its weights are gathered once, while the layer before it is at work.
    Left to itself the compiler gathers some of them a sixteenth at a time, in small products that keep no chip busy.

    Args:
        parameters: an array, or a module such as one layer of a stack (its arrays without the axis of layers).
        path: where they stand in a parameter tree, as PARAMETERS has it: "layers", "embed".
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape[LOGICAL["width"]] == 1:
        return parameters

    def gather(keys, leaf):
        name = jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")
        axes = _axes(f"{path}.{name}" if name else path)
        if "width" not in axes:
            return leaf
        whole = [None if axis == "width" else axis for axis in axes[-leaf.ndim :]]
        return jax.lax.with_sharding_constraint(leaf, _spec(whole, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(gather, parameters)


def constrain_parts(x: jax.Array) -> jax.Array:
    """Keeps the rows of a batch that is cut into parts, along a new leading axis, spread over the mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(None, LOGICAL["rows"]))
