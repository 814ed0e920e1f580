"""Names of slices, and what the compiler is told of them."""

import pytest

from desta_jax.plan.topology import parse_topology

TABLE = [  # name, chips, shape of a slice, name for the compiler, name for the runtime
    ("v5e-1", 1, (1, 1), "v5e:1x1", "v5litepod-1"),
    ("v5e-8", 8, (2, 4), "v5e:2x4", "v5litepod-8"),
    ("v5e-16", 16, (4, 4), "v5e:4x4", "v5litepod-16"),
    ("v5litepod-16", 16, (4, 4), "v5e:4x4", "v5litepod-16"),
    ("v5e-256", 256, (16, 16), "v5e:16x16", "v5litepod-256"),
    ("2xv5e-256", 512, (16, 16), "v5e:16x16", "v5litepod-256"),
    ("v6e-256", 256, (16, 16), "v6e:16x16", "v6e-256"),
    ("v5p-8", 4, (2, 2, 1), "v5p:2x2x1", "v5p-8"),
    ("v5p-128", 64, (4, 4, 4), "v5p:4x4x4", "v5p-128"),
    ("v5p-1024", 512, (8, 8, 8), "v5p:8x8x8", "v5p-1024"),
    ("v4-2048", 1024, (8, 8, 16), "v4:8x8x16", "v4-2048"),
    ("v4-1024", 512, (8, 8, 8), "v4:8x8x8", "v4-1024"),
    ("v5p:16x16x24", 6144, (16, 16, 24), "v5p:16x16x24", "v5p-12288"),
    ("v5p:4x4x8", 128, (4, 4, 8), "v5p:4x4x8", "v5p-256"),
]


@pytest.mark.parametrize(("name", "chips", "shape", "compiler_name", "accelerator_type"), TABLE)
def test_a_name_stands_for_chips_in_a_shape(name, chips, shape, compiler_name, accelerator_type):
    topology = parse_topology(name)
    assert (topology.chips, topology.shape) == (chips, shape)
    assert (topology.compiler_name, topology.accelerator_type) == (compiler_name, accelerator_type)


def test_what_the_compiler_is_told_beside_the_name():
    assert parse_topology("v5e-16").compiler_options == {}
    assert parse_topology("2xv5e-16").compiler_options == {"num_slices": 2}
    assert parse_topology("v5e-1").compiler_options == {"chips_per_host_bounds": (1, 1, 1)}
    assert parse_topology("v4-8").compiler_options == {"chip_config_name": "megacore"}


@pytest.mark.parametrize(
    ("name", "wraps"),
    [
        ("v5e-16", (False, False)),
        ("v5e-128", (False, True)),
        ("v5e-256", (True, True)),
        ("v5p-64", (False, False, False)),  # 2 x 4 x 4
        ("v5p-128", (True, True, True)),  # a whole cube
    ],
)
def test_where_the_links_close_to_a_ring(name, wraps):
    assert parse_topology(name).wraps == wraps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "expected a name such as v5e-256"),
        ("v7x-8", "expected a name such as v5e-256"),
        ("v5e-17", "v5e names count chips; there are v5e-1, v5e-4"),
        ("v5p-4", "v5p names count TensorCores, two a chip; there are v5p-8"),
        ("v5p-9", "v5p names count TensorCores, two a chip"),
        ("v5e:2x2x2", "a v5e slice has 2 dimensions"),
        ("0xv5e-16", "at least one slice"),
        ("v5e:32x32", "a v5e slice has at most 16 chips a side; for more, take 4xv5e-256"),
        ("v6e:8x32", "a v6e slice has at most 16 chips a side; for more, take 1xv6e-256"),
        ("v4:16x16x20", "a v4 slice has at most 4096 chips"),
        ("v5p:16x20x28", "a v5p slice has at most 6144 chips"),  # 8960, a whole pod,
    ],
)
def test_a_wrong_name_is_told_what_there_is(name, message):
    with pytest.raises(ValueError, match=f"--topology {name}: .*{message}"):
        parse_topology(name)


@pytest.mark.parametrize(
    ("name", "one"), [("v5e-8", True), ("v5e-16", False), ("v5p-8", True), ("v5p-16", False), ("2xv5e-4", False)]
)
def test_a_slice_of_one_host(name, one):
    assert parse_topology(name).one_host == one
