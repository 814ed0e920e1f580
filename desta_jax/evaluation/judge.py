"""Judges: whoever reads an answer and gives a verdict on it. A judge's name is part of every score it gave."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from desta_jax.evaluation.answers import Answerer, read_lines
from desta_jax.evaluation.question import Messages

_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)


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


@dataclasses.dataclass
class EndpointJudge:
    """A model behind an OpenAI-compatible chat endpoint.

    Verdicts are kept in `cache` (JSONL, a line each): what was asked once is not asked, nor paid, again.

    Attributes:
        model: name that the endpoint knows.
        url: up to and with /v1.
        key_variable: environment variable with the key; it may be unset for an endpoint that wants none.
        at_once: how many questions are under way at a time.
        tries: times that a busy or broken endpoint is asked before an answer counts as without verdict.
        wait: seconds before the second try, doubled for each that follows; the endpoint's Retry-After goes first.
    """

    model: str
    cache: Path
    url: str = "https://api.openai.com/v1"
    key_variable: str = "OPENAI_API_KEY"
    at_once: int = 8
    tries: int = 6
    wait: float = 1.0
    timeout: float = 120.0
    max_tokens: int = 1024

    def __post_init__(self):
        self._lock = threading.Lock()
        rows = read_lines(self.cache) if self.cache.exists() else []
        self._known: dict[str, list[str]] = {row["key"]: row["verdicts"] for row in rows}

    @property
    def name(self) -> str:
        return self.model

    def verdicts(self, inquiries: Sequence[Inquiry]) -> list[list[str]]:
        """As Judge.verdicts.

        Raises:
            ValueError: the endpoint refuses (a wrong key, model or address), with its own words.
        """
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(self._verdict, inquiries))

    def _verdict(self, inquiry: Inquiry) -> list[str]:
        body = {
            "model": self.model,
            "messages": inquiry.messages,
            "temperature": inquiry.temperature,
            "top_p": inquiry.top_p,
            "max_tokens": self.max_tokens,
            "n": inquiry.samples,
        }
        key = hashlib.sha256(json.dumps([self.url, body], sort_keys=True).encode()).hexdigest()
        if key in self._known:
            return self._known[key]
        texts: list[str] = []
        while len(texts) < inquiry.samples:  # some endpoints answer once whatever n is
            more = self._ask({**body, "n": inquiry.samples - len(texts)})
            if not more:
                return []
            texts += more
        self._keep(key, texts)
        return texts

    def _ask(self, body: Mapping[str, Any]) -> list[str]:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        pause = self.wait
        for left in reversed(range(self.tries)):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                    choices = json.load(reply)["choices"]
                return [choice["message"]["content"] or "" for choice in choices]
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY:
                    words = error.read().decode(errors="replace")[:500]
                    raise ValueError(
                        f"the judge at {self.url} refuses ({error.code}): {words}. Check the model {self.model!r}, "
                        f"the address, and the key in ${self.key_variable}"
                    ) from error
                after = _seconds(error.headers.get("Retry-After"))
            except (OSError, ValueError, KeyError, TypeError):  # no connection, or no reply that can be read
                after = None
            if left:
                time.sleep(pause if after is None else after)
                pause *= 2
        return []

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


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:  # a date
        return None
