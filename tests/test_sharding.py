"""How devices become a mesh: neighbours near each other, slices apart, and sizes that cannot be refused."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from desta_jax.sharding import make_mesh, undivided


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX looks at in a TPU device."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int = 0
    device_kind: str = "TPU v6 lite"
    platform: str = "tpu"
    core_on_chip: int = 0
    process_index: int = 0


def torus(side, slices=1):
    """Slices of side x side chips."""
    places = itertools.product(range(slices), range(side), range(side))
    return [Chip(number, (x, y, 0), at) for number, (at, y, x) in enumerate(places)]


def test_only_the_data_axis_crosses_from_slice_to_slice():
    mesh = make_mesh(data=4, fsdp=16, tensor=1, devices=torus(4, slices=4))
    for row in mesh.devices:
        assert len({chip.slice_index for chip in row.flat}) == 1
    with pytest.raises(ValueError, match=r"mesh.data: 2 must be a multiple of the 4 slices"):
        make_mesh(data=2, fsdp=32, tensor=1, devices=torus(4, slices=4))


@pytest.mark.parametrize("shape", [(1, 16, 1), (1, 8, 2), (2, 8, 1), (1, 4, 4), (2, 2, 4)], ids=str)
@pytest.mark.parametrize("slices", [1, 2])
def test_every_mesh_of_a_torus_can_be_made(shape, slices):
    """Also where no axis of the mesh is made of whole axes of the torus; and chips along `tensor` stay neighbours."""
    mesh = make_mesh(shape[0] * slices, *shape[1:], devices=torus(4, slices))
    assert mesh.devices.shape == (shape[0] * slices, *shape[1:])
    assert len({chip.id for chip in mesh.devices.flat}) == 16 * slices
    for group in mesh.devices.reshape(-1, shape[2]):
        for one, other in itertools.pairwise(group):
            steps = [min(abs(a - b), 4 - abs(a - b)) for a, b in zip(one.coords, other.coords)]
            assert sum(steps) == 1, "linked directly"


def test_sizes_that_do_not_multiply_to_the_devices_are_refused():
    with pytest.raises(ValueError, match="does not fit 16 devices"):
        make_mesh(data=-1, fsdp=3, tensor=1, devices=torus(4))
    assert np.prod(make_mesh(data=-1, fsdp=8, tensor=1, devices=torus(4)).devices.shape) == 16


def test_parameters_that_an_axis_does_not_divide_are_named():
    kernel = jax.ShapeDtypeStruct((2, 576, 192), "bfloat16")
    norm = {"scale": jax.ShapeDtypeStruct((577,), "float32")}  # whole on every device on any mesh
    tree = {"lm": {"layers": {"attention": {"q": {"kernel": kernel}, "o": {"kernel": kernel}}}, "norm": norm}}
    both = [f"lm.layers.attention.{name}.kernel" for name in "oq"]
    assert undivided(tree, make_mesh(1, 16, 1, devices=torus(4))) == {}
    assert undivided(tree, make_mesh(1, 2, 128, devices=torus(16))) == {"tensor": both}
    assert undivided(tree, make_mesh(1, 256, 1, devices=torus(16))) == {"fsdp": both}
