"""What the table says of an adapter's training, from its runs' own records."""

import json
import pathlib
import sys

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "table"))

import trained

from desta_jax.records.write import write_records

TRAINED, TESTED, UNTOUCHED = "clip1", "clip3", "clip0"  # by the CRC-32 of these names


@pytest.fixture
def run(tmp_path):
    """run(*ids): the work directory of a run on records with these ids; their one clip does not matter."""
    soundfile.write(tmp_path / "tone.wav", 0.1 * np.sin(np.arange(8000) / 10), 16000, subtype="PCM_16")

    def run(*ids):
        messages = [{"role": "user", "content": "<|AUDIO|> Who?", "audios": [{"audio": "tone.wav", "text": " "}]}]
        row = {"dataset": "d", "messages": messages, "response": "A man.", "seed_description": "", "prompt": "Who?"}
        manifest, records = tmp_path / "rows.jsonl", tmp_path / f"records-{len(list(tmp_path.iterdir()))}"
        manifest.write_text("".join(json.dumps(row | {"id": name}) + "\n" for name in ids))
        write_records([str(manifest)], str(tmp_path), str(records), workers=1)
        config = {"data": {"train": [str(records)], "weights": [3]}, "train": {"steps": 7, "batch_size": 2}, "seed": 5}
        workdir = records.with_name(f"{records.name}-run")
        workdir.mkdir()
        (workdir / "config.json").write_text(json.dumps(config))
        return str(workdir)

    return run


def test_rows_and_clips_are_counted_by_source(run, tmp_path):
    name = f"sakura/{TRAINED}.flac"
    workdir = run(name, f"{name}-varied-0", f"{name}-varied-12", "espeak/a.flac", f"espeak/{TESTED}.flac")
    runs = trained.trained_on([workdir], [f"sakura/{TESTED}", "stamps/a"])
    (found,) = runs
    assert (found["steps"], found["batch size"], found["seed"]) == (7, 2, 5)
    assert found["sources"] == {"espeak": {"rows": 2, "clips": 2}, "sakura": {"rows": 3, "clips": 1}}
    assert [(each["rows"], each["weight"]) for each in found["records"]] == [(5, 3)]
    known = {"sakura": {"licence": "CC0"}, "espeak": {"licence": "none"}, "music": {"licence": "other"}}
    (tmp_path / "corpus.json").write_text(json.dumps({"sources": known}))
    assert trained.licences(tmp_path, runs) == {"espeak": "none", "sakura": "CC0"}
    (tmp_path / "corpus.json").write_text(json.dumps({"sources": {"sakura": {"licence": "CC0"}}}))
    with pytest.raises(ValueError, match="no source espeak"):
        trained.licences(tmp_path, runs)


@pytest.mark.parametrize(
    ("clip", "asked", "message"),
    [
        (TESTED, [], "for testing only"),
        (UNTOUCHED, [], "not to be touched"),
        ("dia1_utt2", [], "which is of MELD"),
        (TRAINED, [f"sakura/{TRAINED}"], "which is asked about"),
    ],
)
def test_clips_that_are_not_for_training_are_an_error(run, clip, asked, message):
    with pytest.raises(ValueError, match=message):
        trained.trained_on([run(f"sakura/{clip}.flac-varied-0")], asked)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="work directories"):
        trained.trained_on([str(tmp_path)])
