"""Music: tunes composed by chance in a key, a mode and a tempo, played by one instrument of a sound font."""

import functools
import importlib
import pathlib
import sys

import clips
import numpy as np
import packages

NAME = "music"
LICENCE = "made here; FluidR3Mono: MIT; TimGM6mb: GPL-2.0"
ADDRESS = "https://packages.debian.org/fluidr3mono-gm-soundfont and timgm6mb-soundfont"
FONT = "fluidr3mono-gm-soundfont", "usr/share/fluidr3mono-gm-soundfont/FluidR3Mono_GM.sf3"
HELD_OUT_FONT = "timgm6mb-soundfont", "usr/share/sounds/sf2/TimGM6mb.sf2"
INSTRUMENTS = {  # program, key in the middle of its range, whether it plays chords
    "piano": (0, 64, True),
    "harpsichord": (6, 62, True),
    "music box": (10, 79, True),
    "xylophone": (13, 76, False),
    "organ": (19, 62, True),
    "accordion": (21, 64, True),
    "acoustic guitar": (24, 57, True),
    "electric guitar": (29, 55, False),
    "bass guitar": (33, 38, False),
    "violin": (40, 72, False),
    "cello": (42, 48, False),
    "harp": (46, 67, True),
    "choir": (52, 62, True),
    "trumpet": (56, 67, False),
    "trombone": (57, 50, False),
    "saxophone": (65, 58, False),
    "clarinet": (71, 66, False),
    "flute": (73, 77, False),
    "bagpipe": (109, 67, False),
    "drums": (0, 0, False),
}
TEMPOS = {"slow": (52, 66), "medium": (96, 116), "fast": (168, 200)}  # beats a minute
MODES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSIONS = {
    "major": [(0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3)],
    "minor": [(0, 3, 4, 0), (0, 5, 2, 6), (0, 3, 6, 0)],
}
RHYTHMS = ((1.0,), (0.5, 0.5), (0.5, 0.25, 0.25), (0.25, 0.25, 0.5))  # of a beat
TRAINED, TESTED = 6, 2  # of each instrument, tempo and mode; half of the tested ones in the other sound font
SECONDS = (5.0, 7.5)
RATE = 32_000
CHANNEL, DRUMS = 0, 9
KICK, SNARE, HAT, TOM, CRASH = 36, 38, 42, 45, 49


def plan(places: clips.Places) -> list[clips.Clip]:
    packages.wheel("tinysoundfont", places.cache)
    paths = [str(packages.folder(name, places.cache) / path) for name, path in (FONT, HELD_OUT_FONT)]
    return [
        _clip(instrument, tempo, mode, number, places.cache, paths)
        for instrument in INSTRUMENTS
        for tempo in TEMPOS
        for mode in MODES
        for number in range(TRAINED + TESTED)
    ]


def render(clip: clips.Clip) -> tuple:
    """The tune, played; it fades out in the last half second."""
    rng = clips.chance(clip.audio + " sound")
    instrument, tempo = clip.fields["instrument"], rng.uniform(*TEMPOS[clip.fields["tempo"]])
    beats = max(4, round(rng.uniform(*SECONDS) * tempo / 60))
    notes = drumming(beats, rng) if instrument == "drums" else tune(instrument, clip.recipe["mode"], beats, rng)
    samples = clips.resampled(play(notes, instrument, 60 / tempo, clip.recipe), RATE)
    fade = np.minimum(np.arange(len(samples), 0, -1) / (0.5 * clips.RATE), 1.0).astype(np.float32)
    return clips.at_level(samples * fade, rng.uniform(-28.0, -18.0)), [{}]


