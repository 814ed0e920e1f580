"""The client of an OpenAI-compatible endpoint, against a server of ours."""

import time

import pytest

from desta_jax.endpoint import Endpoint

BUSY = (503, {}, {"error": "busy"})


def ask(text):
    return [{"role": "user", "content": text}]


def test_answers_come_in_order_with_the_settings_sent(serve, reply_with, monkeypatch):
    def answer(body, _):
        word = body["messages"][0]["content"]
        time.sleep(0.05 if word == "a" else 0)
        return reply_with(word.upper(), finish="length" if word == "b" else "stop")

    monkeypatch.setenv("MY_KEY", "secret")
    server = serve(answer)
    endpoint = Endpoint(server.url, "some-model", key_variable="MY_KEY")
    counts: list[int] = []
    answers = endpoint.complete([ask("a"), ask("b"), ask("c")], counts.append, temperature=0.05, max_tokens=9)
    assert sum(counts) == 3
    assert [(each.text, each.cut, each.error) for each in answers] == [
        ("A", False, ""),
        ("B", True, ""),
        ("C", False, ""),
    ]
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("some-model", 0.05, 9)
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_busy_endpoint_is_asked_again(serve, reply_with):
    server = serve(lambda body, times: reply_with("there") if times > 2 else BUSY)
    (answer,) = Endpoint(server.url, "m", wait=0.01).complete([ask("a")])
    assert answer.text == "there" and sum(server.asked.values()) == 3


def test_waits_double_and_the_endpoints_own_wish_goes_first(serve, reply_with, monkeypatch):
    waits = []
    monkeypatch.setattr("desta_jax.endpoint.time.sleep", waits.append)
    replies = [BUSY, BUSY, (429, {"Retry-After": "7"}, {}), BUSY, reply_with("there")]
    server = serve(lambda body, times: replies[times - 1])
    Endpoint(server.url, "m", wait=1).complete([ask("a")])
    assert waits == [1, 2, 7, 8]


@pytest.mark.parametrize("broken", [(200, {}, b"<html>"), (200, {}, {"choices": []}), (200, {}, {})])
def test_an_unreadable_reply_is_asked_for_again(serve, reply_with, broken):
    server = serve(lambda body, times: reply_with("there") if times > 1 else broken)
    assert Endpoint(server.url, "m", wait=0).complete([ask("a")])[0].text == "there"


def test_an_error_whose_words_break_off_is_asked_again(serve, reply_with):
    cut = (503, {"Transfer-Encoding": "chunked"}, b"no chunk")
    server = serve(lambda body, times: reply_with("there") if times > 1 else cut)
    assert Endpoint(server.url, "m", wait=0).complete([ask("a")])[0].text == "there"


def test_an_answer_that_cannot_be_had_says_why_and_the_others_stand(serve, reply_with):
    def answer(body, _):
        return (400, {}, {"error": "too long"}) if body["messages"][0]["content"] == "b" else reply_with("fine")

    server = serve(answer)
    one, two = Endpoint(server.url, "m", wait=0).complete([ask("a"), ask("b")])
    assert one.text == "fine" and two.text == "" and "HTTP 400" in two.error and "too long" in two.error


def test_a_refusal_of_each_request_stops_everything(serve):
    """A setting that the model there does not know would make rows of nothing, and no second try."""
    server = serve(lambda body, times: (400, {}, {"error": "no max_tokens here"}))
    with pytest.raises(ValueError, match=r"refuses \(HTTP 400.*no max_tokens here"):
        Endpoint(server.url, "m").complete([ask(str(number)) for number in range(20)])


def test_an_endpoint_that_stays_away_stops_everything(serve):
    """What it was not asked is not lost: the same command goes on later."""
    server = serve(lambda body, times: BUSY)
    with pytest.raises(ValueError, match=r"does not answer; run this again later to go on.*503"):
        Endpoint(server.url, "m", wait=0, tries=3, at_once=1).complete([ask(str(number)) for number in range(50)])
    assert max(server.asked.values()) == 3 and sum(server.asked.values()) < 50


def test_half_a_character_of_a_reply_is_left_out(serve, reply_with):
    server = serve(lambda body, times: reply_with("fine \ud83d"))
    (answer,) = Endpoint(server.url, "m").complete([ask("a")])
    assert answer.text == "fine ?"


def test_an_interrupt_leaves_what_waits_unasked():
    asked = []

    def work(item):
        asked.append(item)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Endpoint("http://127.0.0.1:9", "m", at_once=1).map(work, range(500))
    assert len(asked) < 500


def test_a_wrong_key_stops_everything(serve):
    server = serve(lambda body, times: (401, {}, {"error": "bad key"}))
    with pytest.raises(ValueError, match=r"refuses \(HTTP 401.*bad key.*OPENAI_API_KEY"):
        Endpoint(server.url, "m", at_once=1).complete([ask(str(number)) for number in range(50)])
    assert sum(server.asked.values()) < 50


def test_requests_under_way_are_bounded(serve, reply_with):
    def answer(body, _):
        time.sleep(0.02)
        return reply_with("x")

    server = serve(answer)
    Endpoint(server.url, "m", at_once=3).complete([ask(str(number)) for number in range(12)])
    assert server.most_at_once == 3


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/v1", "http:///v1", "localhost:8000/v1"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(ValueError, match="is no address of an endpoint: write it as http://HOST:PORT/v1"):
        Endpoint(url, "m")


def test_no_server_is_an_outage():
    (answer,) = Endpoint("http://127.0.0.1:9", "m", wait=0, tries=2).ask(ask("a"))
    assert "no reply that can be read" in answer.error and "2 tries" in answer.error and answer.outage
