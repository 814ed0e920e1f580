"""Times of transfers against figures by hand: v5e links carry 45 GB/s one way, a hop takes 1 microsecond."""

import pytest

from desta_jax.plan.network import Network
from desta_jax.plan.topology import parse_topology

HOP = 1e-6
MB = 1e6


def grid(name, mesh):
    """The chips row by row."""
    topology = parse_topology(name)
    rows, columns = topology.shape
    places = [(number, x, y, 0) for number in range(topology.slices) for x in range(rows) for y in range(columns)]
    return Network(topology, mesh, places)


def test_a_gather_over_a_square_enters_a_corner_by_two_links(ring):
    # 3/4 of 90 MB over 2 links of 45 GB/s; two hops to the far corner
    assert ring().seconds("all-gather", 90 * MB, [[0, 1, 2, 3]]) == pytest.approx(0.75e-3 + 2 * HOP)


def test_an_all_reduce_goes_both_ways(ring):
    network = ring()
    gather, reduce = (network.seconds(kind, 90 * MB, [[0, 1, 2, 3]]) for kind in ("all-gather", "all-reduce"))
    assert reduce - 2 * HOP == pytest.approx(2 * (gather - 2 * HOP))


def test_a_ring_of_16_has_two_links_and_half_the_hops():
    network = grid("v5e-256", {"data": 16, "fsdp": 16, "tensor": 1})
    row = list(range(16))
    assert network.axis([row]) == "fsdp"
    assert network.seconds("all-gather", 90 * MB, [row]) == pytest.approx(15 / 16 * 1e-3 + 8 * HOP)
    column = list(range(0, 256, 16))
    assert network.axis([column]) == "data"
    everything = list(range(256))
    assert network.axis([everything]) == "data+fsdp"
    assert network.seconds("all-gather", 90 * MB, [everything]) == pytest.approx(255 / 256 * 0.5e-3 + 16 * HOP)


def test_a_line_has_one_link():
    network = grid("v5e-16", {"data": 4, "fsdp": 4, "tensor": 1})
    assert network.seconds("reduce-scatter", 90 * MB, [[0, 1, 2, 3]]) == pytest.approx(0.75 * 2e-3 + 3 * HOP)


def test_a_permutation_takes_its_busiest_link():
    network = grid("v5e-16", {"data": 4, "fsdp": 4, "tensor": 1})
    ahead = [[0, 1], [1, 2], [2, 3]]
    assert network.seconds("collective-permute", 45 * MB, ahead) == pytest.approx(1e-3 + HOP)
    # 3 to 0 goes back over the three links, none of which another message uses in that direction
    assert network.seconds("collective-permute", 45 * MB, [*ahead, [3, 0]]) == pytest.approx(1e-3 + 3 * HOP)
    # 0 to 2 and 1 to 2 share the link from 1 to 2
    assert network.seconds("collective-permute", 45 * MB, [[0, 2], [1, 2]]) == pytest.approx(2e-3 + 2 * HOP)


def test_between_slices_is_the_hosts_network():
    # a v5e chip's share is 3.125 GB/s; each of two slices sends its half and takes the other's sum back
    network = grid("2xv5e-4", {"data": 2, "fsdp": 4, "tensor": 1})
    assert network.size == 4
    assert network.between_slices(3.125 * MB) == pytest.approx(1e-3)
