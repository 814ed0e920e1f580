"""Judges: an endpoint that is busy, broken or refuses, its cache, a model of ours."""

import http.server
import json
import threading

import pytest

from desta_jax.evaluation.judge import EndpointJudge, Inquiry, ModelJudge, RecordedJudge


class Endpoint:
    """A chat endpoint on this machine whose replies are set ahead: a status, or the contents of choices."""

    def __init__(self, replies):
        self.replies, self.requests = list(replies), []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append((self.path, self.headers.get("Authorization"), body))
                reply = endpoint.replies.pop(0) if len(endpoint.replies) > 1 else endpoint.replies[0]
                status, content = (reply, {}) if isinstance(reply, int) else (200, reply)
                if isinstance(content, list):
                    content = {"choices": [{"message": {"content": text}} for text in content]}
                self.send_response(status)
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint():
    made = []

    def make(*replies):
        made.append(Endpoint(replies))
        return made[-1]

    yield make
    for each in made:
        each.server.shutdown()
        each.server.server_close()


def inquiry(number=0, **changes):
    return Inquiry(f"q{number}", "said", [{"role": "user", "content": f"judge {number}"}], **changes)


def make(endpoint, tmp_path, **changes):
    return EndpointJudge("gpt", tmp_path / "cache.jsonl", endpoint.url, wait=0.0, tries=3, **changes)


def test_the_request_and_the_key_from_the_environment(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    there = endpoint(["yes", "no", "yes"])
    judge = make(there, tmp_path, key_variable="JUDGE_KEY")
    assert judge.verdicts([inquiry(samples=3, temperature=0.5, top_p=0.95)]) == [["yes", "no", "yes"]]
    path, key, body = there.requests[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["n"], body["temperature"], body["top_p"]) == ("gpt", 3, 0.5, 0.95)
    assert judge.name == "gpt"
    assert "secret" not in (tmp_path / "cache.jsonl").read_text()


def test_no_verdict_is_asked_for_twice(endpoint, tmp_path):
    there = endpoint(["yes"])
    for _ in range(2):  # another process too: the cache is on disk
        assert make(there, tmp_path).verdicts([inquiry(0), inquiry(1)]) == [["yes"], ["yes"]]
    assert len(there.requests) == 2
    make(there, tmp_path).verdicts([inquiry(0, temperature=1.0)])
    assert len(there.requests) == 3


def test_a_busy_or_garbled_endpoint_is_asked_again(endpoint, tmp_path):
    there = endpoint(429, {"error": "no choices"}, ["yes"])
    assert make(there, tmp_path).verdicts([inquiry()]) == [["yes"]]


def test_an_endpoint_that_stays_broken_gives_no_verdict_and_none_is_kept(endpoint, tmp_path):
    there = endpoint(500)
    assert make(there, tmp_path).verdicts([inquiry()]) == [[]]
    assert len(there.requests) == 3
    assert not (tmp_path / "cache.jsonl").exists()


def test_an_endpoint_that_answers_once_is_asked_for_the_rest(endpoint, tmp_path):
    there = endpoint(["1"], ["2"], ["3"])
    assert make(there, tmp_path).verdicts([inquiry(samples=3)]) == [["1", "2", "3"]]
    assert [body["n"] for _, _, body in there.requests] == [3, 2, 1]


def test_a_refusal_is_an_error_that_names_the_key(endpoint, tmp_path):
    with pytest.raises(ValueError, match=r"refuses \(401\).*\$OPENAI_API_KEY"):
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


def test_recorded_verdicts_hold_for_the_response_they_were_given_on():
    judge = RecordedJudge("file", {"q0": ("said", ["yes"]), "q1": ("other", ["yes"])})
    assert judge.verdicts([inquiry(0), inquiry(1), inquiry(2)]) == [["yes"], [], []]
