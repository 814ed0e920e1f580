"""Requests to rows on disk: shards that are whole or not there, so that a run goes on where it was cut off.

OUT/plan.json                      what the run is; a folder of another run is not gone on with
OUT/rows-00000-of-00012.jsonl      rows for `desta-jax records`
OUT/outcomes/00000-of-00012.jsonl  a line a request: its category, and of a dropped one the filter and the response
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from desta_jax.clock import Pace
from desta_jax.construct.generators import Generator, Writing
from desta_jax.construct.quality import FILTERS, Filter, Reply, judge
from desta_jax.construct.rows import Request
from desta_jax.files import write_whole

SHARD = 512  # requests: what is lost at most when a run is killed, and what a generator gets at a time
SECONDS_BETWEEN_LINES = 10.0
_WINDOW = 64  # shards whose requests are put in order among themselves
_WRITTEN = ("README.md", "outcomes", "plots", "report.json")  # beside the rows, and later than the plan


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of the work: so many requests of the ordered whole."""

    number: int
    count: int
    requests: Sequence[Request]

    @property
    def name(self) -> str:
        return f"{self.number:05d}-of-{self.count:05d}.jsonl"


def cut_into_shards(requests: Sequence[Request], size: int = SHARD) -> list[Shard]:
    """Shards of requests that take about as long as one another: of one category, of neighbouring lengths.

    A batch is done when its longest response is, and responses of a category are of like lengths.
    """
    ordered: list[Request] = []
    for start in range(0, len(requests), size * _WINDOW):
        window = requests[start : start + size * _WINDOW]
        ordered += sorted(window, key=lambda each: (each.instruction.category, len(each.seed_description)))
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [Shard(number, len(parts), part) for number, part in enumerate(parts)]


def take_answered(folder: epath.Path, requests: Sequence[Request]) -> list[Request]:
    """Those of the requests that have a row in the folder of another, finished run.

    Raises:
        ValueError: the folder is no finished run's, has no row, or rows of other requests than these.
    """
    if not (folder / "report.json").exists():
        raise ValueError(f"--answered_in: {folder} is no folder that construct wrote to the end: it has no report.json")
    answered = {asked_of(row) for row in read_lines(sorted(folder.glob("rows-*.jsonl")))}
    if not answered:
        raise ValueError(f"--answered_in: {folder} has no row")
    asked = [asked_of(request.row("")) for request in requests]
    if strange := len(answered.difference(asked)):
        raise ValueError(
            f"--answered_in: {strange} of the {len(answered)} requests answered in {folder} are none of these "
            f"{len(requests)}: give metadata, instructions, seed and shares as there"
        )
    return [request for request, each in zip(requests, asked) if each in answered]


def check_plan(out: epath.Path, plan: Mapping[str, Any]) -> None:
    """Writes the plan of a new run, or makes sure that the folder's run is this one.

    Raises:
        ValueError: the folder holds another run, naming what differs; or something else.
    """
    path = out / "plan.json"
    if not path.exists():
        _check_free(out)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
        return
    there = json.loads(path.read_text())
    if differ := [key for key in {**there, **plan} if there.get(key) != plan.get(key)]:
        was = ", ".join(f"{key} was {there.get(key)!r} and is now {plan.get(key)!r}" for key in differ)
        begun = any(out.glob("rows-*.jsonl"))
        anew = "" if begun else f"; or remove {path}, since no row is written yet"
        raise ValueError(f"{out} holds a run of another plan: {was}. Give the same again, or another --out{anew}")


def _check_free(out: epath.Path) -> None:
    """Raises ValueError where the folder has something that the run would replace, such as a README.md."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} exists and is a file: give another --out")
    there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if lost := [name for name in there if name in _WRITTEN or name.startswith("rows-")]:
        raise ValueError(
            f"{out} holds no run of construct, which would replace the {lost[0]} there; give another --out"
        )


def write_rows(
    shards: Sequence[Shard],
    generator: Generator,
    out: epath.Path,
    writing: Writing,
    seed: int,
    process: int = 0,
    processes: int = 1,
    say: Callable[[str], None] = print,
    filters: Mapping[str, Filter] = FILTERS,
) -> None:
    """Has this process's shards written that are not there yet.

    A shard's rows depend on its requests and the seed alone, not on who writes it or when.
    """
    # Neighbours are of one kind, and a process would get the long responses and another the short ones.
    mine = sorted(shards, key=lambda shard: _shard_seed(seed, shard))[process::processes]
    left = [shard for shard in mine if not _rows_path(out, shard).exists()]
    if len(left) < len(mine):
        say(f"construct: {len(mine) - len(left)} of {len(mine)} shards are there already")
    pace, dropped = Pace(sum(len(shard.requests) for shard in left), SECONDS_BETWEEN_LINES), 0

    def answered(count: int) -> None:
        if line := pace.add(count):
            percent = 100 * pace.done / pace.total
            say(f"construct: {pace.done} of {pace.total} requests ({percent:.0f} %), {dropped} dropped so far, {line}")

    for shard in left:
        readings = [request.reading() for request in shard.requests]
        replies = generator.write(readings, writing, _shard_seed(seed, shard), answered)
        dropped += len(replies) - _keep(shard, replies, out, filters)


def _keep(shard: Shard, replies: Sequence[Reply], out: epath.Path, filters: Mapping[str, Filter]) -> int:
    """Writes a shard's outcomes and rows; the rows last, since their file says that the shard is done."""
    rows, outcomes = [], []
    for request, reply in zip(shard.requests, replies, strict=True):
        asked = request.instruction
        known = dataclasses.replace(
            reply,
            languages=asked.languages,
            prompt=asked.text,
            right=asked.right,
            wrong=asked.wrong,
            words=" ".join(clip.words for clip in request.clips),
            brackets=tuple(text for clip in request.clips for text in clip.brackets),
        )
        verdict = judge(known, filters)
        outcome = {"id": request.id, "category": asked.category, "words": len(reply.text.split()), "reason": None}
        if verdict is None:
            rows.append(request.row(reply.text))
        else:
            outcome |= {"reason": verdict[0], "detail": verdict[1], "row": request.row(reply.text)}
        outcomes.append(outcome)
    write_whole(out / "outcomes" / shard.name, _lines(outcomes))
    write_whole(_rows_path(out, shard), _lines(rows))
    return len(rows)


def read_lines(paths: Iterable[epath.Path]) -> Iterator[dict[str, Any]]:
    """The objects of JSONL files."""
    for path in paths:
        with path.open() as file:
            yield from map(json.loads, file)


def asked_of(row: Mapping[str, Any]) -> str:
    """All of a row but what was answered."""
    return json.dumps({name: value for name, value in row.items() if name != "response"}, sort_keys=True)


def _rows_path(out: epath.Path, shard: Shard) -> epath.Path:
    return out / f"rows-{shard.name}"


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _shard_seed(seed: int, shard: Shard) -> int:
    digest = hashlib.sha256(f"{seed} {shard.number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
