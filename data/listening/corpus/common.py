"""Only the requests that two writers both answered: their rows differ in nothing but the answers.

    python data/listening/corpus/common.py --rows rows/gender rows/gender_foreign --out rows/own rows/foreign

Each writer's answers are filtered on their own, so that each has rows that the other lacks. Writes OUT/rows-*.jsonl for
both, in the order of the first.
"""

import argparse
import json
import pathlib

import shards


def common(own: pathlib.Path, other: pathlib.Path, outs: list[pathlib.Path]) -> None:
    if _requests(own) != _requests(other):
        raise SystemExit(f"common: {own} and {other} are rows of different requests: make both with the same flags")
    answered = {_key(row): row for shard in shards.find(other, "common") for row in shards.read(shard)}
    total = 0
    for out in outs:
        out.mkdir(parents=True, exist_ok=True)
    for shard in shards.find(own, "common"):
        both = [row for row in shards.read(shard) if _key(row) in answered]
        shards.write(outs[0] / shard.name, both)
        shards.write(outs[1] / shard.name, [answered[_key(row)] for row in both])
        total += len(both)
    print(f"common: {total} rows each in {outs[0]} and {outs[1]}")


def _requests(rows: pathlib.Path) -> str:
    """The digest of all that was asked, answered or not."""
    plan = rows / "plan.json"
    if not plan.is_file():
        raise SystemExit(f"common: {plan}: missing; {rows} must be a folder that desta-jax construct wrote")
    return json.loads(plan.read_text(encoding="utf-8"))["requests_sha256"]


def _key(row: dict) -> str:
    return json.dumps(row["messages"], sort_keys=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=pathlib.Path, nargs=2, required=True, help="two folders that desta-jax construct wrote")
    add("--out", type=pathlib.Path, nargs=2, required=True, help="where the rows of each go")
    arguments = parser.parse_args()
    common(*arguments.rows, arguments.out)
