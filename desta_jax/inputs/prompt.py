"""Messages to token ids, audio slots and labels: the one place where a prompt is built.

The rules are the PyTorch reference's (`desta/trainer/data/simple_dataset.py` for training,
`DeSTA25AudioModel.generate` for inference), to the id:

1. The chat template renders the messages, with a generation prompt.
2. The text is cut into pieces; each `<|AUDIO|>` becomes `prompt_size` + (tokens of its transcript) placeholders.
   Where a clip's positions start is counted here.
3. The pieces are joined to a string again, and that string (in training: with the response and the end-of-sequence
   token) is tokenised once more. Usually this changes nothing; where it does, the positions of step 2 still hold.
4. A clip's first `prompt_size` positions take soft tokens, the ones after them the transcript's own ids.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Int32

from desta_jax.batch import IGNORED
from desta_jax.records.rows import AUDIO_LOCATOR, ROLES

MARKERS = ("<start_audio>", "<end_audio>")  # plain text around the locator: in training rows, added in inference
TRANSCRIPT_LIMIT = 100  # tokens of a transcript in training
TODAY = "26 Jul 2024"
"""What Llama's chat templates write for today: 3.1's own default, where 3.2's would ask the clock. So a sample's tokens
are the same on every day."""

AUDIO_CUT = "the cut to max_length falls inside the positions of a clip"
NO_LABEL = "the cut to max_length leaves nothing of the response"

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What the language model reads before it answers."""

    tokens: Int32[np.ndarray, " tokens"]
    """Vocabulary ids; a placeholder where a soft token stands."""
    audio_slots: Int32[np.ndarray, " tokens"]
    """clip * prompt_size + query where a soft token stands, else -1."""
    clips: int


@dataclasses.dataclass(frozen=True)
class Example(Prompt):
    """A prompt with its response, and the labels on it."""

    answer: int
    """The position of the first label; the hidden state one before it predicts it."""
    labels: Int32[np.ndarray, " labels"]
    """The ids to predict: those of the response and of the end-of-sequence token, as far as they were not cut."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A sample that cannot be trained on, and why."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Extent:
    """How far a training text reaches, in tokens, before any cut."""

    tokens: int
    answer: int
    """Where the labels start."""
    audio_end: int
    """Where the last clip's positions end; 0 without a clip."""
    clips: int

    def rejection(self, max_length: int) -> Rejection | None:
        """Why a cut to `max_length` tokens leaves nothing to train on, or None if it leaves something."""
        kept = min(self.tokens, max_length)
        if self.audio_end > kept:
            return Rejection(AUDIO_CUT)
        return Rejection(NO_LABEL) if self.answer >= kept else None


