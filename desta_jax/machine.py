"""What this machine lends to a process."""

from __future__ import annotations

import os


def cores() -> int:
    """The cores that this process may use; where a system does not say which (macOS), all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
