"""Judges: an endpoint that is busy, broken or refuses, its cache, a model of ours."""

import pytest

from desta_jax.endpoint import Endpoint
from desta_jax.evaluation import judge as judging
from desta_jax.evaluation.judge import EndpointJudge, Inquiry, ModelJudge, RecordedJudge

CUT = {"choices": [{"message": {"content": "Let me think: yes"}, "finish_reason": "length"}]}


@pytest.fixture
def endpoint(serve, reply_with):
    """An endpoint whose replies are set ahead, the last of them for ever: a status, a body, or the choices' texts."""

    def start(*replies):
        left = list(replies)

        def answer(body, times):
            reply = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(reply, int):
                return reply, {"Retry-After": "0"}, {}
            return reply_with(*reply) if isinstance(reply, list) else (200, {}, reply)

        return serve(answer)

    return start


def inquiry(number=0, **changes):
    return Inquiry(f"q{number}", "said", [{"role": "user", "content": f"judge {number}"}], **changes)


def make(there, tmp_path, **changes):
    return EndpointJudge(Endpoint(there.url, "gpt", wait=0.0, tries=3, **changes), tmp_path / "cache.jsonl")


def test_the_request_and_the_key_from_the_environment(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    there = endpoint(["yes", "no", "yes"])
    judge = make(there, tmp_path, key_variable="JUDGE_KEY")
    assert judge.verdicts([inquiry(samples=3, temperature=0.5, top_p=0.95)]) == [["yes", "no", "yes"]]
    (body,), (headers,) = there.bodies, there.headers
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["n"], body["temperature"], body["top_p"]) == ("gpt", 3, 0.5, 0.95)
    assert judge.name == "gpt"
    assert "secret" not in (tmp_path / "cache.jsonl").read_text()


def test_no_verdict_is_asked_for_twice(endpoint, tmp_path):
    there = endpoint(["yes"])
    for _ in range(2):  # another process too: the cache is on disk
        assert make(there, tmp_path).verdicts([inquiry(0), inquiry(1)]) == [["yes"], ["yes"]]
    assert len(there.bodies) == 2
    make(there, tmp_path).verdicts([inquiry(0, temperature=1.0)])
    assert len(there.bodies) == 3


def test_a_busy_or_garbled_endpoint_is_asked_again(endpoint, tmp_path):
    there = endpoint(429, {"error": "no choices"}, ["yes"])
    assert make(there, tmp_path).verdicts([inquiry()]) == [["yes"]]


def test_an_endpoint_that_stays_broken_gives_no_verdict_and_none_is_kept(endpoint, tmp_path):
    there = endpoint(500)
    with pytest.warns(UserWarning, match=r"1 of 1 answers got no verdict; the first: HTTP 500.*\(3 tries\)"):
        assert make(there, tmp_path).verdicts([inquiry()]) == [[]]
    assert len(there.bodies) == 3
    assert not (tmp_path / "cache.jsonl").exists()


@pytest.mark.parametrize(("reply", "why"), [(CUT, "was cut off after 4096 tokens"), ([" "], "is empty")])
def test_a_judge_that_has_not_finished_gives_no_verdict_and_none_is_kept(endpoint, tmp_path, reply, why):
    there = endpoint(reply, ["yes"])
    judge = make(there, tmp_path)
    with pytest.warns(UserWarning, match=rf"1 of 1 answers got no verdict; the first: the verdict {why}"):
        assert judge.verdicts([inquiry()]) == [[]]
    assert judge.verdicts([inquiry()]) == [["yes"]]


def test_an_endpoint_that_answers_nobody_any_more_ends_the_judging_and_what_it_said_is_kept(endpoint, tmp_path):
    there = endpoint(["yes"], ["yes"], 503)
    with pytest.raises(ValueError, match=r"does not answer; run this again later to go on. HTTP 503.*\(3 tries\)"):
        make(there, tmp_path, at_once=2).verdicts([inquiry(number) for number in range(40)])
    assert len(there.bodies) < 40  # of 2 + 3 x 38; a few may have begun before the second outage was known
    assert len((tmp_path / "cache.jsonl").read_text().splitlines()) == 2


