"""Judges: whoever reads an answer and gives a verdict on it. A judge's name is part of every score it gave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from desta_jax.clock import Pace
from desta_jax.endpoint import Completion, Endpoint
from desta_jax.evaluation.answers import Answer, whole_lines
from desta_jax.evaluation.question import Messages

SAY_EVERY = 30.0
"""Seconds between lines of progress."""


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

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path,
        *,
        max_tokens: int = 4096,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.endpoint, self.cache, self.max_tokens, self.say = endpoint, cache, max_tokens, say
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] = {row["key"]: row["verdicts"] for row in whole_lines(cache)}
        self._troubles: list[str] = []
        self._outages = 0  # since the last reply

    @property
    def name(self) -> str:
        return self.endpoint.model

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """As Judge.verdicts.

        Raises:
            ValueError: the endpoint refuses (a wrong key, model or address), with its own words; or it does not answer:
                as many inquiries as run at a time got no reply, one after the other.
        """
        keys = [self._key(inquiry) for inquiry in inquiries]
        waiting = {key: inquiry for key, inquiry in zip(keys, inquiries, strict=True) if key not in self._known}
        self._troubles, self._outages = [], 0
        pace = Pace(sum(inquiry.samples for inquiry in waiting.values()), SAY_EVERY)

        def judge(key: str) -> None:
            self._judge(key, waiting[key])
            with self._lock:
                _tell(self.say, pace, waiting[key].samples)

        self.endpoint.map(judge, list(waiting))
        if 1 < len(waiting) == self._outages:  # fewer inquiries than `_heed` waits for
            raise ValueError(self._unanswered(self._troubles[-1]))
        found = [self._known.get(key, []) for key in keys]
        if self._troubles:
            missing = f"{found.count([])} of {len(inquiries)} answers got no verdict"
            warnings.warn(f"{self.endpoint.url}: {missing}; the first: {self._troubles[0]}", stacklevel=2)
        return found

    def _key(self, inquiry: Inquiry) -> str:
        asked = [self.endpoint.url, self.endpoint.model, inquiry.messages, self._settings(inquiry), inquiry.samples]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _settings(self, inquiry: Inquiry) -> dict[str, float]:
        return {"temperature": inquiry.temperature, "top_p": inquiry.top_p, "max_tokens": self.max_tokens}

    def _judge(self, key: str, inquiry: Inquiry) -> None:
        texts: list[str] = []
        while len(texts) < inquiry.samples:  # some endpoints answer once whatever n is
            given = self.endpoint.ask(inquiry.messages, n=inquiry.samples - len(texts), **self._settings(inquiry))
            given = [self._whole(each) for each in given]
            self._heed(next((each for each in given if each.error), given[0]))
            if any(each.error for each in given):
                return
            texts += [each.text for each in given]
        self._keep(key, texts)

    def _whole(self, given: Completion) -> Completion:
        """A judge that is cut off, or thinks until it is, has not said what it came to."""
        if given.error or (given.text.strip() and not given.cut):
            return given
        why = f"was cut off after {self.max_tokens} tokens" if given.cut else "is empty"
        return dataclasses.replace(given, error=f"the verdict {why}")

    def _heed(self, given: Completion) -> None:
        """Remembers why there is no verdict. A single inquiry may be at fault itself; where nothing is answered any
        more, every other one would wait as long for nothing."""
        with self._lock:
            self._troubles += [given.error] if given.error else []
            self._outages = self._outages + 1 if given.outage else 0
            if self._outages >= max(2, self.endpoint.at_once):
                raise ValueError(self._unanswered(given.error))

    def _unanswered(self, trouble: str) -> str:
        return f"{self.endpoint.url} does not answer; run this again later to go on. {trouble}"

    def _keep(self, key: str, texts: list[str]) -> None:
        with self._lock:
            self._known[key] = texts
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "verdicts": texts}, ensure_ascii=False) + "\n")


class Reader(Protocol):
    """A model of ours that reads, as desta_jax.generation makes it."""

    def generate(
        self,
        messages: Sequence[Messages],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int,
        repetition_penalty: float,
        batch_size: int,
    ) -> Sequence[Answer]: ...


@dataclasses.dataclass
class ModelJudge:
    """A model of ours as the judge; it reads text, no audio."""

    model: Reader
    name: str
    max_new_tokens: int = 512
    batch_size: int = 32
    say: Callable[[str], None] = lambda line: None

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """As Judge.verdicts. Where several samples are wanted at temperature 0, the one answer stands for all."""
        texts: dict[int, list[str]] = {number: [] for number in range(len(inquiries))}
        several: dict[tuple[float, float], list[int]] = {}
        for number, inquiry in enumerate(inquiries):
            numbers = several.setdefault((inquiry.temperature, inquiry.top_p), [])
            numbers += [number] * (inquiry.samples if inquiry.temperature else 1)
        pace = Pace(sum(map(len, several.values())), SAY_EVERY)
        for (temperature, top_p), numbers in sorted(several.items()):
            for start in range(0, len(numbers), self.batch_size):
                batch = numbers[start : start + self.batch_size]
                answers = self.model.generate(
                    [inquiries[number].messages for number in batch],
                    max_new_tokens=self.max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=0,
                    repetition_penalty=1.0,
                    batch_size=len(batch),
                )
                for number, answer in zip(batch, answers, strict=True):
                    texts[number] += [] if answer.error else [answer.text]
                _tell(self.say, pace, len(batch))
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


def _tell(say: Callable[[str], None], pace: Pace, done: int) -> None:
    """So many verdicts more are there."""
    if line := pace.add(done):
        say(f"judge: {pace.done} of {pace.total} verdicts, {line}")
