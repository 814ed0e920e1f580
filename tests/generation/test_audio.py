"""What is heard of a clip: transcripts by the reference's rules, and clips longer than the window."""

import io
import warnings

import numpy as np
import pytest
import soundfile

from desta_jax.audio.load import load_audio
from spoken_clips import Espeak

GREEDY = {"temperature": 0.0, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A clip in which somebody speaks, at eSpeak's 22,050 Hz."""
    file = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    with Espeak() as espeak:
        samples = np.frombuffer(espeak.say("The library is closed on Sunday.", "en-us+m3"), np.int16)
    soundfile.write(file, samples, espeak.rate)
    return str(file)


def about(clip, text=None):
    return [{"role": "user", "content": "<|AUDIO|> what?", "audios": [{"audio": clip, "text": text}]}]


def test_transcripts_are_filled_as_in_the_reference(load, clips, spoken):
    """No speech: " ", whatever was given. Speech: the text that was given, or what Whisper writes."""
    model, silent = load(), clips[0]
    requests = [about(silent, "said"), about(silent), about(spoken, "said"), about(spoken)]
    answers = model.generate(requests, **GREEDY)
    (heard,) = model.ear.listen([load_audio(spoken)], [True])
    assert [answer.transcripts for answer in answers] == [(" ",), (" ",), ("said",), (heard.transcript,)]
    assert heard.transcript == heard.transcript.strip() != ""
    given = [model.generate(about(clip, text), transcripts="given", **GREEDY)[0]
             for clip, text in ((silent, " "), (spoken, "said"), (spoken, heard.transcript))]  # fmt: skip
    assert [answers[i].token_ids for i in (0, 2, 3)] == [answer.token_ids for answer in given]
    assert answers[0].token_ids == answers[1].token_ids


def test_a_clip_may_be_a_file_its_bytes_or_samples(load, clips):
    with open(clips[0], "rb") as file:
        data = file.read()
    forms = [clips[0], data, load_audio(clips[0])]
    answers = load().generate([about(form, "said") for form in forms], transcripts="given", **GREEDY)
    assert len({answer.token_ids for answer in answers}) == 1 and answers[0].error is None


def test_a_long_clip_is_cut_with_a_warning(load, clips):
    long = clips[2]
    with pytest.warns(UserWarning, match="clip2.wav: 65 s long, only the first 30 s are heard"):
        (cut,) = load().generate(about(long, "said"), transcripts="given", **GREEDY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (first,) = load().generate(about(load_audio(long)[: 30 * 16000], "said"), transcripts="given", **GREEDY)
    assert cut.token_ids == first.token_ids


def test_windows_hear_all_of_a_long_clip(load, clips):
    samples = load_audio(clips[2])
    windows = [samples[start : start + 30 * 16000] for start in range(0, len(samples), 30 * 16000)]
    (whole,) = load().generate(about(clips[2], "said"), transcripts="given", long_audio="windows", **GREEDY)
    audios = [{"audio": window, "text": text} for window, text in zip(windows, ["said", "", ""], strict=True)]
    parts = [{"role": "user", "content": "<|AUDIO|>" * 3 + " what?", "audios": audios}]
    (apart,) = load().generate(parts, transcripts="given", **GREEDY)
    assert whole.transcripts == ("said", "", "")
    assert whole.token_ids == apart.token_ids and whole.prompt_tokens == apart.prompt_tokens
    marked = [about(clips[2], "said")[0] | {"content": "<start_audio><|AUDIO|><end_audio> what?"}]
    (marked,) = load().generate(marked, transcripts="given", long_audio="windows", **GREEDY)
    assert marked.token_ids == whole.token_ids and marked.prompt_tokens == whole.prompt_tokens
    (unspoken,) = load().generate(about(clips[2]), long_audio="windows", **GREEDY)
    assert unspoken.transcripts == (" ",) * 3


def test_words_given_to_a_clip_that_begins_with_silence_stay(load, clips, spoken):
    late = np.concatenate([np.zeros(31 * 16000, np.float32), load_audio(spoken)])
    noise = load_audio(clips[2])
    requests = [about(late, "said"), about(noise, "said")]
    late, noise = load().generate(requests, long_audio="windows", **GREEDY)
    assert late.transcripts == ("said", "") and noise.transcripts == (" ",) * 3


def test_what_is_no_audio_is_an_error_of_that_request(load, clips):
    noise = io.BytesIO(bytes(500)).getvalue()
    holes = np.array([0, np.nan, 0.1])
    requests = [about(noise, "x"), about(holes, "x"), about(clips[0], "x")]
    bad, holed, good = load().generate(requests, transcripts="given", **GREEDY)
    assert "500 bytes of audio" in bad.error and not bad.token_ids
    assert holed.error == "a clip given as an array holds NaN or infinite samples"
    assert good.error is None and good.token_ids
