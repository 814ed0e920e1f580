"""A conversation that keeps its cache between turns, and the terminal it is held in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from desta_jax.generation.cache import Cache
from desta_jax.generation.decode import NOTHING
from desta_jax.generation.model import SYSTEM, Model, Request, user_message
from desta_jax.generation.sampling import DEFAULT, Sampling
from desta_jax.generation.talk import Talk
from desta_jax.inputs.prompt import Prompt

COMMANDS = "/audio FILE adds a clip to your next message, /quit ends.\n"


class Chat:
    """Turns with one model. What was read or said before is not read again, as long as it stands unchanged at the
    beginning of the prompt."""

    def __init__(
        self,
        model: Model,
        *,
        system: str = SYSTEM,
        max_new_tokens: int = 512,
        sampling: Sampling = DEFAULT,
        transcripts: str = "auto",
        long_audio: str = "cut",
    ):
        self.model, self.max_new_tokens, self.sampling = model, max_new_tokens, sampling
        self.options = (transcripts, long_audio)
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self.transcripts: list[str] = []
        """Of the clips so far."""
        self.read_tokens = 0
        """Tokens of the last prompt that were not in the cache."""
        self._soft: list[Any] = []
        self._heard_messages: list[dict[str, Any]] = list(self.messages)
        self._cache: Cache | None = None
        self._held: list[tuple[int, int]] = []  # token and audio slot in each column of the cache

    def say(self, text: str, audios: Sequence[str] = ()) -> Iterator[str]:
        """A user's turn; gives the answer piece by piece.

        Clips that the text has no `<|AUDIO|>` for are put before it.

        Raises:
            ValueError, FileNotFoundError: the turn can't be answered; the conversation stands as before.
        """
        clips = [{"audio": audio, "text": None} for audio in audios]
        turn = user_message(text, clips, self.model.prompts.audio_locator)
        listening = self.model.attend_to([turn], *self.options)
        heard = self.model.listen([listening])[0]
        new = [ears.transcript if given is None else given for given, ears in zip(listening.texts, heard)]
        messages = [*self._heard_messages, *listening.messages]
        transcripts, soft = [*self.transcripts, *new], [*self._soft, *(np.asarray(ears.soft) for ears in heard)]
        prompt = self.model.prompts.inference(messages, transcripts)
        number = sum(message["role"] == "user" for message in messages) - 1
        wish = self.model.wish_for(Request((), self.max_new_tokens, self.sampling, number), prompt, soft)
        known = self._known(prompt)
        talk = Talk(self.model.tongue, [wish], known=self._cache, known_tokens=known)
        self._cache, self.read_tokens = None, len(prompt.tokens) - known
        said: list[int] = []
        yield from self.model.pieces(talk, said)
        self._cache = talk.speech.cache
        self._held = [*zip(prompt.tokens.tolist(), prompt.audio_slots.tolist()), *((t, NOTHING) for t in said[:-1])]
        answer = {"role": "assistant", "content": self.model.tokenizer.decode(said, skip_special_tokens=True)}
        self.messages += [turn, answer]
        self._heard_messages, self.transcripts, self._soft = [*messages, answer], transcripts, soft

    def _known(self, prompt: Prompt) -> int:
        """How many columns of the cache this prompt begins with; its last token is always read."""
        if self._cache is None:
            return 0
        wanted = zip(prompt.tokens.tolist(), prompt.audio_slots.tolist())
        same = next((i for i, (a, b) in enumerate(zip(self._held, wanted)) if a != b), len(self._held))
        return min(same, len(prompt.tokens) - 1)


def converse(chat: Chat, *, read: Callable[[str], str] = input, write: Callable[[str], None] | None = None) -> None:
    """A conversation in the terminal: `/audio FILE` adds a clip to the next turn, `/quit` or end of input ends it."""
    write = write or (lambda text: print(text, end="", flush=True))
    write(COMMANDS)
    audios: list[str] = []
    while True:
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line == "/quit":
            return
        if line.startswith("/audio "):
            file = line.removeprefix("/audio ").strip()
            if os.path.exists(file):
                audios.append(file)
            else:
                write(f"{file}: no such file\n")
        elif re.fullmatch(r"/\w+", line):
            write(f"{line}: no such command. {COMMANDS}")
        elif line:
            _turn(chat, line, audios, write)
            audios = []


def heard(transcript: str) -> str:
    """What a transcript says, for the terminal."""
    return f"[heard: {transcript.strip() or 'no words'}]"


def _turn(chat: Chat, line: str, audios: list[str], write: Callable[[str], None]) -> None:
    before = len(chat.transcripts)
    try:
        for piece in chat.say(line, audios):
            write(piece)
    except (ValueError, OSError) as error:
        write(f"{error}\n")
        return
    for transcript in chat.transcripts[before:]:
        write("\n" + heard(transcript))
    write("\n")
