"""Metadata of synthesised clips to rows, to records, to training steps."""

import json

import numpy as np
import pyarrow
import pytest
import soundfile

from desta_jax.config import make_config
from desta_jax.construct.run import construct
from desta_jax.records.write import write_records
from desta_jax.training.loop import COMPLETE, train


@pytest.fixture
def teacher(serve, reply_with):
    """An endpoint that describes what it read; every tenth reply is a refusal."""
    count = iter(range(10**6))

    def answer(body, _):
        if next(count) % 10 == 9:
            return reply_with("I'm sorry, but I can't hear that.")
        mood = next((mood for mood in ("happy", "sad", "angry", "calm") if mood in str(body["messages"])), "some")
        return reply_with(f"A {mood} voice says one thing.")

    return serve(answer)


def build(spoken, out, teacher, **options):
    return construct(
        str(spoken / "metadata.csv"),
        "speech",
        None,
        str(out),
        audio_root=str(spoken),
        endpoint=teacher.url,
        endpoint_model="teacher",
        rows_per_clip=2,
        several_clips=0.2,
        shard=8,
        say=lambda line: None,
        **options,
    )


def test_metadata_to_rows_to_records_to_training_steps(spoken, model_folder, teacher, tmp_path):
    summary = build(spoken, tmp_path / "rows", teacher)
    assert summary["requests"] == 24 and summary["clips"] == 12
    assert summary["rows"] + sum(summary["dropped"].values()) == 24 and summary["dropped"]["refusal"] == 2
    assert sum(counts["rows"] for counts in summary["by_category"].values()) == summary["rows"]
    manifests = sorted(str(path) for path in (tmp_path / "rows").glob("rows-*.jsonl"))
    quiet = {"report": lambda line: None}
    records = write_records(manifests, str(spoken), str(tmp_path / "records"), shards=1, workers=1, **quiet)
    assert records["records"] == summary["rows"]
    config = make_config(
        {
            "compute_dtype": "float32",
            "model.checkpoint": str(model_folder[0]),
            "adapter.num_layers": 1,
            "adapter.prompt_size": 4,
            "adapter.tap_layers": (0, 1),
            "adapter.placeholder_token": "<|placeholder|>",
            "data.train": (str(tmp_path / "records"),),
            "data.max_length": 448,
            "data.audio_seconds": 2,
            "data.threads": 1,
            "train.batch_size": 8,
            "train.steps": 2,
            "optimizer.warmup_steps": 1,
            "checkpoint.every_steps": 2,
            "log.every_steps": 1,
            "log.tensorboard": False,
            "remat": "none",
            "data.validation": (str(tmp_path / "records"),),
            "data.validation_max_length": 448,
            "evaluate.benchmarks": "mmau=somewhere",
            "evaluate.benchmark_every_steps": 1,
        }
    )
    shown = {"prompt": "What?", "expected": "A voice.", "answer": "A dog."}
    hooks = {"answers": lambda run, frozen, adapter: [shown], "scores": lambda run, frozen, adapter, step: {"x": step}}
    assert train(config, str(tmp_path / "run"), **hooks) == COMPLETE
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "loss" in row] == [1, 2]
    assert all(np.isfinite(row["loss"]) and row["label_tokens"] > 0 for row in metrics if "loss" in row)
    assert json.loads((tmp_path / "run" / "answers.jsonl").read_text()) == {"step": 2, **shown}
    figures = [json.loads(line) for line in (tmp_path / "run" / "benchmarks.jsonl").read_text().splitlines()]
    assert figures == [{"step": 1, "x": 1}, {"step": 2, "x": 2}]


def test_the_report_the_plots_and_the_card_are_there(spoken, teacher, tmp_path):
    summary = build(spoken, tmp_path, teacher)
    assert json.loads((tmp_path / "report.json").read_text()) == summary
    for name in ("categories", "dropped", "words"):
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\n") and "teacher" in card and "A happy voice says one thing." in card
    assert "| refusal | 2 |" in card


