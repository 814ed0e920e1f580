"""Rows of metadata to drafts of clips: columns read as a source says, templates filled in, tables joined."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import random
import re
import string
from collections.abc import Mapping
from typing import Any

from desta_jax.construct.language import NAMES, code_of
from desta_jax.construct.metadata import Problem, Row, check_text, read_rows, read_table
from desta_jax.construct.source import MISSING, Attribute, Join, Source


@dataclasses.dataclass
class Draft:
    """A row whose columns are read, before its numbers are compared with the corpus."""

    place: str
    audio: str
    fields: Mapping[str, Any]
    words: str
    transcript: str | None
    caption: str
    speaker: str
    start: float | None
    end: float | None
    duration: float | None
    language: str
    texts: dict[str, str]
    """Attributes that need nothing else."""
    numbers: dict[str, float]
    """Attributes that are numbers."""


class BadRow(ValueError):
    """A row that cannot be a clip."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason
        self.audio = ""
        """The clip of which it is a turn, where that is known: what is told of it would lack what is heard."""


def read_drafts(path: str, source: Source, seed: int = 0) -> tuple[list[Draft], list[Problem]]:
    """Every usable row of a metadata file as a draft, and what was wrong with the others, in the file's order.

    Args:
        path: file or folder of metadata.
        source: what its columns mean.
        seed: decides which of several captions a clip has.

    Raises:
        FileNotFoundError, ValueError: the file as a whole cannot be read, or lacks the column of the audio.
    """
    reader = _RowReader(path, source, seed)
    drafts: list[Draft] = []
    problems: list[Problem] = []
    lacking: dict[str, str] = {}  # clips of which a turn cannot be used, and where that stands
    for row in read_rows(path, source):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            if (draft := reader.read(row)) is not None:
                drafts.append(draft)
        except BadRow as error:
            problems.append(Problem(row.place, error.reason, str(error)))
            if error.audio:
                lacking.setdefault(error.audio, row.place)
    for audio in {draft.audio: None for draft in drafts if draft.audio in lacking}:
        detail = f"{audio} is left out, with its other turns"
        problems.append(Problem(lacking[audio], "missing_turn", detail))
    drafts = [draft for draft in drafts if draft.audio not in lacking]
    return drafts, problems + reader.columns_missing() + reader.left_out


class _RowReader:
    """Reads one row after another; remembers the tables joined, and what was found wrong on the way."""

    def __init__(self, path: str, source: Source, seed: int):
        folder = pathlib.Path(path) if pathlib.Path(path).is_dir() else pathlib.Path(path).parent
        self.source = source
        self.seed = seed
        self.left_out: list[Problem] = []
        self.tables = [self._join(folder, join) for join in source.join]
        self.values = {
            attribute.name: {**self._labels(folder, attribute), **attribute.values} for attribute in source.attributes
        }
        self._first = ""
        self._columns: dict[str, None] = {}

    def _join(self, folder: pathlib.Path, join: Join) -> dict[str, dict[str, Any]]:
        form = dataclasses.replace(self.source, header=join.header, delimiter=join.delimiter)
        return {str(row[join.key]).strip(): row for row in self._table(folder / join.table, form, join.key)}

    def _labels(self, folder: pathlib.Path, attribute: Attribute) -> dict[str, str]:
        if not attribute.labels:
            return {}
        table, key, value = (attribute.labels[name] for name in ("table", "key", "value"))
        form = dataclasses.replace(self.source, header=(), delimiter="")
        return {str(row[key]): str(row[value]) for row in self._table(folder / table, form, key)}

    def _table(self, path: pathlib.Path, form: Source, key: str) -> list[dict[str, Any]]:
        """The usable rows of a table beside the metadata, whose own form says nothing of this one's."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: {form.name} needs this table beside its metadata")
        form = dataclasses.replace(form, comment="", quotes=True)
        found = [check_text(row) if isinstance(row, Row) else row for row in read_table(path, form)]
        self.left_out += [row for row in found if isinstance(row, Problem)]
        rows = [dict(row.fields) for row in found if isinstance(row, Row)]
        if rows and key not in rows[0]:
            raise ValueError(f"{path}: no column {key!r}; its columns are: {', '.join(rows[0])}")
        return rows

    def read(self, row: Row) -> Draft | None:
        """The row's draft; None if it is not part of this source. Raises BadRow."""
        fields = self._complete(row)
        source = self.source
        if not self._first:
            self._first = row.place
            self._check_audio(fields)
        self._columns |= dict.fromkeys(map(str, fields))
        for column, pattern in source.only.items():
            if not re.search(pattern, str(fields.get(column, ""))):
                return None
        audio = fill(source.audio, fields)
        if not audio:
            raise BadRow("no_audio_path", f"{source.audio!r} is empty")
        try:
            start, end = (_seconds(column, fields) for column in (source.start, source.end))
            if start is not None and end is not None and end < start:
                raise BadRow("bad_time", f"ends at {end:g} s, before its start at {start:g} s")
        except BadRow as error:
            error.audio = audio
            raise
        draft = Draft(
            row.place,
            audio,
            fields,
            words=recase(_one_line(fill(source.words, fields)), source.words_case),
            transcript=_one_line(fill(source.transcript, fields)) if source.transcript else None,
            caption=self._caption(audio, fields),
            speaker=fill(source.speaker, fields),
            start=start,
            end=end,
            duration=_seconds(source.duration, fields),
            language=fill(source.language, fields) or (source.language if _is_code(source.language) else ""),
            texts={},
            numbers={},
        )
        self._attributes(draft)
        return draft

    def _complete(self, row: Row) -> dict[str, Any]:
        """The row's columns with those that are parsed from others or joined from other tables."""
        fields = {**self.source.constants, **row.fields}
        for parse in self.source.parse:
            text = str(fields.get(parse.column) or "")
            found = parse.pattern.search(text)
            if not found:
                raise BadRow("unparsable_column", f"{parse.column} {text!r} does not match {parse.pattern.pattern!r}")
            fields |= found.groupdict()
        for join, table in zip(self.source.join, self.tables):
            fields |= table.get(fill(join.on, fields), {})
        return fields

    def _check_audio(self, fields: Mapping[str, Any]) -> None:
        for column in _columns(self.source.audio):
            if column not in fields:
                there = ", ".join(map(str, fields))
                raise ValueError(
                    f"{self._first}: no column {column!r}, which names the audio; its columns are: {there}"
                )

    def columns_missing(self) -> list[Problem]:
        """A note on the columns that the source names and none of the rows read has."""
        source = self.source
        named = [source.words, source.transcript, source.start, source.end, source.duration, source.speaker]
        named += [source.caption, *source.captions] + [attribute.column for attribute in source.attributes]
        named += [] if _is_code(source.language) else [source.language]
        wanted = dict.fromkeys(column for template in named for column in _columns(template))
        missing = [repr(column) for column in wanted if column not in self._columns]
        if not missing or not self._first:
            return []
        there = ", ".join(self._columns)
        detail = f"no column {', '.join(missing)} in this metadata, and so nothing is said of it. There are: {there}"
        return [Problem(self._first, "unknown_column", detail)]

    def _caption(self, audio: str, fields: Mapping[str, Any]) -> str:
        choices = [fields.get(column) for column in self.source.captions] or [fields.get(self.source.caption)]
        if not self.source.captions and "{" in self.source.caption:
            choices = [fill(self.source.caption, fields)]
        texts = [str(text) for choice in choices for text in (choice if isinstance(choice, list) else [choice]) if text]
        if not texts:
            return ""
        return _one_line(texts[int(random.Random(f"{self.seed} {audio}").random() * len(texts))])

    def _attributes(self, draft: Draft) -> None:
        for attribute in self.source.attributes:
            if attribute.measure:
                continue
            cell = _cell(attribute.column, draft.fields)
            try:
                if attribute.is_number:
                    if (number := _number(cell, attribute)) is not None:
                        draft.numbers[attribute.name] = number
                elif text := _say(cell, attribute, self.values[attribute.name]):
                    draft.texts[attribute.name] = text
            except ValueError as error:
                detail = f"{attribute.column}: {error}; {attribute.name} is left out"
                self.left_out.append(Problem(draft.place, "bad_number", detail))


