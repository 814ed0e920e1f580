"""Adds transcripts to the listening corpus's speech: what Whisper hears where the words are not known.

    python data/listening/corpus/transcribe.py --corpus listening/corpus --model models/smol

Writes CORPUS/train/{recorded,synthesised}.jsonl, the rows of speech.jsonl with their `text` filled. Can be interrupted
and run again.
"""

import argparse
import json
import pathlib

from desta_jax.audio.load import load_audio
from desta_jax.clock import Pace
from desta_jax.files import cut_to_whole_lines, write_whole
from desta_jax.generation.whisper import load_whisper

TOGETHER = 16  # clips in a batch
SYNTHESISED = ("espeak", "scenes")


def transcribe(corpus: pathlib.Path, model: str, most: int | None = None) -> None:
    """Writes CORPUS/train/recorded.jsonl and synthesised.jsonl."""
    rows = [json.loads(line) for line in (corpus / "train" / "speech.jsonl").open()]
    unknown = [row["audio"] for row in rows if not row.get("text")]
    heard = hear(corpus, unknown[:most], model)
    lines = {"recorded": [], "synthesised": []}
    for row in rows:
        row["text"] = row.get("text") or heard.get(row["audio"], "")
        name = "synthesised" if row["source"] in SYNTHESISED else "recorded"
        lines[name].append(json.dumps(row, ensure_ascii=False) + "\n")
    for name, written in lines.items():
        write_whole(corpus / "train" / f"{name}.jsonl", "".join(written))
        print(f"transcribe: {len(written)} clips in {corpus}/train/{name}.jsonl")


def hear(corpus: pathlib.Path, names: list[str], model: str) -> dict[str, str]:
    """The transcripts of these clips; those made earlier are read from CORPUS/transcripts.jsonl."""
    path = corpus / "transcripts.jsonl"
    known = dict(map(json.loads, cut_to_whole_lines(path).splitlines()))
    left = [name for name in names if name not in known]
    if not left:
        return known
    whisper, pace = load_whisper(model), Pace(len(left))
    with path.open("a") as file:
        for at in range(0, len(left), TOGETHER):
            part = left[at : at + TOGETHER]
            texts = whisper.transcribe([load_audio(corpus / "audio" / name) for name in part])
            known |= zip(part, texts)
            file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in zip(part, texts))
            file.flush()
            line = pace.add(len(part))
            print(f"transcribe: {pace.done} of {pace.total} clips, {line}", flush=True)
    return known


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="the folder that make.py wrote")
    parser.add_argument("--model", required=True, help="the folder from desta-jax convert")
    parser.add_argument("--most", type=int, help="clips to transcribe; further ones go without (default: all)")
    arguments = parser.parse_args()
    transcribe(arguments.corpus, arguments.model, arguments.most)
