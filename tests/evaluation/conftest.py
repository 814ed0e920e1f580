"""Stand-ins for what evaluation is given, a model and a judge, and small files."""

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import soundfile


@pytest.fixture
def write_wav():
    """A tone of a tenth of a second at a path."""

    def write(path, hz=440):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.sin(2 * np.pi * hz * np.arange(1600) / 16000), 16000, subtype="PCM_16")
        return path

    return write


@pytest.fixture
def write_jsonl():
    def write(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@dataclasses.dataclass
class Reply:
    text: str = ""
    transcripts: tuple = ()
    token_ids: tuple = ()
    error: str | None = None


@dataclasses.dataclass
class StandInModel:
    """Answers by a function of the messages, an error where it gives one; what it was asked is in `asked`."""

    answer: Callable
    asked: list = dataclasses.field(default_factory=list)

    def generate(self, messages, *, max_new_tokens, temperature, batch_size):
        self.asked += messages
        given = [self.answer(each) for each in messages]
        return [
            Reply(error=str(each)) if isinstance(each, Exception) else Reply(each, ("heard",), (1, 2)) for each in given
        ]


@dataclasses.dataclass
class StandInJudge:
    """Says what a function of the inquiry says; a list of words, none for no verdict."""

    say: Callable
    name: str = "stand-in"
    asked: list = dataclasses.field(default_factory=list)

    def verdicts(self, inquiries):
        self.asked += inquiries
        return [self.say(inquiry) for inquiry in inquiries]


@pytest.fixture
def model():
    return StandInModel


@pytest.fixture
def judge():
    return StandInJudge
