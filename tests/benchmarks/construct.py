"""Responses a second of `construct`'s language model against transformers' generate, on the same prompts, on a CPU.

    python tests/benchmarks/construct.py --model models/smol --llm folders/smollm2-135m-instruct

Both are in float32, with the same batches of prompts in the same order and the same stop tokens; both are warm (ours
compiles on its first batch, which is not counted, and neither is transformers' first). Greedy, so that the responses
can be compared; with --temperature 0.05 they are drawn as `construct` draws them.
"""

import argparse
import dataclasses
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import torch
import transformers

from desta_jax.construct.clip import Clip, Segment
from desta_jax.construct.instructions import load_pool
from desta_jax.construct.rows import plan_requests
from desta_jax.construct.write import cut_into_shards
from desta_jax.generation import Sampling
from desta_jax.generation.text import open_backbone

WORDS = ["I left my umbrella on the bus.", "Could you open the window, please?", "We finally got the keys!", ""]
SOUNDS = ["dog", "rooster", "rain", "car horn"]


def corpus(count):
    """Speech and sounds, half of each."""
    clips = []
    for number in range(count):
        kind, words = ("speech", WORDS[number % 4]) if number % 2 else ("sound", "")
        said = {"Emotion": ["Happy", "Sad"][number % 3 == 0]} if number % 2 else {"Sound": SOUNDS[number // 2 % 4]}
        clips.append(Clip(f"{number}.wav", "bench", kind, [Segment(words=words, attributes=said)], duration=4.0))
    return clips


def ours(folder, requests, batch, limit, temperature):
    backbone = open_backbone(folder, dtype="float32", batch_size=batch)
    sampling = Sampling(temperature, 1.0, top_k=0, repetition_penalty=1.0)
    backbone.write(requests, sampling, limit)  # every shape is compiled once
    backbone = dataclasses.replace(backbone, _answered={})  # which remembers what it said where nothing is drawn
    start = time.perf_counter()
    replies = backbone.write(requests, sampling, limit)
    return time.perf_counter() - start, [reply.text for reply in replies], backbone.tongue.stops.tolist()


def theirs(folder, requests, batch, limit, temperature, stops):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token

    def answer(part):
        texts = [tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in part]
        inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        drawn = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        options = {"max_new_tokens": limit, "eos_token_id": stops, **(drawn if temperature else {"do_sample": False})}
        said = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **options)
        said = said[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in tokenizer.batch_decode(said, skip_special_tokens=True)]

    answer(requests[:batch])
    start = time.perf_counter()
    replies = [text for at in range(0, len(requests), batch) for text in answer(requests[at : at + batch])]
    return time.perf_counter() - start, replies


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder from `desta-jax convert`")
    parser.add_argument("--llm", required=True, help="the Hugging Face folder that it was made from")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--limit", type=int, default=64, help="new tokens")
    parser.add_argument("--temperature", type=float, default=0.0)
    given = parser.parse_args()
    planned = list(plan_requests(corpus(given.requests), load_pool(), seed=0))
    requests = [request.reading() for shard in cut_into_shards(planned) for request in shard.requests]
    seconds, texts, stops = ours(given.model, requests, given.batch, given.limit, given.temperature)
    other_seconds, other_texts = theirs(given.llm, requests, given.batch, given.limit, given.temperature, stops)
    same = sum(one == other for one, other in zip(texts, other_texts))
    count = len(requests)
    print(f"construct     {seconds:7.1f} s, {count / seconds:6.2f} responses a second")
    print(f"transformers  {other_seconds:7.1f} s, {count / other_seconds:6.2f} responses a second")
    print(f"ratio {other_seconds / seconds:.2f}; {same} of {count} responses are the same to the letter")


if __name__ == "__main__":
    main()