class PromptBuilder:
    """Builds every prompt for one tokenizer and one number of soft tokens a clip; safe to share between threads."""

    def __init__(
        self, tokenizer: Any, prompt_size: int, placeholder_token: str, audio_locator: str = AUDIO_LOCATOR
    ) -> None:
        """
        Args:
            tokenizer: a fast tokenizer of transformers, with a chat template; it is copied, not changed.
            prompt_size: soft tokens a clip.
            placeholder_token: one token of the vocabulary; it holds the positions of a clip while text is handled.
            audio_locator: stands for a clip in a message.

        Raises:
            ValueError: the tokenizer cannot serve, or the placeholder is not one token of its vocabulary.
        """
        _check_tokenizer(tokenizer)
        _check_placeholder(tokenizer, placeholder_token)
        self.prompt_size = prompt_size
        self.placeholder_token = placeholder_token
        self.audio_locator = audio_locator
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.add_tokens([audio_locator])
        self._backend = self._tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = self._tokenizer.split_special_tokens
        self._locator_id = self._backend.token_to_id(audio_locator)

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the tokens of a sample."""
        parts = [self._backend.to_str(), str(self._tokenizer.chat_template), self._tokenizer.eos_token]
        parts += [str(self.prompt_size), self.placeholder_token, self.audio_locator, str(TRANSCRIPT_LIMIT)]
        parts += [json.dumps(self._tokenizer.special_tokens_map, sort_keys=True), TODAY]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def training(self, messages: Messages, response: str, max_length: int) -> Example | Rejection:
        """A training sample, cut to `max_length` tokens at its end.

        Args:
            messages: the row's, with `audios` of {"audio": ..., "text": transcript}.
            response: what the model is to learn to answer.

        Raises:
            ValueError: the messages are not of the form that a prompt can be made from.
        """
        example, extent = self._example(messages, response)
        rejection = extent.rejection(max_length)
        if rejection is not None:
            return rejection
        return dataclasses.replace(
            example,
            tokens=example.tokens[:max_length],
            audio_slots=example.audio_slots[:max_length],
            labels=example.labels[: max_length - extent.answer],
        )

    def extent(self, messages: Messages, response: str) -> Extent:
        """How long a training sample is; raises as `training` does."""
        return self._example(messages, response)[1]

    def context(self, messages: Messages) -> Prompt:
        """The prompt of a training row without its response: what a model in training is asked when it is tried out.

        Raises:
            ValueError: as `training`.
        """
        text, starts, transcripts = self._training_context(messages)
        return self._prompt(self._ids(text), starts, transcripts)

    def inference(self, messages: Messages, transcripts: Sequence[str]) -> Prompt:
        """The prompt of a request.

        A request without a clip is tokenised as the reference does it, with the tokenizer's own special tokens: a
        tokenizer that adds a beginning-of-sequence token adds it to the one that the chat template wrote.

        Args:
            messages: with `<|AUDIO|>` once for each clip, and `audios` beside it.
            transcripts: of each clip in reading order, whole; " " for a clip without speech.

        Raises:
            ValueError: the messages or transcripts are not of the form that a prompt can be made from.
        """
        rendered, clips = self._render(messages)
        self._check_counts(messages)
        if len(transcripts) != len(clips):
            raise ValueError(f"{len(clips)} clips but {len(transcripts)} transcripts; give one for each clip")
        if not clips:
            return self._prompt(self._ids(rendered, add_special_tokens=True), [], [])
        marked = self.audio_locator.join(MARKERS)  # rows in the manifest's form have the markers already
        rendered = rendered.replace(marked, self.audio_locator).replace(self.audio_locator, marked)
        ids = [self._ids(transcript) for transcript in transcripts]
        text, starts = self._lay_out(rendered, [len(transcript) for transcript in ids])
        return self._prompt(self._ids(text), starts, ids)

    def _example(self, messages: Messages, response: str) -> tuple[Example, Extent]:
        """The whole sample before any cut; its audio may reach past its end, which every cut rejects."""
        if not isinstance(response, str):
            raise ValueError(f'"response" must be a text, got {response!r}; every training row needs one')
        text, starts, transcripts = self._training_context(messages)
        answer = len(self._ids(text))
        ids = self._ids(text + response + self._tokenizer.eos_token)
        prompt = self._prompt(ids, starts, transcripts, may_overrun=True)
        example = Example(prompt.tokens, prompt.audio_slots, prompt.clips, answer, np.array(ids[answer:], np.int32))
        return example, Extent(len(ids), answer, self._audio_end(starts, transcripts), prompt.clips)

    def _training_context(self, messages: Messages) -> tuple[str, list[int], list[list[int]]]:
        rendered, clips = self._render(messages)
        transcripts = [self._training_transcript(clip) for clip in clips]
        text, starts = self._lay_out(rendered, [len(transcript) for transcript in transcripts])
        return text, starts, transcripts

    def _training_transcript(self, clip: Mapping[str, Any]) -> list[int]:
        """At most 100 pieces of a transcript, joined and tokenised again, as the reference's rows hold it."""
        pieces = self._pieces(_transcript_of(clip))[:TRANSCRIPT_LIMIT]
        return self._ids(self._join(pieces))

    def _render(self, messages: Messages) -> tuple[str, list[Mapping[str, Any]]]:
        """The chat template's text, and the clips in reading order."""
        clips = _check_messages(messages)
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, date_string=TODAY
            )
        except (jinja2.TemplateError, TypeError) as error:  # TypeError: Python's own, for a key of another form
            raise ValueError(f"The tokenizer's chat template refuses these messages: {error}") from error
        if text.count(self.audio_locator) != len(clips):
            self._check_counts(messages)
            raise ValueError(
                f"The chat template's text has {self.audio_locator} {text.count(self.audio_locator)} times for"
                f" {len(clips)} clips; the template leaves out part of the messages"
            )
        return text, clips

    def _check_counts(self, messages: Messages) -> None:
        """Raises ValueError where a message has more or fewer clips than places for them."""
        for index, message in enumerate(messages):
            located, given = message["content"].count(self.audio_locator), len(message.get("audios") or ())
            if located != given:
                raise ValueError(
                    f"messages[{index}]: {self.audio_locator} stands {located} times in its content but its audios"
                    f" are {given}; write it once for each clip"
                )

    def _lay_out(self, rendered: str, transcript_sizes: Sequence[int]) -> tuple[str, list[int]]:
        """The text with placeholders for each clip, and the position at which each clip starts."""
        pieces: list[str] = []
        starts: list[int] = []
        found = self._pieces(rendered)
        if found.count(self.audio_locator) != len(transcript_sizes):
            raise ValueError(f"The tokenizer does not keep {self.audio_locator} as one token in: {rendered!r}")
        for piece in found:
            if piece != self.audio_locator:
                pieces.append(piece)
                continue
            size = self.prompt_size + transcript_sizes[len(starts)]
            starts.append(len(pieces))
            pieces += [self.placeholder_token] * size
        return self._join(pieces), starts

    def _prompt(
        self, ids: list[int], starts: list[int], transcripts: list[list[int]], *, may_overrun: bool = False
    ) -> Prompt:
        tokens = np.array(ids, np.int32)
        slots = np.full(len(ids), IGNORED, np.int32)
        if self._audio_end(starts, transcripts) > len(ids) and not may_overrun:
            raise ValueError("The audio positions run past the end of the text; put text after the last clip")
        for clip, (start, transcript) in enumerate(zip(starts, transcripts, strict=True)):
            spoken = start + self.prompt_size
            room = len(slots[start:spoken])
            slots[start:spoken] = clip * self.prompt_size + np.arange(room)
            room = len(tokens[spoken : spoken + len(transcript)])
            tokens[spoken : spoken + len(transcript)] = transcript[:room]
        self._check_no_locator(tokens)
        return Prompt(tokens, slots, len(starts))

    def _check_no_locator(self, tokens: np.ndarray) -> None:
        """The locator's own id lies outside most models' vocabulary, so it must not reach the model."""
        if (tokens == self._locator_id).any():
            raise ValueError(
                f"{self.audio_locator} stands in a response or a transcript, where no clip can be; remove it there"
            )

    def _audio_end(self, starts: list[int], transcripts: list[list[int]]) -> int:
        if not starts:
            return 0
        return max(start + self.prompt_size + len(ids) for start, ids in zip(starts, transcripts, strict=True))

    def _pieces(self, text: str) -> list[str]:
        return self._backend.encode(text, add_special_tokens=False).tokens

    def _ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """`encode` would also tell the pieces and where they stand, which takes longer than all the rest."""
        return self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def _join(self, pieces: list[str]) -> str:
        return self._tokenizer.convert_tokens_to_string(pieces)


