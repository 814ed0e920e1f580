"""Signs of life, and what happens when there are none."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from desta_jax.config import make_config
from desta_jax.training import heartbeat
from desta_jax.training.heartbeat import STALLED, Heartbeat, last_seen
from desta_jax.training.loop import STOPPED

STALL = """
import sys, time
from desta_jax.config import make_config
from desta_jax.training import heartbeat
from desta_jax.training.heartbeat import Heartbeat

def a_collective_that_never_ends():
    while True:
        time.sleep(1)

stall = make_config({"stall.alarm_seconds": 1, "stall.exit_seconds": 2}).stall
with Heartbeat(sys.argv[1], stall, 3) as heart:
    heart.alive(7)
    a_collective_that_never_ends()
"""


def stall(**changes):
    return make_config({f"stall.{key}": value for key, value in changes.items()}).stall


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_says_where_it_is(tmp_path):
    assert last_seen(str(tmp_path)) is None
    before = time.time()
    with Heartbeat(str(tmp_path), stall(), 0) as heart:
        heart.alive(12)
    beat = json.loads((tmp_path / "heartbeat-0.json").read_text())
    assert (beat["step"], beat["process"]) == (12, 0)
    assert before - 1 <= beat["time"] == last_seen(str(tmp_path)) <= time.time() + 1  # in tenths of a second
    assert [file.name for file in tmp_path.iterdir()] == ["heartbeat-0.json"]


def test_what_else_is_to_be_done_is_done_with_each_beat(tmp_path):
    beats = []
    with Heartbeat(str(tmp_path), stall(alarm_seconds=1), 0, beat=lambda: beats.append(1)):
        wait_until(lambda: beats)


def test_the_watch_goes_on_whatever_a_bucket_answers(tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise RuntimeError("503")

    monkeypatch.setattr(heartbeat, "write_whole", refuse)
    with Heartbeat(str(tmp_path), stall(alarm_seconds=1), 0, beat=refuse):
        wait_until(lambda: "STALLED" in capfd.readouterr().err)


@pytest.mark.parametrize("request_that_hangs", ["write", "beat"])
def test_a_request_that_is_never_answered_holds_up_neither_the_alarm_nor_the_end(
    tmp_path, monkeypatch, capfd, request_that_hangs
):
    answered = threading.Event()

    def hang(*_):
        answered.wait()

    monkeypatch.setattr(heartbeat, "LAST_BEAT_SECONDS", 0.1)
    if request_that_hangs == "write":
        monkeypatch.setattr(heartbeat, "write_whole", hang)
    with Heartbeat(str(tmp_path), stall(alarm_seconds=1), 0, beat=hang):
        wait_until(lambda: "STALLED" in capfd.readouterr().err)
    answered.set()


def test_a_stalled_process_shows_what_it_does_then_ends(tmp_path):
    ended = subprocess.run([sys.executable, "-c", STALL, tmp_path], capture_output=True, text=True, timeout=120)
    assert ended.returncode == STALLED not in (0, STOPPED)  # so that the launch scripts count an error
    assert "STALLED: process 3 has ended no step for" in ended.stderr and "the last was step 7" in ended.stderr
    assert "it waits on" in ended.stderr and "it ends now" in ended.stderr
    assert ended.stderr.count("in a_collective_that_never_ends") == 2


def test_a_stalled_process_ends_though_nobody_listens(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as deaf:
        ended = subprocess.run([sys.executable, "-c", STALL, tmp_path], stderr=deaf, timeout=120)
    assert ended.returncode == STALLED


def test_the_alarm_is_told_once_and_again_after_the_next_step(tmp_path, capfd):
    with Heartbeat(str(tmp_path), stall(alarm_seconds=1, exit_seconds=0), 0) as heart:
        for _ in range(2):
            heart.alive(1)
            wait_until(lambda: "STALLED" in capfd.readouterr().err)
            time.sleep(0.6)  # two beats more
            assert "STALLED" not in capfd.readouterr().err


def test_no_alarm_in_what_takes_as_long_as_it_takes(tmp_path, capfd):
    beats = []
    with Heartbeat(str(tmp_path), stall(alarm_seconds=1), 0, beat=lambda: beats.append(1)) as heart, heart.paused():
        wait_until(lambda: len(beats) > 6)  # a beat each quarter of a second
    assert "STALLED" not in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "{", '{"step": 1}'])
def test_a_broken_heartbeat_is_none(tmp_path, text):
    (tmp_path / "heartbeat-0.json").write_text(text)
    assert last_seen(str(tmp_path)) is None
