"""Chat completions of a model behind an OpenAI-compatible HTTP endpoint, many at once, with patience."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # worth another try
_REFUSED = (401, 403, 404)  # a wrong key, address or model: every other request would meet the same
_ALIKE = 8  # requests: where as many are refused and no other is answered, they are not what is wrong
_LONGEST_WAIT = 60.0  # seconds

Messages = Sequence[Mapping[str, Any]]
Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Completion:
    """One answer of an endpoint."""

    text: str
    cut: bool = False
    """Whether it reached the limit of new tokens."""
    error: str = ""
    """Why there is no text, where there is none."""
    outage: bool = False
    """Whether no reply came at all, try after try: asked later it may be answered."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how."""

    url: str
    """Up to and with /v1."""
    model: str
    """Name that the endpoint knows."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key; it may be unset for an endpoint that wants none."""
    at_once: int = 16
    """Requests under way at a time."""
    tries: int = 6
    wait: float = 1.0
    """Seconds before the second try, doubled for each that follows; the endpoint's own Retry-After goes first."""
    timeout: float = 300.0

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no address of an endpoint: write it as http://HOST:PORT/v1")

    def complete(
        self, requests: Sequence[Messages], answered: Callable[[int], None] = lambda count: None, **settings: Any
    ) -> list[Completion]:
        """An answer to each list of messages, in order; one that is refused for its own sake says why.

        Args:
            requests: lists of {"role", "content"}.
            answered: is told of each that has an answer.
            **settings: of the endpoint, such as max_tokens, temperature, top_p, seed.

        Raises:
            ValueError: the endpoint refuses every request alike (a wrong key, model or address), in its own words; or
                one that it does not answer, try after try.
        """

        def answer(messages: Messages) -> Completion:
            given = self.ask(messages, **settings)[0]
            if given.outage:
                raise ValueError(f"{self.url} does not answer; run this again later to go on. {given.error}")
            return given

        answers = self.map(answer, requests, answered)
        if len(answers) >= _ALIKE and all(each.error for each in answers):
            raise ValueError(self._refused(answers[0].error))
        return answers

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], done: Callable[[int], None] = lambda count: None
    ) -> list[Result]:
        """What `work` makes of each item, in order, `at_once` at a time; the first error ends them all."""
        made: list[Result] = []
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            results = [pool.submit(work, item) for item in items]
            try:
                for result in results:
                    made.append(result.result())
                    done(1)
            except BaseException:  # an interrupt too: what waits has not been paid for
                pool.shutdown(cancel_futures=True)
                raise
        return made

    def ask(self, messages: Messages, **settings: Any) -> list[Completion]:
        """The answers to one list of messages: as many as the endpoint gives, or a single one that has an `error`.

        Raises:
            ValueError: as for `complete`.
        """
        body = json.dumps({"model": self.model, "messages": list(messages), **settings}).encode()
        pause, trouble = self.wait, ""
        for left in reversed(range(self.tries)):
            after = None
            try:
                return _read(self._post(body))
            except urllib.error.HTTPError as error:
                trouble = f"HTTP {error.code}: {_body(error)[:300]}"
                if error.code in _REFUSED:
                    raise ValueError(self._refused(trouble)) from None
                if error.code not in _BUSY:
                    return [Completion("", error=trouble)]
                after = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                trouble = f"no reply that can be read: {error!r}"
            if left:
                time.sleep(min(pause if after is None else after, _LONGEST_WAIT))
                pause *= 2
        return [Completion("", error=f"{trouble} ({self.tries} tries)", outage=True)]

    def _post(self, body: bytes) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as reply:
            return json.load(reply)

    def _refused(self, trouble: str) -> str:
        return (
            f"{self.url} refuses ({trouble}). Check the address, the model {self.model!r} and the key in "
            f"${self.key_variable}"
        )


def _body(error: urllib.error.HTTPError) -> str:
    """What an endpoint says of an error; empty where that breaks off."""
    try:
        return error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _read(reply: Mapping[str, Any]) -> list[Completion]:
    choices = reply["choices"]
    answers = [Completion(_whole(c["message"]["content"]), cut=c.get("finish_reason") == "length") for c in choices]
    if not answers:
        raise ValueError("no choices")
    return answers


def _whole(text: str | None) -> str:
    """Without halves of characters, which JSON can hold and no file can: a server may cut an emoji in two."""
    if not isinstance(text, str | None):
        raise TypeError(f"content is no text: {text!r}")
    return (text or "").encode("utf-8", "replace").decode()


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:  # a date
        return None