def is_text(value: Any) -> bool:
    """Whether it is a string that has an encoding: JSON can hold half a surrogate pair, which has none."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _check_messages(messages: Messages) -> list[Mapping[str, Any]]:
    """Checks the form of the messages; returns their clips in reading order."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f'"messages" must be a list of at least one message, got {messages!r}')
    clips: list[Mapping[str, Any]] = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f'messages[{index}]: must be an object with "role" and "content", got {message!r}')
        if message.get("role") not in ROLES:
            raise ValueError(f"messages[{index}]: role {message.get('role')!r} is none of {', '.join(ROLES)}")
        if not is_text(message.get("content")):
            raise ValueError(f'messages[{index}]: "content" must be a text, got {message.get("content")!r}')
        clips += _clips_of(message, index)
    return clips


def _clips_of(message: Mapping[str, Any], index: int) -> Sequence[Mapping[str, Any]]:
    clips = message.get("audios") or ()
    if not isinstance(clips, Sequence) or not all(isinstance(clip, Mapping) for clip in clips):
        raise ValueError(f'messages[{index}]: "audios" must be a list of {{"audio": ..., "text": ...}}, got {clips!r}')
    return clips


def _transcript_of(clip: Mapping[str, Any]) -> str:
    if not is_text(clip.get("text")):
        raise ValueError(f'The clip {clip.get("audio")!r} has no "text"; give its transcript, or " " without speech')
    return clip["text"]


def _check_tokenizer(tokenizer: Any) -> None:
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer; the model's folder needs tokenizer.json")
    if not tokenizer.chat_template:
        raise ValueError("The tokenizer has no chat template; take an instruction-tuned model, or add a template")
    if not tokenizer.eos_token:
        raise ValueError("The tokenizer has no eos_token; name it in tokenizer_config.json")


def _check_placeholder(tokenizer: Any, placeholder: str) -> None:
    """Several in a row must be that many ids of the vocabulary, or the positions of a clip could not be counted."""
    identifier = tokenizer.backend_tokenizer.token_to_id(placeholder)
    ids = tokenizer.backend_tokenizer.encode(placeholder * 3, add_special_tokens=False).ids
    if identifier is None or ids != [identifier] * 3:
        spare = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
        spare += [str(token) for token in tokenizer.added_tokens_decoder.values() if "reserved" in str(token)]
        raise ValueError(
            f"adapter.placeholder_token: {placeholder!r} is not one token of the language model's vocabulary;"
            f" take a special token that no text uses, such as one of {sorted(set(spare))[:8]}"
        )
