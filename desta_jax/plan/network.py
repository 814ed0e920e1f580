"""How long chips take to talk: bytes over links, by the places of the chips and the axes of the mesh."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Sequence

import numpy as np

from desta_jax.plan.chips import HOP_SECONDS
from desta_jax.plan.topology import Topology

Place = tuple[int, ...]


class Network:
    """The chips of one slice in the order of the mesh: programs are compiled for a slice, and number its chips."""

    def __init__(self, topology: Topology, mesh: dict[str, int], coordinates: Sequence[Place]):
        """`coordinates`: (slice, x, y, ...) of every chip of every slice, in the order of the mesh."""
        self.chip, self.slices = topology.chip, topology.slices
        self.sides = topology.shape + (1,) * (3 - len(topology.shape))
        self.wraps = topology.wraps + (False,) * (3 - len(topology.wraps))
        self.places = [tuple(place[1:]) for place in coordinates if place[0] == coordinates[0][0]]
        self.axes = list(mesh)
        self.mesh = [mesh[axis] // (topology.slices if index == 0 else 1) for index, axis in enumerate(self.axes)]

    @property
    def size(self) -> int:
        return len(self.places)

    def axis(self, groups: list[list[int]]) -> str:
        """The mesh axes along which the members of the groups differ."""
        names = set()
        for group in groups:
            where = np.array(np.unravel_index([number % self.size for number in group], self.mesh))
            names |= {axis for axis, row in zip(self.axes, where) if len(set(row.tolist())) > 1}
        return "+".join(axis for axis in self.axes if axis in names) or "none"

    def seconds(self, kind: str, moved: float, groups: list[list[int]]) -> float:
        """Of a collective, alone on its links.

        Args:
            kind: its opcode.
            moved: bytes of the larger side of it on a chip: what a gather gives, what a reduction takes.
            groups: who takes part; source and target for a permutation.
        """
        if kind == "collective-permute":
            return self._permute(moved, groups)
        group = max(groups, key=len)
        if len(group) < 2:
            return 0.0
        share = (len(group) - 1) / len(group)
        places = [self.places[number % self.size] for number in group]
        links, hops, apart = self._links(places), self._hops(places), self._mean_distance(places)
        bandwidth = links * self.chip.link_bandwidth
        traffic = {"all-reduce": 2 * share, "all-to-all": share * apart, "ragged-all-to-all": share * apart}
        return moved * traffic.get(kind, share) / bandwidth + hops * HOP_SECONDS

    def between_slices(self, moved: float) -> float:
        """Of summing `moved` bytes a chip over the slices, through the hosts' network."""
        return 2 * (self.slices - 1) / self.slices * moved / self.chip.network_bandwidth

    def _links(self, places: list[Place]) -> int:
        """Links by which a chip at an end of the group takes part: two along a ring, one along a line."""
        count = 0
        for side, wraps, values in zip(self.sides, self.wraps, zip(*places)):
            extent = len(set(values))
            count += (2 if wraps and extent == side else 1) if extent > 1 else 0
        return max(1, count)

    def _hops(self, places: list[Place]) -> int:
        return sum(
            (max(values) - min(values) + 1) // 2 if wraps and len(set(values)) == side else max(values) - min(values)
            for side, wraps, values in zip(self.sides, self.wraps, zip(*places))
        )

    def _mean_distance(self, places: list[Place]) -> float:
        """Hops between two chips of the group, on average over its dimensions' own averages."""
        total = 0.0
        for dimension, values in enumerate(zip(*places)):
            steps = [abs(self._step(dimension, a, b)) for a, b in itertools.product(set(values), repeat=2)]
            total += sum(steps) / len(steps)
        return max(1.0, total)

    def _permute(self, moved: float, pairs: list[list[int]]) -> float:
        """The busiest link's bytes, each message going along one dimension after the other."""
        loads: collections.Counter = collections.Counter()
        longest = 0
        for source, target in pairs:
            route = list(self._route(self.places[source % self.size], self.places[target % self.size]))
            loads.update(route)
            longest = max(longest, len(route))
        return max(loads.values(), default=0) * moved / self.chip.link_bandwidth + longest * HOP_SECONDS

    def _route(self, source: Place, target: Place):
        place = list(source)
        for dimension, side in enumerate(self.sides):
            step = self._step(dimension, place[dimension], target[dimension])
            for _ in range(abs(step)):
                yield tuple(place), dimension, math.copysign(1, step)
                place[dimension] = (place[dimension] + (1 if step > 0 else -1)) % side

    def _step(self, dimension: int, start: int, stop: int) -> int:
        """Signed hops along a dimension, the short way round where it is a ring."""
        side, step = self.sides[dimension], stop - start
        if self.wraps[dimension] and abs(step) > side / 2:
            step -= int(math.copysign(side, step))
        return step
