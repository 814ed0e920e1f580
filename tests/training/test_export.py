"""A run's adapter, exported: which models it names, and where they are looked for."""

import json
import shutil

import pytest

from desta_jax.cli import main
from desta_jax.training.export import export


@pytest.fixture
def run(whole, micro, tmp_path):
    """A run and the converted folder of its model, to be changed."""
    shutil.copytree(micro / "model", tmp_path / "model")
    return shutil.copytree(whole, tmp_path / "run")


def change(file, **changes):
    content = json.loads(file.read_text())
    for key, value in changes.items():
        content[key] |= value
    file.write_text(json.dumps(content))


CONFIG = {"llm": "meta-llama/Llama-3.1-8B-Instruct", "encoder": ""}


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        (
            {
                "llm": {"source": "unsloth/Llama-3.2-1B@4b1", "revision": "4b1c"},
                "encoder": {"source": "openai/whisper-tiny", "revision": "16ab"},
            },
            ("unsloth/Llama-3.2-1B", "openai/whisper-tiny"),
        ),
        (
            {"llm": {"source": "models/llama"}, "encoder": {"source": "models/whisper@home"}},
            ("meta-llama/Llama-3.1-8B-Instruct", "models/whisper@home"),
        ),
        (
            {
                "llm": {"source": "/cache/models--x/snapshots/4b1c", "revision": "4b1c"},
                "encoder": {"source": "/cache/models--y/snapshots/16ab", "revision": "16ab"},
            },
            ("meta-llama/Llama-3.1-8B-Instruct", "/cache/models--y/snapshots/16ab"),
        ),
    ],
    ids=["from the Hub", "from folders", "from the Hub's cache"],
)
def test_the_models_are_named_as_they_were_converted_then_as_the_config_says(run, tmp_path, origins, expected):
    change(tmp_path / "model" / "desta_jax.json", **origins)
    change(run / "config.json", model=CONFIG | {"checkpoint": str(tmp_path / "model")})
    config = json.loads((export(str(run), str(tmp_path / "out")) / "config.json").read_text())
    assert (config["llm_model_id"], config["encoder_model_id"]) == expected


def test_a_folder_of_another_model_is_refused(run, tmp_path, capsys):
    change(tmp_path / "model" / "llm" / "config.json")
    settings = json.loads((tmp_path / "model" / "llm" / "config.json").read_text())
    (tmp_path / "model" / "llm" / "config.json").write_text(json.dumps(settings | {"hidden_size": 96}))
    with pytest.raises(ValueError, match=r"model is not what .*run was trained on.*--model:\n  connector.proj"):
        export(str(run), str(tmp_path / "out"), model=str(tmp_path / "model"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"seed": ', "[]", '{"sead": 1}'])
def test_a_damaged_config_is_named(run, tmp_path, content):
    (run / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"run/config\.json is not the config of a run, or is damaged"):
        export(str(run), str(tmp_path / "out"))


def test_the_converted_folder_may_be_elsewhere_by_now(run, tmp_path, capsys):
    change(run / "config.json", model={"checkpoint": "/gcs/bucket/converted"})
    command = ["export", "--workdir", str(run), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "/gcs/bucket/converted is no converted folder" in said and said.endswith("name the place with --model\n")
    assert main([*command, "--model", str(tmp_path / "model")]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
