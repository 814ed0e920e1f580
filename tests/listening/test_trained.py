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
    """run(*rows): the work directory of a run on such records, each (id, the paths of its clips)."""
    audio = tmp_path / "audio"

    def row_of(name, clips):
        for clip in clips:
            (audio / clip).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(audio / clip, 0.1 * np.sin(np.arange(800) / 10), 16000, subtype="PCM_16")
        audios = [{"audio": clip, "text": " "} for clip in clips]
        messages = [{"role": "user", "content": "<|AUDIO|>" * len(clips) + " Who?", "audios": audios}]
        return {"id": name, "dataset": "d", "messages": messages, "response": "A man.", "seed_description": "",
                "prompt": "Who?"}  # fmt: skip

    def run(*rows):
        manifest, records = tmp_path / "rows.jsonl", tmp_path / f"records-{len(list(tmp_path.iterdir()))}"
        manifest.write_text("".join(json.dumps(row_of(*row)) + "\n" for row in rows))
        write_records([str(manifest)], str(audio), str(records), workers=1)
        config = {"data": {"train": [str(records)], "weights": [3]}, "train": {"steps": 7, "batch_size": 2}, "seed": 5}
        workdir = records.with_name(f"{records.name}-run")
        workdir.mkdir()
        (workdir / "config.json").write_text(json.dumps(config))
        return str(workdir)

    return run


def heard(clip):
    """A row about a clip, as construct names it."""
    return clip, [clip]


def version_of(stem, number):
    """A row about a version of a clip of SAKURA, as vary.py names both."""
    return f"sakura/{stem}.flac-varied-{number}", [f"varied/{stem}-0123abcd-{number}.flac"]


def test_rows_and_clips_are_counted_by_source(run, tmp_path):
    name = f"sakura/{TRAINED}.flac"
    made = heard("espeak/a.flac"), heard(f"espeak/{TESTED}.flac")
    both = (f"{name} 2", [name, "espeak/a.flac"])
    workdir = run(heard(name), version_of(TRAINED, 0), version_of(TRAINED, 12), *made, both)
    runs = trained.trained_on([workdir], [f"sakura/{TESTED}", "stamps/a"])
    (found,) = runs
    assert (found["steps"], found["batch size"], found["seed"]) == (7, 2, 5)
    assert found["sources"] == {"espeak": {"rows": 3, "clips": 2}, "sakura": {"rows": 4, "clips": 1}}
    assert [(each["rows"], each["weight"]) for each in found["records"]] == [(6, 3)]
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
@pytest.mark.parametrize("how", ["alone", "second", "under another id", "a version"])
def test_clips_that_are_not_for_training_are_an_error(run, clip, asked, message, how):
    path = f"sakura/{clip}.flac"
    rows = {
        "alone": heard(path),
        "second": ("espeak/a.flac", ["espeak/a.flac", path]),
        "under another id": ("espeak/a.flac", [path]),
        "a version": version_of(clip, 0),
    }
    with pytest.raises(ValueError, match=message):
        trained.trained_on([run(rows[how])], asked)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="work directories"):
        trained.trained_on([str(tmp_path)])