def test_calling_again_asks_nothing_and_says_the_same(spoken, teacher, tmp_path):
    first = build(spoken, tmp_path, teacher)
    asked = sum(teacher.asked.values())
    assert build(spoken, tmp_path, teacher) == first and sum(teacher.asked.values()) == asked
    with pytest.raises(ValueError, match="another plan: .*seed was 0 and is now 1"):
        build(spoken, tmp_path, teacher, seed=1)


def test_our_own_model_writes_what_its_filters_account_for(spoken, model_folder, tmp_path):
    """A random model's replies are cut or odd; each is a row or a drop, and the rows have a perplexity."""
    from desta_jax.construct.generators import Writing

    options = {"writing": Writing(max_new_tokens=8), "several_clips": 0, "say": lambda line: None}
    arguments = (str(spoken / "metadata.csv"), "speech", str(model_folder[0]), str(tmp_path))
    summary = construct(*arguments, limit=5, dtype="float32", **options)
    assert summary["requests"] == 5 == summary["rows"] + sum(summary["dropped"].values())
    assert (summary["perplexity"] is None) == (summary["rows"] == 0)


def test_the_backbone_is_asked_how_likely_it_finds_what_another_wrote(spoken, model_folder, teacher, tmp_path):
    arguments = (str(spoken / "metadata.csv"), "speech", str(model_folder[0]), str(tmp_path))
    other = {"endpoint": teacher.url, "endpoint_model": "teacher", "dtype": "float32", "say": lambda line: None}
    perplexity = construct(*arguments, limit=5, **other)["perplexity"]
    assert perplexity["model"] == str(model_folder[0]) and perplexity["rows"] and perplexity["median"] > 1
    assert f"under {model_folder[0]}: " in (tmp_path / "README.md").read_text()


def test_another_writer_is_asked_only_what_the_first_has_rows_for(spoken, teacher, serve, reply_with, tmp_path):
    first = build(spoken, tmp_path / "first", teacher)
    other = serve(lambda body, _: reply_with("That is a voice of some mood."))
    again = build(spoken, tmp_path / "again", other, answered_in=str(tmp_path / "first"))
    assert first["rows"] < first["requests"] and again["requests"] == first["rows"] == sum(other.asked.values())
    assert rows_but_responses(tmp_path / "again") == rows_but_responses(tmp_path / "first")


def rows_but_responses(folder):
    rows = [json.loads(line) for shard in sorted(folder.glob("rows-*")) for line in shard.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "response"} for row in rows]


def test_rows_of_other_requests_are_no_measure_of_what_to_ask(spoken, teacher, tmp_path):
    build(spoken, tmp_path / "first", teacher)
    with pytest.raises(ValueError, match=r"of the \d+ requests answered in .*first are none of these 24"):
        build(spoken, tmp_path / "again", teacher, answered_in=str(tmp_path / "first"), seed=1)
    (tmp_path / "first" / "report.json").unlink()
    with pytest.raises(ValueError, match="first is no folder that construct wrote to the end"):
        build(spoken, tmp_path / "again", teacher, answered_in=str(tmp_path / "first"))
    assert not (tmp_path / "again").exists()


def test_describe_only_prints_and_writes_nothing(spoken, tmp_path):
    shown, said = [], []
    metadata = tmp_path / "m.csv"
    metadata.write_text("audio,text\na.wav,Hi.\na.wav,Ho.\n")
    assert (
        construct(str(metadata), "speech", None, None, describe_only=True, show=shown.append, say=said.append) is None
    )
    assert shown == ["a.wav\tHi."] and any("m.csv:3: duplicate_id" in line for line in said)
    assert list(tmp_path.iterdir()) == [metadata]


