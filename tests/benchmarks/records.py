"""Records per second of `desta-jax records`, against a bare loop over the same clips in the same run.

The bare loop loads and resamples each clip with librosa, rounds it to 16 bits and encodes it as FLAC with soundfile; it
writes nothing, checks nothing and uses one core. Run as `python tests/benchmarks/records.py`.
"""

import argparse
import io
import json
import pathlib
import tempfile
import time

import librosa
import numpy as np
import soundfile

from desta_jax.machine import cores
from desta_jax.records import schema
from desta_jax.records.describe import describe
from desta_jax.records.read import RecordSource
from desta_jax.records.verify import verify
from desta_jax.records.write import write_records

KINDS = [
    ("wav", 16000, 1),
    ("flac", 16000, 1),
    ("wav", 44100, 2),
    ("mp3", 44100, 2),
    ("ogg", 22050, 1),
    ("wav", 48000, 1),
]


def make_corpus(directory: pathlib.Path, clips: int) -> pathlib.Path:
    """Clips of 2 to 18 seconds in turns of KINDS: brown noise in bursts, which FLAC finds about as hard as speech."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(clips):
        extension, rate, channels = KINDS[number % len(KINDS)]
        samples = int(rate * random.uniform(2, 18))
        noise = random.normal(0, 1, (samples, channels)).cumsum(axis=0)
        noise -= np.linspace(noise[0], noise[-1], samples)
        bursts = 0.02 + np.abs(np.sin(np.arange(samples) / rate * 5))[:, None]
        sound = noise * bursts + random.normal(0, 1, (samples, channels))
        name = f"{number}.{extension}"
        soundfile.write(directory / name, 0.5 * sound / np.abs(sound).max(), rate)
        content = "<start_audio><|AUDIO|><end_audio>\nWhat is heard?"
        message = {"role": "user", "content": content, "audios": [{"audio": name, "text": "some words " * 5}]}
        row = {"id": name, "dataset": extension, "messages": [message], "response": "An answer. " * 20}
        lines.append(json.dumps(row))
    manifest = directory / "rows.jsonl"
    manifest.write_text("\n".join(lines))
    return manifest


def bare_loop(paths: list[pathlib.Path]) -> float:
    """Seconds to load, resample and encode every clip."""
    start = time.perf_counter()
    for path in paths:
        sound, _ = librosa.load(path, sr=16000, mono=True)
        soundfile.write(io.BytesIO(), np.rint(sound * 32768).clip(-32768, 32767).astype(np.int16), 16000, format="FLAC")
    return time.perf_counter() - start


def timed(function, *arguments, **options) -> float:
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--workers", type=int, default=cores())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        manifest = make_corpus(directory, options.clips)
        clips = [path for path in sorted(directory.iterdir()) if path != manifest]
        bare_loop(clips[: len(KINDS)])  # librosa is imported at its first use
        bare = options.clips / bare_loop(clips)
        print(f"bare loop, one core: {bare:.1f} clips/s")
        for workers in sorted({1, options.workers}):
            out = directory / f"out{workers}"
            seconds = timed(
                write_records, [str(manifest)], str(directory), str(out), workers=workers, shards=16, report=print
            )
            speed, ratio = options.clips / seconds, options.clips / seconds / bare
            print(f"records, {workers} workers: {speed:.1f} records/s, {ratio:.2f} of the bare loop, start included")
        read_back(out, options.workers)


def read_back(out: pathlib.Path, workers: int):
    """Speeds of reading, checking and describing what was written."""
    source = RecordSource(out)
    order = np.random.default_rng(0).permutation(len(source))
    size = source.index.length.sum() / 1e6
    whole = timed(lambda: [source[number] for number in order])
    decoded = timed(lambda: [schema.decode(source[number]) for number in order])
    text = timed(lambda: [schema.decode_text(source.text(number)) for number in order])
    print(f"read in random order: {len(order) / whole:,.0f} records/s, {size / whole:,.0f} MB/s (checksums verified)")
    print(f"  and decoded to a Sample: {len(order) / decoded:,.0f}; the text alone: {len(order) / text:,.0f} records/s")
    checked = timed(verify, str(out), workers=workers, report=print)
    described = timed(describe, str(out))
    print(
        f"verify: {len(order) / checked:,.0f} records/s with {workers} workers; describe: {len(order) / described:,.0f}"
    )


if __name__ == "__main__":
    main()