def tune(instrument: str, mode: str, beats: int, rng: np.random.Generator) -> list[tuple]:
    """Notes as (beat, length in beats, key, velocity): a melody on a progression of chords, ending at home."""
    _, middle, chords = INSTRUMENTS[instrument]
    root = middle - 3 + int(rng.integers(-4, 5))
    progression = clips.pick(rng, PROGRESSIONS[mode])
    notes, degree = [], int(clips.pick(rng, [0, 2, 4]))
    for beat in range(beats):
        chord = progression[beat * len(progression) // beats]
        last = beat == beats - 1
        degree = _near(degree, [0] if last else [chord, chord + 2, chord + 4], rng)
        for offset, length in _rhythm(rng, last):
            notes.append((beat + offset, length, key_of(root, mode, degree), 95 + int(rng.integers(20))))
            degree = int(np.clip(degree + rng.integers(-2, 3), -3, 9))
        if chords and beat % 2 == 0:
            harmony = [key_of(root - 12, mode, chord + step) for step in (0, 2, 4)]
            notes += [(beat, 1.9, key, 70) for key in harmony]
    return notes


def key_of(root: int, mode: str, degree: int) -> int:
    """The key of a degree of the scale above the root, from 0."""
    octave, step = divmod(degree, 7)
    return root + 12 * octave + MODES[mode][step]


def _near(degree: int, wanted: list[int], rng: np.random.Generator) -> int:
    """One of the degrees of a chord in any octave, near where the melody is."""
    options = [step + shift for step in wanted for shift in (-7, 0, 7) if -3 <= step + shift <= 9]
    return sorted(options, key=lambda step: abs(step - degree) + rng.random())[0]


def _rhythm(rng: np.random.Generator, last: bool) -> list[tuple[float, float]]:
    """Starts and lengths of the notes of a beat."""
    lengths = (1.0,) if last else clips.pick(rng, RHYTHMS, (0.4, 0.4, 0.1, 0.1))
    return list(zip(np.cumsum((0.0, *lengths[:-1])).tolist(), lengths))


def drumming(beats: int, rng: np.random.Generator) -> list[tuple]:
    """A beat of bass drum, snare and cymbals, with fills."""
    notes, fill = [(0, 1.0, CRASH, 90)], rng.random() < 0.5
    kicks = clips.pick(rng, [(0.0,), (0.0, 1.5), (0.0, 0.75)])
    for beat in range(beats):
        notes += [(beat + half, 0.4, HAT, 70) for half in (0.0, 0.5)]
        notes += [(beat + offset, 0.4, KICK, 115) for offset in kicks] if beat % 2 == 0 else [(beat, 0.4, SNARE, 110)]
        if fill and beat % 4 == 3:
            notes += [(beat + quarter, 0.3, TOM + 2 * number, 100) for number, quarter in enumerate((0.25, 0.5, 0.75))]
    return notes


def play(notes: list[tuple], instrument: str, beat: float, recipe: dict) -> np.ndarray:
    """Samples (frames by 2) of notes at so many seconds a beat."""
    synthesiser, font = _synthesiser(recipe["cache"], recipe["font"])
    channel = DRUMS if instrument == "drums" else CHANNEL
    bank = 128 if instrument == "drums" else 0
    synthesiser.program_select(channel, font, bank, INSTRUMENTS[instrument][0], instrument == "drums")
    starts = [(start * beat, 1, key, velocity) for start, _, key, velocity in notes]
    stops = [((start + length * 0.95) * beat, 0, key, 0) for start, length, key, _ in notes]
    parts, frame = [], 0
    for time, on, key, velocity in sorted(starts + stops):
        parts.append(_generated(synthesiser, round(time * RATE) - frame))
        frame = max(frame, round(time * RATE))
        synthesiser.noteon(channel, key, velocity) if on else synthesiser.noteoff(channel, key)
    parts.append(_generated(synthesiser, RATE // 2))
    synthesiser.sounds_off()
    while np.any(_generated(synthesiser, RATE // 10)):  # its last notes fade out, not into the next tune
        pass
    return np.concatenate(parts)


def _generated(synthesiser, count: int) -> np.ndarray:
    if count <= 0:
        return np.zeros((0, 2), np.float32)
    return np.frombuffer(bytes(synthesiser.generate(count)), np.float32).reshape(-1, 2)


@functools.cache
def _synthesiser(cache: str, font: str) -> tuple:
    sys.path.append(str(packages.wheel("tinysoundfont", pathlib.Path(cache))))
    synthesiser = importlib.import_module("tinysoundfont").Synth(samplerate=RATE)
    return synthesiser, synthesiser.sfload(font)


def _clip(instrument: str, tempo: str, mode: str, number: int, cache: pathlib.Path, fonts: list[str]) -> clips.Clip:
    fields = {"instrument": instrument, "tempo": tempo, "caption": f"A {tempo} rhythm, played on drums."}
    if instrument != "drums":
        told = f"A {tempo} tune in a {mode} key, played on this instrument: {instrument}."
        fields |= {"mode": mode, "caption": told}
    other = number == TRAINED
    held_out = "" if number < TRAINED else "recording" if other else "clip"
    name = f"{NAME}/{instrument.replace(' ', '_')}-{tempo}-{mode}-{number}.flac"
    recipe = {"mode": mode, "cache": str(cache), "font": fonts[other]}
    return clips.Clip(name, "music", fields, held_out, recipe)
