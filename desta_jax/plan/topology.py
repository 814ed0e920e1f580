"""Names of TPU slices: v5e-256, v5p-8, v6e:8x16, 2xv5e-256."""

from __future__ import annotations

import dataclasses
import math
import re

from desta_jax.plan.chips import CHIPS, Chip

FLAT = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
DEEP = {
    4: (2, 2, 1),
    8: (2, 2, 2),
    16: (2, 2, 4),
    32: (2, 4, 4),
    64: (4, 4, 4),
    128: (4, 4, 8),
    256: (4, 8, 8),
    512: (8, 8, 8),
    1024: (8, 8, 16),
}
"""The shape that Google gives a slice of so many chips, in two and in three dimensions."""
LONGEST = 16
"""The longest side of a slice in two dimensions, in chips; the compiler describes longer ones, Google has none."""
NAME = re.compile(r"(?:(\d+)x)?(v\d\w?|v5litepod)(?:-(\d+)|:(\d+(?:x\d+)*))")


@dataclasses.dataclass(frozen=True)
class Topology:
    """Equal slices of chips; within a slice the chips are linked, between slices there is the network."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    """Of one slice, in chips."""
    slices: int = 1

    @property
    def slice_chips(self) -> int:
        return math.prod(self.shape)

    @property
    def chips(self) -> int:
        return self.slices * self.slice_chips

    @property
    def one_host(self) -> bool:
        """Whether a run on it is one process."""
        return self.chips <= self.chip.host_chips and self.slices == 1

    @property
    def compiler_name(self) -> str:
        """As JAX's `get_topology_desc` takes it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def compiler_options(self) -> dict[str, object]:
        """What `get_topology_desc` must be told beside the name."""
        options: dict[str, object] = {}
        if self.chip.name == "v4":
            options["chip_config_name"] = "megacore"  # both cores of a chip are one device
        if self.slice_chips == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        if self.slices > 1:
            options["num_slices"] = self.slices
        return options

    @property
    def accelerator_type(self) -> str:
        """As the TPU runtime writes it in TPU_ACCELERATOR_TYPE, of one slice."""
        return f"{self.chip.accelerator}-{self.slice_chips * self.chip.cores}"

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Along which dimensions the last chip is linked to the first: a v5e's and v6e's of 16, whole cubes of others.

        A dimension of 2 counts as a line.
        """
        if self.chip.dimensions == 2:
            return tuple(size == 16 for size in self.shape)
        whole = all(size % 4 == 0 for size in self.shape)
        return tuple(whole for _ in self.shape)


def parse_topology(name: str) -> Topology:
    """The slices that a name stands for.

    Names of v4 and v5p count TensorCores, two a chip, as Google's do: v5p-8 is 4 chips. Those of v5e and v6e count
    chips. A shape in chips may be given instead: v5p:4x4x8. N slices: 2xv5e-256.

    Raises:
        ValueError: saying which names there are.
    """
    match = NAME.fullmatch(name.strip().lower())
    chip = CHIPS.get((match[2] if match else "").replace("v5litepod", "v5e"))
    if chip is None:
        raise ValueError(
            f"--topology {name}: expected a name such as v5e-256, v5p-128, v6e-16, 2xv5e-256 or v5p:4x4x8 "
            f"({', '.join(CHIPS)})"
        )
    slices = int(match[1] or 1)
    if slices < 1:
        raise ValueError(f"--topology {name}: at least one slice")
    return Topology(name, chip, _shape(name, chip, match[3], match[4]), slices)


def _shape(name: str, chip: Chip, count: str | None, sides: str | None) -> tuple[int, ...]:
    shapes = FLAT if chip.dimensions == 2 else DEEP
    if sides:
        shape = tuple(map(int, sides.split("x")))
        if len(shape) != chip.dimensions or min(shape) < 1:
            raise ValueError(f"--topology {name}: a {chip.name} slice has {chip.dimensions} dimensions")
        chips, most = math.prod(shape), chip.slice_chips
        if chip.dimensions == 2 and max(shape) > LONGEST:
            several = f"{-(-chips // most)}x{chip.name}-{most}"
            raise ValueError(
                f"--topology {name}: a {chip.name} slice has at most {LONGEST} chips a side; for more, take {several}"
            )
        if chips > most:
            raise ValueError(f"--topology {name}: a {chip.name} slice has at most {most} chips")
        return shape
    chips, rest = divmod(int(count), chip.cores)
    if rest or chips not in shapes:
        sizes = ", ".join(f"{chip.name}-{size * chip.cores}" for size in shapes)
        counts = "TensorCores, two a chip" if chip.cores == 2 else "chips"
        raise ValueError(f"--topology {name}: {chip.name} names count {counts}; there are {sizes}")
    return shapes[chips]
