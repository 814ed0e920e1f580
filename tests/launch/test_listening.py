"""launch/listening.sh from stage to stage, with stand-ins for the commands that take hours."""

import ast
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
def listen(tmp_path):
    """listen(*arguments): runs the script; returns what was called, a list of words each."""
    notes = tmp_path / "notes.jsonl"
    for folder in ("launch", "env/bin", "SAKURA/data"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("listening.sh", "stages.sh"):
        shutil.copy(LAUNCH / name, tmp_path / "launch")
    programs = {"env/bin/python": STAND_IN, "env/bin/desta-jax": STAND_IN, "launch/environment.sh": "#!/bin/sh\n"}
    for name, text in programs.items():
        (tmp_path / name).write_text(text.replace("{python}", sys.executable).replace("{notes!r}", repr(str(notes))))
        (tmp_path / name).chmod(0o755)

    def listen(*arguments):
        notes.write_text("")
        command = [tmp_path / "launch/listening.sh", "--sakura", tmp_path / "SAKURA", "--out", tmp_path / "out"]
        environment = os.environ | {"ENVIRONMENT": "env"}
        subprocess.run([*command, *arguments], check=True, env=environment, stdin=subprocess.DEVNULL)
        return [json.loads(line) for line in notes.read_text().splitlines()]

    return listen


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
    calls = listen("--lessons", "1,2,3,4")
    trained = [call for call in calls if call[0] == "train"]
    assert [folder_name(flag(call, "--workdir")) for call in trained] == [
        "lessons_1",
        "lessons_1_2",
        "lessons_1_2_3",
        "lessons_1_2_3_4",
    ]
    checkpoints = [folder_name(flag(call, "--config.model.checkpoint")) for call in trained]
    assert checkpoints == ["model", "lessons_1_model", "lessons_1_2_model", "lessons_1_2_3_model"]
    assert [flag(call, "--config.train.steps") for call in trained] == ["1", "2", "3", "4"]


def test_a_lesson_draws_from_rows_that_were_written(listen):
    calls = listen("--lessons", "1,2,3,4")
    written = {folder_name(flag(call, "--out")) for call in calls if call[0] == "records"}
    asked = [drawn_from(call) for call in calls if call[0] == "train"]
    assert set().union(*asked) == written
    assert all(name.startswith("first_") for name in asked[0])
    assert ["kinds" in lesson for lesson in asked] == [False, False, True, True]
    assert all(weight > 0 for lesson in asked for weight in lesson.values())


def drawn_from(call):
    """What a call to train draws from, and how often: by the names of the records."""
    folders, weights = (ast.literal_eval(flag(call, f"--config.data.{key}")) for key in ("train", "weights"))
    assert len(folders) == len(weights)
    return dict(zip(map(folder_name, folders), weights))


def test_the_first_questions_are_few_and_the_others_many(listen):
    calls = [call for call in listen("--lessons", "1,2,3,4") if call[0] == "construct"]
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
    calls = listen("--lessons", "1,2,3,4")
    assert adapter_of(calls) == ("adapter", ["lessons_1_2_3_adapter", "lessons_1_2_3_4_adapter"])
    calls = listen("--lessons", "1,2,5,6")
    assert adapter_of(calls) == ("adapter", ["lessons_1_2_5_adapter", "lessons_1_2_5_6_adapter"])
    exports = [folder_name(flag(call, "--workdir")) for call in calls if call[0] == "export"]
    assert exports == ["lessons_1_2_5", "lessons_1_2_5_6"]  # those before are there
    assert folder_name(flag(calls[-1], "--out")) == "lessons_1_2_5_6"  # the table's


def test_bare_labels_are_another_run_beside_it(listen):
    listen("--lessons", "1,2,3,4")
    calls = listen("--lessons", "1,2,3,4", "--answers", "labels")
    trained = [call for call in calls if call[0] == "train"]
    assert [folder_name(flag(call, "--workdir")) for call in trained][::3] == [
        "lessons_labels_1",
        "lessons_labels_1_2_3_4",
    ]
    drawn = [name for call in trained for name in drawn_from(call)]
    assert all(name.endswith("_labels") for name in drawn) and not [name for name in drawn if "kinds" in name]
    assert adapter_of(calls)[0] == "adapter_labels"
    assert "labels=" in " ".join(calls[-1])


def test_another_writer_answers_the_same_questions(listen, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    calls = listen("--lessons", "1,2,3,4", "--answers", "foreign", "--writer", str(tmp_path / "other"))
    other_answers = "_foreign" + str(tmp_path / "other").replace("/", "_")  # two writers' folders may share a name
    (converted,) = [call for call in calls if folder_name(last_flags(call).get("--out", "")) == f"model{other_answers}"]
    assert converted[0] == "convert" and last_flags(converted)["--llm"] == str(tmp_path / "other")
    own, other = [call for call in calls if call[0] == "construct" and "/gender" in flag(call, "--out")]
    assert [folder_name(flag(call, "--out")) for call in (own, other)] == ["gender", f"gender{other_answers}_all"]
    assert folder_name(last_flags(other)["--model"]) == f"model{other_answers}"
    shared = [folder_name(call[-1]) for call in calls if call[0].endswith("common.py")]
    assert len(shared) == 7 and f"kinds{other_answers}" in shared
    trained = [call for call in calls if call[0] == "train"]
    assert all(name.endswith(other_answers) for call in trained for name in drawn_from(call))
    assert adapter_of(calls)[0] == f"adapter{other_answers}"


def test_another_writer_may_be_behind_an_endpoint(listen):
    there = ["--writer", "http://localhost:8080/v1", "--writer_model", "house/Qwen2.5 1.5B"]
    calls = listen("--lessons", "1,2,3,4", "--answers", "foreign", *there)
    own, other = [last_flags(call) for call in calls if call[0] == "construct" and "/gender" in flag(call, "--out")]
    assert "--endpoint" not in own and other["--endpoint"] == there[1] and other["--endpoint_model"] == there[3]
    assert other["--model"] == own["--model"]  # which is asked how likely it finds those answers
    assert folder_name(other["--out"]) == "gender_foreign_house_Qwen2.5_1.5B_all"
    converted = [last_flags(call)["--llm"] for call in calls if call[0] == "convert"]
    assert {folder_name(model) for model in converted} == {"smollm2-135m-instruct"}


def test_rows_of_every_kind_are_as_many_as_was_asked(listen):
    calls = listen("--lessons", "1,2,3,4", "--further", "5", "--rows", "7", "--sources", "sakura")
    (recorded,) = [call for call in calls if call[0] == "construct" and flag(call, "--out").endswith("recorded_7")]
    assert flag(recorded, "--rows_per_clip") == "7"
    last = [call for call in calls if call[0] == "train"][-1]
    assert folder_name(flag(last, "--workdir")) == "lessons_1_2_3_4_further_5_7"
    assert "every_7" in drawn_from(last)
    assert adapter_of(calls) == ("adapter", ["lessons_1_2_3_4_adapter", "lessons_1_2_3_4_further_5_7_adapter"])
    (corpus,) = [call for call in calls if call[0].endswith("make.py")]
    assert flag(corpus, "--sources") == "sakura"


@pytest.mark.parametrize(("sources", "kinds"), [("sakura", []), ("all", ["synthesised", "dialogue", "sound", "music"])])
def test_kinds_of_clips_that_the_sources_lack_have_no_rows(listen, sources, kinds):
    calls = listen("--lessons", "1,2,3,4", "--further", "5", "--sources", sources)
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
    table = listen("--lessons", "1,2,3,4", "--further", "6")[-1]
    name, _, runs = table[table.index("--trained") + 1].partition("=")
    assert name == "own" and [folder_name(run) for run in runs.split(",")] == [
        "lessons_1",
        "lessons_1_2",
        "lessons_1_2_3",
        "lessons_1_2_3_4",
        "lessons_1_2_3_4_further_6_4",
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
    script = (LAUNCH / "listening.sh").read_text()
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
    ("arguments", "message"),
    [
        (["--lessons", "1,2,3"], "--lessons must be four numbers"),
        (["--rows", "0"], "--rows must be a number above 0"),
        (["--answers", "mine"], "--answers must be own, labels or foreign"),
        (["--answers", "labels", "--further", "1"], "goes without --further"),
        (["--answers", "foreign"], "needs --writer"),
        (["--writer", "other"], "--writer goes with --answers foreign"),
        (["--answers", "foreign", "--writer", "http://there/v1"], "--writer_model goes with an endpoint"),
        (["--writer_model", "other"], "--writer_model goes with an endpoint"),
        (["--further", "some"], "--further must be a number"),
        (["--louder"], "there is no argument --louder"),
        (["--sakura", "nowhere"], "nowhere is no checkout of SAKURA"),
        (["--out", "it's"], "without ' and , in its path"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path):
    (tmp_path / "SAKURA/data").mkdir(parents=True)
    command = [LAUNCH / "listening.sh", "--sakura", "SAKURA", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert ended.returncode == 2 and message in ended.stderr
