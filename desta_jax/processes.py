"""Child processes that do not outlive the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def die_with_parent() -> None:
    """Called first in a child process: ends it when its parent has ended, however that happened.

    A killed parent cannot stop its children, and a child that waits on a queue would wait for ever. Ctrl-C comes to the
    whole group, and is the parent's to act on, which needs its children until it has.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_and_exit, daemon=True).start()


def die_with_parent_only(*_) -> None:
    """As `die_with_parent`, where a SIGTERM to the whole group is the parent's to act on too, as a run's that saves.

    It stands in this module, which imports next to nothing, so that it is in force soon after a process begins.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()


def _wait_and_exit() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
