"""The shards of a folder of rows that desta-jax construct wrote."""

import json
import pathlib

from desta_jax.files import write_whole


def find(rows: pathlib.Path, script: str) -> list[pathlib.Path]:
    """ROWS/rows-*.jsonl in order; a script, by its name, ends where there are none."""
    found = sorted(rows.glob("rows-*.jsonl"))
    if not found:
        raise SystemExit(f"{script}: no rows-*.jsonl in {rows}; it must be a folder that desta-jax construct wrote")
    return found


def read(shard: pathlib.Path) -> list[dict]:
    with shard.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(shard: pathlib.Path, rows: list[dict]) -> None:
    """A shard, whole."""
    write_whole(shard, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