def test_metadata_of_nothing_is_an_error_with_describe_only_too(tmp_path):
    for content in ("", "audio,text\n"):
        (tmp_path / "m.csv").write_text(content)
        with pytest.raises(ValueError, match=r"m\.csv"):
            construct(str(tmp_path / "m.csv"), "speech", None, None, describe_only=True, say=str)


def test_a_folder_of_something_else_is_left_as_it_is(spoken, teacher, tmp_path):
    (tmp_path / "README.md").write_text("my own notes")
    with pytest.raises(ValueError, match="holds no run of construct, which would replace the README.md there"):
        build(spoken, tmp_path, teacher)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "my own notes"


def test_audio_inside_the_metadata_is_written_to_files(serve, reply_with, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(16000), 16000)
    data = (tmp_path / "x.wav").read_bytes()
    table = pyarrow.table({"audio": [{"bytes": data, "path": "one.wav"}], "transcript": ["Hello."]})
    (tmp_path / "set").mkdir()
    with pyarrow.ipc.new_stream(str(tmp_path / "set" / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    server = serve(lambda body, times: reply_with("Somebody says hello."))
    out, said = tmp_path / "out", []
    construct(str(tmp_path / "set"), "globe", None, str(out), endpoint=server.url, endpoint_model="m", say=said.append)
    assert f"are in {out / 'audio'}, the --audio_root of `desta-jax records`" in said[0]
    (row,) = [json.loads(line) for path in out.glob("rows-*") for line in path.read_text().splitlines()]
    assert row["id"] == "one.wav" and "Duration: 1s" in row["seed_description"]
    assert (out / "audio" / "one.wav").read_bytes() == data
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("name, out, message", [("../x.wav", "out", "leads out of"), ("x.wav", "gs://b/out", "local")])
def test_audio_inside_the_metadata_stays_inside_a_local_folder(tmp_path, name, out, message):
    table = pyarrow.table({"audio": [{"bytes": b"RIFF", "path": name}], "transcript": ["Hello."]})
    (tmp_path / "set").mkdir()
    with pyarrow.ipc.new_stream(str(tmp_path / "set" / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    out = out if "://" in out else str(tmp_path / out)
    with pytest.raises(ValueError, match=message):
        construct(str(tmp_path / "set"), "globe", None, out, endpoint="http://x/v1", endpoint_model="m", say=str)
    assert not (tmp_path / "x.wav").exists()


ELSEWHERE = {"model": None, "endpoint": "http://x/v1", "endpoint_model": "m"}  # no folder of a model is looked for


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"out": None}, "--out is missing"),
        ({"model": None}, "--model is missing"),
        ({"model": "nowhere"}, "nowhere is no converted folder"),
        ({"endpoint": "http://x/v1"}, "--endpoint needs --endpoint_model"),
        ({"endpoint_model": "m"}, "--endpoint_model is a model at an endpoint"),
        ({**ELSEWHERE, "audio_root": "nowhere"}, "--audio_root: no such folder nowhere"),
        ({**ELSEWHERE, "instructions": ("/",)}, "no .txt file of instructions"),
        ({**ELSEWHERE, "measure": ("pitch",)}, "--audio_root"),
        ({**ELSEWHERE, "metadata": "lost.csv"}, "lost.csv: no such metadata"),
    ],
)
def test_what_cannot_be_done_is_refused(spoken, tmp_path, arguments, message):
    given = {"metadata": str(spoken / "metadata.csv"), "source": "speech", "model": "m", "out": str(tmp_path / "o")}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        construct(**{**given, **arguments}, say=lambda line: None)
    assert not (tmp_path / "o").exists()


def test_metadata_without_a_usable_row_is_refused_with_the_first_problem(tmp_path):
    (tmp_path / "m.csv").write_text("audio,text\n,Hi.\n")
    with pytest.raises(ValueError, match=r"no row that can be used .*no_audio_path 1.*m.csv:2: .*'audio' is empty"):
        construct(str(tmp_path / "m.csv"), "sound", out=str(tmp_path / "o"), say=str, **ELSEWHERE)
