"""Rows of two writers that answered the same requests."""

import json
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "corpus"))
import common
import vary


def write(folder, answers):
    """Rows that answer some questions, two a shard."""
    folder.mkdir()
    rows = [
        {
            "id": "a",
            "messages": [{"role": "user", "content": question, "audios": [{"audio": "a.flac"}]}],
            "response": said,
        }
        for question, said in answers.items()
    ]
    for start in range(0, len(rows), 2):
        text = "".join(json.dumps(row) + "\n" for row in rows[start : start + 2])
        (folder / f"rows-{start // 2:05d}-of-00002.jsonl").write_text(text)
    return folder


def answers(folder):
    lines = [line for shard in sorted(folder.glob("rows-*")) for line in shard.read_text().splitlines()]
    return [(row["messages"][0]["content"], row["response"]) for row in map(json.loads, lines)]


def test_only_what_the_other_answered_stays_in_the_same_order(tmp_path):
    own = write(tmp_path / "own", {"Who?": "A man.", "Why?": "So.", "What?": "A dog.", "How?": "Well."})
    other = write(tmp_path / "other", {"Who?": "man", "What?": "dog", "How?": "good"})
    common.common(own, other, tmp_path / "both")
    assert answers(tmp_path / "both") == [("Who?", "A man."), ("What?", "A dog."), ("How?", "Well.")]


def test_two_writers_hear_the_same_versions_of_a_clip(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(vary, "make", lambda clip, version, audio: made.append(version) or f"{version}.flac")
    own = write(tmp_path / "own", {"Who?": "A man.", "What?": "A dog."})
    other = write(tmp_path / "other", {"What?": "dog", "Who?": "man"})
    for rows in (own, other):
        vary.vary(rows, tmp_path, rows.with_name(f"{rows.name}_varied"), 2)
    assert len(set(made)) == 4 and made[:2] == made[6:] and made[2:4] == made[4:6]


def test_rows_of_other_requests_are_refused(tmp_path):
    own, other = write(tmp_path / "own", {"Who?": "A man."}), write(tmp_path / "other", {"Who?": "man", "When?": "now"})
    with pytest.raises(SystemExit, match="1 rows of .*other are of requests that .*own has no row for"):
        common.common(own, other, tmp_path / "both")
    assert not (tmp_path / "both").exists()
