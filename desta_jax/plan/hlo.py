"""Reads the text of a compiled program: instructions, shapes, loops, groups of collectives, arithmetic and bytes."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
SPACE = re.compile(r"S\((\d+)\)")
CALLED = re.compile(r"\b(?:calls|to_apply|body|called_computations)=\{?%?([\w.\-]+)")
ALIAS = re.compile(r"\{(\d*)\}: \((\d+), \{\}\)")
BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a compiled program; `space` 0 is the chip's main memory, others are on its core."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype)
        if bits is None:
            digits = re.search(r"\d+", self.dtype)
            bits = int(digits[0]) if digits else 0
        return self.size * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    inside: str
    """What stands between the parentheses: operands, or a constant's value."""
    attributes: str
    root: bool

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """What it gives: one array, or those of a tuple."""
        return tuple(
            Array(dtype, tuple(int(size) for size in dims.split(",") if size), _space(layout))
            for dtype, dims, layout in ARRAY.findall(self.shape)
        )

    @property
    def called(self) -> str | None:
        match = CALLED.search(self.attributes)
        return match[1] if match else None

    @property
    def called_body(self) -> str:
        """Of a loop."""
        return re.search(r"body=%?([\w.\-]+)", self.attributes)[1]

    @property
    def index(self) -> int:
        """Of what is taken out of a tuple."""
        return int(re.search(r"index=(\d+)", self.attributes)[1])

    @property
    def branches(self) -> list[str]:
        """Of a conditional."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        text = (
            listed[1] if listed else " ".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", self.attributes))
        )
        return re.findall(r"[\w.\-]+", text)

    @property
    def cycles(self) -> int | None:
        """The compiler's own estimate."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match[1]) if match else None

    @property
    def channel(self) -> str | None:
        match = re.search(r"\bchannel_id=(\d+)", self.attributes)
        return match[1] if match else None

    @property
    def source(self) -> str:
        """Where in the model it comes from."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""


class Program:
    """The computations of a compiled program by name, in the order in which they run."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        body: dict[str, Instruction] = {}
        for line in text.splitlines():
            if not line.startswith(" "):
                if head := COMPUTATION.match(line):
                    body = self.computations[head[2]] = {}
                    self.entry = head[2] if head[1] else self.entry
            elif name := NAME.match(line):
                body[name[2]] = _instruction(name, line[name.end() :])
        if not self.entry:
            raise ValueError("this is no compiled program: it has no ENTRY")

    def trips(self, loop: Instruction, computation: str) -> int | None:
        """How often a loop of this computation runs; None if the program does not say.

        As the compiler states, or by its counter: from where it starts, to the bound in the loop's condition, in the
        steps that the loop's body takes. A start that is no constant is taken for 0, such a step for 1.
        """
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        name = re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]
        test = next((row for row in self.computations[name].values() if row.root), None)
        if test is None or test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        counter, bound = self.computations[name][test.operands[0]], self._constant(test.operands[1], name)
        if counter.opcode != "get-tuple-element" or bound is None:
            return None
        start = self._constant(self._element(loop.operands[0], counter.index, computation), computation) or 0
        return max(0, -(-(bound - start) // self._increment(loop.called_body, counter.index)))

    def _increment(self, body: str, index: int) -> int:
        """What one turn adds to an element of a loop's state."""
        rows = self.computations[body]
        root = next(row for row in rows.values() if row.root)
        step = rows.get(root.operands[index]) if root.opcode == "tuple" else None
        if step is None or step.opcode != "add":
            return 1
        return next(filter(None, (self._constant(name, body) for name in step.operands)), 1)

    def _element(self, name: str, index: int, computation: str) -> str:
        """The name of what stands at a place of a tuple; "" where that is not to be seen."""
        row = self.computations[computation].get(name)
        return row.operands[index] if row is not None and row.opcode == "tuple" else ""

    def _constant(self, name: str, computation: str) -> int | None:
        """The whole number that an instruction gives, if it is one."""
        row = self.computations[computation].get(name)
        while row is not None and row.opcode in ("copy", "bitcast", "convert"):
            row = self.computations[computation].get(row.operands[0])
        is_number = row is not None and row.opcode == "constant" and row.inside.lstrip("-").isdigit()
        return int(row.inside) if is_number else None

    def flops(self, computation: str) -> float:
        """Of the products in a computation and in what it calls, loops excepted; multiply and add count as two."""
        return sum(self.flops_of(row, computation) for row in self.computations[computation].values())

    def flops_of(self, row: Instruction, computation: str) -> float:
        """Of one instruction."""
        if row.opcode == "dot":
            return 2 * row.arrays[0].size * self._contracted(row, computation)
        if row.opcode == "convolution":
            left, right = (self._array(name, computation) for name in row.operands[:2])
            return convolution_flops(left, right, row.arrays[0], row.attributes)
        if row.opcode in ("fusion", "call", "async-start") and row.called in self.computations:
            return self.flops(row.called)
        return 0.0

    def bytes_of(self, row: Instruction, computation: str) -> float:
        """That one instruction moves between main memory and core: what it reads and what it writes."""
        called = self.computations.get(row.called or "", {}) if row.opcode == "fusion" else {}
        body = list(called.values())
        if not body and row.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * _main_bytes(row.arrays)
        if row.opcode == "dynamic-update-slice":
            return 2 * self._array(row.operands[1], computation).bytes
        passed, total = _passed_on(row, body), 0.0
        for index, name in enumerate(row.operands):
            if index in passed.values():
                continue
            arrays = self.computations[computation][name].arrays if name in self.computations[computation] else ()
            total += min(_main_bytes(arrays), _read_of(body, index))
        written = tuple(array for index, array in enumerate(row.arrays) if index not in passed)
        return total + min(_main_bytes(written), _written_by(body))

    def _contracted(self, row: Instruction, computation: str) -> int:
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", row.attributes)
        left = self._array(row.operands[0], computation)
        return math.prod(left.dims[int(axis)] for axis in dims[1].split(",") if axis) if dims else 1

    def _array(self, name: str, computation: str) -> Array:
        return self.computations[computation][name].arrays[0]


def walk(program: Program, computation: str) -> Iterator[Instruction]:
    """The instructions of a computation and of what its fusions call."""
    for row in program.computations[computation].values():
        yield row
        if row.opcode in ("fusion", "call", "async-start") and row.called in program.computations:
            yield from walk(program, row.called)


def convolution_flops(left: Array, right: Array, out: Array, attributes: str) -> float:
    """Of a convolution, which on a TPU stands for matrix products too; products with padding do not count."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    spatial = [label for label in labels[3] if label.isdigit()]
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    pairs = 1
    for position, label in enumerate(spatial):
        size = left.dims[labels[1].index(label)]
        pairs *= _valid_pairs(size, out.dims[labels[3].index(label)], fields, position)
    features = right.dims[labels[2].index("i")]
    batch = out.dims[labels[3].index("b")]
    groups = re.search(r"batch_group_count=(\d+)", attributes)
    return 2.0 * pairs * features * batch * out.dims[labels[3].index("f")] / (int(groups[1]) if groups else 1)


def _valid_pairs(size: int, outputs: int, fields: dict[str, str], position: int) -> int:
    """(output, kernel) positions of one dimension that meet an input and not padding or a gap."""

    def field(name: str, default: str) -> str:
        return fields[name].split("x")[position] if name in fields else default

    low = int(field("pad", "0_0").split("_")[0])
    base, dilation = int(field("lhs_dilate", "1")), int(field("rhs_dilate", "1"))
    place = np.arange(outputs)[:, None] * int(field("stride", "1")) - low
    place = place + np.arange(int(field("size", "1")))[None, :] * dilation
    return int(np.count_nonzero((place >= 0) & (place <= (size - 1) * base) & (place % base == 0)))


def groups_of(attributes: str, devices: int) -> list[list[int]]:
    """The devices that talk with each other in a collective; pairs for a permutation.

    Reads lists {{0,1},{2,3}}, [2,2]<=[4] with or without a transposition, and mesh['a'=2,'b'=2] {'a'}.
    """
    if pairs := re.search(r"source_target_pairs=\{(.*?\})\}", attributes):
        return _lists(pairs[1])
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return _lists(listed[1])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes):
        axes = re.findall(r"'(\w+)'=(\d+)", mesh[1])
        within = re.findall(r"'(\w+)'", mesh[2])
        ids = np.arange(math.prod(int(size) for _, size in axes)).reshape([int(size) for _, size in axes])
        order = [name for name, _ in axes]
        ids = np.moveaxis(ids, [order.index(name) for name in within], range(-len(within), 0))
        size = math.prod(int(size) for name, size in axes if name in within)
        return ids.reshape(-1, size).tolist()
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, dims = ([int(size) for size in iota[index].split(",")] for index in (1, 2))
        ids = np.arange(math.prod(dims)).reshape(dims)
        ids = ids.transpose([int(axis) for axis in iota[3].split(",")]) if iota[3] else ids
        return ids.reshape(shape).tolist()
    return [list(range(devices))]


def _lists(text: str) -> list[list[int]]:
    return [[int(number) for number in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)]


def _instruction(name: re.Match, rest: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    close = _closing(rest, start)
    inside = rest[start + 1 : close]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name[2], shape, rest[:start], operands, inside, rest[close + 1 :], bool(name[1]))


def _closing(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


def _space(layout: str) -> int:
    match = SPACE.search(layout)
    return int(match[1]) if match else 0


def _main_bytes(arrays: tuple[Array, ...]) -> float:
    return float(sum(array.bytes for array in arrays if array.space == 0))


def _read_of(body: list[Instruction], index: int) -> float:
    """What a fusion reads of an operand: all of it, unless all it does is to cut pieces out, or to write into it."""
    parameter, uses = _uses(body, index)
    if not uses or not all(_touches_a_part(row, parameter) for row in uses):
        return math.inf
    return float(sum(0 if row.opcode == "dynamic-update-slice" else row.arrays[0].bytes for row in uses))


def _passed_on(row: Instruction, body: list[Instruction]) -> dict[int, int]:
    """Outputs of a fusion that lie in the place of an operand, each with that operand, where its work touches neither.

    They are what a collective reads and fills that is in flight beside the work.
    """
    root = next((part for part in body if part.root), None)
    if root is None:
        return {}
    outputs = root.operands if root.opcode == "tuple" else (root.name,)
    by_name, untouched = {part.name: part for part in body}, {}
    for output, operand in ALIAS.findall(row.attributes.partition("output_to_operand_aliasing=")[2]):
        given, (_, uses) = by_name[outputs[int(output or 0)]], _uses(body, int(operand))
        if given.opcode in ("parameter", *COLLECTIVES) and all(use.opcode in ("tuple", *COLLECTIVES) for use in uses):
            untouched[int(output or 0)] = int(operand)
    return untouched


def _uses(body: list[Instruction], index: int) -> tuple[str, list[Instruction]]:
    """The name of a fusion's operand within it, and what takes it."""
    name = next((row.name for row in body if row.opcode == "parameter" and row.inside == str(index)), "")
    return name, [row for row in body if name in row.operands]


def _touches_a_part(row: Instruction, name: str) -> bool:
    if row.opcode == "dynamic-update-slice":
        return row.operands[0] == name and name not in row.operands[1:]
    return row.opcode in ("dynamic-slice", "slice", "gather") and row.operands[0] == name


def _written_by(body: list[Instruction]) -> float:
    """What a fusion writes: the part alone, where it ends in writing a part of an array."""
    by_name = {row.name: row for row in body}
    root = next((row for row in body if row.root), None)
    if root is None or root.opcode != "dynamic-update-slice" or root.operands[1] not in by_name:
        return math.inf
    return float(by_name[root.operands[1]].arrays[0].bytes)
