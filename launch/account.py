"""The quickstart's end: reads the exported adapter back, and tells what was done and what to try next.

python launch/account.py HERE        # the folder with model/, records/, run/ and adapter/
"""

import argparse
import json
import pathlib

import numpy as np

from desta_jax.training import checkpoint
from desta_jax.tree import count, flatten
from desta_jax.weights.adapter import read_adapter


def read_back(here: pathlib.Path) -> tuple[int, int]:
    """The checkpoint's step and its number of parameters; raises ValueError unless the export equals it bit for bit."""
    step, trained = checkpoint.read_adapter(str(here / "run"))
    exported, _ = read_adapter(here / "adapter")
    before, after = flatten(trained), flatten(exported)
    differing = sorted(before.keys() ^ after.keys())
    differing += [path for path in before.keys() & after.keys() if not same_bits(before[path], after[path])]
    if differing:
        raise ValueError(f"{here / 'adapter'} is not what was trained; it differs at {', '.join(differing)}")
    return step, count(exported)


def same_bits(one, other) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def read_lines(file: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def account(here: pathlib.Path) -> str:
    step, parameters = read_back(here)
    first, *_, last = read_lines(here / "run" / "validation.jsonl")
    rows = {
        split: len((here / "clips" / f"{split}.jsonl").read_text().splitlines()) for split in ("train", "validation")
    }
    return f"""
The exported adapter was read back: all {parameters:,} parameters are bit for bit those of step {step}.

What was done    {rows["train"]} spoken clips with questions and answers were trained on for {step} steps;
                 {rows["validation"]} clips with other sentences were held out.
Held-out loss    {first["loss"]:.3f} before training, {last["loss"]:.3f} after {last["step"]} steps
                 (mean over {last["label_tokens"]} answer tokens, natural logarithm)

Where it is      {here}/
  clips/         wav files, and their rows in AQA5M's form: train.jsonl and validation.jsonl
  model/         the frozen models, converted
  records/       TFRecord shards with an index
  run/           config.json, metrics.jsonl, validation.jsonl, checkpoints, TensorBoard events
  adapter/       model.safetensors and config.json, as the PyTorch reference loads them

What to try next
  desta-jax --help                      every stage by itself, each with examples
  tensorboard --logdir {here / "run"}
  Your own clips: rows like those of {here / "clips" / "train.jsonl"}, then desta-jax records and train.
  configs/                              other models, up to the paper's"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("here", type=pathlib.Path)
    print(account(parser.parse_args().here))


if __name__ == "__main__":
    main()
