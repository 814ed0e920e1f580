"""What every benchmark module offers, and the shape of the scores that it returns."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.evaluation.judge import Inquiry, Judge
from desta_jax.evaluation.question import Problems, Question


@dataclasses.dataclass
class Scores:
    """Figures of one benchmark.

    Attributes:
        figures: nested dicts whose leaves are {"value", "count"}.
        problems: what kept questions from being scored.
        notes: what a reader must know to compare the figures with others.
    """

    figures: dict[str, Any]
    problems: Problems
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark: how it is read, asked, scored and shown.

    Attributes:
        read: (data, split) to questions; raises FileNotFoundError or ValueError.
        read_predictions: a file or folder in the benchmark's official layout to rows of `id` and `text`.
        read_verdicts: (file or folder, questions) to recorded verdicts, {question id: (response, verdicts)}; None
            where they have no layout.
        judged: whether a judge is asked at all.
        score: (questions, answers by id, judge or None, problems, options) to Scores.
        splits: the first is the default.
        columns: the published table's columns, each with the path of our figure for it.
        published: the table's rows, a number a column or None; `sources` says where they stand.
        answer_in: what of a text in our layout is scored; official layouts hold that alone.
        packages: what scoring imports that not every installation has.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    max_new_tokens: int
    read: Callable[[Path, str], list[Question]]
    read_predictions: Callable[[Path, str], list[dict[str, Any]]]
    score: Callable[[Sequence[Question], Mapping[str, str], Judge | None, Problems, Mapping[str, Any]], Scores]
    columns: Mapping[str, tuple[str, ...]]
    published: Mapping[str, tuple[float | None, ...]]
    sources: str
    read_verdicts: Callable[[Path, Sequence[Question]], dict[str, tuple[str, list[str]]]] | None = None
    judged: bool = True
    answer_in: Callable[[str], str] = str
    packages: tuple[str, ...] = ()


def check_installed(benchmarks: Iterable[Benchmark]) -> None:
    """Raises ValueError where a benchmark could be answered, but not scored."""
    for benchmark in benchmarks:
        if missing := [name for name in benchmark.packages if importlib.util.find_spec(name) is None]:
            raise ValueError(f'{benchmark.title} needs {", ".join(missing)}: pip install -e ".[evaluate]"')


def ask_judge(judge: Judge, inquiries: Sequence[Inquiry], problems: Problems) -> dict[str, list[str]]:
    """The judge's words by question id; inquiries that got none are named in `problems` and left out."""
    words = dict(zip((inquiry.id for inquiry in inquiries), judge.verdicts(inquiries), strict=True))
    problems.add("no verdict from the judge", *(name for name, texts in words.items() if not texts))
    return {name: texts for name, texts in words.items() if texts}


def files(path: Path, *patterns: str) -> list[Path]:
    """The file itself, or a folder's files of these patterns, sorted.

    Raises:
        FileNotFoundError: there are none.
    """
    found = [path] if path.is_file() else sorted({file for pattern in patterns for file in path.glob(pattern)})
    if not found:
        raise FileNotFoundError(f"no file {path}, nor {' or '.join(patterns)} in it")
    return found


def check_split(split: str, known: Sequence[str], where: Path) -> None:
    """Raises ValueError for a split that the data has not."""
    if split not in known:
        raise ValueError(f"unknown split {split!r}: {where} has {', '.join(known) or 'none'}")