def fill(template: str, fields: Mapping[str, Any]) -> str:
    """A column's text, or a template's with its columns filled in; empty if one of them is."""
    if not template:
        return ""
    cells = {column: _cell(column, fields) for column in _columns(template)}
    if any(cell in (None, "") for cell in cells.values()):
        return ""
    if "{" not in template:
        return _text(cells[template])
    return re.sub(r"\{([^}]+)\}", lambda found: _text(cells[found[1]]), template)


def _text(cell: Any) -> str:
    """A cell as text; a whole number that pandas made a float, since other cells are empty, as a whole number."""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def _columns(template: str) -> list[str]:
    """The columns that a template names; a template without braces is a column."""
    if "{" not in template:
        return [template] if template else []
    return re.findall(r"\{([^}]+)\}", template)


def _cell(column: str, fields: Mapping[str, Any]) -> Any:
    return fill(column, fields) if "{" in column else fields.get(column)


def _say(cell: Any, attribute: Attribute, values: Mapping[str, str]) -> str:
    """A cell as it is said, or "" where it says nothing; a list with commas."""
    items = cell.split(attribute.split) if attribute.split and isinstance(cell, str) else cell
    items = items if isinstance(items, (list, tuple)) else [items]
    return ", ".join(filter(None, (_say_one(item, attribute, values) for item in items)))


def _say_one(item: Any, attribute: Attribute, values: Mapping[str, str]) -> str:
    text = "" if item is None else _one_line(_text(item))
    if text not in values and (text in attribute.missing or text.lower() in MISSING):
        return ""
    said = values.get(text, recase(text, attribute.case))
    return f"{said}{attribute.unit}" if said else ""


def _number(cell: Any, attribute: Attribute) -> float | None:
    """The number in a cell, or None where it says nothing; raises ValueError if it says something else."""
    text = "" if cell is None else str(cell).strip()
    if text in attribute.missing or text.lower() in MISSING:
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no finite number")
    return number


def _seconds(column: str, fields: Mapping[str, Any]) -> float | None:
    cell = _cell(column, fields) if column else None
    return None if cell in (None, "") else parse_time(str(cell), column)


def parse_time(text: str, name: str = "time") -> float:
    """Seconds of `12.5`, `12.5s`, `1:02.5` or `0:01:02.5`; raises BadRow for anything else."""
    parts = text.strip().lower().removesuffix("s").split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise BadRow("bad_time", f"{name} {text!r} is no time; write seconds, m:ss or h:mm:ss")
    return sum(number * 60**power for power, number in enumerate(reversed(numbers)))


def _is_code(language: str) -> bool:
    """Whether a source's language is one, such as "en", and no column."""
    return len(language) == 2 or code_of(language) in NAMES


def _one_line(text: str) -> str:
    return " ".join(text.split())


def recase(text: str, case: str) -> str:
    """A text as it is, in lower case, as a sentence, or as a title."""
    match case:
        case "lower":
            return text.lower()
        case "sentence":
            return text[:1].upper() + text[1:].lower()
        case "title":
            return string.capwords(text)
    return text
