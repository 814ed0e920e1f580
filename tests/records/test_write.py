"""Writing records: the same bytes every time, whatever happens on the way."""

import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from desta_jax.audio import load
from desta_jax.records import schema, workers, write
from desta_jax.records.read import RecordSource
from desta_jax.records.shard import ShardNote, ShardTask, usable_note


def rejected(out):
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]


def test_a_record_holds_the_row_and_its_sound(twelve, records, row):
    sample = schema.decode(RecordSource(records)[2])
    fields = row(2, clips=2)
    assert sample.messages == fields["messages"]
    assert [getattr(sample, key) for key in ("id", "dataset", "response", "seed_description", "prompt")] == [
        fields[key] for key in ("id", "dataset", "response", "seed_description", "prompt")
    ]
    for number, clip in enumerate(sample.audio):
        expected, _ = soundfile.read(twelve.audio_root / f"speech/2.{number}.wav", dtype="int16")
        np.testing.assert_array_equal(load.decode_flac(clip), expected)
        assert sample.num_samples[number] == len(expected)


def test_clips_longer_than_the_window_are_kept_whole(corpus, row, tmp_path):
    corpus.add(row(0), seconds=31).write(tmp_path / "out")
    assert RecordSource(tmp_path / "out").index.samples.tolist() == [31 * 16000]


def test_a_clip_may_have_the_extension_wav_instead(corpus, row, tmp_path):
    fields = row(0)
    corpus.add(fields)
    fields["messages"][1]["audios"][0]["audio"] = "speech/0.0.flac"
    corpus.lines = [json.dumps(fields)]
    corpus.add(row(1)).write(tmp_path / "out")
    assert len(RecordSource(tmp_path / "out")) == 2


def test_the_number_of_workers_changes_no_byte(twelve, records, contents, tmp_path):
    twelve.write(tmp_path / "out", shards=3, workers=3)
    assert contents(tmp_path / "out") == contents(records)


def test_shards_follow_from_the_number_of_rows(twelve, records, tmp_path):
    assert RecordSource(records).index.counts.tolist() == [4, 4, 4]
    twelve.write(tmp_path / "by_rows", rows_per_shard=5)
    assert RecordSource(tmp_path / "by_rows").index.counts.tolist() == [4, 4, 4]
    twelve.write(tmp_path / "by_default")
    assert RecordSource(tmp_path / "by_default").index.counts.tolist() == [12]


