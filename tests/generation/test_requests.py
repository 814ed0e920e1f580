"""Files of requests: what can't be answered says so in its row, and a run that was stopped goes on."""

import fcntl
import json

import numpy as np
import pytest
import soundfile

from desta_jax.generation import Sampling
from desta_jax.generation.requests import answer_file

OPTIONS = {"max_new_tokens": 6, "sampling": Sampling(0), "transcripts": "given", "batch_size": 2}


def write(file, rows):
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def read(file):
    return {row["id"]: row for row in map(json.loads, file.read_text().splitlines())}


@pytest.fixture
def bad_audio(tmp_path):
    """Files that are no clips."""
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "no_samples.wav", np.zeros(0), 16000)
    (tmp_path / "corrupt.flac").write_bytes(b"fLaC" + bytes(range(200)))
    return tmp_path


def test_only_the_row_that_is_wrong_fails(load, ask, clips, bad_audio):
    user = {"role": "user", "content": "a?"}
    wrong = {
        "missing": (ask("a?", "nothing.wav"), "nothing.wav: no such file"),
        "empty": (ask("a?", "empty.wav"), "empty.wav: the file is empty"),
        "no samples": (ask("a?", "no_samples.wav"), "no_samples.wav: holds no samples"),
        "corrupt": (ask("a?", "corrupt.flac"), "corrupt.flac"),
        "a folder": (ask("a?", str(bad_audio)), "not a file"),
        "no name": ([user | {"content": "<|AUDIO|>", "audios": [{"audio": 3, "text": ""}]}], "must name a file, got 3"),
        "count": ([user, user | {"content": "<|AUDIO|>"}], "messages[1]: <|AUDIO|> stands 1 times"),
        "role": ([user | {"role": "robot"}], "messages[0]: role 'robot' is none of system, user, assistant"),
        "content": ([{"role": "user"}], 'messages[0]: "content" must be a text'),
        "wrong message": (
            [*ask("<|AUDIO|> a?", clips[0]), ask("b?", *clips[:2])[0] | {"content": "<|AUDIO|>"}],
            "messages[0]: <|AUDIO|> stands 2 times in its content but its audios are 1",
        ),
        "half a character": ([user | {"content": "a\ud83d"}], 'messages[0]: "content" must be a text'),
        "a number said": ([user | {"content": "<|AUDIO|>", "audios": [{"audio": clips[0], "text": 7}]}], "got 7"),
        "a long name": (ask("a?", "data:audio/wav;base64," + 300 * "A"), "no such file"),
        "too long": (ask("a" * 600), "the language model reads at most 512"),
        "untold": ([user | {"content": "<|AUDIO|>", "audios": [{"audio": clips[0]}]}], "has no \"text\""),
    }  # fmt: skip
    rows = [{"id": name, "messages": messages} for name, (messages, _) in wrong.items()]
    rows[1:1] = [{"id": "good", "messages": ask("a?", clips[0])}]
    rows += ["{", '"text"', {"id": "no messages"}, {"id": [1], "messages": ask("a?")}]
    rows += [{"id": "limit", "messages": ask("a?"), "max_new_tokens": 1.5}, {"id": 7, "messages": ask("b?", clips[1])}]
    requests, out = write(bad_audio / "in.jsonl", rows), bad_audio / "out.jsonl"
    asked, errors = answer_file(load(), requests, out, **OPTIONS)
    assert (asked, len(errors)) == (len(rows), len(rows) - 2) and all(errors)

    answers = read(out)
    assert [name for name, row in answers.items() if "text" in row] == ["good", 7]
    expected = load().generate(ask("a?", clips[0]), temperature=0, max_new_tokens=6, transcripts="given")[0]
    assert answers["good"]["token_ids"] == list(expected.token_ids)
    assert answers["good"]["transcripts"] == ["said 0"] and answers["good"]["text"] == expected.text
    for name, (_, message) in wrong.items():
        assert message in answers[name]["error"], name
    number = len(wrong) + 2
    for line, message in enumerate(["not JSON", "must be a JSON object", None, '"id" must be a text'], number):
        assert message is None or f"in.jsonl, line {line}: {message}" in answers[f"line {line}"]["error"]
    assert 'the row has no "messages"' in answers["no messages"]["error"]
    assert "max_new_tokens: must be a whole number, got 1.5" in answers["limit"]["error"]


