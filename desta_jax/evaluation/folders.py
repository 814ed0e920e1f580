"""Data sets as Hugging Face has them, read without its library: Arrow or Parquet folders, JSONL, metadata.json or .csv.

Audio comes as a file's path or as encoded bytes; every column that holds audio is taken out of the row, in order.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from desta_jax.evaluation.answers import read_lines

_SOUND_FILES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".aac", ".aiff", ".mp4", ".webm", ".wma")

Row = tuple[dict[str, Any], list[Path | bytes]]


def splits(folder: Path) -> list[str]:
    """Splits of a data set's folder, sorted; "" stands for a folder that is one split itself."""
    found = {file.name.split("-")[0] for file in folder.glob("*.parquet")}
    found |= {file.name.split("-")[0] for file in (folder / "data").glob("*.parquet")}
    found |= {path.parent.name for path in folder.glob("*/state.json")}
    found |= {file.stem for file in folder.glob("*.jsonl")}
    if any((folder / name).is_file() for name in ("state.json", "metadata.json", "metadata.csv")):
        found.add("")
    return sorted(found)


def read(folder: Path, split: str) -> Iterator[Row]:
    """Rows of one split, each with its clips in the order of their columns.

    Raises:
        ValueError: the folder has no such split; a column or file that cannot be read; pyarrow is missing for Arrow or
            Parquet.
    """
    known = splits(folder)
    if split not in known and "" not in known:
        raise ValueError(f"unknown split {split!r}: {folder} has {', '.join(known) or 'no data'}")
    parquet = sorted(folder.glob(f"{split}-*.parquet")) or sorted((folder / "data").glob(f"{split}-*.parquet"))
    saved = folder / split if (folder / split / "state.json").is_file() else folder
    if parquet:
        rows = (row for file in parquet for row in _parquet(file))
    elif (saved / "state.json").is_file():
        rows = _saved_to_disk(saved)
    elif (folder / f"{split}.jsonl").is_file():
        rows = iter(read_lines(folder / f"{split}.jsonl"))
    elif (folder / "metadata.json").is_file():
        rows = _metadata(folder / "metadata.json")
    else:
        rows = _audio_folder(folder / "metadata.csv")
    for row in rows:
        yield take_audio(row, folder)


def take_audio(row: dict[str, Any], folder: Path) -> Row:
    """The row without its audio, and its clips; paths are below `folder`."""
    kept, clips = {}, []
    for key, value in row.items():
        if isinstance(value, dict) and {"bytes", "path"} & set(value):
            clips += _decoded(value, folder)
        elif key.startswith("audio") and isinstance(value, str) and Path(value).suffix.lower() in _SOUND_FILES:
            clips.append(folder / value)
        else:
            kept[key] = value
    return kept, clips


def _saved_to_disk(folder: Path) -> Iterator[dict[str, Any]]:
    """A folder that datasets.Dataset.save_to_disk wrote: Arrow streams, named in state.json."""
    pyarrow = _pyarrow()
    for entry in json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]:
        with pyarrow.memory_map(str(folder / entry["filename"])) as source:
            for batch in pyarrow.ipc.open_stream(source):
                yield from batch.to_pylist()


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    _pyarrow()
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=64):
        yield from batch.to_pylist()


def _metadata(file: Path) -> Iterator[dict[str, Any]]:
    """{clip: row}, with the clips beside the file; further clips of a row are named CLIP_pair2 and so on."""
    for clip, row in json.loads(file.read_text(encoding="utf-8")).items():
        name = Path(clip)
        pairs = sorted(
            file.parent.glob(f"{name.stem}_pair*{name.suffix}"), key=lambda path: (len(path.name), path.name)
        )
        yield {**row, "file": clip, "audio": clip} | {f"audio{n}": pair.name for n, pair in enumerate(pairs, start=2)}


def _audio_folder(file: Path) -> Iterator[dict[str, Any]]:
    """The columns of metadata.csv; `file_name` is the clip."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            clip = row.pop("file_name", None)
            if clip is None:
                raise ValueError(f"{file}: no column file_name")
            yield {**row, "audio": clip}


def _decoded(value: dict[str, Any], folder: Path) -> list[Path | bytes]:
    """A datasets.Audio cell: the file's bytes, or where it lies; nothing where the cell is empty."""
    if value.get("bytes") is not None:
        return [value["bytes"]]
    return [] if value.get("path") is None else [folder / value["path"]]


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise ValueError('Arrow and Parquet folders need pyarrow: pip install -e ".[evaluate]"') from error
    return pyarrow