def test_an_endpoint_that_answers_none_of_a_few_is_no_judge(endpoint, tmp_path):
    there = endpoint(503)
    with pytest.raises(ValueError, match="does not answer; run this again later to go on. HTTP 503"):
        make(there, tmp_path, at_once=8).verdicts([inquiry(number) for number in range(3)])


def test_outages_with_replies_between_them_end_nothing(serve, reply_with, tmp_path):
    there = serve(lambda body, times: (500, {}, {}) if int(body["messages"][0]["content"][6:]) % 2 else reply_with("a"))
    with pytest.warns(UserWarning, match="4 of 8 answers got no verdict"):
        found = make(there, tmp_path, at_once=1).verdicts([inquiry(number) for number in range(8)])
    assert found == [["a"], []] * 4


def test_an_endpoint_that_answers_once_is_asked_for_the_rest(endpoint, tmp_path):
    there = endpoint(["1"], ["2"], ["3"])
    assert make(there, tmp_path).verdicts([inquiry(samples=3)]) == [["1", "2", "3"]]
    assert [body["n"] for body in there.bodies] == [3, 2, 1]


def test_a_refusal_is_an_error_that_names_the_key(endpoint, tmp_path):
    with pytest.raises(ValueError, match=r"refuses .HTTP 401.*\$OPENAI_API_KEY"):
        make(endpoint(401), tmp_path).verdicts([inquiry()])


def test_verdicts_keep_the_order_of_the_inquiries(endpoint, tmp_path):
    there = endpoint(["a"], ["b"], ["c"], ["d"])
    judge = make(there, tmp_path, at_once=1)
    assert judge.verdicts([inquiry(n) for n in range(4)]) == [["a"], ["b"], ["c"], ["d"]]


def test_a_model_of_ours_judges_with_as_many_samples_as_wanted(model):
    said = model(lambda messages: RuntimeError("too long") if "judge 2" in messages[0]["content"] else "yes")
    judge = ModelJudge(said, "ours")
    inquiries = [inquiry(0), inquiry(1, samples=3, temperature=0.5), inquiry(2), inquiry(3, samples=3)]
    assert judge.verdicts(inquiries) == [["yes"], ["yes"] * 3, [], ["yes"]]
    judge.verdicts([inquiry(0, samples=2, temperature=0.5, top_p=0.95)])
    assert said.drawn[-1] == {"temperature": 0.5, "top_p": 0.95, "top_k": 0, "repetition_penalty": 1.0}


def test_judges_say_how_far_they_are(endpoint, tmp_path, model, monkeypatch):
    monkeypatch.setattr(judging, "SAY_EVERY", 0.0)
    judge, lines = make(endpoint(["yes"]), tmp_path, at_once=1), []
    judge.verdicts([inquiry(0)])
    judge.say = lines.append
    judge.verdicts([inquiry(number) for number in range(3)])  # one of them is known
    ModelJudge(model(lambda _: "yes"), "ours", batch_size=2, say=lines.append).verdicts([inquiry(0), inquiry(1)] * 2)
    assert [line.partition(" verdicts, ")[0] for line in lines] == [
        "judge: 1 of 2", "judge: 2 of 2", "judge: 2 of 4", "judge: 4 of 4"
    ]  # fmt: skip
    assert all(line.endswith(" left") for line in lines)


def test_recorded_verdicts_hold_for_the_response_they_were_given_on():
    judge = RecordedJudge("file", {"q0": ("said", ["yes"]), "q1": ("other", ["yes"])})
    assert judge.verdicts([inquiry(0), inquiry(1), inquiry(2)]) == [["yes"], [], []]
