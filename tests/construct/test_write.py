"""Rows on disk: nothing lost and nothing twice, whatever is killed when, and on however many processes."""

import json
import pathlib

import pytest
from etils import epath

from desta_jax.construct.generators import Writing
from desta_jax.construct.instructions import load_pool
from desta_jax.construct.quality import Reply
from desta_jax.construct.rows import plan_requests
from desta_jax.construct.write import check_plan, cut_into_shards, write_rows


class Standin:
    """Writes something that depends on the request and the seed; every fifth reply is empty."""

    name = "stand-in"

    def __init__(self, dies_after=None):
        self.calls, self.dies_after, self.seeds = 0, dies_after, []

    def write(self, requests, writing, seed, answered):
        if self.calls == self.dies_after:
            raise KeyboardInterrupt
        self.calls += 1
        self.seeds.append(seed)
        for _ in requests:
            answered(1)
        return [
            Reply(f"Reply {seed % 1000} to {len(str(messages))}.") if index % 5 else Reply("")
            for index, messages in enumerate(requests)
        ]


@pytest.fixture
def shards(clip_of):
    clips = [clip_of(f"{number}.wav", f"This is sentence number {number}.", Mood="calm") for number in range(50)]
    return cut_into_shards(list(plan_requests(clips, load_pool(), seed=0)), 8)


def write(shards, folder, generator=None, **options):
    out = epath.Path(folder)
    check_plan(out, {"seed": 0})
    write_rows(shards, generator or Standin(), out, Writing(), 0, say=lambda line: None, **options)
    return {str(path.relative_to(out)): path.read_text() for path in sorted(pathlib.Path(folder).rglob("*.jsonl"))}


def lines(files, prefix):
    return [json.loads(line) for name in files if name.startswith(prefix) for line in files[name].splitlines()]


def test_every_request_is_a_row_or_a_drop_with_its_reason(shards, tmp_path):
    files = write(shards, tmp_path)
    outcomes = lines(files, "outcomes/")
    rows = lines(files, "rows-")
    dropped = [outcome for outcome in outcomes if outcome["reason"]]
    assert (
        len(outcomes) == 50 and len(rows) + len(dropped) == 50 and len(dropped) == 13
    )  # 2 of each 8, and 1 of the last 2
    assert {outcome["reason"] for outcome in dropped} == {"empty"}
    told = {row["id"] for row in rows} | {outcome["row"]["id"] for outcome in dropped}
    assert told == {f"{number}.wav" for number in range(50)}


def test_requests_of_a_shard_are_alike(shards):
    mixed = [len({request.instruction.category for request in shard.requests}) for shard in shards]
    categories = {request.instruction.category for shard in shards for request in shard.requests}
    assert sum(mixed) <= len(categories) + len(shards)


def test_a_run_that_was_killed_goes_on_where_it_stopped(shards, tmp_path):
    whole = write(shards, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(shards, tmp_path / "killed", Standin(dies_after=3))
    (tmp_path / "killed" / f"rows-{shards[3].name}.partial").write_text('{"half')
    second = Standin()
    assert write(shards, tmp_path / "killed", second) == whole
    assert second.calls == len(shards) - 3


def test_a_kill_between_the_two_files_of_a_shard_loses_nothing(shards, tmp_path):
    whole = write(shards, tmp_path)
    (tmp_path / f"rows-{shards[2].name}").unlink()
    assert write(shards, tmp_path) == whole


def test_processes_share_the_shards_and_write_what_one_would(shards, tmp_path):
    whole = write(shards, tmp_path / "one")
    for process in (2, 0, 1):
        shared = write(shards, tmp_path / "three", process=process, processes=3)
    assert shared == whole


def test_a_reply_is_judged_beside_what_its_clips_say(shards, tmp_path):
    """The words may be said again; the description may not be copied."""

    class Copyist:
        def write(self, requests, writing, seed, answered):
            replies = [f"This is sentence number {index}." for index in range(len(requests) - 1)]
            return [Reply(text) for text in [*replies, "It is so. (Mood: calm)"]]

    outcomes = lines(write(shards[:1], tmp_path, Copyist()), "outcomes/")
    assert [outcome["reason"] for outcome in outcomes] == [None] * 7 + ["reading"]


def test_a_process_gets_shards_of_every_kind(shards, tmp_path):
    """Shards are in order of their kind, over and over: every tenth might be of one kind."""
    single = cut_into_shards([request for shard in shards for request in shard.requests], 1)
    files = write(single, tmp_path, process=0, processes=10)
    numbers = [int(name[5:10]) for name in files if name.startswith("rows-")]
    assert len(numbers) == 5 and len({number % 10 for number in numbers}) > 1


def test_each_shard_has_a_seed_of_its_own(shards, tmp_path):
    generator = Standin()
    write(shards, tmp_path, generator)
    assert len(set(generator.seeds)) == len(shards) and all(0 <= seed < 2**31 for seed in generator.seeds)


def test_a_folder_of_another_plan_is_refused(tmp_path):
    check_plan(epath.Path(tmp_path), {"seed": 0, "model": "a"})
    check_plan(epath.Path(tmp_path), {"seed": 0, "model": "a"})
    with pytest.raises(ValueError, match="another plan: model was 'a' and is now 'b'"):
        check_plan(epath.Path(tmp_path), {"seed": 0, "model": "b"})
    with pytest.raises(ValueError, match=r"or remove .*plan\.json, since no row is written yet"):
        check_plan(epath.Path(tmp_path), {"seed": 1, "model": "a"})


@pytest.mark.parametrize("options", [{"temperature": float("nan")}, {"temperature": -1}, {"top_p": 0}])
def test_what_cannot_be_drawn_is_refused_before_there_is_a_plan(options):
    with pytest.raises(ValueError, match="temperature|top_p"):
        Writing(**options)


def test_progress_says_how_much_is_left(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("desta_jax.construct.write.SECONDS_BETWEEN_LINES", 0.0)
    said = []
    check_plan(epath.Path(tmp_path), {})
    write_rows(shards, Standin(), epath.Path(tmp_path), Writing(), 0, say=said.append)
    assert said[0].startswith("construct: 1 of 50 requests (2 %), 0 dropped so far") and said[0].endswith("left")
    assert len(said) == 50 and " 2 dropped so far" in said[8]  # of the first eight
    assert "50 of 50 requests (100 %)" in said[-1] and said[-1].endswith("0m 00s left")
