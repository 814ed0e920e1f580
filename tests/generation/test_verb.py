"""`desta-jax generate`, as it is called."""

import json
import sys

import pytest

from desta_jax import cli

GREEDY = ("--temperature", "0", "--max_new_tokens", "6", "--dtype", "float32")


@pytest.fixture
def generate(made, monkeypatch, capsys):
    """The function that runs the verb on a model; returns its exit status, output and messages."""
    monkeypatch.setattr(sys.modules["desta_jax.generation.load"], "keep_programs", lambda: None)
    model = ("--model", str(made["llama"].folder), "--adapter", str(made["llama"].adapter))

    def generate(*arguments):
        status = cli.main(["generate", *model, *arguments])
        return status, *capsys.readouterr()

    return generate


def test_a_question_about_clips(generate, load, ask, clips):
    (expected,) = load().generate(
        [{"role": "system", "content": "Listen."}, *ask(" what?", *clips[:2])],
        temperature=0, max_new_tokens=6, transcripts="given",
    )  # fmt: skip
    asked = ["--audio", *clips[:2], "--text", "said 0", "said 1", "--transcripts", "given", "--prompt", "what?"]
    status, out, messages = generate(*asked, *GREEDY, "--system", "Listen.", "--json")
    answer = json.loads(out)
    assert status == 0 and len(answer.pop("timings")) == 3
    assert answer == {
        "text": expected.text,
        "token_ids": list(expected.token_ids),
        "transcripts": ["said 0", "said 1"],
        "prompt_tokens": expected.prompt_tokens,
        "new_tokens": len(expected.token_ids),
    }
    status, out, messages = generate(*asked, *GREEDY, "--system", "Listen.")
    assert (status, out) == (0, expected.text + "\n")
    assert "[heard: said 0]\n[heard: said 1]\n" in messages


def test_a_question_without_a_clip_is_the_text_models(generate, load):
    (expected,) = load().generate([{"role": "user", "content": "Who?"}], temperature=0, max_new_tokens=6)
    assert generate("--prompt", "Who?", *GREEDY)[:2] == (0, expected.text + "\n")


def test_a_file_of_requests(generate, ask, clips, tmp_path):
    rows = [{"id": "a", "messages": ask("a?", clips[0])}, {"id": "b", "messages": ask("a?", "nothing.wav")}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = ["--requests", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    status, out, messages = generate(*files, *GREEDY, "--batch_size", "1")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (status, out) == (0, "")
    assert answers[0]["text"] and answers[0]["transcripts"] == [" "] and "nothing.wav" in answers[1]["error"]
    assert "1 of 2 rows (50.0%), " in messages and 'could not be answered, see their "error"' in messages


def test_a_file_of_which_nothing_can_be_answered_is_no_success(generate, ask, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "b", "messages": ask("a?", "nothing.wav")}))
    status, out, messages = generate("--requests", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "o"), *GREEDY)
    assert (status, out) == (1, "")
    assert '0 answers written; 1 could not be answered, see their "error"; the first: ' in messages
    assert "nothing.wav" in messages.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --prompt"),
        (["--prompt", "a", "--chat"], "give only one of --prompt"),
        (["--requests", "in.jsonl"], "--requests and --out belong together"),
        (["--chat", "--audio", "a.wav"], "in a chat, /audio FILE adds a clip"),
        (["--prompt", "a", "--audio", "a.wav", "--text", "b", "c"], "2 transcripts for 1 clips"),
        (["--prompt", "a", "--temperature", "-1"], "--temperature=-1"),
        (["--prompt", "a", "--mesh", "2"], "--mesh: write three numbers"),
        (["--requests", "a", "--out", "b", "--system", "c"], "rows of --requests have their own system messages"),
    ],
)
def test_a_wrong_command_line_is_refused_at_once(generate, monkeypatch, arguments, message, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    status, out, messages = generate(*arguments)
    assert (status, out) == (2, "") and message in messages


def test_what_fails_is_one_line_and_status_1(generate, clips):
    assert generate("--prompt", "a", "--audio", "nothing.wav") == (
        1, "", "desta-jax generate: nothing.wav: no such file\n",
    )  # fmt: skip
    assert generate("--prompt", "a", "--audio", "/")[::2] == (1, "desta-jax generate: /: is a folder; give a file\n")
    status, out, messages = generate("--prompt", "<|AUDIO|><|AUDIO|>", "--audio", clips[0], *GREEDY)
    assert (status, out) == (1, "") and messages.splitlines()[-1].startswith("desta-jax generate: messages[1]: ")
