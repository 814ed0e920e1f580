"""`desta-jax construct` on metadata in which most things are wrong: each is named, and the rest goes on."""

import importlib.util
import json

import jax
import pytest

from desta_jax import cli

GOOD = {"0.wav": "One.", "4.wav": "The train is late, as always."}
ROWS = [
    b"audio,text,start,end,colour",
    b"0.wav,One.,0,0.4,red",
    b"lost.wav,Two.,0,0.4,red",
    b"1.wav,Caf\xe9.,0,0.4,red",
    b"2.wav,Three.,soon,0.4,red",
    b"3.wav,Four.,0.4,0.1,red",
    b"2.wav,too few cells",
    b"broken.wav,Five.,0,0.4,red",
    b'4.wav,"The train is late, as always.",0,0.4,red',
]
OTHER = ["--out=o", "--endpoint=http://x/v1", "--endpoint_model=y"]
WRONG = {3: "missing_audio", 4: "invalid_utf8", 5: "bad_time", 6: "bad_time", 7: "wrong_cells", 8: "bad_audio"}


@pytest.fixture
def metadata(spoken, tmp_path):
    (tmp_path / "audio").mkdir()
    for number in range(5):
        (tmp_path / "audio" / f"{number}.wav").write_bytes((spoken / f"{number}.wav").read_bytes())
    (tmp_path / "audio" / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "turns.csv").write_bytes(b"\n".join(ROWS) + b"\n")
    return tmp_path


def test_bad_rows_are_named_and_the_others_become_rows(metadata, serve, reply_with, capsys):
    server = serve(lambda body, times: reply_with("Somebody says so."))
    given = ["--metadata", metadata / "turns.csv", "--source", "dialogue", "--audio_root", metadata / "audio"]
    writer = ["--endpoint", server.url, "--endpoint_model", "other", "--out", metadata / "out"]
    assert cli.main(["construct", *map(str, [*given, *writer])]) == 0
    problems = [json.loads(line) for line in (metadata / "out/problems.jsonl").read_text().splitlines()]
    named = {int(each["place"].removeprefix("turns.csv:")): each["reason"] for each in problems}
    assert {line: reason for line, reason in named.items() if line > 2} == WRONG
    (columns,) = [each["detail"] for each in problems if each["reason"] == "unknown_column"]
    assert "no column 'speaker', 'emotion', 'gender', 'language' in this metadata" in columns and "colour" in columns
    shown = capsys.readouterr().err
    assert all(f"turns.csv:{line}: {reason}: " in shown for line, reason in WRONG.items())
    rows = [json.loads(line) for path in (metadata / "out").glob("rows-*") for line in path.read_text().splitlines()]
    assert {row["id"]: row["messages"][1]["audios"][0]["text"] for row in rows} == GOOD
    report = json.loads((metadata / "out/report.json").read_text())
    assert report["clips"] == 2 and report["metadata_problems"]["bad_time"] == 2


def test_what_the_report_needs_is_missed_before_anything_is_written(metadata, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    given = ["--metadata", metadata / "turns.csv", "--source", "dialogue", "--audio_root", metadata / "audio"]
    writer = ["--endpoint", "http://localhost:1", "--endpoint_model", "other", "--out", metadata / "out"]
    assert cli.main(["construct", *map(str, [*given, *writer])]) == 1
    assert 'the report needs matplotlib: pip install -e ".[construct]"' in capsys.readouterr().err
    assert not (metadata / "out").exists()
    assert cli.main(["construct", *map(str, given), "--describe_only"]) == 0


def test_the_same_audio_twice_is_named_where_rows_are_whole_clips(metadata, capsys):
    (metadata / "m.csv").write_text("audio,text\n0.wav,One.\n0.wav,Two.\n")
    given = ["--metadata", metadata / "m.csv", "--source", "speech", "--describe_only"]
    assert cli.main(["construct", *map(str, given)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "0.wav\tOne.\n" and "m.csv:3: duplicate_id: 0.wav is already described by m.csv:2" in shown.err


def test_a_process_that_is_done_waits_for_the_others_as_long_as_it_takes(metadata, monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *where, **options: joined.append((where, options)))
    for name, value in (("COORDINATOR_ADDRESS", "host:1"), ("NUM_PROCESSES", "4"), ("PROCESS_ID", "3")):
        monkeypatch.setenv(f"JAX_{name}", value)
    given = ["--metadata", metadata / "lost.csv", "--source", "speech", "--out", metadata / "o", "--model", "m"]
    assert cli.main(["construct", *map(str, given)]) == 1
    (((address, count, number), options),) = joined
    assert (address, count, number) == ("host:1", 4, 3) and options["shutdown_timeout_seconds"] > 7 * 24 * 3600


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        ([], 1, "--out is missing"),
        (["--out=o"], 1, "--model is missing: a folder from `desta-jax convert` (or --endpoint"),
        ([*OTHER, "--model=m"], 1, "m is no converted folder"),
        (["--out=o", "--endpoint=http://x/v1"], 1, "--endpoint needs --endpoint_model"),
        (["--out=o", "--model=nowhere"], 1, "nowhere is no converted folder"),
        ([*OTHER, "--source=speach"], 1, "did you mean 'speech'?"),
        ([*OTHER, "--metadata=lost.csv"], 1, "lost.csv: no such metadata"),
        (["--out=o", "--model=m", "--rows_per_clip=0"], 2, "rows_per_clip"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(metadata, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(metadata)
    given = ["--metadata", str(metadata / "turns.csv"), "--source", "speech"]
    assert cli.main(["construct", *given, *arguments]) == status
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and not (metadata / "o").exists()
