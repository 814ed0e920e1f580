"""The same rows with the bare value for an answer: what training on labels alone makes of a model, for comparison.

    python data/listening/corpus/label.py --rows rows/gender --out rows/gender_labels

Of rows that were asked about one attribute (their description ends in "(Gender: male)"), the answer becomes "male".
Writes OUT/rows-*.jsonl, else as ROWS has them.
"""

import argparse
import pathlib
import re

import shards

VALUE = re.compile(r"\(\w[\w ]*: ([^(),:]+)\)\Z")


def label(rows: pathlib.Path, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for shard in shards.find(rows, "label"):
        told = [_labelled(row, f"{shard}:{number}") for number, row in enumerate(shards.read(shard), 1)]
        shards.write(out / shard.name, told)
    print(f"label: rows with bare values in {out}")


def _labelled(row: dict, place: str) -> dict:
    found = VALUE.search(row["seed_description"])
    if not found:
        raise SystemExit(f"label: {place}: {row['seed_description']!r} does not end in one attribute's value")
    return row | {"response": found[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=pathlib.Path, required=True, help="a folder that desta-jax construct wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the rows go")
    arguments = parser.parse_args()
    label(arguments.rows, arguments.out)
