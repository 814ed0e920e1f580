"""Metadata files to rows of named fields: CSV, TSV, JSON, JSONL, Kaldi-style folders, Hugging Face datasets on disk."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from desta_jax.construct.source import Source

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".sph", ".aac", ".aiff")
_ENCODING = {"encoding": "utf-8-sig", "errors": "surrogateescape"}  # a byte that is no UTF-8 spoils its row only


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of metadata; nested fields are named by dotted paths, as "audio.path"."""

    place: str
    """File and line (or number from 1), as a person would look it up."""
    fields: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A row that was left out, or of which something was left out, and why."""

    place: str
    reason: str
    """A short code, counted in the report."""
    detail: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=True)


def read_rows(path: str, source: Source, *, with_bytes: bool = False) -> Iterator[Row | Problem]:
    """The rows of a metadata file or folder in their order, with a Problem in place of each unreadable one.

    Fields of bytes, such as the audio that a dataset may hold in itself, are left out unless `with_bytes`. NaN, which
    pandas has for an empty cell, is None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a kind of file that is not known, or a file that is not of its kind at all.
    """
    place = pathlib.Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{path}: no such metadata")
    rows = _read_folder(place) if place.is_dir() else _read_file(place, source)
    for row in rows:
        if isinstance(row, Row):
            taken = {name: cell for name, cell in row.fields.items() if with_bytes or not isinstance(cell, bytes)}
            row = check_text(Row(row.place, {name: None if cell != cell else cell for name, cell in taken.items()}))
        yield row


def read_table(path: pathlib.Path, source: Source) -> Iterator[Row | Problem]:
    """A table with a header line (or `source.header`): CSV, or separated by tabs or what the source says."""
    delimiter = source.delimiter or ("\t" if path.suffix == ".tsv" else ",")
    with path.open(newline="", **_ENCODING) as file:
        quoting = csv.QUOTE_MINIMAL if source.quotes else csv.QUOTE_NONE
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, skipinitialspace=True)
        header = list(source.header)
        while (cells := _next_cells(reader, path)) is not None:
            if isinstance(cells, Problem):
                yield cells
            elif not cells or (source.comment and cells[0].startswith(source.comment)):
                continue
            elif not header:
                header = [name.strip() for name in cells]
            elif len(cells) != len(header):
                detail = f"{len(cells)} cells where the header has {len(header)}"
                yield Problem(f"{path.name}:{reader.line_num}", "wrong_cells", detail)
            else:
                yield Row(f"{path.name}:{reader.line_num}", dict(zip(header, cells)))


def _next_cells(reader, path: pathlib.Path) -> list[str] | Problem | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        return Problem(f"{path.name}:{reader.line_num}", "bad_row", str(error))


def _read_file(path: pathlib.Path, source: Source) -> Iterator[Row | Problem]:
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _read_jsonl(path)
        case ".json":
            return _read_json(path)
        case ".parquet" | ".arrow":
            return _read_arrow([path])
        case ".csv" | ".tsv" | ".txt" | ".tab":
            return read_table(path, source)
    raise ValueError(f"{path}: metadata is .csv, .tsv, .txt, .json, .jsonl, .parquet, .arrow or a folder")


def _read_folder(path: pathlib.Path) -> Iterator[Row | Problem]:
    if (path / "wav.scp").is_file():
        return _read_kaldi(path)
    saved = sorted(state.parent for state in path.rglob("state.json"))
    if len(saved) > 1:
        names = ", ".join(str(each.relative_to(path)) for each in saved)
        raise ValueError(f"{path}: several datasets ({names}); give the folder of one")
    if saved:
        state = json.loads((saved[0] / "state.json").read_text(encoding="utf-8"))
        return _read_arrow([saved[0] / file["filename"] for file in state["_data_files"]])
    arrows = [file for file in sorted(path.rglob("*.arrow")) if not file.name.startswith("cache-")]
    if files := arrows or sorted(path.rglob("*.parquet")):
        return _read_arrow(files)
    raise ValueError(f"{path}: neither a Kaldi folder (wav.scp) nor a Hugging Face datasets folder (.arrow, .parquet)")


def _read_jsonl(path: pathlib.Path) -> Iterator[Row | Problem]:
    with path.open(**_ENCODING) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(f"{path.name}:{number}", line)


def _json_row(place: str, line: str) -> Row | Problem:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Problem(place, "bad_json", str(error))
    return _object_row(place, value)


def _object_row(place: str, value: Any) -> Row | Problem:
    if not isinstance(value, dict):
        return Problem(place, "bad_json", f"an object was expected, not {type(value).__name__}")
    return Row(place, _flatten(value))


def _read_json(path: pathlib.Path) -> Iterator[Row | Problem]:
    """A list of objects, an object that holds one such list, or an object of objects (its keys: column "key")."""
    with path.open(**_ENCODING) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
    lists = [value for value in content.values() if isinstance(value, list)] if isinstance(content, dict) else []
    if len(lists) == 1:
        content = lists[0]
    if isinstance(content, dict):
        content = [{"key": key, **value} if isinstance(value, dict) else value for key, value in content.items()]
    if not isinstance(content, list):
        raise ValueError(f"{path}: a list of objects was expected")
    for number, value in enumerate(content, 1):
        yield _object_row(f"{path.name} row {number}", value)


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _read_arrow(paths: Sequence[pathlib.Path]) -> Iterator[Row | Problem]:
    import pyarrow

    for path in paths:
        number = 0
        try:
            for batch in _arrow_batches(path):
                names = _class_names(batch.schema)
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name} row {number}", _flatten(_named(value, names)))
        except pyarrow.ArrowInvalid as error:
            yield Problem(f"{path.name} row {number + 1}", "bad_file", f"unreadable from here on: {error}")


def _arrow_batches(path: pathlib.Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    if path.suffix == ".parquet":
        yield from pyarrow.parquet.ParquetFile(path).iter_batches(1024)
        return
    with pyarrow.memory_map(str(path)) as file:
        try:
            reader = pyarrow.ipc.open_stream(file)
        except pyarrow.ArrowInvalid:  # datasets writes streams; other writers make files with an index
            reader = pyarrow.ipc.open_file(file)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
            return
        yield from reader


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Columns that hold numbers of classes, with the classes' names, as datasets keeps them in the schema."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _named(value: Mapping[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    def name(column: str, item: Any) -> Any:
        known = column in names and isinstance(item, int) and 0 <= item < len(names[column])
        return names[column][item] if known else item

    return {column: name(column, item) for column, item in value.items()}


def _read_kaldi(path: pathlib.Path) -> Iterator[Row | Problem]:
    """Columns id, audio, text, and one for each list utt2NAME and spk2NAME; with `segments` also start and end.

    utt2spk is the column speaker, utt2dur duration, utt2lang language.
    """
    recordings, segments = _kaldi_list(path / "wav.scp"), _kaldi_list(path / "segments")
    by_utterance = {"text": _kaldi_list(path / "text"), **_kaldi_lists(path, "utt2")}
    by_speaker = _kaldi_lists(path, "spk2")
    for number, (utterance, rest) in enumerate((segments or recordings).items(), 1):
        place = f"{path.name}/{'segments' if segments else 'wav.scp'}:{number}"
        recording, *times = (rest.split() or [""]) if segments else [utterance]
        audio = _kaldi_audio(recordings.get(recording, ""))
        if audio is None or (segments and len(times) != 2):
            yield Problem(place, "bad_row", f"{utterance}: no audio file, or no start and end, in {rest!r}")
            continue
        fields = {"id": utterance, "audio": audio}
        fields |= {name: values.get(utterance, "") for name, values in by_utterance.items()}
        fields |= {name: values.get(fields.get("speaker", ""), "") for name, values in by_speaker.items()}
        yield Row(place, fields | dict(zip(("start", "end"), times)))


def _kaldi_lists(path: pathlib.Path, prefix: str) -> dict[str, dict[str, str]]:
    names = {"spk": "speaker", "dur": "duration", "lang": "language"}
    lists = {file.name.removeprefix(prefix): file for file in sorted(path.glob(f"{prefix}*"))}
    return {names.get(name, name): _kaldi_list(file) for name, file in lists.items() if name != "utt"}


def _kaldi_list(path: pathlib.Path) -> dict[str, str]:
    """Each line's first word to the rest of the line; empty where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(**_ENCODING) as file:
        pairs = [line.strip().split(maxsplit=1) for line in file]
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs if pair}


def _kaldi_audio(entry: str) -> str | None:
    """The file of a wav.scp entry, which may be a command such as `flac -c -d -s a.flac |`; None if there is none."""
    if not entry.endswith("|"):
        return entry or None
    return next((word for word in entry.split() if word.lower().endswith(AUDIO_SUFFIXES)), None)


_SURROGATE = re.compile("[\ud800-\udfff]")


def check_text(row: Row) -> Row | Problem:
    """The row, or what is wrong with it where a byte in it is no UTF-8."""
    for name, value in row.fields.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _SURROGATE.search(text):
                return Problem(row.place, "invalid_utf8", f"column {_SURROGATE.sub('?', name)!r} is not UTF-8 text")
    return row
