"""Judges: whoever reads an answer and gives a verdict on it. A judge's name is part of every score it gave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from desta_jax.endpoint import Endpoint
from desta_jax.evaluation.answers import Answerer, whole_lines
from desta_jax.evaluation.question import Messages


@dataclasses.dataclass(frozen=True)
class Inquiry:
    """What a judge is asked about one answer: `samples` verdicts on `response`, the answer to question `id`."""

    id: str
    response: str
    messages: Messages
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0


class Judge(Protocol):
    """One method; `name` says who judged."""

    name: str

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """The judge's own words, `samples` of them an inquiry; none where no verdict could be had."""


class EndpointJudge:
    """A model behind an OpenAI-compatible chat endpoint.

    Verdicts are kept in `cache` (JSONL, a line each) as they come: what was asked once is not asked, nor paid, again.
    """

    def __init__(self, endpoint: Endpoint, cache: Path, *, max_tokens: int = 1024):
        self.endpoint, self.cache, self.max_tokens = endpoint, cache, max_tokens
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] = {row["key"]: row["verdicts"] for row in whole_lines(cache)}
        self._troubles: list[str] = []

    @property
    def name(self) -> str:
        return self.endpoint.model

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """As Judge.verdicts.

        Raises:
            ValueError: the endpoint refuses (a wrong key, model or address), with its own words.
        """
        self._troubles.clear()
        found = self.endpoint.map(self._verdict, inquiries)
        if self._troubles:
            missing = f"{len(self._troubles)} of {len(inquiries)} answers got no verdict"
            warnings.warn(f"{self.endpoint.url}: {missing}; the first: {self._troubles[0]}", stacklevel=2)
        return found

    def _verdict(self, inquiry: Inquiry) -> list[str]:
        settings = {"temperature": inquiry.temperature, "top_p": inquiry.top_p, "max_tokens": self.max_tokens}
        asked = [self.endpoint.url, self.endpoint.model, inquiry.messages, settings, inquiry.samples]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if key in self._known:
            return self._known[key]
        texts: list[str] = []
        while len(texts) < inquiry.samples:  # some endpoints answer once whatever n is
            given = self.endpoint.ask(inquiry.messages, n=inquiry.samples - len(texts), **settings)
            if given[0].error:
                self._troubles.append(given[0].error)
                return []
            texts += [each.text for each in given]
        self._keep(key, texts)
        return texts

    def _keep(self, key: str, texts: list[str]) -> None:
        with self._lock:
            self._known[key] = texts
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "verdicts": texts}, ensure_ascii=False) + "\n")


@dataclasses.dataclass
class ModelJudge:
    """A model of ours as the judge; it reads text, no audio."""

    model: Answerer
    name: str
    max_new_tokens: int = 512
    batch_size: int = 32

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """As Judge.verdicts. Where several samples are wanted at temperature 0, the one answer stands for all."""
        texts: dict[int, list[str]] = {number: [] for number in range(len(inquiries))}
        for temperature in sorted({inquiry.temperature for inquiry in inquiries}):
            several = [
                number
                for number, inquiry in enumerate(inquiries)
                if inquiry.temperature == temperature
                for _ in range(inquiry.samples if temperature else 1)
            ]
            for start in range(0, len(several), self.batch_size):
                batch = several[start : start + self.batch_size]
                answers = self.model.generate(
                    [inquiries[number].messages for number in batch],
                    max_new_tokens=self.max_new_tokens,
                    temperature=temperature,
                    batch_size=len(batch),
                )
                for number, answer in zip(batch, answers, strict=True):
                    texts[number] += [] if answer.error else [answer.text]
        return [texts[number] for number in range(len(inquiries))]


@dataclasses.dataclass
class RecordedJudge:
    """Verdicts given before, by question id; each holds for the response that it was given on and no other."""

    name: str
    records: Mapping[str, tuple[str, list[str]]]

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """As Judge.verdicts."""
        given = [self.records.get(inquiry.id, (None, [])) for inquiry in inquiries]
        return [
            texts if response == inquiry.response else []
            for inquiry, (response, texts) in zip(inquiries, given, strict=True)
        ]
