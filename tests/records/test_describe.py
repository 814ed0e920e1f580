"""What a directory of records says of itself."""

import pytest

from desta_jax.records.describe import describe, format_description


@pytest.fixture
def described(corpus, row, tmp_path):
    for number, seconds in enumerate([1, 2, 30, 31]):
        corpus.add(row(number, dataset="long" if seconds >= 30 else "short", response="x" * seconds), seconds=seconds)
    corpus.add(row(4, clips=2, dataset="short", response="xxx"), seconds=3)
    corpus.write(tmp_path / "out", shards=2)
    return describe(str(tmp_path / "out"))


def test_counts_hours_and_durations_by_source_dataset(described):
    assert list(described) == ["all", "short", "long"]
    assert [one["records"] for one in described.values()] == [5, 3, 2]
    assert [one["clips"] for one in described.values()] == [6, 4, 2]
    assert described["long"]["hours"] == pytest.approx(61 / 3600, abs=1e-6)
    assert described["all"]["clips_over_30s"] == 1 and described["short"]["clips_over_30s"] == 0
    assert described["all"]["clips_per_record"] == {1: 4, 2: 1}
    assert described["short"]["clip_seconds"] == pytest.approx(
        {"mean": 9.01 / 4, "p0": 1, "p5": 1.15, "p25": 1.75, "p50": 2.5, "p75": 3.0025, "p95": 3.0085, "p100": 3.01}
    )


def test_lengths_of_text(described):
    assert described["long"]["response_characters"]["mean"] == 30.5
    assert described["all"]["transcript_characters"]["p50"] == len("words 0")
    assert described["short"]["message_characters"]["p100"] > described["long"]["message_characters"]["p100"]


def test_the_table_has_a_line_for_each_dataset(described):
    lines = format_description(described).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["dataset", "all", "short", "long"]
    assert "records by number of clips: 1: 4, 2: 1" in lines


def test_a_dataset_called_all_does_not_hide_the_whole(corpus, row, tmp_path):
    corpus.add(row(0, dataset="all")).add(row(1, dataset="all")).add(row(2, dataset="b")).write(tmp_path / "out")
    described = describe(str(tmp_path / "out"))
    assert {name: one["records"] for name, one in described.items()} == {"all": 3, '"all"': 2, "b": 1}


def test_damage_is_not_passed_over(corpus, row, tmp_path):
    corpus.add(row(0)).write(tmp_path / "out")
    shard = next((tmp_path / "out").glob("*.tfrecord*"))
    shard.write_bytes(bytes(30) + shard.read_bytes()[30:])
    with pytest.raises(OSError, match=shard.name):
        describe(str(tmp_path / "out"))
