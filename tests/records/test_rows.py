"""What is wrong with a row's text is found before its sound is read."""

import json

import pytest

from desta_jax.records import rows


def parse(fields):
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return rows.parse_row(text, "rows.jsonl:7")


def message(**changes):
    clip = {"audio": "a.wav", "text": "words"}
    return {"role": "user", "content": "<|AUDIO|>", "audios": [clip]} | changes


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("missing_field", {"messages": None}),
        ("missing_field", {"response": None}),
        ("missing_field", {"messages": [{"role": "user"}]}),
        ("missing_field", {"messages": [message(role=None)]}),
        ("missing_field", {"messages": [message(audios=[{"text": "words"}])]}),
        ("bad_field", {"messages": []}),
        ("bad_field", {"messages": "hello"}),
        ("bad_field", {"messages": ["hello"]}),
        ("bad_field", {"messages": [message(content=["<|AUDIO|>"])]}),
        ("bad_field", {"messages": [message(audios={"audio": "a.wav"})]}),
        ("bad_field", {"messages": [message(audios=[{"audio": "a.wav", "text": 3}])]}),
        ("bad_field", {"response": 3}),
        ("bad_field", {"response": "half a pair \ud800"}),
        ("unknown_role", {"messages": [message(role="robot")]}),
        ("unknown_role", {"messages": [message(role=["user"])]}),
        ("clip_count", {"messages": [message(content="<|AUDIO|> <|AUDIO|>")]}),
        ("clip_count", {"messages": [message(content="no mark")]}),
        ("clip_count", {"messages": [message(audios=None)]}),
        ("empty_response", {"response": ""}),
        ("empty_response", {"response": " \n"}),
    ],
)
def test_a_bad_row_has_its_reason(row, reason, changes):
    with pytest.raises(rows.BadRow) as caught:
        parse(row(0, **changes))
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", [b"{", b"not json", b"[1]", b'"text"', b"\xff\xfe{}", b"[" * 100_000])
def test_what_is_no_json_object_is_bad_json(text):
    with pytest.raises(rows.BadRow) as caught:
        parse(text)
    assert caught.value.reason == "bad_json"


def test_the_error_says_what_is_wrong(row):
    with pytest.raises(rows.BadRow, match=r"2 <\|AUDIO\|> in the messages, but 1 clips"):
        parse(row(0, messages=[message(content="<|AUDIO|><|AUDIO|>")]))
    with pytest.raises(rows.BadRow, match="'robot' is none of system, user, assistant"):
        parse(row(0, messages=[message(role="robot")]))


@pytest.mark.parametrize(
    ("clip", "transcript"), [({}, " "), ({"text": None}, " "), ({"text": ""}, ""), ({"text": "a"}, "a")]
)
def test_a_clip_without_transcript_holds_no_speech(row, clip, transcript):
    parsed = parse(row(0, messages=[message(audios=[{"audio": "a.wav", **clip}])]))
    assert parsed.messages[0]["audios"] == [{"audio": "a.wav", "text": transcript}]


def test_a_row_may_do_without_id_dataset_and_what_describes_it(row):
    fields = row(0)
    for key in ("id", "dataset", "seed_description", "prompt"):
        del fields[key]
    parsed = parse(fields)
    assert (parsed.id, parsed.dataset, parsed.prompt) == ("rows.jsonl:7", "unknown", "")
    assert parse(row(0, id=12)).id == "12"


def test_clips_may_be_in_any_message_or_none(row):
    turns = [message(), {"role": "assistant", "content": "yes"}, message(audios=[{"audio": "b.wav"}])]
    assert parse(row(0, messages=turns)).clips == ["a.wav", "b.wav"]
    assert parse(row(0, messages=[{"role": "user", "content": "no sound"}])).clips == []


def test_a_scan_finds_rows_and_their_places(row, tmp_path):
    manifest = tmp_path / "rows.jsonl"
    lines = [json.dumps(row(0)), "", "{", json.dumps(row(1), ensure_ascii=False)]
    manifest.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    scan = rows.scan_manifest(str(manifest))
    assert scan.line.tolist() == [1, 3, 4]
    assert [rejection.reason for rejection in scan.rejections.values()] == ["bad_json"]
    assert parse(scan.place(2).read()).id == "row-1"
    assert scan.rejections[1].row == "{"


def test_a_row_that_repeats_another_is_found_in_any_manifest(row, tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    same_clip = row(0, response="Another answer about the same clip.")
    first.write_text("\n".join(json.dumps(fields) for fields in [row(0), row(1), same_clip]))
    reordered = dict(reversed(row(1).items()))
    second.write_text("\n".join(["{", json.dumps(reordered), "{", json.dumps(row(0))]))
    digests = [rows.scan_manifest(str(path)).digest for path in (first, second)]
    assert rows.find_duplicates(digests) == {4: 1, 6: 0}


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        rows.scan_manifest(str(tmp_path / "nowhere.jsonl"))
