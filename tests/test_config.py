"""What a run is: the configs that come with the project, overrides, and errors that name every wrong key."""

import json
import os
import pathlib
import re

import pytest

from desta_jax.config import default_config, from_json, load_config, make_config, to_json

HERE = pathlib.Path(__file__).parent
CONFIGS = sorted((HERE.parent / "configs").glob("*.py"))
PAPER = str(HERE.parent / "configs" / "paper.py")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_change_of_a_run_shows_in_review(file):
    """Each config in full is kept in tests/golden/configs; UPDATE_GOLDEN=1 writes them anew."""
    golden = HERE / "golden" / "configs" / f"{file.stem}.json"
    rendered = to_json(load_config(str(file)))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(rendered + "\n")
    assert json.loads(rendered) == json.loads(golden.read_text())


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_fits_a_screen(file):
    assert len(file.read_text().splitlines()) <= 50


def test_every_config_has_its_golden_and_the_other_way_round():
    assert {f.stem for f in CONFIGS} == {f.stem for f in (HERE / "golden" / "configs").glob("*.json")}


def test_the_paper_run_is_the_papers():
    config = load_config(PAPER)
    optimizer = config.optimizer
    assert (optimizer.peak_learning_rate, optimizer.b1, optimizer.b2, optimizer.eps) == (1e-4, 0.9, 0.98, 1e-8)
    assert (optimizer.warmup_steps, optimizer.weight_decay, optimizer.clip_norm) == (5000, 0.01, 1.0)
    assert (config.train.batch_size, config.train.epochs, config.data.max_length) == (96, 5, 300)
    assert (config.adapter.num_layers, config.adapter.prompt_size, config.adapter.dropout) == (6, 64, 0.1)


def test_the_command_line_changes_any_key():
    changes = ["mesh.fsdp=16", "data.train=records/a", "data.weights=(1, 2.5)", "data.pack=true", "remat=none"]
    config = load_config(PAPER, [*changes, "data.train=('a', 'b')", "optimizer.peak_learning_rate=1"])
    assert config.mesh.fsdp == 16
    assert config.data.train == ("a", "b")
    assert config.data.pack is True
    assert config.remat == "none"
    assert config.optimizer.peak_learning_rate == 1.0 and isinstance(config.optimizer.peak_learning_rate, float)


def test_a_lone_name_is_a_tuple_of_one():
    assert load_config(PAPER, ["data.train=records/train"]).data.train == ("records/train",)


def test_a_packed_batch_is_whole_rows():
    assert make_config({"data.pack": True, "train.batch_size": 96}).train.batch_size == 96
    with pytest.raises(ValueError, match="train.batch_size: 10 clips"):
        make_config({"data.pack": True, "train.batch_size": 10})


def test_none_is_an_empty_tuple():
    assert make_config({"data.validation": None, "adapter.tap_layers": None}).data.validation == ()


def test_json_gives_the_run_back():
    config = load_config(PAPER, ["data.train=('a',)", "adapter.tap_layers=(1, 2)"])
    assert from_json(to_json(config)) == config


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(ValueError) as error:
        make_config({"optimiser.b1": 0.9, "batch_size": 3, "train.steps": "many", "mesh.zzz": 1})
    lines = str(error.value).splitlines()
    assert any("optimiser.b1: no such key; did you mean optimizer.b1?" in line for line in lines)
    assert any("batch_size: no such key; did you mean train.batch_size?" in line for line in lines)
    assert any("train.steps: expected int" in line for line in lines)
    assert any("mesh.zzz: no such key" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compute_dtype", "float16"),
        ("matmul_precision", "low"),
        ("matmul_precision", "bfloat16"),
        ("remat", "some"),
        ("adapter.num_layers", 0),
        ("adapter.dropout", 1.0),
        ("adapter.lora_rank", -1),
        ("adapter.tap_layers", (3, 1)),
        ("adapter.tap_layers", (-1, 1)),
        ("data.max_length", 64),
        ("data.clips_per_row", 0),
        ("data.audio_seconds", 31),
        ("data.weights", (1.0,)),
        ("train.batch_size", 0),
        ("train.accumulate", 7),
        ("train.epochs", 0),
        ("mesh.data", 0),
        ("checkpoint.keep", 0),
        ("optimizer.peak_learning_rate", 0.0),
        ("optimizer.warmup_steps", -1),
        ("optimizer.clip_norm", -1.0),
        ("optimizer.peak_learning_rate", float("inf")),
        ("optimizer.b1", 9.0),
        ("optimizer.b2", 1.0),
        ("optimizer.eps", 0.0),
        ("optimizer.weight_decay", -1.0),
        ("adapter.lora_alpha", 0.0),
        ("data.row_length", -7),
        ("train.max_skipped_steps", 0),
        ("seed", -1),
        ("seed", 2**40),
        ("train.steps", -1),
        ("data.threads", -1),
        ("data.workers", -1),
        ("data.prefetch", -1),
        ("evaluate.every_steps", -1),
        ("adapter.tap_layers", "7 15 23 31"),
        ("adapter.tap_layers", (1.5,)),
        ("data.weights", "1:3"),
        ("data.train", (1,)),
    ],
)
def test_a_value_that_cannot_be_names_its_key(key, value):
    with pytest.raises(ValueError, match=re.escape(key)):
        make_config({key: value})


def test_packed_rows_of_no_clips_are_refused():
    with pytest.raises(ValueError, match="data.clips_per_row: must be at least 1"):
        make_config({"data.pack": True, "data.clips_per_row": 0})


def test_reader_processes_need_room_for_a_batch():
    with pytest.raises(ValueError, match="data.prefetch: must be at least 1 with data.workers"):
        make_config({"data.prefetch": 0, "data.workers": 1})


def test_two_open_mesh_axes_are_one_too_many():
    with pytest.raises(ValueError, match="only one axis"):
        make_config({"mesh.fsdp": -1})


def test_a_missing_file_and_a_file_without_get_config(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.py"):
        load_config(str(tmp_path / "nothing.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="get_config"):
        load_config(str(tmp_path / "empty.py"))


def test_an_override_without_a_value_is_an_error():
    with pytest.raises(ValueError, match="expected --config.KEY=VALUE"):
        load_config(PAPER, ["train.steps"])


def test_a_config_takes_no_new_key():
    config = make_config({})
    with pytest.raises(AttributeError):
        config.new_key = 1
    assert config.to_dict() == default_config().to_dict()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.txt", "", "is no Python file"),
        ("run.py", "def get_config(:\n", r"run.py:1: invalid syntax.*: def get_config\(:"),
        ("run.py", "CONFIG = {}", "has no get_config"),
        ("run.py", "get_config = 5", "has no get_config"),
        ("run.py", "def get_config():\n    pass\n", r"has no get_config\(\) that returns a dict"),
        ("run.py", "import nowhere_to_be_found\n", "run.py:1: ModuleNotFoundError: No module named 'nowhere"),
        ("run.py", "def get_config():\n    return {'seed': lost}\n", "run.py:2: NameError: name 'lost' is not"),
    ],
)
def test_a_file_that_is_no_config_is_named(name, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(name)
    with pytest.raises(ValueError, match=message):
        load_config(str(tmp_path / name))
