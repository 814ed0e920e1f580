"""Makes the listening corpus: clips of speech, dialogue, sounds and music, with what is known of each.

    python data/listening/corpus/make.py --out corpus --sakura SAKURA
    python data/listening/corpus/make.py --out corpus --sources espeak,made    # some of it

Writes OUT/audio (FLAC, 16 kHz, one channel, at most 8 seconds), OUT/train and OUT/test (speech.jsonl, dialogue.jsonl,
sound.jsonl, music.jsonl: one object a clip, or a segment of a dialogue, in mixed order), OUT/train/real.jsonl (the real
recordings of speech.jsonl), OUT/train/hear_*.jsonl (those to ask about one attribute: see lessons.py) and
OUT/corpus.json (counts, hours, licences). What is there is not made twice; from nothing, the same command makes the
same files.

SAKURA is a checkout of https://github.com/ckyang1124/SAKURA. Packages of other sources are downloaded into --cache,
from the mirror of Debian in DEBIAN_MIRROR if that is set.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

import captions
import clips
import found
import lessons
import music
import prompts
import sakura
import scenes
import sounds
import voices

from desta_jax.clock import Pace
from desta_jax.files import write_whole

MODULES = (
    sakura,
    voices,
    sounds,
    scenes.Scenes,
    scenes.Dialogue,
    prompts.Asterisk,
    prompts.Stamps,
    prompts.Words,
    music,
    found,
)
SOURCES = {source.NAME: source for source in MODULES}
KINDS = ("speech", "dialogue", "sound", "music")
SPLITS = ("train", "test")
PROGRESS_SECONDS = 5


def main(words: list[str] | None = None) -> None:
    arguments = parse(words)
    places = clips.Places(arguments.cache.absolute(), arguments.sakura)
    planned = {name: plan(name, places) for name in arguments.sources}
    for name, made in planned.items():
        make(name, made, arguments.out, arguments.workers)
    report(write_metadata(arguments.out), arguments.out)


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the corpus's folder")
    parser.add_argument("--sakura", type=pathlib.Path, help="a checkout of SAKURA; without it its clips are left out")
    parser.add_argument("--cache", type=pathlib.Path, help="what is downloaded (default: OUT/cache)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    names = ", ".join(SOURCES)
    parser.add_argument("--sources", default=",".join(SOURCES), help=f"some of {names}, with commas (default: all)")
    arguments = parser.parse_args(words)
    arguments.cache = arguments.cache or arguments.out / "cache"
    arguments.sources = arguments.sources.split(",")
    if unknown := set(arguments.sources) - SOURCES.keys():
        parser.error(f"no source {', '.join(sorted(unknown))}: there are {names}")
    return arguments


def plan(name: str, places: clips.Places) -> list[clips.Clip]:
    """The clips of a source; what it needs of packages is downloaded now, before anything is made."""
    if name == sakura.NAME and places.sakura is None:
        print("sakura: LEFT OUT, for --sakura names no folder: no real recordings of emotion", file=sys.stderr)
    return SOURCES[name].plan(places)


def make(name: str, planned: list[clips.Clip], out: pathlib.Path, workers: int) -> None:
    """Makes the clips of a source that are not there yet, and notes each in OUT/made/SOURCE.jsonl.

    What is there but is not planned, or of which something else is known now, is not gone on with."""
    notes = out / "made" / f"{name}.jsonl"
    notes.parent.mkdir(parents=True, exist_ok=True)
    known = {clip.audio: clip for clip in planned}
    there = noted(notes, out).items()
    done = {audio: rows for audio, rows in there if audio in known and is_of(known[audio], rows[0])}
    write_whole(notes, "".join(json.dumps(rows, ensure_ascii=False) + "\n" for rows in done.values()))
    todo = [clip for clip in planned if clip.audio not in done]
    print(f"{name}: {len(planned)} clips, {len(planned) - len(todo)} of them there")
    with notes.open("a", encoding="utf-8") as file:
        for rows in told(name, len(todo), rendered(name, todo, out, workers)):
            file.write(json.dumps(rows, ensure_ascii=False) + "\n")
            file.flush()


def noted(notes: pathlib.Path, out: pathlib.Path) -> dict[str, list[dict]]:
    """The rows of the clips that are there, by clip; a line that was broken off is passed over."""
    found = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else ():
        try:
            rows = json.loads(line)
        except ValueError:
            continue
        if (out / "audio" / rows[0]["audio"]).is_file():
            found[rows[0]["audio"]] = rows
    return found


def is_of(clip: clips.Clip, row: dict) -> bool:
    """Whether all that is known of a clip stands in its row; of one that was cut, the text does not."""
    planned = clip.fields | {"kind": clip.kind, "held_out": clip.held_out}
    there = row | {"held_out": row.get("held_out", "")}
    differ = [key for key, value in planned.items() if there.get(key) != json.loads(json.dumps(value))]
    return not differ or (differ == ["text"] and "text" not in row)


def rendered(name: str, todo: list[clips.Clip], out: pathlib.Path, workers: int):
    """The rows of each clip, as it is made."""
    jobs = [(name, clip, out / "audio") for clip in todo]
    if workers <= 1:
        yield from map(render, jobs)
        return
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(render, jobs, chunksize=8)


def render(job: tuple[str, clips.Clip, pathlib.Path]) -> list[dict]:
    """Makes one clip; returns its rows, without the text where the clip is cut."""
    name, clip, folder = job
    samples, segments = SOURCES[name].render(clip)
    duration, cut = clips.write(folder / clip.audio, samples)
    fields = {key: value for key, value in clip.fields.items() if not (cut and key == "text")}
    common = {"audio": clip.audio, "source": name, "kind": clip.kind} | fields
    tail = {"duration": duration} | ({"held_out": clip.held_out} if clip.held_out else {})
    return [common | segment | tail for segment in segments]


def told(name: str, total: int, items: Iterable) -> Iterator:
    """The items; how far a source is with them is said every few seconds."""
    pace = Pace(total, PROGRESS_SECONDS)
    for item in items:
        yield item
        if line := pace.add(1):
            print(f"{name}: {pace.done} of {pace.total}, {line}", flush=True)


def write_metadata(out: pathlib.Path) -> dict:
    """Writes the metadata of all clips that are there, and corpus.json; returns what it says."""
    sources = {name: noted(out / "made" / f"{name}.jsonl", out) for name in SOURCES}
    groups = sorted((rows for found in sources.values() for rows in found.values()), key=place)
    lines = collections.defaultdict(list)
    for rows in groups:
        split = "test" if "held_out" in rows[0] else "train"
        kind = rows[0]["kind"]
        rows = [{key: row[key] for key in row if key != "kind"} for row in rows]
        lines[split, kind] += map(captions.told, rows) if kind == "speech" else rows
    for split in SPLITS:
        (out / split).mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            write_rows(out / split / f"{kind}.jsonl", lines[split, kind])
    real = [row for row in lines["train", "speech"] if row["source"] == sakura.NAME]
    write_rows(out / "train" / "real.jsonl", real)
    for attribute, rows in lessons.lessons(real).items():
        write_rows(out / "train" / f"hear_{attribute}.jsonl", rows)
    corpus = summary(sources)
    write_whole(out / "corpus.json", json.dumps(corpus, indent=1, ensure_ascii=False) + "\n")
    return corpus


def place(rows: list[dict]) -> bytes:
    """Where a clip stands among the others: mixed, but the same whatever other clips there are."""
    return hashlib.sha256(f"{clips.SEED} {rows[0]['audio']}".encode()).digest()


def summary(sources: dict[str, dict[str, list[dict]]]) -> dict:
    """Counts and hours by source and split, with licences."""
    found = {name: made for name, made in sources.items() if made}
    return {"seed": clips.SEED, "sources": {name: _summary(name, list(made.values())) for name, made in found.items()}}


def _summary(name: str, made: list[list[dict]]) -> dict:
    described = {"licence": SOURCES[name].LICENCE, "address": SOURCES[name].ADDRESS}
    for split in SPLITS:
        durations = [rows[0]["duration"] for rows in made if ("held_out" in rows[0]) == (split == "test")]
        described[split] = {"clips": len(durations), "hours": round(sum(durations) / 3600, 3)}
    return described


def write_rows(path: pathlib.Path, rows: list[dict]) -> None:
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def report(corpus: dict, out: pathlib.Path) -> None:
    counts = {name: source["train"]["clips"] + source["test"]["clips"] for name, source in corpus["sources"].items()}
    print(f"{out}: {sum(counts.values())} clips ({', '.join(f'{name} {count}' for name, count in counts.items())})")


if __name__ == "__main__":
    main()
