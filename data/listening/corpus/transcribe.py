"""Adds transcripts to the listening corpus's speech: what Whisper hears where the words are not known.

    python data/listening/corpus/transcribe.py --corpus listening/corpus --model models/smol

Writes CORPUS/train/{recorded,synthesised}.jsonl, the rows of speech.jsonl with their `text` filled. Can be interrupted
and run again.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from desta_jax import sharding
from desta_jax.audio.load import load_audio
from desta_jax.audio.mel import log_mel
from desta_jax.generation.load import restore_transcriber
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.programs import keep_programs
from desta_jax.weights.folder import ModelFolder

TOGETHER = 16  # clips in a batch
RATE, SECONDS = 16000, 30
SYNTHESISED = ("espeak", "scenes")
NO_ADAPTER = AdapterShape(num_layers=0, prompt_size=1, tap_layers=())


class Whisper:
    """The Whisper model of a converted folder: clips to texts."""

    def __init__(self, folder: str):
        keep_programs()
        opened = ModelFolder(folder)
        shape = WhisperShape.from_hf(opened.whisper_config)
        audio_lm = AudioLM(shape, DecoderShape.from_hf(opened.llm_config), NO_ADAPTER, np.dtype("float32"))
        mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
        like = sharding.placed({"encoder": audio_lm.abstract_frozen()["encoder"]}, mesh)
        self.encoder = opened.restore("encoder", like["encoder"])
        self.tokenizer = opened.whisper_tokenizer()
        self.transcriber = restore_transcriber(opened, shape, audio_lm.dtype, mesh)

        @jax.jit
        def frames(encoder, audio):
            whisper = audio_lm.encoder({"encoder": encoder})
            return whisper.norm(whisper(log_mel(audio, shape.mels), (), all_layers=True)[1])

        self.frames = frames

    def __call__(self, clips: list[np.ndarray]) -> list[str]:
        audio = np.zeros((TOGETHER, SECONDS * RATE), np.float32)
        for row, clip in zip(audio, clips, strict=False):
            row[: len(clip)] = clip[: len(row)]
        tokens = self.transcriber(self.frames(self.encoder, audio))[: len(clips)]
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


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
        partial = corpus / "train" / f"{name}.jsonl.partial"
        partial.write_text("".join(written))
        partial.rename(corpus / "train" / f"{name}.jsonl")
        print(f"transcribe: {len(written)} clips in {corpus}/train/{name}.jsonl")


def hear(corpus: pathlib.Path, names: list[str], model: str) -> dict[str, str]:
    """The transcripts of these clips; those made earlier are read from CORPUS/transcripts.jsonl."""
    path = corpus / "transcripts.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    known = dict(json.loads(line) for line in lines if line.endswith("\n"))
    left = [name for name in names if name not in known]
    whisper, start = Whisper(model) if left else None, time.monotonic()
    with path.open("a") as file:
        file.truncate(sum(len(line.encode()) for line in lines if line.endswith("\n")))  # less a line cut off by a kill
        for at in range(0, len(left), TOGETHER):
            part = left[at : at + TOGETHER]
            texts = whisper([load_audio(corpus / "audio" / name) for name in part])
            known |= zip(part, texts)
            file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in zip(part, texts))
            file.flush()
            done = at + len(part)
            ahead = (time.monotonic() - start) * (len(left) - done) / done
            print(f"transcribe: {done} of {len(left)} clips, {ahead / 60:.1f} min left", flush=True)
    return known


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="the folder that make.py wrote")
    parser.add_argument("--model", required=True, help="the folder from desta-jax convert")
    parser.add_argument("--most", type=int, help="clips to transcribe; further ones go without (default: all)")
    arguments = parser.parse_args()
    transcribe(arguments.corpus, arguments.model, arguments.most)
