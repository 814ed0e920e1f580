"""Answers: as transformers gives them, alone or in a batch, on one device or a mesh."""

import json
import shutil

import pytest
import torch

from desta_jax import generation
from desta_jax.generation import Request, Sampling, talk
from desta_jax.sharding import make_mesh

FAMILIES = ("llama", "qwen2", "qwen3")
GREEDY = {"temperature": 0.0, "max_new_tokens": 12, "transcripts": "given"}


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_about_clips_are_transformers_own(family, load, ask, clips, answer_in_torch, soft_of):
    model = load(family)
    (answer,) = model.generate(ask(" what?", *clips[:2]), **GREEDY)
    prompt = model.prompts.inference(ask(" what?", *clips[:2]), ["said 0", "said 1"])
    assert answer.error is None
    assert answer.token_ids == answer_in_torch(family, prompt, soft_of(model, *clips[:2]), 12)
    assert answer.transcripts == ("said 0", "said 1")


@pytest.mark.parametrize("family", FAMILIES)
def test_text_alone_is_answered_as_by_the_text_model(family, load, made):
    model = load(family)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you, and why?"}]
    (answer,) = model.generate(messages, temperature=0.0, max_new_tokens=20)
    text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([model.tokenizer.encode(text)])
    with torch.no_grad():
        out = made[family].llm.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
    assert answer.token_ids == tuple(out.tolist())
    assert answer.text == model.tokenizer.decode(out, skip_special_tokens=True)


def test_a_models_own_repetition_penalty_is_transformers_own(
    load, made, ask, clips, answer_in_torch, soft_of, tmp_path, monkeypatch
):
    """Of what is said, also where the likeliest token is taken, and of a prompt that has no clips."""
    folder, llm = tmp_path / "qwen2", made["qwen2"].llm
    shutil.copytree(made["qwen2"].folder, folder)
    settings = json.loads((folder / "llm/generation_config.json").read_text()) | {"repetition_penalty": 1.7}
    (folder / "llm/generation_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(llm.generation_config, "repetition_penalty", 1.7)
    model = generation.load(folder, adapter=made["qwen2"].adapter, dtype="float32", cache_programs=False)
    (heard,) = model.generate(ask(" what?", *clips[:2]), **GREEDY | {"max_new_tokens": 30})
    prompt = model.prompts.inference(ask(" what?", *clips[:2]), ["said 0", "said 1"])
    assert heard.token_ids == answer_in_torch("qwen2", prompt, soft_of(model, *clips[:2]), 30)
    (read,) = model.generate(ask("Who are you?"), temperature=0.0, max_new_tokens=30)
    ids = torch.tensor(model.prompts.inference(ask("Who are you?"), []).tokens)[None].long()
    with torch.no_grad():
        out = llm.generate(ids, max_new_tokens=30, do_sample=False)[0, ids.shape[1] :]
    assert read.token_ids == tuple(out.tolist())
    plain = load("qwen2").generate([ask(" what?", *clips[:2]), ask("Who are you?")], **GREEDY | {"max_new_tokens": 30})
    assert all(one.token_ids != other.token_ids for one, other in zip((heard, read), plain)), "it makes a difference"


def various(ask, clips):
    """Requests of many lengths, with no clip, one and two; greedy and drawn."""
    questions = [
        ask("a?", clips[0]),
        ask("and now a longer question, about both?", *clips[:2]),
        ask("text only"),
        ask("b" * 90, clips[1]),
        ask("c?", clips[1]),
    ]
    samplings = [Sampling(0), Sampling(0.9, seed=7), Sampling(1.3, 0.8, 5, 7), Sampling(0), Sampling(0.9, seed=7)]
    limits = [12, 9, 12, 5, 12]
    return [Request(*parts, number) for number, parts in enumerate(zip(questions, limits, samplings))]


def tokens(answers):
    answers = list(answers)
    assert [answer.error for answer in answers] == [None] * len(answers)
    return [answer.token_ids for answer in answers]


def test_a_batch_is_answered_as_its_requests_one_at_a_time(load, ask, clips):
    model, requests = load(), various(ask, clips)
    together = tokens(model.answers(requests, transcripts="given", batch_size=8))
    assert together == tokens(model.answers(requests, transcripts="given", batch_size=1))
    assert len(set(together)) == len(requests)
    assert [len(ids) for ids in together] <= [request.max_new_tokens for request in requests]


def test_a_batch_closes_ranks_as_its_answers_end(load, ask, clips, monkeypatch):
    model = load()
    limits = [2, 60, 5, 3, 40, 4, 2, 25]
    draws = [Sampling(0), Sampling(0.9, seed=7)] * 4
    requests = [Request(ask("x" * number, clips[0]), *rest) for number, rest in enumerate(zip(limits, draws, range(8)))]
    widths = []
    kept = talk._keep_rows
    monkeypatch.setattr(talk, "_keep_rows", lambda *args: widths.append(len(args[2])) or kept(*args))
    together = tokens(model.answers(requests, transcripts="given", batch_size=8))
    assert widths and widths == sorted(widths, reverse=True) and widths[-1] < 8
    assert together == tokens(model.answers(requests, transcripts="given", batch_size=1)), (
        "a row alone has no ranks to close"
    )


def test_a_mesh_answers_as_one_device(load, made, ask, clips):
    requests = various(ask, clips)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    spread = load(adapter=made["llama"].adapter, dtype="float32", mesh=mesh)
    kernel = spread.tongue.model.layers[0].mlp.gate.kernel
    assert kernel.sharding.shard_shape(kernel.shape) == (16, 24), "weights lie over fsdp and tensor"
    expected = tokens(load().answers(requests, transcripts="given", batch_size=8))
    assert tokens(spread.answers(requests, transcripts="given", batch_size=8)) == expected


def test_a_cache_that_grows_keeps_what_it_holds(load, ask, clips, answer_in_torch, soft_of):
    model = load()
    prompt = model.prompts.inference(ask("?", clips[0]), ["said 0"])
    (answer,) = model.generate(ask("?", clips[0]), temperature=0.0, max_new_tokens=150, transcripts="given")
    assert len(prompt.tokens) < 64 and len(prompt.tokens) + 150 > 128, "the answer outgrows the first cache"
    assert answer.token_ids == answer_in_torch("llama", prompt, soft_of(model, clips[0]), 150)


def test_a_long_prompt_is_read_in_parts(load, ask, monkeypatch):
    model = load()
    requests = [Request(ask("x" * 100), 10, Sampling(0), 0), Request(ask("short"), 10, Sampling(0), 1)]
    whole = tokens(model.answers(requests))
    monkeypatch.setattr("desta_jax.generation.talk.READ_AT_ONCE", 48)
    assert tokens(model.answers(requests)) == whole
