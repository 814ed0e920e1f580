"""Every benchmark from its data to its table, by the command line, with a micro model: what it says is noise, and every
answer, figure and count must be there all the same."""

import functools
import importlib
import json
import shutil

import pytest

from desta_jax import cli
from desta_jax.evaluation.judge import ModelJudge
from desta_jax.evaluation.run import BENCHMARKS
from desta_jax.generation.model import Model
from desta_jax.verbs import evaluate

QUESTIONS = {"dynamic_superb": 3, "mmau": 3, "sakura": 4, "speech_ifeval": 3, "voicebench": 4}


@pytest.fixture(scope="module")
def data(mmau, tmp_path_factory, write_wav, write_jsonl):
    """A few clips and questions of each benchmark."""
    root = tmp_path_factory.mktemp("benchmarks")
    (root / "mmau").symlink_to(mmau)
    superb = {"EmotionRecognition_MELD": ["happy", "sad"], "SuperbASR_LibriSpeech-TestClean": ["one two"]}
    for task, labels in superb.items():
        rows = [{"instruction": "What?", "label": label, "file": f"{label}.wav"} for label in labels]
        for row in rows:
            write_wav(root / "dynamic_superb" / task / row["file"])
        write_jsonl(root / "dynamic_superb" / task / "test.jsonl", [row | {"audio": row["file"]} for row in rows])
    lines = ["file,attribute_label,single_instruction,single_answer,multi_instruction,multi_answer"]
    for clip in ("dog.wav", "cow.wav"):
        lines.append(f"{clip},dog,Which? (a) cow (b) dog,(b) dog,Does it moo? (a) yes (b) no,(b) no")
        write_wav(root / "sakura/Animal/audio" / clip)
    (root / "sakura/Animal/metadata.csv").write_text("\n".join(lines) + "\n")
    asked = {"instruction_id_list": ["change_case:english_capital"], "kwargs": [{}], "audio_filepath": "a.wav"}
    subsets = {"closed_ended_questions": "accuracy", "creative_writing": "open", "chain-of-thought": "cot"}
    for subset, metric in subsets.items():
        row = {"id": 0, "instruction": "Say it.", "metric": metric, "label": "yes", "dataset": "MMAU", **asked}
        write_jsonl(root / "speech_ifeval/eval_data" / f"{subset}.jsonl", [row])
    write_wav(root / "speech_ifeval/audios/a.wav")
    sets = {"commoneval": {}, "sd-qa": {"reference": "Ann"}, "mmsu": {"reference": "A"}, "advbench": {}}
    for name, row in sets.items():
        write_jsonl(root / "voicebench" / f"{name}.jsonl", [{"prompt": "Who?", "audio": "clip.wav", **row}])
    write_wav(root / "voicebench/clip.wav")
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Verdicts are short; and programs of tests are not for the user's cache."""
    monkeypatch.setattr("desta_jax.evaluation.run.ModelJudge", functools.partial(ModelJudge, max_new_tokens=4))
    for module in ("desta_jax.generation.load", "desta_jax.generation.text"):
        monkeypatch.setattr(importlib.import_module(module), "keep_programs", lambda: None)


@pytest.fixture
def command(micro_model, micro_adapter):
    """Runs `desta-jax evaluate` on the micro model."""

    def run(*arguments):
        given = ["--model", str(micro_model), "--adapter", str(micro_adapter), "--max_new_tokens", "4"]
        return cli.main(["evaluate", *given, *map(str, arguments)])

    return run


