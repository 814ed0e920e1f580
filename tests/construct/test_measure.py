"""Measured attributes, on signals whose pitch, level, noise and pace are known."""

import numpy as np
import pytest
import soundfile

from desta_jax.audio.load import load_audio
from desta_jax.construct import measure as measuring
from desta_jax.construct.drafts import read_drafts
from desta_jax.construct.measure import count_words, measure, with_measures
from desta_jax.construct.source import load_source

SEGMENTS = """
name = "talk"
kind = "speech"
audio = "audio"
words = "words"
start = "start"
end = "end"
attributes = []
"""
TIME = np.arange(32000) / 16000


def voice(pitch, level=0.1):
    """A sawtooth: all harmonics, as a voice has them."""
    return (level * 2 * (TIME * pitch % 1 - 0.5)).astype(np.float32)


@pytest.mark.parametrize("pitch", [95, 140, 210, 320])
def test_pitch_of_a_voice(pitch):
    """YIN interpolates between lags of whole samples: within one percent."""
    assert measure(voice(pitch))["pitch"] == pytest.approx(pitch, rel=0.01)


def test_pitch_does_not_come_from_pauses():
    samples = voice(120)
    samples[16000:] = 1e-4 * np.sin(2 * np.pi * 400 * TIME[16000:])
    assert measure(samples)["pitch"] == pytest.approx(120, rel=0.01)


def test_loudness_is_decibels_of_full_scale_without_pauses():
    sine = (0.5 * np.sin(2 * np.pi * 200 * TIME)).astype(np.float32)  # root mean square 0.5 / sqrt 2: -9.03 dB
    assert measure(sine)["loudness"] == pytest.approx(-9.03, abs=0.05)
    sine[8000:24000] = 0
    assert measure(sine)["loudness"] == pytest.approx(-9.03, abs=0.4)  # at each edge three frames are part pause


def test_signal_to_noise_of_a_voice_with_pauses():
    """Half voice, half pause, under white noise 20 dB below: the quantiles see both; noise varies frame by frame."""
    samples = voice(120)
    samples[16000:] = 0
    noise = np.random.default_rng(0).normal(0, np.std(samples[:16000]) / 10, len(samples)).astype(np.float32)
    assert measure(samples + noise)["snr"] == pytest.approx(20, abs=1)


def test_rate_is_words_a_second_without_pauses():
    samples = voice(120)
    samples[16000:] = 0
    assert measure(samples, "one two three four")["rate"] == pytest.approx(4, rel=0.06)  # a frame reaches over
    assert measure(samples)["rate"] is None


def test_a_clip_of_several_segments_is_measured_once_with_all_its_words(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "talk.wav", voice(120), 16000)
    rows = ["audio,start,end,words", "talk.wav,0,1,one two", "talk.wav,1,2,three four five", "gone.wav,0,1,six"]
    (tmp_path / "talk.csv").write_text("\n".join(rows))
    (tmp_path / "talk.toml").write_text(SEGMENTS)
    read = []
    monkeypatch.setattr(measuring, "load_audio", lambda path: read.append(path) or load_audio(path))
    drafts, _ = read_drafts(str(tmp_path / "talk.csv"), (source := load_source(str(tmp_path / "talk.toml"))))
    kept, problems = measuring.measure_drafts(drafts, with_measures(source, ["rate"]), str(tmp_path))
    assert len(read) == 1 and [draft.words for draft in kept] == ["one two", "three four five"]
    assert [draft.numbers["Speaking speed"] for draft in kept] == pytest.approx([2.5, 2.5], rel=0.06)
    assert [problem.reason for problem in problems] == ["missing_audio"] and "talk.csv:4" in problems[0].place


def test_the_rate_of_a_clip_that_stands_there_twice_is_of_the_row_that_counts(tmp_path):
    soundfile.write(tmp_path / "talk.wav", voice(120), 16000)
    (tmp_path / "talk.csv").write_text("audio,words\ntalk.wav,one two\ntalk.wav,three four five\n")
    (tmp_path / "talk.toml").write_text('name = "T"\nkind = "speech"\naudio = "audio"\nwords = "words"\n')
    drafts, _ = read_drafts(str(tmp_path / "talk.csv"), (source := load_source(str(tmp_path / "talk.toml"))))
    kept, _ = measuring.measure_drafts(drafts, with_measures(source, ["rate"]), str(tmp_path))
    assert kept[0].numbers["Speaking speed"] == pytest.approx(1.0, rel=0.06)


def test_the_length_of_what_libsndfile_does_not_open_is_found_by_decoding(tmp_path, monkeypatch):
    (tmp_path / "clip.m4a").write_bytes(b"not for libsndfile")
    monkeypatch.setattr(measuring, "load_audio", lambda path: np.zeros(24000, np.float32))
    assert measuring._seconds(str(tmp_path / "clip.m4a")) == 1.5


def test_silence_has_neither_pitch_nor_loudness():
    found = measure(np.zeros(16000, np.float32))
    assert found["duration"] == 1 and found["pitch"] is found["loudness"] is found["snr"] is None


def test_a_clip_shorter_than_a_frame_can_be_measured():
    assert measure(np.full(100, 0.1, np.float32))["duration"] == 100 / 16000


def test_characters_are_counted_where_words_are_not_spaced():
    assert count_words("a few words") == 3 and count_words("看重成长质量") == 6 and count_words("") == 0


def test_measurements_are_added_once(source_of):
    source = source_of(attributes=[{"name": "Pitch", "column": "pitch"}])
    added = with_measures(source, ["pitch", "loudness"])
    assert [attribute.name for attribute in added.attributes] == ["Pitch", "Volume"]
    with pytest.raises(ValueError, match="no measurement 'loud'"):
        with_measures(source, ["loud"])
