"""Who is asked: a model with an adapter, the same with its soft tokens zeroed, and the language model that only reads.

Each is an Answerer, as desta_jax.evaluation asks them: greedy, and with the transcripts that the table was told to use.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from desta_jax import sharding
from desta_jax.evaluation.answers import whole_lines
from desta_jax.generation import Answer, Model, Request, Sampling
from desta_jax.generation.listen import Ear, Heard
from desta_jax.generation.model import user_message
from desta_jax.generation.talk import Talk, Wish
from desta_jax.generation.text import Backbone, open_backbone
from desta_jax.inputs.prompt import Prompt
from desta_jax.records.rows import NO_SPEECH

GREEDY = Sampling(temperature=0.0)
KEPT = 1024  # clips whose soft tokens are kept: one with 64 of width 576 takes 150 kB
AT_ONCE = 8  # clips transcribed together


class KeepingEar:
    """An ear that hears each clip once: a clip is asked about many times."""

    def __init__(self, ear: Ear):
        self.ear, self.seconds = ear, ear.seconds
        self._heard: dict[bytes, np.ndarray] = {}

    def listen(self, clips: Sequence[np.ndarray], transcribe: Sequence[bool]) -> list[Heard]:
        """As Ear.listen, for clips that have their transcripts."""
        if any(transcribe):
            return self.ear.listen(clips, transcribe)
        names = [hashlib.blake2b(clip.tobytes(), digest_size=16).digest() for clip in clips]
        new = {name: clip for name, clip in zip(names, clips) if name not in self._heard}
        for name, heard in zip(new, self.ear.listen(list(new.values()), [False] * len(new)) if new else []):
            self._heard[name] = np.asarray(heard.soft)
        found = [Heard(self._heard[name], None) for name in names]
        for name in list(self._heard)[:-KEPT]:
            del self._heard[name]
        return found


class DeafEar:
    """Soft tokens of zeros: what a connector gives whose output projection, weight and bias, is zero."""

    def __init__(self, ear: Ear):
        self.seconds = ear.seconds
        self._soft = np.zeros((ear.audio_lm.adapter.prompt_size, ear.audio_lm.decoder.width), ear.audio_lm.dtype)

    def listen(self, clips: Sequence[np.ndarray], transcribe: Sequence[bool]) -> list[Heard]:
        """Nothing of any clip."""
        return [Heard(self._soft, NO_SPEECH) for _ in clips]


@dataclasses.dataclass
class Hearer:
    """A model that is given each clip's transcript by its path; without `transcripts`, none is."""

    model: Model
    transcripts: Mapping[str, str] | None

    def generate(self, messages, *, max_new_tokens: int, temperature: float, batch_size: int) -> list[Answer]:
        """Answers to lists of messages, in order."""
        told = [[self._with_text(message) for message in each] for each in messages]
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "batch_size": batch_size}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*s long, only the first")
            return self.model.generate(told, transcripts="given", **options)

    def _with_text(self, message: Mapping[str, Any]) -> dict[str, Any]:
        texts = self.transcripts
        clips = [
            clip | {"text": NO_SPEECH if texts is None else texts[clip["audio"]]}
            for clip in message.get("audios") or ()
        ]
        return dict(message) | ({"audios": clips} if clips else {})


def open_reader(folder: str, dtype: str) -> Backbone:
    """The language model of a converted folder on the first device, where a loaded model is too: on several the same
    sums come out differently in the last bits."""
    backbone = open_backbone(folder, dtype=dtype)
    mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
    model = jax.device_put(backbone.tongue.model, NamedSharding(mesh, PartitionSpec()))
    return dataclasses.replace(backbone, tongue=dataclasses.replace(backbone.tongue, model=model, mesh=mesh))


def zeroed(model: Model) -> Model:
    """The model with its soft tokens zeroed."""
    return Model(DeafEar(model.ear), model.tongue, model.prompts, model.tokenizer)


@dataclasses.dataclass
class Reader:
    """The language model alone: no encoder and no adapter were ever there.

    Attributes:
        build: the prompt builder's `context`, as rows are constructed with, or `inference`, as a loaded model is asked.
    """

    backbone: Backbone
    build: Callable[[Any], Prompt]

    def generate(self, messages, *, max_new_tokens: int, temperature: float, batch_size: int) -> list[Answer]:
        """Greedy answers to lists of messages without a clip, in order."""
        answers: list[Answer] = []
        for start in range(0, len(messages), batch_size):
            prompts = [self.build(each) for each in messages[start : start + batch_size]]
            wishes = [Wish(prompt, None, GREEDY, max_new_tokens) for prompt in prompts]
            for tokens in Talk(self.backbone.tongue, wishes).answers():
                text = self.backbone.tokenizer.decode(tokens, skip_special_tokens=True)
                answers.append(Answer(text, tuple(tokens)))
        return answers


def transcribe(model: Model, clips: Sequence[str], file: Path, say: Callable[[str], None]) -> dict[str, str]:
    """What voice activity and Whisper make of each clip, by path; what `file` holds already is not done again."""
    known = {row["audio"]: row["text"] for row in whole_lines(file)}
    waiting = [clip for clip in dict.fromkeys(clips) if clip not in known]
    with file.open("a", encoding="utf-8") as out:
        for start in range(0, len(waiting), AT_ONCE):
            part = waiting[start : start + AT_ONCE]
            for clip, text in zip(part, _transcripts(model, part)):
                known[clip] = text
                out.write(json.dumps({"audio": clip, "text": text}, ensure_ascii=False) + "\n")
            out.flush()
            say(f"transcripts: {start + len(part)} of {len(waiting)} clips")
    return known


def _transcripts(model: Model, clips: Sequence[str]) -> list[str]:
    requests = [Request([user_message("", [{"audio": clip, "text": None}])]) for clip in clips]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*s long, only the first")
        listening = [model.attend_to(request.messages, "auto", "cut") for request in requests]
    heard = model.listen(listening)
    return [
        model.wish(request, item, ears)[1][0] for request, item, ears in zip(requests, listening, heard, strict=True)
    ]
