"""The pipeline against a bare loop that only reads, decodes and tokenises the same samples, in one thread.

    python tests/benchmarks/pipeline.py                                      # clips and tokenizer made on the spot
    python tests/benchmarks/pipeline.py --records DIR --tokenizer DIR --placeholder "<|video_pad|>"
    python tests/benchmarks/pipeline.py --pack --threads 4 --workers 2

The loop does no batching, no padding to 30 s and no shuffling; a ratio of 1 says that those cost nothing.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import tempfile
import time

import numpy as np
import soundfile
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from desta_jax.audio.load import decode_flac
from desta_jax.config import make_config
from desta_jax.inputs.pipeline import training_inputs
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.records import schema
from desta_jax.records.read import RecordSource
from desta_jax.records.write import write_records

SENTENCE = "the speaker says hello in a calm voice while rain falls and a dog barks at the old piano"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT_SIZE = 64
ROUNDS = 3  # taken in turn; the best of each is the least disturbed


def main():
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        records = arguments.records or make_records(pathlib.Path(folder), arguments.samples)
        tokenizer = (
            transformers.AutoTokenizer.from_pretrained(arguments.tokenizer) if arguments.tokenizer else make_tokenizer()
        )
        prompts = PromptBuilder(tokenizer, PROMPT_SIZE, arguments.placeholder)
        compare(arguments, records, prompts)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", help="a folder that `desta-jax records` wrote")
    parser.add_argument("--tokenizer", help="a Hugging Face folder")
    parser.add_argument("--placeholder", default="<|video_pad|>")
    parser.add_argument("--samples", type=int, default=400, help="how many to take")
    parser.add_argument("--rows", type=int, default=12, help="of a batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--prefetch", type=int, default=2)
    parser.add_argument("--pack", action="store_true")
    return parser.parse_args()


def compare(arguments, records, prompts):
    changes = {f"data.{name}": getattr(arguments, name) for name in ("threads", "workers", "prefetch", "pack")}
    config = make_config({"data.train": (records,), **changes})
    inputs = training_inputs(config, prompts, rows_per_step=arguments.rows)
    steps = max(1, arguments.samples * inputs.rows_per_epoch // inputs.samples_per_epoch // arguments.rows)
    loop, pipeline = [], []
    for _ in range(ROUNDS):
        loop.append(run_loop(records, prompts, config.data.max_length, arguments.samples))
        pipeline.append(run_pipeline(inputs, steps))
    show("bare loop, 1 thread", loop)
    show(f"pipeline, {arguments.threads} threads, {arguments.workers} workers", pipeline)
    print(f"first batch after {min(run.first for run in pipeline):.2f} s")
    print(f"ratio: {best(pipeline) / best(loop):.2f} in samples/s, on {os.cpu_count()} cores")


@dataclasses.dataclass
class Round:
    samples_per_second: float
    cpu_ms: float
    """Of this process, a sample."""
    first: float = 0.0
    """Seconds to the first batch."""


def best(rounds):
    return max(run.samples_per_second for run in rounds)


def show(name, rounds):
    cpu = min(run.cpu_ms for run in rounds)
    print(f"{name}: {best(rounds):.1f} samples/s, {cpu:.2f} ms of CPU a sample (best of {len(rounds)})")


def run_loop(records, prompts, max_length, count):
    source = RecordSource(records)
    order = np.random.default_rng(0).permutation(len(source))
    start, cpu = time.perf_counter(), time.process_time()
    for number in itertools.islice(itertools.cycle(order), count):
        sample = schema.decode(source[number])
        for flac in sample.audio:
            decode_flac(flac)
        prompts.training(sample.messages, sample.response, max_length)
    return Round(count / (time.perf_counter() - start), 1e3 * (time.process_time() - cpu) / count)


def run_pipeline(inputs, steps):
    """Counted from the second batch on, when the ones after it are on their way too."""
    begin = time.perf_counter()
    batches = inputs.batches(0)
    next(batches)
    start, cpu = time.perf_counter(), time.process_time()
    samples = sum(int(batch.segments.max(1).sum()) for batch in itertools.islice(batches, steps))
    end, cpu_end = time.perf_counter(), time.process_time()
    batches.close()
    return Round(samples / (end - start), 1e3 * (cpu_end - cpu) / samples, start - begin)


def make_records(folder, count):
    """Clips of 2 to 20 s of tones in noise, which FLAC packs to about what it packs speech to."""
    random = np.random.default_rng(0)
    with open(folder / "rows.jsonl", "w") as rows:
        for number in range(count):
            seconds = np.arange(int(random.uniform(2, 20) * 16_000)) / 16_000
            tone = np.sin(2 * np.pi * random.uniform(80, 400) * seconds) * np.sin(2 * np.pi * 3 * seconds) ** 2
            noise = random.normal(0, 0.02, len(seconds))
            soundfile.write(folder / f"{number}.wav", 0.3 * tone + noise, 16_000)
            rows.write(schema.dump_messages([row_of(number, random)])[1:-1] + "\n")
    write_records([str(folder / "rows.jsonl")], str(folder), str(folder / "records"), report=lambda line: None)
    return str(folder / "records")


def row_of(number, random):
    def words(low, high):
        return " ".join(random.choice(SENTENCE.split(), random.integers(low, high)))

    content = f"<start_audio><|AUDIO|><end_audio>\n{words(5, 20)}?"
    clip = {"audio": f"{number}.wav", "text": words(3, 30)}
    messages = [
        {"role": "system", "content": "Focus on the audio clips and instructions.", "audios": []},
        {"role": "user", "content": content, "audios": [clip]},
    ]
    return {"id": str(number), "dataset": "made", "messages": messages, "response": words(20, 80)}


def make_tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([SENTENCE, "Focus on the audio clips and instructions."], trainer)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|video_pad|>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=TEMPLATE
    )


if __name__ == "__main__":
    main()
