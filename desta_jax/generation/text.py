"""The language model alone, reading text: no encoder and no adapter, as where data is made, or answers are judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from desta_jax import sharding
from desta_jax.generation.load import compute_dtype, take_apart
from desta_jax.generation.model import Answer, Messages
from desta_jax.generation.sampling import Sampling
from desta_jax.generation.talk import Talk, Tongue, Wish, open_tongue
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import NO_ADAPTER, DecoderShape, WhisperShape
from desta_jax.programs import keep_programs
from desta_jax.weights.folder import ModelFolder

REMEMBERED = 100_000  # greedy answers


@dataclasses.dataclass
class Backbone:
    """A language model; its prompts are those of training, with text where the audio will be."""

    name: str
    tongue: Tongue
    prompts: PromptBuilder
    tokenizer: Any
    batch_size: int = 32
    _answered: dict[tuple[str, Sampling, int], Answer] = dataclasses.field(default_factory=dict)

    def write(
        self,
        requests: Sequence[Messages],
        sampling: Sampling,
        max_new_tokens: int,
        answered: Callable[[int], None] = lambda count: None,
    ) -> list[Answer]:
        """An answer to each list of messages, in order.

        Requests that follow each other share a batch: bring them in an order in which neighbours are of like lengths.
        What is asked in the same words is answered once where nothing is drawn. `answered` is told how many more
        requests have an answer.
        """
        if sampling.temperature:
            return self._write(requests, sampling, max_new_tokens, answered)
        sampling = dataclasses.replace(sampling, seed=0)
        asked = [(repr(messages), sampling, max_new_tokens) for messages in requests]
        new = {key: messages for key, messages in zip(asked, requests) if key not in self._answered}
        answered(len(requests) - len(new))
        self._answered |= zip(new, self._write(list(new.values()), sampling, max_new_tokens, answered))
        answers = [self._answered[key] for key in asked]
        for key in list(self._answered)[:-REMEMBERED]:
            del self._answered[key]
        return answers

    def is_cut(self, answer: Answer) -> bool:
        """Whether the answer reached the limit of new tokens without coming to an end."""
        return answer.error is None and answer.token_ids[-1] not in self.tongue.stops

    def _write(
        self, requests: Sequence[Messages], sampling: Sampling, max_new_tokens: int, answered: Callable[[int], None]
    ) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(requests), self.batch_size):
            batch = requests[start : start + self.batch_size]
            answers += self._write_batch(batch, start, sampling, max_new_tokens)
            answered(len(batch))
        return answers

    def _write_batch(
        self, requests: Sequence[Messages], first: int, sampling: Sampling, max_new_tokens: int
    ) -> list[Answer]:
        wishes: dict[int, Wish] = {}
        answers: dict[int, Answer] = {}
        for index, messages in enumerate(requests):
            try:
                prompt = self.prompts.context(messages)
            except ValueError as error:
                answers[index] = Answer(error=str(error))
                continue
            limit = min(max_new_tokens, self.tongue.model.shape.max_positions - len(prompt.tokens))
            if limit < 1:
                answers[index] = Answer(error=f"a prompt of {len(prompt.tokens)} tokens leaves no room for an answer")
            else:
                wishes[index] = Wish(prompt, None, sampling, limit, number=first + index)
        if wishes:
            said = Talk(self.tongue, list(wishes.values())).answers()
            answers |= {index: self._answer(tokens) for index, tokens in zip(wishes, said)}
        return [answers[index] for index in range(len(requests))]

    def _answer(self, tokens: Sequence[int]) -> Answer:
        return Answer(self.tokenizer.decode(tokens, skip_special_tokens=True).strip(), tuple(tokens))


def open_backbone(folder: str, *, dtype: str = "", tensor: int = 1, batch_size: int = 32) -> Backbone:
    """The language model of a converted folder, on this process's devices.

    Args:
        folder: what `desta-jax convert` wrote.
        dtype: "float32" or "bfloat16"; without it, bfloat16 where there is an accelerator and float32 on a CPU.
        tensor: devices that share one copy of the model; the others hold copies of their own, and share the rows.
        batch_size: requests answered together, rounded up so that the copies share them evenly.

    Raises:
        ValueError: what is wrong with the folder or the numbers.
    """
    keep_programs()
    computed = compute_dtype(dtype)
    opened = ModelFolder(folder)
    mesh = sharding.make_mesh(data=-1, fsdp=1, tensor=tensor, devices=jax.local_devices())
    whisper, decoder = WhisperShape.from_hf(opened.whisper_config), DecoderShape.from_hf(opened.llm_config)
    audio_lm = AudioLM(whisper, decoder, NO_ADAPTER, computed)
    like = sharding.placed({"lm": audio_lm.abstract_frozen()["lm"]}, mesh)
    model = take_apart(opened.restore("lm", like["lm"]), decoder, mesh)
    tokenizer = opened.tokenizer()
    tongue = open_tongue(audio_lm, model, mesh, opened.generation_config, tokenizer)
    prompts = PromptBuilder(tokenizer, 1, tokenizer.eos_token)  # no clip comes: neither number nor placeholder is used
    return Backbone(folder, tongue, prompts, tokenizer, batch_size)
