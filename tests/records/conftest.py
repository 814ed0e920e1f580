"""A small corpus in AQA5M's form, and a way to write it."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

from desta_jax.records.write import write_records


def make_row(number, clips=1, **changes):
    """A row that speaks of clips `number`.0.wav, `number`.1.wav, ..."""
    marks = " ".join(["<start_audio><|AUDIO|><end_audio>"] * clips)
    audios = [{"audio": f"speech/{number}.{clip}.wav", "text": f"words {number}"} for clip in range(clips)]
    messages = [
        {"role": "system", "content": "Focus on the audio clips and instruction.", "audios": []},
        {"role": "user", "content": f"{marks} Was hört man? 听", "audios": audios},
    ]
    fields = {"id": f"row-{number}", "dataset": "AB"[number % 2], "messages": messages}
    fields |= {"response": f"An answer {number}.", "seed_description": f"words {number}", "prompt": "What is heard?"}
    return fields | changes


@pytest.fixture(scope="session")
def row():
    return make_row


class Corpus:
    """A manifest with an audio root beside it."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.manifest = directory / "rows.jsonl"
        self.audio_root = directory / "audio"
        (self.audio_root / "speech").mkdir(parents=True)
        self.lines = []

    def add(self, fields, rate=16000, seconds=0.25):
        """Adds a row (or a line as it stands), and sound for its clips."""
        self.lines.append(fields if isinstance(fields, str) else json.dumps(fields))
        self.manifest.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        if isinstance(fields, dict):
            for message in fields.get("messages") or []:
                for number, clip in enumerate(message.get("audios", ())):
                    self.sound(clip["audio"], rate, seconds + number / 100)
        return self

    def sound(self, clip, rate=16000, seconds=0.25):
        path = self.audio_root / clip
        if not path.exists():
            noise = np.random.default_rng(len(self.lines)).normal(0, 0.1, round(rate * seconds))
            soundfile.write(path, noise, rate, subtype="PCM_16")
        return path

    def write(self, out, **options):
        options = {"workers": 1, "report": lambda line: None} | options
        return write_records([str(self.manifest)], str(self.audio_root), str(out), **options)


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def twelve(tmp_path_factory):
    """Twelve rows, every third with two clips; not to be changed."""
    corpus = Corpus(tmp_path_factory.mktemp("twelve"))
    for number in range(12):
        corpus.add(make_row(number, clips=2 if number % 3 == 2 else 1), seconds=0.2 + number / 50)
    return corpus


@pytest.fixture(scope="session")
def records(twelve, tmp_path_factory):
    """Their records, in three shards; not to be changed."""
    out = tmp_path_factory.mktemp("records") / "out"
    twelve.write(out, shards=3)
    return out


@pytest.fixture(scope="session")
def contents():
    """Every file of a directory by name."""

    def read(directory):
        return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir()}

    return read
