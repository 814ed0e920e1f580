"""Prompts without a clip, to be answered alike with an adapter and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from figures import share

from desta_jax.evaluation.question import Prompt, Question

MAX_NEW_TOKENS = 48
PROMPTS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain photosynthesis to a child.",
    "List three fruits.",
    "Translate 'good morning' into Spanish.",
    "What is 17 plus 25?",
    "Give me a recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "What does a microphone do?",
    "Name the planets of the solar system.",
    "Why is the sky blue?",
    "Write a sentence in French about a dog.",
    "Say hello in five languages.",
    "Summarise the story of Cinderella in two sentences.",
    "What is the difference between a violin and a cello?",
    "Reverse the word 'listen'.",
)
SYSTEMS = ("", "You are a helpful assistant.")


def ask() -> list[Question]:
    """Every prompt with and without a system prompt."""
    return [
        Question(
            f"{number}/{'system' if system else 'plain'}", (), {"question": text}, Prompt(system, "{question}"), {}
        )
        for number, text in enumerate(PROMPTS)
        for system in SYSTEMS
    ]


def score(without: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of answers whose token ids are identical, stop token included."""
    known = {row["id"]: row.get("token_ids") for row in without}
    return share(row.get("token_ids") == known[row["id"]] and known[row["id"]] is not None for row in answers)
