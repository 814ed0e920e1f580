"""Requests and finished rows: the two forms of one message, and plans that repeat."""

import dataclasses
import json

import pytest

from desta_jax.construct.instructions import Instruction, load_pool
from desta_jax.construct.perplexity import reading_of
from desta_jax.construct.rows import Request, plan_requests
from desta_jax.records.rows import NO_SPEECH, parse_row

FIELDS = ["id", "dataset", "seed_description", "prompt", "messages", "response"]


@pytest.fixture(scope="module")
def pool():
    return load_pool()


@pytest.fixture
def corpus(clip_of):
    return [clip_of(f"{number}.wav", f"This is sentence number {number}.", Emotion="Happy") for number in range(40)]


def request_of(clips, text, layout="{audio}\n\n{instruction}"):
    return Request(tuple(clips), Instruction(text, "x", "Listen."), layout)


def test_the_model_reads_the_description_where_it_will_hear_the_audio(clip_of):
    request = request_of([clip_of("a.wav", "Hi.", Mood="calm")], "What?")
    reading, messages = request.reading(), request.messages()
    assert reading[0] == messages[0] == {"role": "system", "content": "Listen."}
    assert reading[1]["content"] == "<start_audio>[00:00-00:02] Hi. (Mood: calm)<end_audio>\n\nWhat?"
    assert messages[1]["content"] == "<start_audio><|AUDIO|><end_audio>\n\nWhat?"
    assert messages[1]["audios"] == [{"audio": "a.wav", "text": "Hi."}]


def test_a_clip_without_words_has_a_space_for_its_transcript(clip_of):
    assert request_of([clip_of(kind="sound", Sound="dog")], "What?").messages()[1]["audios"][0]["text"] == " "


@pytest.mark.parametrize(
    "text, content",
    [
        ("What?", "<1>\n<2>\n\nWhat?"),
        ("First {audio} then {audio}.", "First <1> then <2>."),
        ("{audio}", "<1>\n<2>"),
    ],
)
def test_the_places_of_several_clips(clip_of, text, content):
    assert request_of([clip_of("a.wav"), clip_of("b.wav")], text).content(["<1>", "<2>"]) == content


def test_rows_have_the_public_datasets_fields_and_are_taken_by_records(corpus, pool):
    for request in plan_requests(corpus, pool, seed=0, several=0.5):
        row = request.row("An answer.")
        assert list(row) == FIELDS
        parsed = parse_row(json.dumps(row).encode(), "row")
        assert parsed.clips == [clip.audio for clip in request.clips]


def test_the_same_seed_plans_the_same_and_another_one_other_requests(corpus, pool):
    plans = [[request.row("") for request in plan_requests(corpus, pool, seed, 2, 0.2)] for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_a_new_clip_changes_nothing_for_the_others(corpus, pool, clip_of):
    before = list(plan_requests(corpus, pool, seed=0))
    after = list(plan_requests([*corpus, clip_of("new.wav", "Something new.", Emotion="Happy")], pool, seed=0))
    assert [request.row("") for request in after[:-1]] == [request.row("") for request in before]


def test_no_clip_is_asked_the_same_twice(corpus, pool):
    requests = list(plan_requests(corpus[:3], pool, seed=0, rows_per_clip=20))
    assert len(requests) == 60 == len({(request.id, request.prompt) for request in requests})


def test_the_share_of_rows_with_several_clips(corpus, pool):
    requests = list(plan_requests(corpus, pool, seed=0, rows_per_clip=10, several=0.5))
    share = sum(len(request.clips) > 1 for request in requests) / len(requests)
    assert share == pytest.approx(0.5, abs=0.1)  # four standard errors of 400 draws
    assert {len(request.clips) for request in requests} == {1, 2, 3}


def test_a_finished_row_can_be_read_as_it_was_written_from(clip_of):
    one, two = clip_of("a.wav", "Hi."), clip_of("b.wav", "Ho.")
    for request in (request_of([one], "What?"), request_of([one], "Hear {audio} now.")):
        assert reading_of(request.row("x")) == request.reading()
    assert reading_of(request_of([one, two], "First {audio} then {audio}.").row("x")) is None


def test_some_rows_are_without_transcripts(corpus, pool):
    requests = list(plan_requests(corpus, pool, seed=0, rows_per_clip=10, transcripts=0.5))
    beside = [audio["text"] for request in requests for audio in request.messages()[1]["audios"]]
    bare = beside.count(NO_SPEECH)
    assert 0 < bare < len(beside)
    assert [request.reading() for request in requests] == [
        request.reading() for request in plan_requests(corpus, pool, seed=0, rows_per_clip=10)
    ]


def test_a_recognisers_text_stands_beside_the_clip_and_is_not_described(clip_of, pool):
    clip = dataclasses.replace(clip_of(Emotion="Happy"), given="hello there")
    request = next(plan_requests([clip], pool, seed=0))
    assert request.messages()[1]["audios"][0]["text"] == "hello there"
    assert "hello" not in str(request.reading())
