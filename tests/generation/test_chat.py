"""Conversations: the cache is kept between turns, and nothing that is said changes by it."""

import pytest

from desta_jax.generation import Sampling
from desta_jax.generation.chat import Chat, converse
from desta_jax.generation.model import Request
from desta_jax.generation.talk import Talk

LIMIT = 6


@pytest.fixture
def chat(load):
    return Chat(load(), max_new_tokens=LIMIT, sampling=Sampling(0))


def said_anew(chat):
    """The last answer, from an empty cache."""
    model = chat.model
    prompt = model.prompts.inference(chat._heard_messages[:-1], chat.transcripts)
    wish = model.wish_for(Request((), LIMIT, Sampling(0)), prompt, chat._soft)
    return model.tokenizer.decode(Talk(model.tongue, [wish]).answers()[0], skip_special_tokens=True), len(prompt.tokens)


def test_turns_are_answered_as_without_the_cache_and_read_only_what_is_new(chat, clips):
    turns = [("Who are you?", []), ("And this?", [clips[0]]), ("Really?", [])]
    read = []
    for text, audios in turns:
        said = "".join(chat.say(text, audios))
        expected, whole = said_anew(chat)
        assert said == expected and said
        read.append((chat.read_tokens, whole))
    assert read[0][0] == read[0][1]
    assert all(new < whole / 2 for new, whole in read[1:]), "old turns are read again"
    assert chat.transcripts == [" "]
    assert [message["role"] for message in chat.messages] == ["system"] + ["user", "assistant"] * 3


def test_a_cache_of_which_nothing_is_known_is_forgotten(load):
    model = load()
    wishes = [
        model.wish_for(
            Request((), LIMIT, Sampling(0)), model.prompts.inference([{"role": "user", "content": text}], []), []
        )
        for text in ("Who are you, and what do you hear?", "What?")
    ]
    before = Talk(model.tongue, wishes[:1])
    before.answers()
    after = Talk(model.tongue, wishes[1:], known=before.speech.cache)
    assert after.answers() == Talk(model.tongue, wishes[1:]).answers()


def test_a_turn_that_fails_leaves_the_conversation_as_it_was(chat):
    first = "".join(chat.say("Who are you?"))
    with pytest.raises(FileNotFoundError, match="nothing.wav"):
        list(chat.say("And this?", ["nothing.wav"]))
    assert len(chat.messages) == 3
    again = "".join(chat.say("Really?"))
    assert again == said_anew(chat)[0] and first == chat.messages[2]["content"]


def test_the_terminal(chat, clips):
    lines = iter(["", "/audio nothing.wav", "/audio", "/help", f"/audio {clips[0]}", "What?", "/quit"])
    shown = []
    converse(chat, read=lambda prompt: next(lines), write=shown.append)
    text = "".join(shown)
    assert "/audio: no such command. /audio FILE adds" in text and "/help: no such command" in text
    assert "nothing.wav: no such file" in text and "[heard: no words]" in text
    assert chat.messages[1]["content"] == "<|AUDIO|> What?" and chat.messages[2]["content"] in text
    assert len(chat.messages) == 3


def test_the_terminal_ends_with_its_input(chat):
    def end(prompt):
        raise EOFError

    converse(chat, read=end, write=lambda text: None)
