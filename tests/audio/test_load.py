"""Loading sound: librosa is the oracle, bad files are errors that name them."""

import os
import pathlib

import librosa
import numpy as np
import pytest
import soundfile

from desta_jax.audio import load

RATES = [8000, 16000, 22050, 44100, 48000]


def noise(samples, channels=1, seed=0):
    sound = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels))
    return sound[:, 0] if channels == 1 else sound


@pytest.fixture
def clip(tmp_path):
    """Writes a clip and gives its path."""

    def write(name="clip.wav", rate=16000, channels=1, samples=None, **options):
        path = tmp_path / name
        samples = noise(rate // 4 + 7, channels) if samples is None else samples
        soundfile.write(path, samples, rate, **options)
        return str(path)

    return write


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_every_format_and_rate_is_what_librosa_loads(clip, extension, rate, channels):
    path = clip(f"clip.{extension}", rate, channels)
    expected, _ = librosa.load(path, sr=16000, mono=True)
    loaded = load.load_audio(path)
    assert loaded.dtype == np.float32 and loaded.ndim == 1
    np.testing.assert_array_equal(loaded, expected)


def test_sound_that_cannot_be_sought_in_is_whole(clip):
    """GSM 6.10, as telephones have it, in frames of 320 samples; librosa does not read it."""
    tone = 0.5 * np.sin(np.arange(14 * 320) / 5)
    loaded = load.load_audio(clip(rate=16000, samples=tone, subtype="GSM610"))
    assert len(loaded) == len(tone)
    assert np.corrcoef(loaded, tone)[0, 1] > 0.95


def test_channels_are_averaged_before_resampling(clip):
    path = clip(rate=44100, channels=6)
    samples, _ = soundfile.read(path, dtype="float32")
    expected = librosa.resample(np.mean(samples, axis=-1), orig_sr=44100, target_sr=16000)
    np.testing.assert_array_equal(load.load_audio(path), expected)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3"])
def test_bytes_load_as_their_file_does(clip, extension):
    path = clip(f"clip.{extension}", 22050, 2)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(load.load_audio(file.read()), load.load_audio(path))


def test_16_bit_sound_at_16_khz_is_stored_bit_for_bit(clip):
    every_value = np.arange(-32768, 32768).astype(np.int16)
    stored = load.encode_flac(load.to_int16(load.load_audio(clip(samples=every_value))))
    np.testing.assert_array_equal(load.decode_flac(stored), every_value)


def test_samples_are_rounded_and_clipped_to_16_bits():
    samples = np.array([0.4, 0.6, -0.6, 1.5, 2.5], np.float32) / 32768
    assert load.to_int16(samples).tolist() == [0, 1, -1, 2, 2]
    assert load.to_int16(np.array([1.0, -1.0, 3.0, -3.0], np.float32)).tolist() == [32767, -32768, 32767, -32768]


@pytest.mark.parametrize("samples", [1, 15, 16, 17])
def test_the_shortest_clips_survive_flac(samples):
    clip = np.arange(samples, dtype=np.int16)
    np.testing.assert_array_equal(load.decode_flac(load.encode_flac(clip)), clip)


def test_stored_flac_must_be_16_khz_mono(clip):
    for path in (clip("rate.flac", 8000), clip("channels.flac", 16000, 2)):
        with open(path, "rb") as file, pytest.raises(ValueError, match="expected 16000 Hz mono"):
            load.decode_flac(file.read())
    with pytest.raises(ValueError, match="not a FLAC file"):
        load.decode_flac(b"fLaC" + bytes(100))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav"):
        load.load_audio(tmp_path / "nowhere.wav")


def cut(path, share):
    os.truncate(path, int(os.path.getsize(path) * share))


def spoil(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(bytes(64))


def with_length(path, samples):
    """The same FLAC file with another number of samples in its header; a pipe leaves 0 there."""
    data = bytearray(pathlib.Path(path).read_bytes())
    assert data[:4] == b"fLaC" and data[4] & 0x7F == 0, "the first block is the stream's information"
    data[21] = data[21] & 0xF0 | samples >> 32  # 36 bits that end at byte 26
    data[22:26] = (samples & 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(data)


def with_rate(path, rate):
    """Gives an AU file another rate in its header."""
    with open(path, "r+b") as file:
        file.seek(16)
        file.write(rate.to_bytes(4, "big"))


def bad_file(clip, tmp_path, what):
    match what:
        case "no bytes":
            (tmp_path / "clip.wav").write_bytes(b"")
        case "no samples":
            clip(samples=np.zeros(0))
        case "not sound":
            (tmp_path / "clip.wav").write_bytes(b"<html>Not found</html>" * 100)
        case "a directory":
            (tmp_path / "clip.wav").mkdir()
        case "half a WAV":
            cut(clip(), 0.5)
        case "half a FLAC":
            cut(clip("clip.flac"), 0.5)
        case "half an MP3":
            cut(clip("clip.mp3", samples=noise(64000)), 0.5)
        case "a spoilt FLAC":
            spoil(clip("clip.flac", samples=noise(64000)))
        case "a FLAC that promises weeks":
            (tmp_path / "clip.flac").write_bytes(with_length(clip("clip.flac"), (1 << 36) - 1))
        case "a header and garbage":
            (tmp_path / "clip.wav").write_bytes(b"RIFF1234WAVEnot audio at all" * 3)
        case "no rate":
            with_rate(clip("clip.au", format="AU"), 0)
        case "a rate of 1 Hz":
            with_rate(clip("clip.au", format="AU"), 1)
        case "too loud to resample":
            clip(rate=8000, samples=np.tile([3e38, -3e38], 4000), subtype="FLOAT")
        case "too loud to average":
            clip(samples=np.full((100, 2), 3e38), subtype="FLOAT")
        case "NaN":
            clip(samples=np.array([0.0, np.nan, 0.0]), subtype="FLOAT")
        case "infinite":
            clip(samples=np.array([0.0, np.inf, 0.0]), subtype="FLOAT")
    return next(tmp_path.glob("clip.*"))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no bytes", "empty"),
        ("no samples", "empty"),
        ("not sound", "undecodable"),
        ("a directory", "undecodable"),
        ("half a WAV", "truncated"),
        ("half a FLAC", "undecodable"),
        ("half an MP3", "truncated"),
        ("a spoilt FLAC", "undecodable"),
        ("a FLAC that promises weeks", "undecodable"),
        ("a header and garbage", "undecodable"),
        ("no rate", "undecodable"),
        ("a rate of 1 Hz", "undecodable"),
        ("too loud to resample", "not_finite"),
        ("too loud to average", "not_finite"),
        ("NaN", "not_finite"),
        ("infinite", "not_finite"),
    ],
)
def test_a_bad_file_is_a_value_error_that_names_it(clip, tmp_path, what, reason):
    path = bad_file(clip, tmp_path, what)
    with pytest.raises(ValueError, match=path.name) as caught:
        load.load_audio(path)
    assert caught.value.reason == reason


def test_bad_bytes_are_a_value_error():
    for data in (b"", b"RIFF", bytes(1000)):
        with pytest.raises(ValueError, match="bytes of audio"):
            load.load_audio(data)


def test_a_stream_of_unknown_length_is_whole(clip):
    path = clip()
    expected = load.load_audio(path)
    with open(path, "r+b") as file:
        file.seek(40)  # the size of the data chunk
        file.write(b"\xff\xff\xff\xff")
    np.testing.assert_array_equal(load.load_audio(path), expected)


def test_a_flac_that_does_not_say_how_long_it_is_is_left_to_audioread(clip, tmp_path, monkeypatch):
    path = clip("long.flac")
    (tmp_path / "piped.flac").write_bytes(with_length(path, 0))
    monkeypatch.setattr(load, "_read_otherwise", lambda file, why: soundfile.read(path, dtype="float32"))
    np.testing.assert_array_equal(load.load_audio(tmp_path / "piped.flac"), load.load_audio(path))


def test_a_flac_that_does_not_say_how_long_it_is_is_a_bad_clip_where_nothing_else_reads_it(clip):
    with pytest.raises(load.AudioError, match="bytes of audio: its header does not say how long it is") as caught:
        load.load_audio(with_length(clip("long.flac"), 0))
    assert caught.value.reason == "undecodable"


def test_what_libsndfile_cannot_open_is_left_to_audioread(clip, monkeypatch):
    path = clip(channels=2)
    expected = load.load_audio(path)

    def refuse(*_, **__):
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    np.testing.assert_array_equal(load.load_audio(path), expected)


def test_text_that_is_named_as_audio_is_not_called_missing(tmp_path):
    (tmp_path / "a.mp3").write_text("hello world")
    with pytest.raises(load.AudioError, match="a.mp3: not audio that can be decoded$"):
        load.load_audio(tmp_path / "a.mp3")
