"""The chips of Cloud TPUs: what each holds and how fast it is.

Peak and bandwidth of the memory are those of Google's pages (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e); the memory
is what the compiler lets a program use of it, which is what it says when a program needs more.
Links and network are those that "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus) computes with: a
little under the pages' figures (400 GB/s both ways over 4 ports of a v5e, say). Clocks of v4, v5e and v5p follow from
the peak: a v5e has 4 units of 128 x 128 multipliers, 2 x 4 x 128 x 128 x 1.5 GHz = 197 T; v4 and v5p have 8 in a chip.
The compiler's cycles of v6e are read at 1.75 GHz, at which no product comes out above the peak.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, a device in JAX."""

    name: str
    hbm_bytes: float
    """Of main memory, for a program."""
    peak_flops: float
    """Dense bfloat16 operations a second."""
    hbm_bandwidth: float
    """Bytes a second."""
    clock: float
    """Hz, of the compiler's cycles."""
    link_bandwidth: float
    """Bytes a second over one link to a neighbour, one way."""
    network_bandwidth: float
    """A chip's share of its host's network between slices, bytes a second out."""
    dimensions: int
    """Of the mesh of links: a chip has two links along each."""
    cores: int
    """That a name such as v5p-8 counts a chip for."""
    multiplier: int
    """Side of the units that multiply matrices: shorter sides are filled up."""
    host_chips: int
    """The most that one host, and so one process, has."""
    slice_chips: int
    """The most that a slice has; a v5p pod has 8960 chips, but no slice takes them all."""
    accelerator: str
    """What the name starts with where the TPU runtime writes it."""


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 30.75 * 2**30, 275e12, 1.2e12, 1.05e9, 4.5e10, 6.25e9, 3, 2, 128, 4, 4096, "v4"),
        Chip("v5e", 15.75 * 2**30, 197e12, 8.19e11, 1.5e9, 4.5e10, 3.125e9, 2, 1, 128, 8, 256, "v5litepod"),
        Chip("v5p", 95.74 * 2**30, 459e12, 2.765e12, 1.75e9, 9e10, 6.25e9, 3, 2, 128, 4, 6144, "v5p"),
        Chip("v6e", 31.25 * 2**30, 918e12, 1.6e12, 1.75e9, 9e10, 1.25e10, 2, 1, 256, 8, 256, "v6e"),
    )
}
HOP_SECONDS = 1e-6
"""What a message takes from chip to chip however short it is, as "How to Scale Your Model" has it."""
