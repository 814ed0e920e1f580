"""Where the wall time goes: put together from what a run leaves on disk, kills included."""

import json
import time

import pytest

from desta_jax.training.goodput import Account, spent_seconds


def start(step, began, last_seen=None):
    return {"step": step, "began": began, "last_seen": last_seen}


def until(at, time, **seconds):
    return {"step": at, "time": time, "seconds": seconds}


KILLED = [
    start(0, 100.0),
    until(10, 130.0, start=20.0, step=8.0, checkpoint=2.0),
    until(20, 140.0, step=9.0, input=1.0),  # this checkpoint was not whole yet when the kill came
    start(10, 200.0, last_seen=145.0),
]


def test_what_a_kill_cost_is_told_from_what_it_kept():
    assert spent_seconds(KILLED) == {"start": 20, "step": 8, "checkpoint": 2, "repeated": 15, "down": 55}


def test_without_a_sign_of_life_the_gap_is_down_time():
    lines = [*KILLED[:2], start(10, 200.0)]
    assert spent_seconds(lines) == {"start": 20, "step": 8, "checkpoint": 2, "repeated": 0, "down": 70}


def test_a_later_start_from_further_back_takes_more_away():
    """Step 20 was kept once, and lost when its checkpoint could not be used."""
    lines = [*KILLED[:3], start(20, 150.0), until(30, 170.0, start=20.0), start(10, 200.0)]
    assert spent_seconds(lines) == {"start": 20, "step": 8, "checkpoint": 2, "repeated": 30, "down": 40}


@pytest.mark.parametrize("lines", [KILLED, [*KILLED[:2], start(10, 200.0)], KILLED[:1]])
def test_every_second_is_counted_once(lines):
    assert sum(spent_seconds(lines).values()) == lines[-1]["began"] - lines[0]["began"]


def test_an_account_is_taken_up_where_it_was_left(tmp_path):
    first = Account(str(tmp_path), step=0, began=1000.0, last_seen=None)
    first.spend("start", 1010.0)
    first.spend("step", 1050.0)
    first.write(4)
    first.spend("step", 1070.0)  # never written: the kill came
    assert first.goodput() == pytest.approx(60 / 70)
    second = Account(str(tmp_path), step=4, began=1100.0, last_seen=1075.0)
    second.spend("step", 1120.0)
    assert second.goodput() == pytest.approx(60 / 120)
    table = {line.rsplit(None, 3)[0].strip(): line.split()[-2] for line in second.table().splitlines()[1:]}
    assert table == {
        "training steps": "50.0",
        "starts: weights, compilation, the first step": "8.3",
        "lost: after the last checkpoint before a kill": "20.8",
        "lost: from an end to the next start": "20.8",
    }
    assert "in 2 starts" in second.table()


@pytest.mark.parametrize("torn", ['{"step": 8, "ti', '{"step": 8, "seconds": {"step": 1.0}', "{}"])
def test_a_line_that_a_kill_cut_short_is_none(tmp_path, torn):
    """Also one that ends as a whole one does; and the next line starts on its own."""
    (tmp_path / "goodput.jsonl").write_text(json.dumps(start(0, 1000.0)) + "\n" + torn)
    for starts in (2, 3):
        account = Account(str(tmp_path), step=0, began=1100.0, last_seen=None)
        account.close()
        assert account.starts == starts


def test_time_is_never_given_twice(tmp_path):
    account = Account(str(tmp_path), step=0, began=1000.0, last_seen=None)
    account.spend("step", 1010.0)
    account.spend("input", 1005.0)  # the next step was started before the last one ended
    account.spend("step", 1020.0)
    assert (account.own("step"), account.own("input"), account.until) == (20.0, 0.0, 1020.0)


def test_one_process_keeps_the_account(tmp_path):
    account = Account(str(tmp_path), step=0, began=1000.0, last_seen=None, kept=False)
    account.spend("step", 1010.0)
    account.write(1)
    account.close()
    assert account.own("step") == 10 and not any(tmp_path.iterdir())


def test_a_run_leaves_its_account(whole):
    """Its lines add up to the time from its start to its last line."""
    lines = [json.loads(line) for line in (whole / "goodput.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 6]
    kinds = [kind for line in lines[1:] for kind in line["seconds"]]
    assert {"start", "step", "checkpoint", "evaluation"} <= set(kinds)
    spent = sum(sum(line["seconds"].values()) for line in lines[1:])
    assert spent == pytest.approx(lines[-1]["time"] - lines[0]["began"], abs=0.02)  # lines hold milliseconds
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["goodput"] == 0 < rows[-1]["goodput"] < 1
    assert lines[-1]["time"] < time.time()
