"""Runs of several processes on this machine: eight devices in all, whatever the number of processes."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from bucket_server import BucketServer

from desta_jax.records.write import write_records
from desta_jax.training.loop import COMPLETE, STOPPED
from desta_jax.weights.trained import read_trained

DEVICES = 8
SECONDS_TO_END = 150  # for those that are left when a process dies; the coordinator misses it after 100 s at the latest


@pytest.fixture
def launch(tmp_path):
    """launch(config, workdir, count): the processes of a run; those that a test leaves running are killed. A workdir
    may hold "{}", for the number of a process."""
    started = []

    def launch(config, workdir, count):
        file = tmp_path / f"config{len(started)}.py"
        file.write_text(f"def get_config():\n    return {config.to_dict()!r}\n")
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        flags = os.environ["XLA_FLAGS"].replace(f"count={DEVICES}", f"count={DEVICES // count}")
        command = [sys.executable, "-m", "desta_jax", "train", "--config", file, "--workdir"]
        processes = []
        for index in range(count):
            where = str(workdir).format(index)
            joined = ["--coordinator", address, "--processes", str(count), "--process_index", str(index)]
            with (tmp_path / f"{file.stem}-{index}.txt").open("w") as log:
                processes.append(
                    subprocess.Popen([*command, where, *joined], env={**os.environ, "XLA_FLAGS": flags}, stderr=log)
                )
        started.extend(processes)
        return processes

    yield launch
    for process in started:
        process.kill()
        process.wait()


def wait_for_lines(processes, workdir, count):
    """Until metrics.jsonl has that many lines, or a process has ended."""
    metrics = pathlib.Path(workdir) / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        assert all(process.poll() is None for process in processes), "a process ended too soon"
        time.sleep(0.05)


def said(tmp_path):
    return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in sorted(tmp_path.glob("config*.txt")))


def assert_same_run(rows, expected):
    """The same samples in the same order; losses within float32's sums in another order, and six Adam steps."""
    assert [row["samples"] for row in rows] == [row["samples"] for row in expected]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-4)


def test_killed_as_two_processes_and_resumed_as_four_over_another_mesh(config_of, whole, launch, tmp_path, metrics_of):
    workdir = tmp_path / "run"
    pair = launch(config_of(**{"mesh.fsdp": 2}), workdir, 2)
    wait_for_lines(pair, workdir, 3)
    for process in pair:
        process.kill()
    four = launch(config_of(**{"mesh.fsdp": 4, "mesh.tensor": 2}), workdir, 4)
    assert [process.wait() for process in four] == [COMPLETE] * 4, said(tmp_path)
    assert_same_run(metrics_of(workdir), metrics_of(whole))


def test_a_run_whose_model_and_work_directory_are_in_a_bucket_is_killed_and_goes_on(
    config_of, micro, whole, launch, tmp_path, monkeypatch
):
    bucket = BucketServer()
    for variable in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(variable, bucket.url)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it looks for credentials at every request
    monkeypatch.chdir(tmp_path)
    bucket.objects.upload(micro / "model", "runs", "model")
    config, workdir = config_of(**{"model.checkpoint": "gs://runs/model"}), "gs://runs/a"
    pair = launch(config, workdir, 2)
    while not any(name.startswith("a/checkpoints/4/") for _, name in list(bucket.objects)):
        assert all(process.poll() is None for process in pair), said(tmp_path)
        time.sleep(0.05)
    for process in pair:
        process.kill()
    assert [process.wait() for process in launch(config, workdir, 2)] == [COMPLETE] * 2, said(tmp_path)
    exported = [sys.executable, "-m", "desta_jax", "export", "--workdir", workdir, "--out", "adapter"]
    assert subprocess.run(exported, check=False).returncode == 0
    assert not bucket.unknown and not (tmp_path / "gs:").exists()

    lines = bucket.objects["runs", "a/metrics.jsonl"][0].splitlines()
    expected = (whole / "metrics.jsonl").read_text().splitlines()
    assert_same_run(*([json.loads(line) for line in rows] for rows in (lines, expected)))
    assert "step 1/6" not in (tmp_path / "config2-0.txt").read_text(), "it begins where the killed one had saved"


def test_a_signal_to_one_process_stops_all_of_them_after_saving(config_of, launch, tmp_path, metrics_of):
    workdir = tmp_path / "run"
    changes = {"checkpoint.every_steps": 100000, "train.steps": 100000, "adapter.standardize_clips": 10}
    pair = launch(config_of(**changes), workdir, 2)
    wait_for_lines(pair, workdir, 1)
    pair[1].send_signal(signal.SIGTERM)
    assert [process.wait() for process in pair] == [STOPPED] * 2, said(tmp_path)
    saved, _ = read_trained(str(workdir))
    assert [row["step"] for row in metrics_of(workdir)] == list(range(1, saved + 1))


def test_a_signal_to_one_process_cuts_validation_short(config_of, launch, tmp_path, tones):
    manifest = tones(tmp_path, 400, 3)
    write_records([str(manifest)], str(tmp_path), str(tmp_path / "long"), shards=1, workers=1, report=str)
    workdir, changes = tmp_path / "run", {"evaluate.every_steps": 1, "data.validation": (str(tmp_path / "long"),)}
    pair = launch(config_of(**changes), workdir, 2)
    while "optimizer" not in (tmp_path / "config0-0.txt").read_text():  # the table before validation
        assert all(process.poll() is None for process in pair), said(tmp_path)
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    assert [process.wait() for process in pair] == [STOPPED] * 2, said(tmp_path)
    for name in ("validation.jsonl", "metrics.jsonl"):
        assert not (workdir / name).read_text(), "no pass and no step was finished"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_ends_too_and_the_run_goes_on(
    config_of, whole, launch, tmp_path, metrics_of, victim
):
    workdir = tmp_path / "run"
    pair = launch(config_of(), workdir, 2)
    wait_for_lines(pair, workdir, 2)
    pair[victim].kill()
    assert pair[1 - victim].wait(SECONDS_TO_END) not in (COMPLETE, STOPPED)
    assert [process.wait() for process in launch(config_of(), workdir, 2)] == [COMPLETE] * 2, said(tmp_path)
    assert_same_run(metrics_of(workdir), metrics_of(whole))


def test_a_work_directory_that_is_another_for_each_process_is_refused(config_of, launch, tmp_path):
    pair = launch(config_of(), tmp_path / "run-{}", 2)
    assert all(process.wait() not in (COMPLETE, STOPPED) for process in pair)
    for index in range(2):
        told = (tmp_path / f"config0-{index}.txt").read_text()
        assert "--workdir must be seen by every process" in told and "another folder for process 1;" in told
    assert [file.name for file in (tmp_path / "run-0").iterdir()] == ["lock"]


def test_flags_of_a_process_go_together(config_of, tmp_path):
    command = [sys.executable, "-m", "desta_jax", "train", "--config", "configs/micro.py", "--workdir", tmp_path]
    ended = subprocess.run([*command, "--processes", "2"], capture_output=True, text=True)
    assert ended.returncode == 2 and "--coordinator, --processes and --process_index go together" in ended.stderr
