"""Lets each row hear its clip in ways of its own: a stretch of it, another speed, microphone, level, noise and room.

    python data/listening/corpus/vary.py --corpus corpus --rows rows/gender --out rows/gender_varied --versions 3

The answers stay as they are, since nothing that is asked about in the lessons (language, sex of the voice, emotion)
changes: a few percent of speed and pitch are within what one speaker does. What it is good for: some hundred voices,
heard in several rows each, are soon known by heart.

Writes OUT/rows-*.jsonl, as ROWS has them but for their ids and the clips' names, and the clips to CORPUS/audio/varied.
What is there is not made twice; the same questions give the same clips, whoever answered them.
"""

import argparse
import copy
import itertools
import json
import pathlib
import zlib

import clips
import numpy as np
import scenes
import shards
import soxr

from desta_jax.clock import Pace

FOLDER = "varied"
PROGRESS_SECONDS = 15
STRETCH = (0.5, 1.0)  # the share of a clip that is heard
SHORTEST = 1.5  # seconds of it, at least
SPEEDS = (0.93, 1.07)  # pitch goes with it
START = (0.0, 0.5)  # seconds of silence before
LEVELS = (-32.0, -14.0)  # root mean square, dB of full scale
BANDS = (100, 400, 1500, 4000, 8000)  # Hz
MICROPHONE = 10.0  # dB, up or down, at each band
NOISES = {"none": 0.5, "white noise": 0.1, "pink noise": 0.2, "rain": 0.1, "engine": 0.1}
RATIOS = (10.0, 30.0)  # dB of speech over noise
ROOMS = 0.25  # the share of rows in a room
DECAYS = (0.2, 0.6)  # seconds to fall by 60 dB


def varied(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip as it might have been recorded elsewhere."""
    samples = stretch_of(samples, rng)
    samples = soxr.resample(samples, clips.RATE * rng.uniform(*SPEEDS), clips.RATE)
    samples = through_microphone(samples, rng)
    if rng.random() < ROOMS:
        samples = scenes.reverberated(samples, rng.uniform(*DECAYS), rng)
    samples = np.concatenate([np.zeros(int(rng.uniform(*START) * clips.RATE), np.float32), samples])
    noise = clips.pick(rng, NOISES, list(NOISES.values()))
    if noise != "none" and clips.power(samples):
        samples = clips.mixed(samples, scenes.background(noise, len(samples), rng), rng.uniform(*RATIOS))
    return clips.at_level(samples, rng.uniform(*LEVELS))


def stretch_of(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the clip that begins anywhere."""
    length = max(int(len(samples) * rng.uniform(*STRETCH)), int(SHORTEST * clips.RATE))
    start = int(rng.uniform(0, max(len(samples) - length, 0) + 1))
    return samples[start : start + length]


def through_microphone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some bands louder, others quieter, with slopes between."""
    decibels = rng.uniform(-MICROPHONE, MICROPHONE, len(BANDS))
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / clips.RATE)
    gain = 10 ** (np.interp(np.log(np.maximum(hertz, 1.0)), np.log(BANDS), decibels) / 20)
    return np.fft.irfft(spectrum * gain, len(samples)).astype(np.float32)


def vary(rows: pathlib.Path, corpus: pathlib.Path, out: pathlib.Path, versions: int) -> None:
    told = {shard: shards.read(shard) for shard in shards.find(rows, "vary")}
    pace = Pace(versions * sum(map(len, told.values())), PROGRESS_SECONDS)
    out.mkdir(parents=True, exist_ok=True)
    for shard, asked in told.items():
        written = []
        for row, version in itertools.product(asked, range(versions)):
            name = f"{zlib.crc32(json.dumps(row['messages']).encode()):08x}-{version}"
            messages = copy.deepcopy(row["messages"])
            for audio in (audio for message in messages for audio in message.get("audios", ())):
                audio["audio"] = make(audio["audio"], name, corpus / "audio")
            written.append(row | {"messages": messages, "id": f"{row['id']}-varied-{version}"})
            if line := pace.add(1):
                print(f"vary: {pace.done} of {pace.total} rows, {line}", flush=True)
        shards.write(out / shard.name, written)
    print(f"vary: {pace.total} rows in {out}, their clips in {corpus}/audio/{FOLDER}")


def make(name: str, version: str, audio: pathlib.Path) -> str:
    """Writes a version of a clip, unless it is there; returns its name."""
    source = pathlib.PurePath(name)
    own = f"{FOLDER}/{source.stem}-{version}.flac"
    if not (audio / own).is_file():
        clips.write(audio / own, varied(clips.read(audio / source), clips.chance(own)))
    return own


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="the folder that make.py wrote")
    parser.add_argument("--rows", type=pathlib.Path, required=True, help="a folder that desta-jax construct wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the rows go")
    parser.add_argument("--versions", type=int, default=1, help="how many of each row (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.versions < 1:
        parser.error("--versions must be at least 1")
    vary(arguments.rows, arguments.corpus, arguments.out, arguments.versions)
