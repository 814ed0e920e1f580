"""The table of a micro model that knows nothing: every number is there, and nothing is asked twice."""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "table"))

import ask
import divergence
import held_out
import perception
import table

import micro_models
from desta_jax import generation
from desta_jax.generation.talk import Wish
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.weights.adapter import write_adapter
from desta_jax.weights.convert import convert
from desta_jax.weights.folder import ModelFolder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("micro")
    whisper, llama = folder / "whisper", folder / "llama"
    micro_models.make(
        whisper, micro_models.whisper_weights(), micro_models.TRANSCRIPTION, micro_models.whisper_settings
    )
    micro_models.make(llama, micro_models.llama_weights(), micro_models.CHAT, micro_models.llama_settings)
    convert(llama, whisper, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def write_random_adapter(converted, tmp_path_factory):
    """A random adapter as an export has it; `change` may change its tree."""
    opened = ModelFolder(converted)
    shape = AdapterShape(num_layers=1, prompt_size=4, tap_layers=(0, 1))
    sizes = WhisperShape.from_hf(opened.whisper_config), DecoderShape.from_hf(opened.llm_config)

    def write(seed, change=lambda tree: tree):
        random = np.random.default_rng(seed)
        tree = jax.tree.map(
            lambda leaf: random.normal(0, 0.1, leaf.shape).astype(np.float32),
            AudioLM(*sizes, shape).abstract_adapter(),
        )
        folder = tmp_path_factory.mktemp("adapter") / "adapter"
        names = {"llm_model_id": "llama", "encoder_model_id": "whisper", "placeholder_token": "<|placeholder|>"}
        write_adapter(folder, change(tree), tap_layers=shape.tap_layers, audio_seconds=1, **names)
        return folder

    return write


@pytest.fixture(scope="module")
def adapter(write_random_adapter):
    return write_random_adapter(5)


@pytest.fixture(scope="module")
def model(converted, adapter):
    return generation.load(converted, adapter=adapter, cache_programs=False)


@pytest.fixture(scope="module")
def tongue(converted):
    return ask.open_reader(str(converted), "").tongue


def tone(path, hz):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * hz * np.arange(8000) / 16000), 16000, subtype="PCM_16")


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    """A corpus of tones, and one question of SAKURA that may be asked and one that may not."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(4):
        rows.append({"audio": f"tone{number}.wav", "source": "made", "speaker": f"s{number}", "text": "Good morning."})
        rows[-1] |= {"said": "Good morning.", "gender": ("male", "female")[number % 2], "held_out": "voice"}
        tone(folder / "audio" / f"tone{number}.wav", 200 + 100 * number)
    (folder / "test").mkdir()
    (folder / "test" / "speech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    track = folder / "sakura" / "Gender"
    lines = ["file,attribute_label,single_instruction,single_answer,multi_instruction,multi_answer"]
    for name in ("clip3", "clip0"):
        tone(track / "audio" / f"{name}.wav", 300)
        lines.append(f"{name}.wav,male,Who? (a) Male (b) Female,(a) Male,Which? (a) Alto (b) Bass,(b) Bass")
    (track / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(listening, converted, adapters, out, *more):
    arguments = ["--corpus", listening, "--model", converted, "--out", out, "--sakura", listening / "sakura"]
    arguments += ["--clips", 2, "--format_clips", 1, "--divergence_clips", 1, "--batch_size", 8]
    table.main([str(each) for each in [*arguments, "--adapter", *adapters, *more]])
    return json.loads((out / "table.json").read_text())


def answered(out):
    files = [*out.rglob("answers.jsonl"), *out.rglob("compared*.jsonl"), *out.rglob("transcripts-*.jsonl")]
    return {file: file.read_text() for file in files}


def test_the_table_is_whole_and_nothing_is_asked_twice(listening, converted, adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(perception, "MAX_NEW_TOKENS", 4)  # answers of a model that knows nothing are long
    monkeypatch.setattr(table.formats, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(table.formats, "FOLLOWED", 0.0)
    few = {name: table.formats.FORMATS[name] for name in ("one word", "JSON")}
    monkeypatch.setattr(table.formats, "FORMATS", few)
    monkeypatch.setattr(table.divergence, "INSTRUCTIONS", {"poem": table.divergence.INSTRUCTIONS["poem"]})
    monkeypatch.setattr(table.hops, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(table.divergence, "ANSWER_TOKENS", 6)
    monkeypatch.setattr(table.text_only, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(table.text_only, "PROMPTS", table.text_only.PROMPTS[:2])
    given = ("--transcripts", "given")
    report = run(listening, converted, [f"self={adapter}"], tmp_path, *given)
    gender = report["perception"]["self"]["made/speech gender"]
    assert gender["count"] == 4 and gender["low"] <= gender["value"] <= gender["high"]
    assert report["perception"]["chance"]["made/speech gender"]["even"] == 50
    assert {"zeroed, 4 soft tokens", "zeroed, 4 soft tokens, no transcripts"} <= set(report["perception"])
    assert report["sakura"]["self"]["single"]["Gender"]["count"] == 1  # the other clip is trained on
    assert report["formats"]["self"]["followed"]["count"] == 1  # clip, asked in every format
    assert report["formats"]["self"]["by_format"].keys() == few.keys()
    alone, told = report["divergence"]["self"], report["divergence"]["told nothing"]
    assert alone["all"]["nats"]["value"] > 0
    less = alone["all"]["nats"]["value"] - told["all"]["nats"]["value"]
    assert alone[divergence.LESS]["nats"]["value"] == pytest.approx(less, abs=1e-3) and divergence.LESS not in told
    assert report["text"]["self"]["value"] == 100 and report["text"]["self"]["count"] == 4
    assert (tmp_path / "table.png").stat().st_size and "Gender" in (tmp_path / "table.md").read_text()
    assert "SAKURA" in capsys.readouterr().out

    def refuse(*_, **__):
        raise AssertionError("asked again")

    assert "all (4) " in (tmp_path / "table.md").read_text()
    before = answered(tmp_path)
    monkeypatch.setattr(ask.Hearer, "generate", refuse)
    monkeypatch.setattr(ask.Reader, "generate", refuse)
    monkeypatch.setattr(divergence, "compare", refuse)
    assert run(listening, converted, [f"self={adapter}"], tmp_path, *given) == report
    assert answered(tmp_path) == before
    assert run(listening, converted, [f"self={adapter}"], tmp_path, *given, "--parts", "text, sakura") == report
    with pytest.raises(SystemExit, match="perception, formats, divergence with other settings"):
        run(listening, converted, [f"self={adapter}"], tmp_path, *given, "--parts", "text,sakura", "--clips", "3")
    with pytest.raises(SystemExit, match="perception, sakura, formats, divergence with other rows"):
        run(listening, converted, [f"other={adapter}"], tmp_path, *given, "--parts", "text")


def test_answers_of_another_adapter_are_not_gone_on_with(
    listening, converted, adapter, write_random_adapter, tmp_path, monkeypatch
):
    monkeypatch.setattr(table.text_only, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(table.text_only, "PROMPTS", table.text_only.PROMPTS[:1])
    parts = ("--parts", "text", "--transcripts", "none")
    run(listening, converted, [f"self={adapter}"], tmp_path, *parts)
    with pytest.raises(SystemExit, match="choose another --out"):
        run(listening, converted, [f"self={write_random_adapter(6)}"], tmp_path, *parts)
    with pytest.raises(SystemExit, match="choose another --out"):
        run(listening, converted, [f"self={adapter}"], tmp_path, *parts, "--dtype", "bfloat16")


def test_comparisons_are_made_again_when_something_else_is_compared(model, tongue, listening, tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "INSTRUCTIONS", {"poem": divergence.INSTRUCTIONS["poem"]})
    (question,) = divergence.ask(held_out.read_clips(listening, print)[:1], 1)
    counted = []
    compare = divergence.compare
    monkeypatch.setattr(divergence, "compare", lambda *words: counted.append(words) or compare(*words))

    def measure(tokens, question=question, about="one"):
        said = {question.id: tokens}
        (row,) = divergence.measure([question], said, model, tongue, None, tmp_path / "compared.jsonl", print, about)
        return row["tokens"]

    assert (measure([9, 30]), measure([9, 30]), len(counted)) == (2, 2, 1)
    assert (measure([9, 30, 31]), measure([9, 30, 31]), len(counted)) == (3, 3, 2)
    measure([9, 30, 31], dataclasses.replace(question, fields=question.fields | {"description": "(male)"}))
    assert len(counted) == 3
    measure([9, 30, 31], about="another")
    assert len(counted) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--parts", "text,perceptions"], "name some of perception,sakura,formats,divergence,text"),
        (["--adapter", "one=a", "one=b"], "--adapter: write NAME=FOLDER"),
        (["--trained", "other=run"], "there is no adapter other"),
    ],
)
def test_wrong_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        table.read_options(["--corpus", "c", "--model", "m", "--adapter", "one=a", "--out", "o", *flags])
    assert message in capsys.readouterr().err


def test_zeroed_soft_tokens_are_those_of_a_zero_projection(model, converted, write_random_adapter):
    def silence(tree):
        return {"connector": tree["connector"] | {"proj": jax.tree.map(np.zeros_like, tree["connector"]["proj"])}}

    silent = generation.load(converted, adapter=write_random_adapter(5, silence), cache_programs=False)
    clip = np.sin(np.arange(8000) / 10).astype(np.float32)
    (expected,) = silent.ear.listen([clip], [False])
    (found,) = ask.zeroed(model).ear.listen([clip], [False])
    np.testing.assert_array_equal(np.asarray(found.soft), np.asarray(expected.soft))
    assert np.asarray(model.ear.listen([clip], [False])[0].soft).any()


def test_an_ear_that_keeps_hears_the_same(model):
    clips = [np.sin(np.arange(8000) / pace).astype(np.float32) for pace in (10, 20, 10)]
    kept = ask.KeepingEar(model.ear)
    for _ in range(2):
        for found, expected in zip(kept.listen(clips, [False] * 3), model.ear.listen(clips, [False] * 3)):
            np.testing.assert_allclose(found.soft, expected.soft, rtol=1e-5, atol=1e-6)  # another batch, another order


def wish(model, text):
    return Wish(model.prompts.inference([{"role": "user", "content": text}], []), None, ask.GREEDY, 1)


def test_the_same_prompt_does_not_diverge(model, tongue):
    one, other = wish(model, "Good morning."), wish(model, "A dog.")
    (same, both), (different, _) = divergence.compare(
        model.tongue, [one, one], tongue, [one, other], [[5, 6, 7], [5, 6]]
    )
    assert same.shape == (3,) and different.shape == (2,)
    np.testing.assert_allclose(same, 0, atol=1e-6)  # the same arithmetic; float32 sums over 640 tokens
    assert both.all() and (different > 1e-3).all()


def test_divergence_by_hand():
    p, q = np.log([[[0.5, 0.25, 0.25]]]), np.log([[[0.25, 0.5, 0.25]]])
    kl, same = divergence._compare(p.astype(np.float32), q.astype(np.float32))
    assert float(kl[0, 0]) == pytest.approx(0.25 * np.log(2), rel=1e-5)  # 0.5 ln 2 + 0.25 ln 1/2
    assert not same[0, 0]


def test_divergence_follows_the_answer_token_by_token(model, tongue):
    """Each next distribution is that of a prompt with so much of the answer already in it."""
    prompt, answer = wish(model, "Good morning."), [9, 30, 31]
    told = wish(model, "A dog.")
    ((whole, _),) = divergence.compare(model.tongue, [prompt], tongue, [told], [answer])
    for place in range(3):
        parts = [_with(each, answer[:place]) for each in (prompt, told)]
        ((last, _),) = divergence.compare(model.tongue, parts[:1], tongue, parts[1:], [answer[place : place + 1]])
        np.testing.assert_allclose(whole[place], last[0], rtol=1e-4, atol=1e-6)  # float32, another padding


def _with(asked, tokens):
    whole = np.concatenate([asked.prompt.tokens, np.array(tokens, np.int32)])
    slots = np.concatenate([asked.prompt.audio_slots, np.full(len(tokens), -1, np.int32)])
    return Wish(type(asked.prompt)(whole, slots, 0), None, ask.GREEDY, 1)
