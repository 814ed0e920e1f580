"""Who writes the responses; here, a model behind an endpoint (backbone.py has a model of our own)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from desta_jax.construct.quality import Reply
from desta_jax.endpoint import Endpoint

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How responses are drawn; the defaults are the paper's."""

    temperature: float = 0.05
    top_p: float = 1.0
    max_new_tokens: int = 256


PAPER = Sampling()


class Generator(Protocol):
    """One method; `name` says who writes."""

    name: str

    def write(self, requests: Sequence[Messages], sampling: Sampling, seed: int) -> list[Reply]:
        """A reply to each list of messages, in order; the same for the same requests and seed."""


@dataclasses.dataclass
class ForeignModel:
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: Endpoint

    @property
    def name(self) -> str:
        return self.endpoint.model

    def write(self, requests: Sequence[Messages], sampling: Sampling, seed: int) -> list[Reply]:
        """As Generator.write, as far as the endpoint heeds the seed."""
        completions = self.endpoint.complete(
            requests,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
        )
        return [Reply(each.text.strip(), cut=each.cut, error=each.error) for each in completions]
