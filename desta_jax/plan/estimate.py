"""The time of one step: the compiled program followed in the order in which a chip runs it.

Every fused operation takes the cycles that the compiler gives it. A collective takes its bytes over its links; where
the program starts it early, only what is left when its result is asked for is waited for. The same holds for copies
between main memory and core. A kernel of our own (Pallas) takes what the operations it states and its bytes need,
whichever is more; in attention, heads take as long as if they filled the multiplier. What the compiler gives no cycles
for takes what its operations and bytes need, too. A loop is its body times its trips.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

from desta_jax.plan.chips import Chip
from desta_jax.plan.hlo import COLLECTIVES, Instruction, Program, groups_of, walk
from desta_jax.plan.network import Network

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "optimization-barrier", "add-dependency", "send-done", "recv",
}  # fmt: skip
PLUMBING = FREE | {"fusion", "custom-call", "slice", "dynamic-slice", "pad"}
"""What brings a collective in a fusion its operand and takes its result away."""
CALLS = ("call", "async-start")
ATTENTION = "flash"
"""In the name of a kernel that is attention."""
NETWORK = "network"
"""The axis of what passes between slices."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A kind of collective along an axis, from one place of the model."""

    kind: str
    axis: str
    source: str


@dataclasses.dataclass
class Moved:
    """What transfers add up to in a step, on one chip."""

    count: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0

    def add(self, other: Moved, times: float = 1.0) -> None:
        self.count += times * other.count
        self.bytes += times * other.bytes
        self.seconds += times * other.seconds


