"""A model that answers: load once, then `generate(messages)`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from desta_jax.generation.clips import Listening, open_clips
from desta_jax.generation.decode import NOTHING
from desta_jax.generation.listen import Ear, Heard
from desta_jax.generation.sampling import DEFAULT, Sampling
from desta_jax.generation.talk import Talk, Tongue, Wish
from desta_jax.inputs.prompt import Prompt, PromptBuilder
from desta_jax.records.rows import AUDIO_LOCATOR, NO_SPEECH

TRANSCRIPTS = ("auto", "given")
LONG_AUDIO = ("cut", "windows")
PIECE = 4  # tokens between two looks at what is said, where it is shown as it comes
SYSTEM = "Focus on the audio clips and instructions."  # the system prompt that the reference recommends

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Request:
    """Messages to answer, as the PyTorch reference takes them.

    A user's message holds `<|AUDIO|>` once for each of its `audios`, {"audio": path, bytes or 16 kHz samples,
    "text": transcript or None}.
    """

    messages: Messages
    max_new_tokens: int = 512
    sampling: Sampling = DEFAULT
    number: int = 0
    """With the seed it fixes what is drawn, whatever else is in the batch."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of a request: a text, or an error that says why there is none."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    """The stop token included, if it was reached."""
    transcripts: tuple[str, ...] = ()
    """Of each clip in reading order, as the language model read it."""
    prompt_tokens: int = 0
    error: str | None = None
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Seconds of its whole batch: `load`, `listen`, `answer`."""


class Model:
    """Hears, reads and answers; made by `desta_jax.generation.load`."""

    def __init__(self, ear: Ear, tongue: Tongue, prompts: PromptBuilder, tokenizer: Any):
        self.ear, self.tongue, self.prompts, self.tokenizer = ear, tongue, prompts, tokenizer
        self.max_positions = tongue.model.shape.max_positions

    def generate(
        self,
        messages: Messages | Sequence[Messages],
        *,
        max_new_tokens: int | Sequence[int] = 512,
        temperature: float = 0.7,
        top_p: float = 0.9,
        top_k: int | None = None,
        seed: int = 0,
        repetition_penalty: float | None = None,
        transcripts: str = "auto",
        long_audio: str = "cut",
        batch_size: int = 16,
    ) -> list[Answer]:
        """Answers to one list of messages, or to several.

        A request that can't be answered gets an Answer whose `error` says why; the others are answered.

        Args:
            messages: see Request.
            max_new_tokens: for all requests, or one number each.
            temperature: 0 is greedy.
            top_p, top_k: tokens to draw from; 1 and 0 leave all in. None is the model's own top_k, or 50.
            repetition_penalty: see Sampling; None is the model's own, from its generation config.
            seed: the same seed and request give the same answer.
            transcripts: "auto" has voice activity and Whisper fill what is not given, as the reference does (a clip
                without speech has the transcript " ", whatever was given); "given" takes the messages' own texts.
            long_audio: of clips longer than the window (30 s), "cut" hears the beginning and warns, "windows" hears
                all, as consecutive clips.
            batch_size: requests answered together.
        """
        if isinstance(messages, str):
            raise ValueError('messages: must be a list such as [{"role": "user", "content": "Hello"}], not a text')
        several = bool(messages) and not isinstance(messages[0], Mapping)
        conversations = list(messages) if several else [messages]
        limits = [max_new_tokens] * len(conversations) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        if len(limits) != len(conversations):
            raise ValueError(f"max_new_tokens: {len(limits)} numbers for {len(conversations)} requests")
        sampling = Sampling(temperature, top_p, top_k, seed, repetition_penalty)
        requests = [Request(m, limit, sampling, n) for n, (m, limit) in enumerate(zip(conversations, limits))]
        options = {"transcripts": transcripts, "long_audio": long_audio, "batch_size": batch_size}
        return list(self.answers(requests, **options))

    def answers(
        self,
        requests: Iterable[Request],
        *,
        transcripts: str = "auto",
        long_audio: str = "cut",
        batch_size: int = 16,
    ) -> Iterator[Answer]:
        """An answer to each request, in order, as soon as its batch is done."""
        check_choice("transcripts", transcripts, TRANSCRIPTS)
        check_choice("long_audio", long_audio, LONG_AUDIO)
        if batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {batch_size}")
        batch: list[Request] = []
        for request in requests:
            batch.append(request)
            if len(batch) == batch_size:
                yield from self._answer(batch, transcripts, long_audio)
                batch = []
        if batch:
            yield from self._answer(batch, transcripts, long_audio)

    def _answer(self, requests: list[Request], transcripts: str, long_audio: str) -> list[Answer]:
        started = time.perf_counter()
        listening = [_attempt(self.attend_to, request.messages, transcripts, long_audio) for request in requests]
        loaded = time.perf_counter()
        heard = self.listen(listening)
        pairs = [
            item if isinstance(item, Exception) else _attempt(self.wish, request, item, ears)
            for request, item, ears in zip(requests, listening, heard)
        ]
        wishes = [pair[0] for pair in pairs if not isinstance(pair, Exception)]
        listened = time.perf_counter()
        said = iter(Talk(self.tongue, wishes).answers() if wishes else [])
        timings = {
            "load": loaded - started,
            "listen": listened - loaded,
            "answer": time.perf_counter() - listened,
        }
        return [
            Answer(error=str(pair), timings=timings)
            if isinstance(pair, Exception)
            else self._finished(*pair, next(said), timings)
            for pair in pairs
        ]

    def stream(
        self,
        request: Request,
        *,
        transcripts: str = "auto",
        long_audio: str = "cut",
        heard: Callable[[tuple[str, ...]], None] = lambda transcripts: None,
    ) -> Iterator[str]:
        """The answer to one request, piece by piece as it comes; `heard` is told the transcripts before.

        Raises:
            ValueError, FileNotFoundError: it can't be answered.
        """
        check_choice("transcripts", transcripts, TRANSCRIPTS)
        check_choice("long_audio", long_audio, LONG_AUDIO)
        listening = self.attend_to(request.messages, transcripts, long_audio)
        wish, read = self.wish(request, listening, self.listen([listening])[0])
        heard(read)
        yield from self.pieces(Talk(self.tongue, [wish]), [])

    def pieces(self, talk: Talk, said: list[int]) -> Iterator[str]:
        """What the first row says, as text; its tokens are added to `said`. A character that is not whole yet waits
        for its other tokens."""
        shown = 0
        for tokens in talk.chunks(PIECE):
            said += [int(token) for token in tokens[0] if token != NOTHING]
            text = self.tokenizer.decode(said, skip_special_tokens=True)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                yield text[shown:]
                shown = len(text)
        yield self.tokenizer.decode(said, skip_special_tokens=True)[shown:]

    def attend_to(self, messages: Messages, transcripts: str, long_audio: str) -> Listening:
        """Loads a request's clips and sees which have speech.

        Raises:
            ValueError, FileNotFoundError: what is wrong with a message or a clip, and with which.
        """
        self._check(messages)
        return open_clips(messages, self.prompts.audio_locator, self.ear.seconds, transcripts, long_audio)

    def listen(self, listening: Sequence[Listening | Exception]) -> list[list[Heard]]:
        """The clips of all requests, heard together."""
        good = [item for item in listening if not isinstance(item, Exception)]
        clips = [clip for item in good for clip in item.clips]
        heard = iter(self.ear.listen(clips, [text is None for item in good for text in item.texts]))
        return [[] if isinstance(item, Exception) else [next(heard) for _ in item.clips] for item in listening]

    def wish(self, request: Request, listening: Listening, heard: list[Heard]) -> tuple[Wish, tuple[str, ...]]:
        """What to ask of the language model, and the transcripts in it."""
        transcripts = tuple(
            ears.transcript if text is None else text for text, ears in zip(listening.texts, heard, strict=True)
        )
        prompt = self.prompts.inference(listening.messages, transcripts)
        return self.wish_for(request, prompt, [ears.soft for ears in heard]), transcripts

    def wish_for(self, request: Request, prompt: Prompt, soft: Sequence[Float[Array, "queries width"]]) -> Wish:
        """What to ask, from a prompt and the soft tokens of its clips; raises ValueError if it does not fit."""
        limit = self._limit(prompt, request.max_new_tokens)
        together = np.concatenate([np.asarray(clip) for clip in soft]) if soft else None
        return Wish(prompt, together, request.sampling, limit, request.number)

    def _check(self, messages: Messages) -> None:
        """Raises for messages that no prompt can be made from, before anything is loaded."""
        listed = messages if isinstance(messages, Sequence) else []
        clips = [m.get("audios") or () for m in listed if isinstance(m, Mapping)]
        self.prompts.inference(messages, [NO_SPEECH] * sum(len(c) for c in clips if isinstance(c, Sequence)))

    def _limit(self, prompt: Prompt, asked: int) -> int:
        if asked < 1:
            raise ValueError(f"max_new_tokens: must be at least 1, got {asked}")
        room = self.max_positions - len(prompt.tokens)
        if room < 1:
            raise ValueError(
                f"the prompt has {len(prompt.tokens)} tokens (clips and transcripts included), and the language model"
                f" reads at most {self.max_positions}, the answer included; shorten the messages"
            )
        return min(asked, room)

    def _finished(self, wish: Wish, transcripts: tuple[str, ...], tokens: list[int], timings) -> Answer:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(text, tuple(tokens), transcripts, len(wish.prompt.tokens), None, timings)


def user_message(text: str, clips: Sequence[Mapping[str, Any]], locator: str = AUDIO_LOCATOR) -> dict[str, Any]:
    """A user's message; clips that the text has no `<|AUDIO|>` for stand before it, as in the reference's prompts."""
    missing = locator * (len(clips) - text.count(locator))
    return {"role": "user", "content": f"{missing} {text}" if missing else text, "audios": list(clips)}


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: must be one of {', '.join(choices)}, got {value!r}")


def _attempt(function, *arguments):
    """What the function returns, or the error that is the request's own fault."""
    try:
        return function(*arguments)
    except (ValueError, OSError) as error:
        return error
