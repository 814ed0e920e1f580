"""Who writes the responses: a language model of ours, or one behind an endpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from desta_jax.construct.quality import Reply
from desta_jax.endpoint import Endpoint
from desta_jax.generation import Sampling
from desta_jax.generation.text import Backbone

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Writing:
    """How responses are drawn; the defaults are the paper's."""

    temperature: float = 0.05
    top_p: float = 1.0
    max_new_tokens: int = 256

    def __post_init__(self):
        Sampling(self.temperature, self.top_p)  # which raises ValueError for what cannot be


PAPER = Writing()


class Generator(Protocol):
    """One method; `name` says who writes."""

    name: str

    def write(
        self,
        requests: Sequence[Messages],
        writing: Writing,
        seed: int,
        answered: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """A reply to each list of messages, in order; the same for the same requests and seed. `answered` is told how
        many more there are as they come."""


@dataclasses.dataclass
class OwnModel:
    """A language model of ours, which chooses tokens as it is told here and not by its own generation config."""

    backbone: Backbone

    @property
    def name(self) -> str:
        return self.backbone.name

    def write(
        self,
        requests: Sequence[Messages],
        writing: Writing,
        seed: int,
        answered: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """As Generator.write."""
        sampling = Sampling(writing.temperature, writing.top_p, top_k=0, seed=seed, repetition_penalty=1.0)
        answers = self.backbone.write(requests, sampling, writing.max_new_tokens, answered)
        return [Reply(each.text, cut=self.backbone.is_cut(each), error=each.error or "") for each in answers]


@dataclasses.dataclass
class ForeignModel:
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: Endpoint

    @property
    def name(self) -> str:
        return self.endpoint.model

    def write(
        self,
        requests: Sequence[Messages],
        writing: Writing,
        seed: int,
        answered: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """As Generator.write, as far as the endpoint heeds the seed."""
        completions = self.endpoint.complete(
            requests,
            answered,
            max_tokens=writing.max_new_tokens,
            temperature=writing.temperature,
            top_p=writing.top_p,
            seed=seed,
        )
        return [Reply(each.text.strip(), cut=each.cut, error=each.error) for each in completions]
