"""Those rows of one writer whose requests another one answered too: the two then differ in nothing but the answers.

    python data/listening/corpus/common.py --rows rows/gender --answered_in rows/gender_foreign --out rows/gender_own

The other's rows are of `desta-jax construct --answered_in rows/gender`. Writes OUT/rows-*.jsonl, in the order of ROWS.
"""

import argparse
import pathlib

import shards

from desta_jax.construct.write import asked_of


def common(rows: pathlib.Path, other: pathlib.Path, out: pathlib.Path) -> None:
    answered = {asked_of(row) for shard in shards.find(other, "common") for row in shards.read(shard)}
    here = {shard: shards.read(shard) for shard in shards.find(rows, "common")}
    if strange := answered - {asked_of(row) for each in here.values() for row in each}:
        raise SystemExit(
            f"common: {len(strange)} rows of {other} are of requests that {rows} has no row for: "
            f"make them with desta-jax construct --answered_in {rows}"
        )
    out.mkdir(parents=True, exist_ok=True)
    for shard, each in here.items():
        shards.write(out / shard.name, [row for row in each if asked_of(row) in answered])
    print(f"common: {len(answered)} of {sum(map(len, here.values()))} rows in {out}, as in {other}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=pathlib.Path, required=True, help="a folder that desta-jax construct wrote")
    add("--answered_in", type=pathlib.Path, required=True, help="another writer's")
    add("--out", type=pathlib.Path, required=True, help="where the rows go")
    arguments = parser.parse_args()
    common(arguments.rows, arguments.answered_in, arguments.out)
