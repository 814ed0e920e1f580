"""The language model as it writes and as it scores, against transformers' own Llama."""

import dataclasses

import pytest
import torch
import transformers

from desta_jax.construct import perplexity
from desta_jax.construct.generators import OwnModel, Writing
from desta_jax.construct.perplexity import overall, perplexities
from desta_jax.generation import Sampling
from desta_jax.generation.text import Backbone, open_backbone

QUESTIONS = ["What?", "Describe the animal that you hear, please.", "Who speaks?", "Is it loud?", "Where?"]
REQUESTS = [
    [
        {"role": "system", "content": "Listen."},
        {"role": "user", "content": f"<start_audio>(Dog)<end_audio>\n{question}"},
    ]
    for question in QUESTIONS
]
GREEDY = Writing(temperature=0, max_new_tokens=12)


@pytest.fixture(scope="module")
def backbone(model_folder):
    return open_backbone(str(model_folder[0]), dtype="float32", batch_size=4)


@pytest.fixture(scope="module")
def oracle(model_folder):
    """The converted folder keeps the language model in bfloat16, so the oracle gets those values."""
    model = transformers.LlamaForCausalLM.from_pretrained(model_folder[1], dtype=torch.bfloat16).float().eval()
    return model, transformers.AutoTokenizer.from_pretrained(model_folder[1])


def prompt_of(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]


def test_greedy_replies_are_those_of_transformers(backbone, oracle):
    model, tokenizer = oracle
    replies = OwnModel(backbone).write(REQUESTS, GREEDY, seed=0)
    for messages, reply in zip(REQUESTS, replies):
        prompt = prompt_of(tokenizer, messages)
        said = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12)
        said = said[0, prompt.shape[1] :]
        assert reply.text == tokenizer.decode(said, skip_special_tokens=True).strip()
        assert reply.cut == (int(said[-1]) not in backbone.tongue.stops)


def test_replies_depend_on_the_request_and_the_seed_alone(backbone):
    hot = Writing(temperature=1.0, max_new_tokens=12)
    model = OwnModel(backbone)
    first = model.write(REQUESTS, hot, seed=3)
    assert model.write(REQUESTS, hot, seed=3) == first
    assert model.write(REQUESTS, hot, seed=4) != first
    assert model.write(REQUESTS[:2], hot, seed=3) == first[:2]


def test_a_request_that_cannot_be_asked_costs_no_other(backbone):
    wrong = [{"role": "user", "content": "Hear <|AUDIO|>"}]
    answers = backbone.write([REQUESTS[0], wrong, REQUESTS[1]], Sampling(0), 4)
    assert "<|AUDIO|>" in answers[1].error and answers[0].token_ids and answers[2].token_ids


def test_what_is_asked_again_is_not_written_again(backbone, monkeypatch):
    written, write_batch = [], Backbone._write_batch

    def watch(self, asked, *rest):
        written.extend(asked)
        return write_batch(self, asked, *rest)

    monkeypatch.setattr(Backbone, "_write_batch", watch)
    fresh = OwnModel(dataclasses.replace(backbone, _answered={}))
    counts: list[int] = []
    replies = fresh.write([*REQUESTS, *REQUESTS[:2]], GREEDY, seed=0, answered=counts.append)
    assert sum(counts) == len(REQUESTS) + 2
    assert written == REQUESTS and replies[5:] == replies[:2]
    assert fresh.write(REQUESTS[3:], GREEDY, seed=1) == replies[3:5] and written == REQUESTS
    shorter = dataclasses.replace(GREEDY, max_new_tokens=3)
    assert fresh.write(REQUESTS[:1], shorter, seed=0) != replies[:1], "another limit is another request"
    hot = Writing(temperature=1.0, max_new_tokens=12)
    assert len({reply.text for reply in fresh.write(REQUESTS[:1] * 4, hot, seed=3)}) > 1, "drawn anew"


def test_a_request_that_is_too_long_is_an_error_and_the_others_stand(backbone):
    long = [{"role": "user", "content": "dog " * 5000}]
    bad, good = backbone.write([long, REQUESTS[0]], Sampling(0.0), 12)
    assert "no room" in bad.error and good == backbone.write(REQUESTS[:1], Sampling(0.0), 12)[0]
    assert not backbone.is_cut(bad)


def test_perplexity_is_that_of_transformers(backbone, oracle, monkeypatch):
    monkeypatch.setattr(perplexity, "SECONDS_BETWEEN_LINES", 0.0)
    model, tokenizer = oracle
    rows = [
        {
            "messages": [messages[0], {**messages[1], "content": f"<start_audio><|AUDIO|><end_audio>\n{question}"}],
            "seed_description": "(Dog)",
            "response": f"It is a dog, number {index}." * (index + 1),
        }
        for index, (messages, question) in enumerate(zip(REQUESTS, QUESTIONS))
    ]
    lines = []
    found = perplexities(backbone, rows, lines.append)
    assert lines[-1] == f"construct: the perplexity of {len(rows)} of {len(rows)} rows is measured, 0m 00s left"
    for messages, row, measured in zip(REQUESTS, rows, found):
        prompt = prompt_of(tokenizer, messages)
        response = tokenizer(row["response"] + tokenizer.eos_token, add_special_tokens=False, return_tensors="pt")
        labels = torch.cat([torch.full_like(prompt, -100), response["input_ids"]], dim=1)
        with torch.no_grad():
            loss = model(torch.cat([prompt, response["input_ids"]], dim=1), labels=labels).loss
        assert measured == pytest.approx(float(loss.exp()), rel=1e-4)  # float32 sums in another order


def test_overall_perplexity_leaves_out_rows_without_one():
    figures = overall([2.0, 8.0, None])
    assert figures["rows"] == 2 and figures["geometric_mean"] == 4 and figures["median"] == 5
    assert overall([None]) is None


def test_wrong_numbers_are_refused(model_folder):
    with pytest.raises(ValueError, match="dtype: 'float17'"):
        open_backbone(str(model_folder[0]), dtype="float17")
    with pytest.raises(ValueError, match="no converted folder"):
        open_backbone(str(model_folder[0].parent))
