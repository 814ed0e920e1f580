"""Transcription, clips a second, against transformers' Whisper with the same weights on the same machine.

    python tests/benchmarks/transcribe.py --model models/smol --whisper folders/whisper-base --audio clips/*.wav

Both hear the same clips from mel to text, greedily, at most 128 tokens, in batches of 1 and of 8; both are warm, take
turns, and the best round of each counts.
"""

import argparse
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import torch
import transformers

from desta_jax.audio.load import load_audio
from desta_jax.generation.transcribe import MAX_TOKENS
from desta_jax.generation.whisper import load_whisper


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder from `desta-jax convert`")
    parser.add_argument("--whisper", required=True, help="the Hugging Face folder that it was made from")
    parser.add_argument("--audio", required=True, nargs="+", help="clips of speech")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    clips = [load_audio(file) for file in given.audio]
    ours, theirs = load_whisper(given.model, dtype="float32").transcribe, Theirs(given.whisper)
    for batch in given.batch:
        parts = [clips[at : at + batch] for at in range(0, len(clips), batch)]
        times = {ours: [], theirs: []}
        for run in times:
            run(parts[0])
        for _ in range(given.rounds):
            for run, seconds in times.items():
                start = time.perf_counter()
                texts = [text for part in parts for text in run(part)]
                seconds.append(time.perf_counter() - start)
                run_texts = texts if run is ours else run_texts
        same = np.mean([one == other for one, other in zip(run_texts, texts)])
        best = {run: len(clips) / min(seconds) for run, seconds in times.items()}
        print(
            f"batch {batch}: ours {best[ours]:.2f} clips/s, transformers {best[theirs]:.2f}, "
            f"ratio {best[ours] / best[theirs]:.2f}; {same:.0%} of {len(clips)} transcripts are the same"
        )


class Theirs:
    def __init__(self, folder):
        self.model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = transformers.WhisperProcessor.from_pretrained(folder)

    def __call__(self, clips):
        inputs = self.processor(clips, sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
        tokens = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False, task="transcribe")
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


if __name__ == "__main__":
    main()