def test_all_five_from_clips_to_a_table(command, data, tmp_path, capsys):
    assert command("--benchmark=all", "--data", data, "--out", tmp_path, "--judge=self", "--name=micro") == 0
    whole = json.loads((tmp_path / "scores.json").read_text())
    assert whole["missing benchmarks"] == []
    for name, count in QUESTIONS.items():
        report = whole["benchmarks"][name]
        assert (report["questions"], report["answered"], report["complete"]) == (count, count, True)
        rows = [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        assert len(rows) == count and all(len(row["token_ids"]) <= 4 for row in rows)
        assert report["judge"] == (None if name == "mmau" else "micro, which answered")  # which rules score
        assert report["model"] == "micro"
        assert json.loads((tmp_path / name / "scores.json").read_text()) == report
    judged = whole["benchmarks"]["sakura"]
    assert judged["scores"]["single"]["average"] == {"value": 0.0, "count": 2}  # noise is no verdict, and never right
    assert judged["problems"]["verdicts out of format"]["count"] == 4
    shown = capsys.readouterr().out
    for benchmark in BENCHMARKS.values():
        assert f"## {benchmark.title}" in shown and f"## {benchmark.title}" in (tmp_path / "scores.md").read_text()
    assert "| micro " in shown and "| DeSTA2.5-Audio " in shown


def test_a_run_that_was_stopped_goes_on_to_the_same_scores(command, data, tmp_path, monkeypatch):
    run = ["--benchmark=mmau", "--data", data / "mmau", "--batch_size=1"]
    assert command(*run, "--out", tmp_path / "whole") == 0
    generate, calls = Model.generate, []

    def stopped(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Model, "generate", stopped)
        assert command(*run, "--out", tmp_path / "cut") == cli.INTERRUPTED
    cut = tmp_path / "cut" / "predictions.jsonl"
    assert len(cut.read_text().splitlines()) == 1 and not (tmp_path / "cut" / "scores.json").exists()
    cut.write_text(cut.read_text() + '{"id": "q1", "te')  # what a kill in mid-write leaves
    assert command(*run, "--out", tmp_path / "cut") == 0
    assert cut.read_text() == (tmp_path / "whole" / "predictions.jsonl").read_text()
    assert (tmp_path / "cut" / "scores.json").read_text() == (tmp_path / "whole" / "scores.json").read_text()


def test_a_name_lets_no_other_model_go_on_with_the_answers(command, data, micro_model, micro_adapter, tmp_path, capsys):
    shutil.copytree(micro_adapter, tmp_path / "other")
    run = ["--benchmark=mmau", "--data", data / "mmau", "--limit=1", "--name=ours", "--out", tmp_path / "out"]
    assert command(*run) == 0
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    asked = {name: settings[name] for name in ("model", "adapter", "step", "dtype")}
    assert asked == {"model": str(micro_model), "adapter": str(micro_adapter), "step": None, "dtype": "float32"}
    assert json.loads((tmp_path / "out/scores.json").read_text())["model"] == "ours"
    assert command(*run, "--adapter", tmp_path / "other") == 1
    assert f"adapter: '{micro_adapter}' then, '{tmp_path / 'other'}' now" in capsys.readouterr().err
    assert command(*run, "--name=again") == 0
    assert json.loads((tmp_path / "out/scores.json").read_text())["model"] == "again"


def test_the_newest_checkpoint_of_a_work_directory_is_named(command, data, tmp_path, monkeypatch):
    monkeypatch.setattr("desta_jax.generation.chosen_step", lambda *_: 7)
    asked = {}
    monkeypatch.setattr("desta_jax.evaluation.run.evaluate", lambda *_, about, **__: asked.update(about) or {})
    monkeypatch.setattr("desta_jax.evaluation.run.summarise", str)
    assert command("--benchmark=mmau", "--data", data / "mmau", "--name=ours", "--out", tmp_path) == 0
    assert asked["step"] == 7


def test_part_of_a_benchmark_says_so(command, data, tmp_path, capsys):
    (tmp_path / "mmau/clips").mkdir(parents=True)
    questions = (data / "mmau/mmau-test-mini.json").read_text()
    (tmp_path / "mmau/mmau-test-mini.json").write_text(questions)
    (tmp_path / "mmau/clips/q0.wav").write_bytes((data / "mmau/clips/q0.wav").read_bytes())
    (tmp_path / "mmau/clips/q1.wav").write_bytes(b"no sound")
    run = ["--benchmark=mmau", "--data", tmp_path / "mmau", "--out", tmp_path / "out"]
    assert command(*run) == 0
    shown = capsys.readouterr()
    assert "PARTIAL: 1 of 3 questions answered (33.3 %)" in shown.out
    assert "| failed predictions | 2     | q1, q2" in shown.out
    assert "2 could not be answered" in shown.err
    errors = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    by_name = {row["id"]: row.get("error", "") for row in errors}
    assert "q1.wav" in by_name["q1"] and "missing audio" in by_name["q2"]


def test_a_judge_that_is_not_converted_yet_is_refused(command, data, tmp_path, capsys):
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text("{}")
    run = ["--benchmark=mmau", "--data", data / "mmau", "--out", tmp_path / "out", "--judge", tmp_path / "llama"]
    assert command(*run) == 1
    assert "llama is a Hugging Face folder; run `desta-jax convert` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["--split=test-maxi"], 1, "unknown split 'test-maxi'"),
        (["--judge=verdicts/of/mine"], 1, "there is no verdicts/of/mine"),
        (["--user={sound}?"], 1, "it may name {question}, {options}, {audio}"),
        (["--benchmark=mmlu"], 2, "mmlu"),
        (["--predictions=p.jsonl"], 2, "give only one of --model"),
        (["--data=lost"], 1, "there is no lost"),
        (["--data=gs://bucket/mmau"], 2, "local disk"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(command, data, tmp_path, capsys, arguments, status, message):
    run = ["--benchmark=mmau", "--data", data / "mmau", "--out", tmp_path]
    assert command(*run, *arguments) == status
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
    assert not (tmp_path / "scores.json").exists()


def test_a_folder_without_an_adapter_can_judge(data, micro_model, tmp_path):
    rows = "".join(json.dumps({"id": f"Animal/{hop}/dog", "text": "(b) dog"}) + "\n" for hop in ("single", "multi"))
    (tmp_path / "p.jsonl").write_text(rows)
    run = ["--benchmark=sakura", f"--data={data}/sakura", f"--predictions={tmp_path}/p.jsonl", f"--out={tmp_path}/o"]
    assert cli.main(["evaluate", *run, f"--judge={micro_model}"]) == 0
    report = json.loads((tmp_path / "o/scores.json").read_text())
    assert report["judge"] == str(micro_model) and report["answered"] == 2 and report["questions"] == 4
    assert report["problems"]["missing predictions"]["count"] == 2


def test_the_command_knows_every_benchmark():
    assert set(evaluate.BENCHMARKS) == set(BENCHMARKS)
