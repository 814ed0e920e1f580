"""Transcripts of the listening corpus's speech."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "corpus"))
import clips
import transcribe

ROWS = [
    {"audio": "sakura/a.flac", "source": "sakura"},
    {"audio": "sakura/b.flac", "source": "sakura", "text": "Known."},
    {"audio": "espeak/c.flac", "source": "espeak", "text": ""},
    {"audio": "sakura/d.flac", "source": "sakura"},
]


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "speech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for length, row in enumerate(ROWS, 1):
        clips.write(tmp_path / "audio" / row["audio"], np.zeros(1000 * length, np.float32))
    return tmp_path


@pytest.fixture
def heard(monkeypatch):
    """The lengths of the clips that a stand-in of Whisper was given."""
    asked = []

    class Whisper:
        def transcribe(self, audio):
            asked.extend(map(len, audio))
            return [f"{len(samples)} samples" for samples in audio]

    monkeypatch.setattr(transcribe, "load_whisper", lambda model: Whisper())
    return asked


def texts(corpus, name):
    lines = (corpus / "train" / f"{name}.jsonl").read_text().splitlines()
    return {row["audio"]: row["text"] for row in map(json.loads, lines)}


def test_words_that_are_not_known_are_heard_once(corpus, heard):
    (corpus / "transcripts.jsonl").write_text('["sakura/d.flac", "before"]\n["sakura/a.fl')  # cut off
    for _ in range(2):
        transcribe.transcribe(corpus, "model")
        recorded = {"sakura/a.flac": "1000 samples", "sakura/b.flac": "Known.", "sakura/d.flac": "before"}
        assert texts(corpus, "recorded") == recorded
        assert texts(corpus, "synthesised") == {"espeak/c.flac": "3000 samples"}
    assert heard == [1000, 3000]


def test_clips_past_the_most_go_without(corpus, heard):
    transcribe.transcribe(corpus, "model", most=1)
    assert heard == [1000] and texts(corpus, "recorded")["sakura/d.flac"] == ""
