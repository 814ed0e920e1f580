"""What a source dataset's metadata means: one small TOML file a dataset, in data/sources."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import desta_jax

KINDS = ("speech", "sound", "music")
CASES = ("as is", "lower", "sentence", "title")
MEASURES = ("duration", "pitch", "loudness", "rate", "snr")
MISSING = ("", "-", "n/a", "na", "nan", "none", "null", "unknown", "unk", "unspecified")


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One `Name: value` of a description: where its value comes from, and how it is said."""

    name: str
    column: str = ""
    """A column, or a template over columns such as "{low}-{high}"; empty where `measure` is given."""
    measure: str = ""
    """One of MEASURES: measured from the audio in place of a column."""
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Foreign value to the word that is said; values that are not named are said as they are."""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """{table, key, value}: as `values`, read from a table beside the metadata."""
    missing: tuple[str, ...] = ()
    """Values that say nothing, beside those that never do (empty, unknown, n/a ...)."""
    case: str = "as is"
    unit: str = ""
    """Put after the value, as "s" in 4s or "/5.0" in 3.2/5.0."""
    decimals: int | None = None
    """The value is a number, rounded so; without it a value is a text."""
    buckets: tuple[str, ...] = ()
    """Names of equal parts of the corpus, from low to high; the value is a number."""
    edges: tuple[float, ...] = ()
    """Where one bucket ends and the next begins; without them, quantiles of the corpus."""
    by: str = ""
    """A column: quantiles within each of its values, as pitch within each gender."""
    split: str = ""
    """Separator of a list in one cell."""
    synonyms: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """A value as it is said, to other words for it: an answer that says one of them names the value."""
    ask: bool = True
    """Whether a general question may be about it; not for identities such as a speaker's number."""

    @property
    def is_number(self) -> bool:
        return bool(self.buckets) or self.decimals is not None or bool(self.measure)


@dataclasses.dataclass(frozen=True)
class Parse:
    """Columns read out of another one by a pattern with named groups."""

    column: str
    pattern: re.Pattern


@dataclasses.dataclass(frozen=True)
class Join:
    """Columns from a second table that stands beside the metadata: its row whose `key` equals our column `on`."""

    table: str
    key: str
    on: str
    header: tuple[str, ...] = ()
    delimiter: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A source dataset; columns may be named outright or by a template over several, as "{speaker}/{file}.wav"."""

    name: str
    kind: str
    audio: str
    """The clip's path under the audio root."""
    words: str = ""
    transcript: str = ""
    """What stands beside the clip in training where that is not `words`, as a recogniser's text; the describer is not
    told. Empty cells: none."""
    caption: str = ""
    """A sentence on what is heard; where it names several columns, one of them is taken for each clip."""
    start: str = ""
    """Of a row's segment, in seconds or h:mm:ss; rows of the same audio are then one clip of several segments."""
    end: str = ""
    duration: str = ""
    speaker: str = ""
    language: str = ""
    """A column, or a code such as "en" that holds for all."""
    captions: tuple[str, ...] = ()
    words_case: str = "as is"
    url: str = ""
    note: str = ""
    header: tuple[str, ...] = ()
    """Column names of a table that does not bring its own."""
    delimiter: str = ""
    quotes: bool = True
    comment: str = ""
    """Lines that begin so are no rows."""
    constants: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Columns that have one value in every row."""
    only: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Column to pattern: rows that match are taken, the others are not part of this source."""
    parse: tuple[Parse, ...] = ()
    join: tuple[Join, ...] = ()
    attributes: tuple[Attribute, ...] = ()


def data_folder(name: str) -> pathlib.Path:
    """data/NAME, in a checkout or as installed with the package.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = pathlib.Path(desta_jax.__file__).parent
    for root in (package / "data", package.parent / "data"):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"data/{name} is neither in {package} nor beside it; install the package again")


def known_sources() -> dict[str, pathlib.Path]:
    """Name to file of the sources that come with the project."""
    return {path.stem: path for path in sorted(data_folder("sources").glob("*.toml"))}


def load_source(name: str) -> Source:
    """A source by its name in data/sources, or by the path of a TOML file of one's own.

    Raises:
        FileNotFoundError: no such name or file.
        ValueError: the file says something that is not understood; names the file and the key.
    """
    path = pathlib.Path(name)
    if path.suffix != ".toml":
        known = known_sources()
        if name.lower() not in known:
            raise FileNotFoundError(_no_source(name, known))
        path = known[name.lower()]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such source file")
    try:
        return parse_source(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, re.error) as error:
        raise ValueError(f"{path}: {error}") from None


def parse_source(content: Mapping[str, Any]) -> Source:
    """The source that a TOML file's content describes; raises ValueError naming the key that is wrong."""
    content = dict(content)
    attributes = tuple(_parse_attribute(table) for table in content.pop("attributes", ()))
    parses = tuple(Parse(table["column"], re.compile(table["pattern"])) for table in content.pop("parse", ()))
    joins = tuple(_build(Join, table, "join") for table in content.pop("join", ()))
    for key in ("name", "kind", "audio"):
        if not content.get(key):
            raise ValueError(f"{key!r} is missing")
    source = _build(Source, {**content, "attributes": attributes, "parse": parses, "join": joins}, "the source")
    if source.kind not in KINDS:
        raise ValueError(f"kind {source.kind!r} is none of {', '.join(KINDS)}")
    if source.words_case not in CASES:
        raise ValueError(f"words_case {source.words_case!r} is none of {', '.join(CASES)}")
    return source


def _parse_attribute(table: Mapping[str, Any]) -> Attribute:
    attribute = _build(Attribute, table, f"attribute {table.get('name')!r}")
    if bool(attribute.column) == bool(attribute.measure):
        raise ValueError(f"attribute {attribute.name!r} needs either 'column' or 'measure'")
    if attribute.measure and attribute.measure not in MEASURES:
        raise ValueError(f"attribute {attribute.name!r}: measure is none of {', '.join(MEASURES)}")
    if attribute.case not in CASES:
        raise ValueError(f"attribute {attribute.name!r}: case is none of {', '.join(CASES)}")
    if attribute.edges and len(attribute.edges) != len(attribute.buckets) - 1:
        raise ValueError(f"attribute {attribute.name!r}: {len(attribute.buckets)} buckets have one edge fewer")
    return attribute


def _build(kind: type, table: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a table of its fields; lists become tuples."""
    names = [field.name for field in dataclasses.fields(kind)]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            raise ValueError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _no_source(name: str, known: Mapping[str, pathlib.Path]) -> str:
    near = difflib.get_close_matches(name.lower(), known, 1)
    return (
        f"no source {name!r}"
        + (f"; did you mean {near[0]!r}?" if near else "")
        + f" There are: {', '.join(known)}. For another dataset write a TOML file as those in data/sources and give "
        "its path"
    )
