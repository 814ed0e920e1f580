"""One question of a benchmark, the prompt it is asked with, and what went wrong on the way to a score."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.records.rows import AUDIO_LOCATOR

Messages = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """System text and user template; the template's {names} are filled from the question, {audio} with its clips.

    A template that names no audio asks the language model alone: Speech-IFEval's reference runs do so.
    """

    system: str
    user: str

    @property
    def hears(self) -> bool:
        return "{audio}" in self.user or AUDIO_LOCATOR in self.user

    def replaced(self, system: str | None, user: str | None) -> Prompt:
        return Prompt(self.system if system is None else system, self.user if user is None else user)


@dataclasses.dataclass(frozen=True)
class Question:
    """A row of a benchmark.

    Attributes:
        id: unique within the benchmark.
        audio: files, or the encoded bytes of clips that a data set holds in itself.
        fields: what a prompt's template may name.
        prompt: the recommended one.
        row: the row as distributed, without its audio.
    """

    id: str
    audio: tuple[Path | bytes, ...]
    fields: Mapping[str, str]
    prompt: Prompt
    row: Mapping[str, Any]


def ask(question: Question, prompt: Prompt) -> Messages:
    """The messages that put the question to a model.

    Raises:
        ValueError: the template names a field that the question lacks, or places its clips twice.
    """
    fields = {**question.fields, "audio": "\n".join([AUDIO_LOCATOR] * len(question.audio))}
    user: dict[str, Any] = {"role": "user", "content": _fill(prompt.user, fields)}
    if prompt.hears:
        user["audios"] = [{"audio": clip if isinstance(clip, bytes) else str(clip)} for clip in question.audio]
        if user["content"].count(AUDIO_LOCATOR) != len(question.audio):
            raise ValueError(f"the user prompt {prompt.user!r} does not place the clips of question {question.id} once")
    return ([{"role": "system", "content": prompt.system}] if prompt.system else []) + [user]


def _fill(template: str, fields: Mapping[str, str]) -> str:
    try:
        return template.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        known = ", ".join(f"{{{name}}}" for name in fields)
        raise ValueError(f"the user prompt {template!r} cannot be filled ({error!r}); it may name {known}") from error


class Problems:
    """What went wrong, by kind, with the questions it happened to."""

    def __init__(self):
        self._ids: dict[str, list[str]] = {}

    def add(self, kind: str, *ids: str) -> None:
        self._ids.setdefault(kind, []).extend(ids)

    def count(self, kind: str) -> int:
        return len(self._ids.get(kind, ()))

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Every kind with its count and the ids; of long lists the first hundred."""
        return {kind: {"count": len(ids), "ids": ids[:100]} for kind, ids in self._ids.items() if ids}


def share(marks: Iterable[bool]) -> dict[str, Any]:
    """Percent of marks that are true, and of how many."""
    marks = [bool(mark) for mark in marks]
    return figure(100 * sum(marks) / len(marks) if marks else None, len(marks))


def figure(value: float | None, count: int) -> dict[str, Any]:
    """A number and how many questions it is over; no number where there are none."""
    return {"value": None if value is None else round(value, 4), "count": count}


def mean(figures: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Plain mean of figures, over the sum of their counts; no number unless each of them has one."""
    figures = list(figures)
    values = [each["value"] for each in figures]
    value = None if not values or None in values else sum(values) / len(values)
    return figure(value, sum(each["count"] for each in figures))


def by(key: str, rows: Sequence[Mapping], marks: Sequence[bool]) -> dict[str, dict[str, Any]]:
    """Shares by the value of a row's field, in order of appearance; rows without the field are left out."""
    groups: dict[str, list[bool]] = {}
    for row, mark in zip(rows, marks, strict=True):
        if row.get(key) is not None:
            groups.setdefault(str(row[key]), []).append(mark)
    return {value: share(group) for value, group in groups.items()}
