"""Files that a kill leaves readable, on a local disk or in a bucket."""

from __future__ import annotations

import fcntl
import os
import pathlib
import uuid
from typing import IO

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is in an object store: writing there takes a request, and nothing can be appended."""
    return "://" in str(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The same place by a name that TensorStore takes: whole and without "..". One in a bucket is so already."""
    path = epath.Path(path)
    return path if is_remote(path) else path.resolve()


def write_whole(path: epath.Path | pathlib.Path, content: str | bytes) -> None:
    """Writes a file, and the folders above it, so that whoever reads or writes it meanwhile sees the old or the new."""
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):  # an object appears when it is whole, and needs no folder; asking for one is a request
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # another process may be writing the same
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def cut_to_whole_lines(path: pathlib.Path) -> bytes:
    """What a local file of ours holds, line after line; a last one that a kill left unfinished is cut off the file."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        os.truncate(path, len(whole))
    return whole


def lock(file: IO | int, refusal: str) -> None:
    """Takes an open local file (or its descriptor) for this process alone, until it is closed or the process ends.

    Raises:
        ValueError: another process has it; the message is `refusal`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(refusal) from None