SLOW_WRITER = """
import sys, time
from desta_jax.audio import load
from desta_jax.records.write import write_records

at_once = load.load_audio
def slowly(path):
    time.sleep(0.02)
    return at_once(path)
load.load_audio = slowly  # in the workers too: they run this file first

if __name__ == "__main__":
    manifest, audio_root, out = sys.argv[1:]
    write_records([manifest], audio_root, out, shards=10, workers=2)
"""


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_run_is_continued_and_gives_the_same_bytes(corpus, row, contents, tmp_path):
    for number in range(100):
        corpus.add(row(number), seconds=0.05)
    corpus.write(tmp_path / "expected", shards=10)
    script, out = tmp_path / "writer.py", tmp_path / "out"
    script.write_text(SLOW_WRITER)
    root = pathlib.Path(__file__).parent.parent.parent
    kept = {}
    for whole in (2, 5):
        command = [sys.executable, script, corpus.manifest, corpus.audio_root, out]
        job = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(list(out.glob("progress/*.npz"))) >= whole)  # noqa: B023
        begun = children(job.pid)
        job.send_signal(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL and begun
        wait_until(lambda: not any(map(alive, begun)), 10)  # noqa: B023
        with pytest.raises(ValueError, match="unfinished"):
            RecordSource(out)
        assert not (out / "index.npz").exists() and not (out / "dataset_info.json").exists()
        shards = {
            note.stem: out / f"desta_aqa5m-train.tfrecord-{note.stem}-of-00010" for note in out.glob("progress/*.npz")
        }
        times = {shard: path.stat().st_mtime_ns for shard, path in shards.items()}
        assert kept.items() <= times.items()  # what was whole was not made again
        kept = times
    lines = []
    corpus.write(out, shards=10, report=lines.append)
    assert any(f"{len(kept)} of 10 shards are there" in line for line in lines)
    assert contents(out) == contents(tmp_path / "expected")
    for shard, stamp in kept.items():
        assert (out / f"desta_aqa5m-train.tfrecord-{shard}-of-00010").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("left", [0, 100])
def test_a_note_that_was_cut_short_is_none(tmp_path, left):
    task = ShardTask(str(tmp_path / "shard"), str(tmp_path / "note.npz"), "", 0)
    (tmp_path / "shard").touch()
    ShardNote(0, {}, {}, {}).write(task.note)
    assert usable_note(task) is not None
    os.truncate(task.note, left)
    assert usable_note(task) is None


def test_a_finished_directory_is_left_as_it_is(twelve, records, contents, tmp_path):
    out = shutil.copytree(records, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert twelve.write(out, shards=3)["records"] == 12
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def bad_rows(corpus, row):
    """Ten rows, of which one has each fault; the reasons in the rows' order."""
    faults = {
        0: "missing_audio",
        2: "empty_audio",
        3: "undecodable_audio",
        4: "truncated_audio",
        5: "not_finite_audio",
        7: "clip_count",
        9: "duplicate",
    }
    for number in range(9):
        clips = 2 if number == 4 else 1
        corpus.add(
            row(number, clips)
            if number != 7
            else row(number, clips)
            | {
                "messages": row(7, 2)["messages"][:1]
                + [{"role": "user", "content": "no mark", "audios": row(7)["messages"][1]["audios"]}]
            }
        )
    corpus.add(row(8))
    sound = corpus.audio_root / "speech"
    (sound / "0.0.wav").unlink()
    (sound / "2.0.wav").write_bytes(b"")
    (sound / "3.0.wav").write_bytes(b"no sound" * 100)
    os.truncate(sound / "4.1.wav", 2000)
    soundfile.write(sound / "5.0.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    return faults


def test_bad_rows_are_listed_and_do_not_end_the_job(corpus, row, tmp_path):
    faults = bad_rows(corpus, row)
    out = tmp_path / "out"
    summary = corpus.write(out, shards=5, max_rejected_fraction=0.7)
    assert summary["rejected"] == dict.fromkeys(sorted(faults.values()), 1)
    assert (summary["rows"], summary["records"], summary["clips"]) == (10, 3, 3)
    source = RecordSource(out)
    assert [schema.decode_text(source.text(number)).id for number in range(3)] == ["row-1", "row-6", "row-8"]
    lines = rejected(out)
    assert [(line["line"] - 1, line["reason"]) for line in lines] == sorted(faults.items())
    assert [line["row"]["id"] for line in lines] == [f"row-{min(number, 8)}" for number in faults]
    assert str(corpus.audio_root / "speech/4.1.wav") in lines[3]["detail"]


def test_bad_rows_change_no_byte_with_the_workers(corpus, row, contents, tmp_path):
    bad_rows(corpus, row)
    for number in (1, 2):
        corpus.write(tmp_path / str(number), shards=4, workers=number, max_rejected_fraction=1.0)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_too_many_bad_rows_fail_the_job_and_what_is_done_stays(corpus, row, contents, tmp_path):
    bad_rows(corpus, row)
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match=r"rows cannot be used .*more than the fraction of 0.6 that --max_rejected allows"
    ):
        corpus.write(out, shards=5, max_rejected_fraction=0.6)
    assert len(rejected(out)) == 7
    with pytest.raises(ValueError, match="unfinished"):
        RecordSource(out)
    corpus.write(out, shards=5, max_rejected_fraction=0.7)
    corpus.write(tmp_path / "at once", shards=5, max_rejected_fraction=0.7)
    assert contents(out) == contents(tmp_path / "at once")


def test_a_job_that_must_fail_does_not_read_on(corpus, row, tmp_path, monkeypatch):
    for number in range(40):
        corpus.add(row(number))
    (corpus.audio_root / "speech/1.0.wav").unlink()
    at_once, loaded = load.load_audio, []

    def slowly(path):
        time.sleep(0.05)
        loaded.append(path)
        return at_once(path)

    monkeypatch.setattr(load, "load_audio", slowly)
    with pytest.raises(ValueError, match="1 of 40 rows cannot be used"):
        corpus.write(tmp_path / "out", shards=1, max_rejected_fraction=0)
    assert len(loaded) < 30
    assert not list((tmp_path / "out").glob("*.tfrecord*"))


def test_progress_says_how_far_and_how_long(corpus, row, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_FIRST_REPORT", 0.0)
    lines = []
    corpus.add(row(0)).write(tmp_path / "out", report=lines.append)
    assert any(re.match(r"1 of 1 rows \(100.0%\), . of 1 shards, ", line) for line in lines)
    assert re.search(r"out: 1 records, 1 clips, 0.00 h, 0.0 MB in 1 shards$", lines[-1])


def test_the_time_left_is_told_from_the_first_row_on(monkeypatch):
    clock, lines = iter([0.0, 30.0, 32.0, 60.0]), []
    monkeypatch.setattr(workers.time, "monotonic", lambda: next(clock))
    progress = workers.Progress(lines.append, 100, 4)
    for rows in (0, 10, 66):  # workers take 32 seconds to start
        progress.tick(rows, 0)
    assert lines[0].endswith("0 of 4 shards, time left unknown")
    assert lines[-1] == "66 of 100 rows (66.0%), 0 of 4 shards, 2.0 rows/s, 0m 17s left"


def test_a_shard_that_was_lost_is_missed(twelve, records, tmp_path):
    out = tmp_path / "out"
    twelve.write(out, shards=4)
    (lost,) = out.glob("*-00002-of-00004")
    lost.unlink()
    with pytest.raises(ValueError, match=f"lacks {lost.name}, which its index has; delete the directory"):
        twelve.write(out, shards=4)


def test_a_full_disk_is_told(twelve, tmp_path, monkeypatch, contents):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "make_shard", full)
    with pytest.raises(OSError, match="out: No space left on device; finished shards are kept: make room"):
        twelve.write(tmp_path / "out", shards=4)
    monkeypatch.undo()
    twelve.write(tmp_path / "out", shards=4)
    assert not (tmp_path / "out" / "progress").exists()


def test_two_processes_do_not_write_one_directory(corpus, row, tmp_path):
    corpus.add(row(0))
    (tmp_path / "out" / "progress").mkdir(parents=True)
    with open(tmp_path / "out" / "progress" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing"):
            corpus.write(tmp_path / "out")
    corpus.write(tmp_path / "out")


def test_what_another_process_finished_meanwhile_is_not_written_over(corpus, row, contents, tmp_path, monkeypatch):
    theirs = corpus.add(row(0)).write(tmp_path / "out") and contents(tmp_path / "out")
    corpus.add(row(1))
    with monkeypatch.context() as moment:
        moment.setattr(write, "_is_complete", lambda out, plan: False)  # as it was when this process looked
        with pytest.raises(ValueError, match="another process has just finished records here"):
            corpus.write(tmp_path / "out")
    assert contents(tmp_path / "out") == theirs
    with pytest.raises(ValueError, match="another job"):
        corpus.write(tmp_path / "out")


def test_a_worker_that_dies_is_an_error_and_the_job_goes_on(corpus, row, tmp_path):
    for number in range(4):
        corpus.add(row(number))
    script = tmp_path / "writer.py"
    dying = "import os, signal\n" + SLOW_WRITER.replace("time.sleep(0.02)", "os.kill(os.getpid(), signal.SIGKILL)")
    script.write_text(dying.replace("shards=10", "shards=4"))
    root = pathlib.Path(__file__).parent.parent.parent
    command = [sys.executable, script, corpus.manifest, corpus.audio_root, tmp_path / "out"]
    job = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert job.returncode == 1 and "a worker process died" in job.stderr
    assert corpus.write(tmp_path / "out", shards=4)["records"] == 4


def test_a_pool_that_breaks_as_it_is_given_work_is_told_too(monkeypatch):
    """The first worker's death closes the queue that the second is about to be given."""
    made = workers.Workers(2)

    def submit(*_):
        made._pool._call_queue._reader.close()
        return type(made._pool).submit(made._pool, *_)

    monkeypatch.setattr(made._pool, "submit", submit)
    with made, pytest.raises(ChildProcessError, match="a worker process died"):
        list(made.each(abs, [1, 2], progress=None))


def test_bad_text_fails_the_job_before_any_sound_is_read(corpus, row, tmp_path):
    corpus.add("{").add(row(0)).add(row(1))
    shutil.rmtree(corpus.audio_root / "speech")
    with pytest.raises(ValueError, match=r"1 of 3 rows cannot be used \(bad_json 1\).*rows\.jsonl:1: "):
        corpus.write(tmp_path / "out", max_rejected_fraction=0.3)
    assert os.listdir(tmp_path / "out") == ["rejected.jsonl"]


def test_a_repaired_clip_gets_in_when_the_job_goes_on(corpus, row, tmp_path):
    for number in range(4):
        corpus.add(row(number))
    (corpus.audio_root / "speech/2.0.wav").unlink()
    with pytest.raises(ValueError, match="missing_audio 1"):
        corpus.write(tmp_path / "out", shards=4)
    corpus.sound("speech/2.0.wav")
    assert corpus.write(tmp_path / "out", shards=4)["records"] == 4


def test_a_shard_may_lose_all_its_rows(corpus, row, tmp_path):
    for number in range(4):
        corpus.add(row(number))
    (corpus.audio_root / "speech/1.0.wav").unlink()
    corpus.write(tmp_path / "out", shards=4, max_rejected_fraction=0.25)
    source = RecordSource(tmp_path / "out")
    assert source.index.counts.tolist() == [1, 0, 1, 1]
    assert [schema.decode(source[number]).id for number in range(3)] == ["row-0", "row-2", "row-3"]


@pytest.mark.parametrize("change", ["rows", "shards", "audio root"])
def test_another_job_is_not_continued(corpus, row, tmp_path, change):
    corpus.add(row(0)).add(row(1)).add(row(2))
    (corpus.audio_root / "speech/2.0.wav").unlink()
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="cannot be used"):
        corpus.write(out, shards=2)
    if change == "rows":
        corpus.add(row(3))
    if change == "audio root":
        corpus.audio_root = corpus.audio_root.rename(tmp_path / "elsewhere")
    key = {"rows": "manifests", "shards": "shards", "audio root": "audio_root"}[change]
    with pytest.raises(ValueError, match=rf"holds the work of another job: {key} was .* choose another directory"):
        corpus.write(out, shards=1 if change == "shards" else 2)


def test_a_directory_without_its_summary_says_what_to_do(twelve, records, tmp_path):
    out = shutil.copytree(records, tmp_path / "out")
    for change in (lambda file: file.write_text("{"), lambda file: file.unlink()):
        change(out / "summary.json")
        with pytest.raises(ValueError, match=r"summary\.json: missing or damaged .*; make the records again"):
            twelve.write(out, shards=3)


def test_a_list_of_rejected_rows_that_a_kill_left_half_is_no_obstacle(corpus, row, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rejected.jsonl.part").write_text("{")
    assert corpus.add(row(0)).write(tmp_path / "out")["records"] == 1


def test_the_fraction_is_of_whole_rows(corpus, row, tmp_path):
    words = [{"role": "user", "content": "Say it."}]
    for number in range(100):
        corpus.add(json.dumps(row(number, response="" if number < 29 else "x", messages=words)))
    assert 0.29 * 100 < 29
    assert corpus.write(tmp_path / "out", max_rejected_fraction=0.29)["records"] == 71


def test_numbers_that_are_none_are_rejected_in_words(corpus, row, tmp_path):
    corpus.add(json.dumps(row(0, response="", confidence=float("nan")))).add(row(1))
    corpus.write(tmp_path / "out", max_rejected_fraction=1)
    assert [line["row"]["confidence"] for line in rejected(tmp_path / "out")] == ["NaN"]


def test_a_finished_directory_of_another_job_is_refused(corpus, row, records, tmp_path):
    out = shutil.copytree(records, tmp_path / "out")
    with pytest.raises(ValueError, match="another job"):
        corpus.add(row(0)).write(out)


def test_a_directory_with_other_things_is_refused(corpus, row, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"not empty and holds no records \(found corpus\)"):
        corpus.add(row(0)).write(tmp_path)


def test_arguments_that_cannot_be_meant_are_refused(corpus, row, tmp_path):
    corpus.add(row(0))
    out = tmp_path / "out"
    for options, message in [
        ({"shards": 2}, "too many for 1 rows"),
        ({"shards": 1, "rows_per_shard": 1}, "give one of them"),
        ({"workers": -1}, "workers"),
        ({"max_rejected_fraction": 2}, "from 0 to 1"),
        ({"name": "My-Data"}, "lower-case"),
    ]:
        with pytest.raises(ValueError, match=message):
            corpus.write(out, **options)
    with pytest.raises(ValueError, match="local directory"):
        corpus.write("gs://bucket/records")
    corpus.manifest.write_text("\n\n")
    with pytest.raises(ValueError, match="no rows"):
        corpus.write(out)
    corpus.audio_root = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        corpus.write(out)
    assert not out.exists()