@dataclasses.dataclass
class Tally:
    """What running a computation takes, on one chip."""

    parts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Seconds, one after the other: products, other, kernels, collectives, copies."""
    flops: float = 0.0
    bytes: float = 0.0
    transfers: dict[Transfer, Moved] = dataclasses.field(default_factory=lambda: collections.defaultdict(Moved))
    unpriced: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Seconds by opcode of what was priced by bytes, for want of cycles."""
    blind_kernels: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Calls of kernels that do not state their operations."""
    endless: int = 0
    """Loops of which the program does not say how often they run; counted once."""

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    def add(self, other: Tally, times: float = 1.0) -> None:
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        self.endless += times * other.endless
        for mine, theirs in ((self.parts, other.parts), (self.unpriced, other.unpriced)):
            for name, value in theirs.items():
                mine[name] += times * value
        for name, count in other.blind_kernels.items():
            self.blind_kernels[name] += times * count
        for transfer, moved in other.transfers.items():
            self.transfers[transfer].add(moved, times)


def estimate(text: str, chip: Chip, network: Network) -> Tally:
    """One run of a compiled program, given as text."""
    return _Estimator(Program(text), chip, network).of(None)


class _Estimator:
    def __init__(self, program: Program, chip: Chip, network: Network):
        self.program, self.chip, self.network = program, chip, network
        self._known: dict[str, Tally] = {}

    def of(self, computation: str | None) -> Tally:
        name = computation or self.program.entry
        if name not in self._known:
            self._known[name] = _Run(self, name).tally
        return self._known[name]


class _Run:
    """One computation, instruction after instruction; transfers go on beside it."""

    def __init__(self, estimator: _Estimator, computation: str):
        self.estimator, self.program, self.chip = estimator, estimator.program, estimator.chip
        self.computation, self.rows = computation, estimator.program.computations[computation]
        self.tally = Tally()
        self._clock = 0.0
        self._ends: dict[str, float] = {}
        self._free: dict[str, float] = collections.defaultdict(float)
        for row in self.rows.values():
            self._step(row)

    def _step(self, row: Instruction) -> None:
        opcode = row.opcode
        if opcode in FREE:
            return
        if opcode == "while":
            trips = self.program.trips(row, self.computation)
            self.tally.endless += trips is None
            self._inner(row.called_body, 1 if trips is None else trips)
        elif opcode == "conditional":
            branches = [name for name in row.branches if name in self.program.computations]
            if branches:
                self._inner(max(branches, key=lambda name: self.estimator.of(name).seconds), 1)
        elif opcode == "send":
            self._send(row)
        elif opcode == "recv-done":
            self._wait(_rendezvous(self.rows.get(row.operands[0], row)), "collectives")
        elif opcode.removesuffix("-start") in COLLECTIVES:
            self._collective(row, row, self.computation, wait=not opcode.endswith("-start"))
        elif opcode.endswith("-done"):
            base = opcode.removesuffix("-done")
            self._wait(row.operands[0], "collectives" if base in COLLECTIVES else "copies")
        elif opcode in CALLS and row.called in self.program.computations:
            self._inner(row.called, 1)
        elif opcode.endswith("-start"):
            self._copy(row)
        else:
            self._work(row)

    def _inner(self, computation: str, times: int) -> None:
        inner = self.estimator.of(computation)
        self.tally.add(inner, times)
        self._clock += times * inner.seconds

    def _work(self, row: Instruction) -> None:
        """A fusion, a lone operation, or a kernel; with the collectives that were fused into it."""
        if row.opcode == "fusion" and row.called in self.program.computations:
            self._fused_collectives(row)
            if row.cycles is None and self._only_transfers(row):
                return
        flops = self.program.flops_of(row, self.computation)
        moved = self.program.bytes_of(row, self.computation)
        if 'custom_call_target="tpu_custom_call"' in row.attributes:
            flops, seconds = self._kernel(row, moved)
            self._spend("kernels", seconds)
        elif row.cycles is not None:
            self._spend("products" if flops else "other", row.cycles / self.chip.clock)
        elif row.opcode != "custom-call" and sum(array.size for array in row.arrays) > 1:
            seconds = self._roofline(flops, moved)
            self.tally.unpriced[row.opcode] += seconds
            self._spend("products" if flops else "other", seconds)
        self.tally.flops += flops
        self.tally.bytes += moved

    def _kernel(self, row: Instruction, moved: float) -> tuple[float, float]:
        """Operations and seconds of a kernel of our own (Pallas), of which the compiler knows neither."""
        flops = _stated(row, "flops")
        if not flops:
            self.tally.blind_kernels[row.source or row.name] += 1
            return 0.0, self._roofline(0.0, moved)
        return flops, self._roofline(flops * self._filled(row, flops), moved)

    def _filled(self, row: Instruction, flops: float) -> float:
        """How much longer than its operations alone an attention kernel takes, narrow heads filled up.

        Its two products are 4 operations for every score and column of a head, and a score is one exponential.
        """
        scores, multiplier = _stated(row, "transcendentals"), self.chip.multiplier
        if not scores or ATTENTION not in f"{row.name} {row.source}":
            return 1.0
        width = flops / (4 * scores)
        return math.ceil(width / multiplier) * multiplier / width

    def _roofline(self, flops: float, moved: float) -> float:
        return max(flops / self.chip.peak_flops, moved / self.chip.hbm_bandwidth)

    def _fused_collectives(self, row: Instruction) -> None:
        """A collective inside a fusion: begun there, ended there, carried on there, or all of it there."""
        body = self.program.computations[row.called]
        for call in body.values():
            for target in ("AsyncCollectiveStart", "AsyncCollectiveDone"):
                if f'custom_call_target="{target}"' in call.attributes:
                    for part in (body[name] for name in call.operands if name in body):
                        if part.opcode in COLLECTIVES and target.endswith("Start"):
                            self._collective(part, part, row.called, wait=False, key=f"channel {part.channel}")
                        elif part.opcode in COLLECTIVES:
                            self._wait(f"channel {part.channel}", "collectives")
                            self._ends[f"channel {part.channel}"] = self._clock
        for part in walk(self.program, row.called):
            if part.opcode in COLLECTIVES and f"channel {part.channel}" not in self._ends:
                scatter = part.opcode == "all-reduce" and "scatter" in row.called
                kind = "reduce-scatter" if scatter else part.opcode
                self._collective(part, row, row.called, wait=True, kind=kind)

    def _only_transfers(self, row: Instruction) -> bool:
        """Whether a fusion is a collective and nothing else, whose time is counted with the transfers."""
        body = list(walk(self.program, row.called))
        return any(part.opcode in COLLECTIVES for part in body) and all(
            part.opcode in PLUMBING or part.opcode in COLLECTIVES or sum(array.size for array in part.arrays) <= 1
            for part in body
        )

    def _collective(
        self, row: Instruction, outer: Instruction, computation: str, *, wait: bool, key: str = "", kind: str = ""
    ) -> None:
        network, kind = self.estimator.network, kind or row.opcode.removesuffix("-start")
        groups = groups_of(row.attributes, network.size)
        rows = self.program.computations[computation]
        taken = sum(array.bytes for name in row.operands if name in rows for array in rows[name].arrays)
        members = len(max(groups, key=len))
        moved = float(taken * members if kind == "all-gather" else taken)
        seconds = network.seconds(kind, moved, groups)
        key, axis = key or row.name, network.axis(groups)
        # Permutations the two ways round a ring go over different links.
        lane = f"{axis} {groups[0]}" if kind == "collective-permute" else axis
        self._launch(key, lane, seconds)
        self.tally.transfers[Transfer(kind, axis, row.source or outer.source)].add(Moved(1, moved, seconds))
        if wait:
            self._wait(key, "collectives")

    def _send(self, row: Instruction) -> None:
        if "megascale" not in row.attributes:
            return
        moved = float(row.arrays[0].bytes)
        seconds = self.estimator.network.between_slices(moved)
        self._launch(_rendezvous(row), NETWORK, seconds)
        match = re.search(r'transfer_type="(\w+)"', row.attributes)
        kind = match[1].lower().replace("_", "-") if match else "send"
        self.tally.transfers[Transfer(kind, NETWORK, row.source)].add(Moved(1, moved, seconds))

    def _copy(self, row: Instruction) -> None:
        """Between main memory and core, beside the work."""
        arrays = row.arrays
        moved = float(arrays[min(1, len(arrays) - 1)].bytes)
        self._launch(row.name, "memory", moved / self.chip.hbm_bandwidth)
        self.tally.bytes += moved

    def _launch(self, key: str, lane: str, seconds: float) -> None:
        end = max(self._clock, self._free[lane]) + seconds
        self._free[lane] = self._ends[key] = end

    def _wait(self, key: str, part: str) -> None:
        self._spend(part, max(0.0, self._ends.get(key, 0.0) - self._clock))

    def _spend(self, part: str, seconds: float) -> None:
        self.tally.parts[part] += seconds
        self._clock += seconds


def _rendezvous(row: Instruction) -> str:
    match = re.search(r'rendezvous="([^"]*)"', row.attributes)
    return f"rendezvous {match[1] if match else row.name}"


def _stated(row: Instruction, what: str) -> float:
    """What a kernel was declared with; 0 if it says nothing of it."""
    stated = re.search(rf'"cost_estimate":\{{[^}}]*"{what}":"?([\d.]+)', row.attributes)
    return float(stated[1]) if stated else 0.0
