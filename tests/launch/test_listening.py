"""launch/listening.sh and compare_answers.sh from stage to stage, with stand-ins for the commands that take hours."""

import ast
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "table"))

import divergence

from desta_jax.construct.instructions import load_pool

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

STAND_IN = """#!{python}
# Notes how it was called, and makes the folder that was asked for, with rows in it; make.py's has what it is asked for.
import json, pathlib, sys

with open({notes!r}, "a") as notes:
    notes.write(json.dumps(sys.argv[1:]) + "\\n")
flags = dict(zip(sys.argv, sys.argv[1:]))
folder = pathlib.Path(flags.get("--out") or flags.get("--workdir") or sys.argv[-1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "rows-00000-of-00001.jsonl").touch()
if sys.argv[1].endswith("make.py"):
    (folder / "train").mkdir(exist_ok=True)
    for kind in ("synthesised", "dialogue", "sound", "music"):
        (folder / "train" / f"{kind}.jsonl").write_text("" if flags.get("--sources") == "sakura" else "{}")
metadata = pathlib.Path(flags.get("--metadata", "none"))
if metadata.is_file() and not metadata.stat().st_size:
    sys.exit(f"{metadata}: no clips")
"""


@pytest.fixture
def launch(tmp_path):
    """launch(script, *arguments): runs a script; returns what was called, a list of words each."""
    notes = tmp_path / "notes.jsonl"
    for folder in ("launch", "env/bin", "SAKURA/data", "data/listening"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("listening.sh", "compare_answers.sh", "lessons.sh", "stages.sh"):
        shutil.copy(LAUNCH / name, tmp_path / "launch")
    shutil.copytree(LAUNCH.parent / "data/listening/adapter", tmp_path / "data/listening/adapter")
    programs = {"env/bin/python": STAND_IN, "env/bin/desta-jax": STAND_IN, "launch/environment.sh": "#!/bin/sh\n"}
    for name, text in programs.items():
        (tmp_path / name).write_text(text.replace("{python}", sys.executable).replace("{notes!r}", repr(str(notes))))
        (tmp_path / name).chmod(0o755)

    def launch(script, *arguments):
        notes.write_text("")
        command = [tmp_path / "launch" / script, "--sakura", tmp_path / "SAKURA", "--out", tmp_path / "out"]
        environment = os.environ | {"ENVIRONMENT": "env"}
        subprocess.run([*command, *arguments], check=True, env=environment, stdin=subprocess.DEVNULL)
        return [json.loads(line) for line in notes.read_text().splitlines()]

    return launch


@pytest.fixture
def listen(launch):
    return functools.partial(launch, "listening.sh")


@pytest.fixture
def compare(launch):
    return functools.partial(launch, "compare_answers.sh")


def flag(call, name):
    """The value of a flag, as `--name value` or `--name=value`."""
    words = [word for whole in call for word in whole.split("=", 1)]
    return words[words.index(name) + 1]


def last_flags(call):
    """The flags of a call; where one stands twice, the last counts."""
    return {name: value for name, value in zip(call, call[1:]) if name.startswith("--")}


def folder_name(path):
    return pathlib.Path(path).name


def test_each_lesson_goes_on_from_the_one_before(listen):
    calls = listen("--lessons", "1,2,3")
    trained = [call for call in calls if call[0] == "train"]
    assert [folder_name(flag(call, "--workdir")) for call in trained] == [
        "lessons_1",
        "lessons_1_2",
        "lessons_1_2_3",
    ]
    checkpoints = [folder_name(flag(call, "--config.model.checkpoint")) for call in trained]
    assert checkpoints == ["model", "lessons_1_model", "lessons_1_2_model"]
    assert [flag(call, "--config.train.steps") for call in trained] == ["1", "2", "3"]


def test_a_lesson_draws_from_rows_that_were_written(listen):
    calls = listen("--lessons", "1,2,3")
    written = {folder_name(flag(call, "--out")) for call in calls if call[0] == "records"}
    asked = [drawn_from(call) for call in calls if call[0] == "train"]
    assert set().union(*asked) == written
    assert all(name.startswith("first_") for name in asked[0])
    assert ["kinds" in lesson for lesson in asked] == [False, False, True]
    assert all(weight > 0 for lesson in asked for weight in lesson.values())


def drawn_from(call):
    """What a call to train draws from, and how often: by the names of the records."""
    folders, weights = (ast.literal_eval(flag(call, f"--config.data.{key}")) for key in ("train", "weights"))
    assert len(folders) == len(weights)
    return dict(zip(map(folder_name, folders), weights))


def test_the_first_questions_are_few_and_the_others_many(listen):
    calls = [call for call in listen("--lessons", "1,2,3") if call[0] == "construct"]
    asked = {folder_name(flag(call, "--out")): last_flags(call) for call in calls}
    for name, flags in asked.items():
        pool = load_pool([str(LAUNCH.parent / flags["--instructions"])]).without(flags["--leave_out"].split(","))
        lines = {line for section in pool.sections for line in section.lines if not section.base}
        assert (len(lines) == 6) == name.startswith("first_")


def adapter_of(calls):
    """The adapter's folder, and of which exports it is the mean."""
    (call,) = [call for call in calls if call[0].endswith("average.py")]
    assert "--overwrite" in call
    return folder_name(flag(call, "--out")), [folder_name(word) for word in call[2 : call.index("--out")]]


def test_other_lessons_are_other_runs_and_the_adapter_is_the_mean_of_the_last_two(listen):
    calls = listen("--lessons", "1,2,3")
    assert adapter_of(calls) == ("adapter", ["lessons_1_2_adapter", *["lessons_1_2_3_adapter"] * 2])
    calls = listen("--lessons", "1,2,5")
    assert adapter_of(calls) == ("adapter", ["lessons_1_2_adapter", *["lessons_1_2_5_adapter"] * 2])
    exports = [folder_name(flag(call, "--workdir")) for call in calls if call[0] == "export"]
    assert exports == ["lessons_1_2_5"]  # those before are there
    assert folder_name(flag(calls[-1], "--out")) == "lessons_1_2_5"  # the table's


def test_other_answers_are_learned_from_the_same_adapter_on_the_same_rows(compare, tmp_path):
    calls = compare("--steps", "5")
    trained = [call for call in calls if call[0] == "train"]
    own, labels = [pathlib.Path(flag(call, "--workdir")) for call in trained]
    assert (own.name, labels.name) == ("own_5", "labels_5") and own.parent == labels.parent
    assert {flag(call, "--config.train.steps") for call in trained} == {"5"}
    assert {flag(call, "--config.model.checkpoint") for call in trained} == {str(own.parent / "model")}
    start = [last_flags(call) for call in calls if call[0] == "convert"][-1]
    assert start["--out"] == str(own.parent / "model")
    assert start["--adapter"] == str(tmp_path / "data/listening/adapter")
    drawn = [drawn_from(call) for call in trained]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 6
    assert not [name for name in drawn[0] if "kinds" in name or "first" in name]
    table = calls[-1]
    adapters = {"before": start["--adapter"], "own": f"{own}_adapter", "labels": f"{labels}_adapter"}
    assert table[table.index("--adapter") + 1 : table.index("--trained")] == [
        f"{name}={folder}" for name, folder in adapters.items()
    ]
    assert table[table.index("--trained") + 1 :] == [f"own={own}", f"labels={labels}"]


def test_another_adapter_is_another_comparison(compare, tmp_path):
    first = [flag(call, "--workdir") for call in compare("--steps", "5") if call[0] == "train"]
    other = shutil.copytree(LAUNCH.parent / "data/listening/adapter", tmp_path / "other")
    with (other / "model.safetensors").open("ab") as weights:
        weights.write(b"more")
    again = [flag(call, "--workdir") for call in compare("--steps", "5", "--adapter", other) if call[0] == "train"]
    assert len(set(first + again)) == 4


def test_a_corpus_of_more_sources_is_left_as_it_is(compare, listen, tmp_path):
    listen("--lessons", "1,2,3")
    (tmp_path / "out/corpus/corpus.json").write_text("{}")
    assert not [call for call in compare() if call[0].endswith("make.py")]


@pytest.mark.parametrize("folder", ["other", "of Qwen's, 1.5B"])
def test_another_writer_answers_the_same_questions(compare, tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config.json").write_text("{}")
    calls = compare("--steps", "5", "--writer", str(tmp_path / folder))
    converted, _ = [last_flags(call) for call in calls if call[0] == "convert"][-2:]
    assert converted["--llm"] == str(tmp_path / folder)
    own, other = [last_flags(call) for call in calls if call[0] == "construct" and is_of(call, "gender")]
    assert other["--model"] == converted["--out"] != own["--model"]
    assert other.pop("--answered_in") == own["--out"]  # what the first lacks is not asked
    assert {key: own[key] for key in own if key not in ("--out", "--model")} == {
        key: other[key] for key in other if key not in ("--out", "--model")
    }
    shared = [last_flags(call) for call in calls if call[0].endswith("common.py")]
    assert len(shared) == 3 and (shared[1]["--rows"], shared[1]["--answered_in"]) == (own["--out"], other["--out"])
    labelled = [last_flags(call)["--rows"] for call in calls if call[0].endswith("label.py")]
    assert labelled == [each["--out"] for each in shared]  # the questions that both answered
    runs = [folder_name(flag(call, "--workdir")) for call in calls if call[0] == "train"]
    assert runs == ["own_5", "labels_5", "foreign_5"]
    folders = {flag(call, "--workdir").rpartition("/")[0] for call in calls if call[0] == "train"}
    assert not [each for each in folders if set("',") & set(each)]


def test_another_writer_may_be_behind_an_endpoint(compare):
    there = ["--writer", "http://localhost:8080/v1", "--writer_model", "house/Qwen2.5 1.5B"]
    calls = compare("--steps", "5", *there)
    own, other = [last_flags(call) for call in calls if call[0] == "construct" and is_of(call, "gender")]
    assert "--endpoint" not in own and other["--endpoint"] == there[1] and other["--endpoint_model"] == there[3]
    assert other["--model"] == own["--model"]  # which is asked how likely it finds those answers
    converted = [last_flags(call)["--llm"] for call in calls if call[0] == "convert"]
    assert {folder_name(model) for model in converted} == {"smollm2-135m-instruct"}


def test_splits_are_named_as_records_want_them(listen, compare):
    calls = [*listen(), *compare("--writer", "http://a/v1", "--writer_model", "Q 2.5-B")]
    splits = {flag(call, "--split") for call in calls if call[0] == "records"}
    assert len(splits) > 6 and all(re.fullmatch(r"[a-z][a-z0-9_]*", split) for split in splits)


def test_rows_of_every_kind_are_as_many_as_was_asked(listen):
    calls = listen("--lessons", "1,2,3", "--further", "5", "--rows", "7", "--sources", "sakura")
    (recorded,) = [call for call in calls if call[0] == "construct" and flag(call, "--out").endswith("recorded_7")]
    assert flag(recorded, "--rows_per_clip") == "7"
    last = [call for call in calls if call[0] == "train"][-1]
    assert folder_name(flag(last, "--workdir")) == "lessons_1_2_3_further_5_7"
    assert "every_7" in drawn_from(last)
    assert adapter_of(calls) == ("adapter", ["lessons_1_2_3_adapter", *["lessons_1_2_3_further_5_7_adapter"] * 2])
    (corpus,) = [call for call in calls if call[0].endswith("make.py")]
    assert flag(corpus, "--sources") == "sakura"


@pytest.mark.parametrize(
    ("sources", "kinds"), [("sakura", []), ("sakura,sound", ["synthesised", "dialogue", "sound", "music"])]
)
def test_kinds_of_clips_that_the_sources_lack_have_no_rows(listen, sources, kinds):
    calls = listen("--lessons", "1,2,3", "--further", "5", "--sources", sources)
    written = [folder_name(flag(call, "--out")) for call in calls if call[0] == "construct"]
    assert written[7:] == ["recorded_4", *kinds, "validation"]
    assert [flag(call, "--source") for call in calls if is_of(call, "synthesised")] == (
        ["data/listening/speech.toml"] if kinds else []
    )
    (records,) = [call for call in calls if call[0] == "records" and folder_name(flag(call, "--out")) == "every_4"]
    manifests = records[records.index("--manifest") + 1 : records.index("--audio_root")]
    assert [pathlib.Path(manifest).parent.name for manifest in manifests] == ["recorded_4", *kinds]


def is_of(call, rows):
    return call[0] == "construct" and folder_name(flag(call, "--out")) == rows


def test_the_table_is_told_of_every_lesson(listen):
    table = listen("--lessons", "1,2,3", "--further", "6")[-1]
    name, _, runs = table[table.index("--trained") + 1].partition("=")
    assert name == "own" and [folder_name(run) for run in runs.split(",")] == [
        "lessons_1",
        "lessons_1_2",
        "lessons_1_2_3",
        "lessons_1_2_3_further_6_4",
    ]


PROBES = {  # words of the kinds of instruction that the table's divergence is measured on
    "poem": "poems?|poetry|haiku|limerick",
    "child": "child|children|year-old",
    "next": "next|later|continue",
    "title": "(?<!Which )title",  # "Which title would be polite" asks for another thing
    "letter": "letters? to|e-?mail",
    "advice": "advi[cs]e",
    "film": "films?(?! for the deaf)|movies?",
    "headline": "headlines?|news",
}


def test_kinds_of_instruction_that_the_table_asks_are_not_trained_on():
    script = (LAUNCH / "lessons.sh").read_text()
    held_out = "".join(re.findall(r'^held_out\+?="(.*?)"', script, re.MULTILINE)).split(",")
    pool = load_pool([str(LAUNCH.parent / "data/listening/instructions")]).without(held_out)
    asked = [section for section in pool.sections if "clips>=" not in section.needs and section.needs != "Age"]
    lines = [line for section in asked for line in section.lines]
    assert len(lines) > 400
    assert PROBES.keys() == divergence.INSTRUCTIONS.keys()
    for kind, words in PROBES.items():
        assert re.search(rf"\b({words})\b", divergence.INSTRUCTIONS[kind])
        assert not [line for line in lines if re.search(rf"\b({words})\b", line, re.IGNORECASE)]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("listening.sh", ["--lessons", "1,2,3,4"], "--lessons must be three numbers"),
        ("listening.sh", ["--rows", "0"], "--rows must be a number above 0"),
        ("listening.sh", ["--sources", "espeak,made"], "--sources must have sakura"),
        ("listening.sh", ["--further=some"], "--further must be a number"),
        ("listening.sh", ["--louder"], "there is no argument --louder"),
        ("listening.sh", ["lessons", "1,2,3"], "there is no argument lessons"),
        ("listening.sh", ["--lessons"], "--lessons needs a value"),
        ("listening.sh", ["--sakura", ""], "--sakura must be given"),
        ("listening.sh", ["--sakura", "nowhere"], "nowhere is no checkout of SAKURA"),
        ("listening.sh", ["--out", ""], "--out needs a folder"),
        ("listening.sh", ["--out", "it's"], "without ' and , in its path"),
        ("compare_answers.sh", ["--steps", "some"], "--steps must be a number"),
        ("compare_answers.sh", ["--adapter", "nowhere"], "--adapter must be a folder with a model.safetensors"),
        ("compare_answers.sh", ["--writer", "nowhere"], "--writer must be a folder with a model's config.json"),
        ("compare_answers.sh", ["--writer", "http://there/v1"], "--writer_model goes with an endpoint"),
        ("compare_answers.sh", ["--writer_model", "other"], "--writer_model goes with an endpoint"),
        ("compare_answers.sh", ["--sakura", "nowhere"], "nowhere is no checkout of SAKURA"),
    ],
)
def test_wrong_arguments_are_refused(script, arguments, message, tmp_path):
    (tmp_path / "SAKURA/data").mkdir(parents=True)
    command = [LAUNCH / script, "--sakura", "SAKURA", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert ended.returncode == 2 and message in ended.stderr
