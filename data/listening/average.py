"""The mean of adapters' weights. Of lessons that began from one another, it can hear better than each.

    python data/listening/average.py --adapter lesson_2 lesson_3 lesson_3 --out adapter

Each is a folder from `desta-jax export`, all of one shape and for one model; so is OUT. One named twice counts twice.
"""

import argparse
import pathlib

import jax
import numpy as np

from desta_jax.weights.adapter import read_adapter, write_adapter


def average(adapters: list[pathlib.Path], out: pathlib.Path, dtype: str, overwrite: bool) -> None:
    trees, configs = zip(*map(read_adapter, adapters))
    if any(config != configs[0] for config in configs):
        raise SystemExit("average: their config.json differ: one shape and one model are needed")
    config = configs[0]
    if "lora" in trees[0]:
        raise SystemExit("average: they have LoRA, and the mean of products is not the product of means")
    write_adapter(
        out,
        jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *trees),
        llm_model_id=config["llm_model_id"],
        encoder_model_id=config["encoder_model_id"],
        tap_layers=config["target_layer_ids"],
        placeholder_token=config["placeholder_token"],
        audio_seconds=config["audio_seconds"],
        dtype=dtype,
        overwrite=overwrite,
    )
    print(f"average: the mean of {len(adapters)} adapters in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=pathlib.Path, nargs="+", required=True, help="exported folders")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to make")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: float32)")
    parser.add_argument("--overwrite", action="store_true", help="replace an older export in OUT")
    arguments = parser.parse_args()
    try:
        average(arguments.adapter, arguments.out, arguments.dtype, arguments.overwrite)
    except ValueError as error:
        raise SystemExit(f"average: {error}") from error