def test_a_run_that_was_stopped_goes_on(load, ask, tmp_path, monkeypatch):
    rows = [{"id": f"r{n}", "messages": ask("a?" * (n + 1))} for n in range(5)]
    requests = write(tmp_path / "in.jsonl", rows)
    drawn = OPTIONS | {"sampling": Sampling(1.0, seed=3)}
    answer_file(load(), requests, tmp_path / "whole.jsonl", **drawn)
    out, model, answers = tmp_path / "out.jsonl", load(), type(load()).answers
    calls = []

    def stopped_in_the_second_batch(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answers(model, *arguments, **options)

    monkeypatch.setattr(model, "answers", stopped_in_the_second_batch, raising=False)
    with pytest.raises(KeyboardInterrupt):
        answer_file(model, requests, out, **drawn)
    monkeypatch.undo()
    assert list(read(out)) == ["r0", "r1"]
    out.write_text(out.read_text() + '{"id": "r2", "te')  # what a kill leaves of a line
    told = []
    assert answer_file(model, requests, out, **drawn, report=told.append) == (3, [])
    assert out.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert told[0] == "2 of 5 rows have their answers already" and told[-1].startswith("5 of 5 rows (100.0%), ")
    assert answer_file(model, requests, out, **drawn) == (0, [])


def test_answers_to_other_requests_of_the_same_ids_are_not_taken_for_these(load, ask, tmp_path):
    """Rows without ids are known by their lines: one that is put in front gives all others another's id."""
    rows = [{"messages": ask("a?")}, {"messages": ask("b?"), "max_new_tokens": 3}]
    requests, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    answer_file(load(), requests, out, **OPTIONS)
    written = out.read_bytes()
    for others, first in (([{"messages": ask("new?")}, *rows], 1), ([rows[0], rows[1] | {"max_new_tokens": 2}], 2)):
        write(requests, others)
        with pytest.raises(ValueError, match=f"answers to other requests of the same ids, '{first}' the first"):
            answer_file(load(), requests, out, **OPTIONS)
    assert out.read_bytes() == written
    write(requests, [*rows, {"messages": ask("new?")}])
    assert answer_file(load(), requests, out, **OPTIONS) == (1, [])


def test_answers_with_other_settings_are_not_mixed(load, ask, tmp_path):
    requests = write(tmp_path / "in.jsonl", [{"id": "a", "messages": ask("a?")}])
    out = tmp_path / "out.jsonl"
    answer_file(load(), requests, out, **OPTIONS, about={"model": "m"})
    written = out.read_bytes()
    write(requests, [{"id": name, "messages": ask("a?")} for name in "ab"])
    with pytest.raises(
        ValueError, match=r"other settings.*\n  model: 'm' then, 'n' now\n  temperature: 0 then, 1 now$"
    ):
        answer_file(load(), requests, out, **OPTIONS | {"sampling": Sampling(1)}, about={"model": "n"})
    assert out.read_bytes() == written
    assert answer_file(load(), requests, out, **OPTIONS | {"batch_size": 7}, about={"model": "m"}) == (1, [])


def test_two_processes_do_not_write_one_file(load, ask, tmp_path):
    requests = write(tmp_path / "in.jsonl", [{"id": "a", "messages": ask("a?")}])
    with (tmp_path / "out.jsonl.settings.json").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing .*out.jsonl: wait"):
            answer_file(load(), requests, tmp_path / "out.jsonl", **OPTIONS)
    assert answer_file(load(), requests, tmp_path / "out.jsonl", **OPTIONS) == (1, [])


def test_a_row_that_failed_is_tried_again(load, ask, clips, tmp_path):
    requests = write(tmp_path / "in.jsonl", [{"id": "a", "messages": ask("a?", "later.wav")}])
    out = tmp_path / "answers" / "out.jsonl"
    assert answer_file(load(), requests, out, **OPTIONS) == (1, ["later.wav: no such file"])
    (tmp_path / "later.wav").symlink_to(clips[0])  # beside the file of requests
    assert answer_file(load(), requests, out, **OPTIONS) == (1, [])
    assert "text" in read(out)["a"] and len(out.read_text().splitlines()) == 1


def test_names_that_are_no_text_come_back_as_they_are(load, ask, clips, tmp_path):
    rows = [{"id": "caf\udce9.wav", "messages": ask("a?", clips[0])}, {"id": "ö", "messages": ask("a?", "\ud83d.wav")}]
    requests, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    asked, errors = answer_file(load(), requests, out, **OPTIONS)
    assert (asked, len(errors)) == (2, 1)
    assert "token_ids" in read(out)["caf\udce9.wav"] and read(out)["ö"]["error"] == "\ud83d.wav: no such file"
    assert answer_file(load(), requests, out, **OPTIONS) == (1, errors), "only the one that failed is asked again"


def test_what_can_not_be_told_apart_is_refused(load, ask, tmp_path):
    requests = write(tmp_path / "in.jsonl", [{"id": "a", "messages": ask("a?")}] * 2)
    with pytest.raises(ValueError, match="two rows have the id 'a'"):
        answer_file(load(), requests, tmp_path / "out.jsonl")
    with pytest.raises(FileNotFoundError, match="no file"):
        answer_file(load(), tmp_path / "nothing.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="empty.jsonl has no rows"):
        answer_file(load(), write(tmp_path / "empty.jsonl", []), tmp_path / "out.jsonl")


def test_a_file_that_holds_no_answers_is_left_as_it_is(load, ask, tmp_path):
    requests, out = write(tmp_path / "in.jsonl", [{"id": "a", "messages": ask("a?")}]), tmp_path / "out.jsonl"
    rows = '{"id": "a", "messages": []}\n{"id": "b", "messages": []}'
    logged = '{"id": "a", "error": "", "level": 3}\n'
    for text in ("my notes\n", "my notes", rows, logged):
        out.write_text(text)
        with pytest.raises(ValueError, match=r"out\.jsonl, line 1: is no answer; name another --out"):
            answer_file(load(), requests, out)
        assert out.read_text() == text
        assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}
    (tmp_path / "same.jsonl").symlink_to(requests)
    before = requests.read_text()
    with pytest.raises(ValueError, match="same.jsonl is the file of requests: name another --out"):
        answer_file(load(), requests, tmp_path / "same.jsonl")
    assert requests.read_text() == before
