"""Safetensors files read tensor by tensor and row by row, so that memory holds what was asked for and no more.

Plain reads, not a memory map: mapped pages count as the process's own until the system wants them back.
The format is in https://huggingface.co/docs/safetensors (8 bytes of length, a JSON header, then the data).
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import struct
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.dtype("float32"), "F16": np.dtype("float16"), "BF16": np.dtype(ml_dtypes.bfloat16)}
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DOWNLOAD_AGAIN = "download or copy it again"


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    file: pathlib.Path
    name: str
    kind: str  # the format's name of the dtype: "BF16"
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def dtype(self) -> np.dtype:
        return DTYPES[self.kind]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop of the first axis; all of them by default.

        Raises:
            ValueError: the file has become shorter, or holds NaN or infinity there, which no trained weight is.
        """
        rows = self.shape[0] if self.shape else 1
        stop = rows if stop is None else min(stop, rows)
        row = math.prod(self.shape[1:])
        count = (stop - start) * row
        offset = self.offset + start * row * self.dtype.itemsize
        array = np.fromfile(self.file, dtype=self.dtype, count=count, offset=offset)
        if array.size != count:
            raise ValueError(f"{self.file} ended while it was read: {DOWNLOAD_AGAIN}")
        if not _all_finite(array):
            raise ValueError(f"{self.file} holds NaN or infinity in {self.name}: {DOWNLOAD_AGAIN}")
        return array.reshape((stop - start, *self.shape[1:])) if self.shape else array.reshape(())


def list_tensors(folder: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of a folder's model.safetensors, or of the shards that its index names.

    Raises:
        ValueError: no weights, a missing, truncated or corrupt file, or an index that does not agree with its shards.
    """
    folder = pathlib.Path(folder)
    if (folder / WEIGHTS).is_file():
        return read_header(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise ValueError(_no_weights(folder))
    return _list_shards(folder)


def read_header(file: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of one file; raises ValueError if the file is truncated or is no safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0] if size >= 8 else 0
        if not 2 <= length <= size - 8:
            raise ValueError(f"{file} is truncated, or no safetensors file: {DOWNLOAD_AGAIN}")
        text = stream.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {name: (e["dtype"], tuple(e["shape"]), *e["data_offsets"]) for name, e in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} has a corrupt header ({error}): {DOWNLOAD_AGAIN}") from error
    data = 8 + length
    for name, (kind, shape, begin, end) in entries.items():
        if kind in DTYPES and end - begin != math.prod(shape) * DTYPES[kind].itemsize:
            raise ValueError(f"{file} has a corrupt header ({name} takes {end - begin} bytes): {DOWNLOAD_AGAIN}")
    needed = data + max((end for *_, end in entries.values()), default=0)
    if size != needed:
        state = "truncated" if size < needed else "corrupt"
        raise ValueError(f"{file} is {state}: {size} bytes, its header says {needed}; {DOWNLOAD_AGAIN}")
    return {name: StoredTensor(file, name, kind, shape, data + at) for name, (kind, shape, at, _) in entries.items()}


def _all_finite(array: np.ndarray) -> bool:
    """Read off the bits, which takes a fraction of the time that NumPy's isfinite needs for bfloat16."""
    kind = np.dtype(f"u{array.dtype.itemsize}")
    infinity = np.array(np.inf, array.dtype).view(kind)
    return not array.size or (array.view(kind) & np.iinfo(kind).max // 2).max() < infinity


def unreadable(tensors: Mapping[str, StoredTensor], wanted: Iterable[str]) -> list[str]:
    """A line for each wanted tensor whose dtype holds no plain weights, as those of quantised models."""
    return [
        f"{name} has dtype {tensors[name].kind}: only {', '.join(DTYPES)} are read (no float64, no quantised model)"
        for name in sorted(wanted)
        if name in tensors and tensors[name].kind not in DTYPES
    ]


def _list_shards(folder: pathlib.Path) -> dict[str, StoredTensor]:
    try:
        shard_of = json.loads((folder / INDEX).read_text())["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} is corrupt ({error!r}): {DOWNLOAD_AGAIN}") from error
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        raise ValueError(f"{folder / INDEX} names files that are not there: {', '.join(absent)}; download them again")
    tensors: dict[str, StoredTensor] = {}
    problems = []
    for shard in shards:
        for name, tensor in read_header(folder / shard).items():
            if shard_of.get(name) != shard:
                problems.append(f"{shard} holds {name}, which the index has in {shard_of.get(name, 'no file')}")
            tensors[name] = tensor
    problems += [f"{shard_of[name]} lacks {name}" for name in shard_of if name not in tensors]
    if problems:
        raise ValueError(f"{folder / INDEX} and its files disagree:\n  " + "\n  ".join(problems[:20]))
    return tensors


def _no_weights(folder: pathlib.Path) -> str:
    pickles = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        return f"{folder} has {others[0]}, but neither {WEIGHTS} nor {INDEX}, which name what is read: {DOWNLOAD_AGAIN}"
    if not pickles:
        return f"{folder} has neither {WEIGHTS} nor {INDEX}: is it a Hugging Face model folder?"
    return (
        f"{folder} has its weights as PyTorch pickles ({pickles[0]}), which are not read: load it with transformers "
        f"and save_pretrained it again, which writes {WEIGHTS}"
    )
