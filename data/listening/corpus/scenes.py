"""Synthetic speech in scenes: on backgrounds at known ratios, in rooms, and two speakers in turn."""

import dataclasses

import clips
import numpy as np
import sentences
import sounds
import voices

LICENCE, ADDRESS = voices.LICENCE, voices.ADDRESS
BACKGROUNDS = ("none", "white noise", "pink noise", "babble", "music", "rain", "engine")
RATIOS = (20, 15, 10, 5, 0)  # dB of speech over background
ROOMS = {"dry": 0.4, "reverberant": 0.6}
DECAYS = (0.5, 1.4)  # seconds to fall by 60 dB
TRAINED, TESTED = 100, 24  # of each language
TURNS = (2, 3)
DIALOGUES = {"train": 40, "test": 10}  # of each language
PAUSE = (0.2, 0.6)  # seconds between turns


class Scenes:
    """Speech on a background and in a room."""

    NAME, LICENCE, ADDRESS = "scenes", LICENCE, ADDRESS

    @classmethod
    def plan(cls, _places: clips.Places) -> list[clips.Clip]:
        return [
            _scene(f"{cls.NAME}/{voices.CODES[language]}-{number}.flac", language, number < TRAINED)
            for language in sentences.SENTENCES
            for number in range(TRAINED + TESTED)
        ]

    @staticmethod
    def render(clip: clips.Clip) -> tuple:
        rng = clips.chance(clip.audio + " sound")
        speech = voices.speak(*clip.recipe)
        if clip.fields["room"] == "reverberant":
            speech = reverberated(speech, rng.uniform(*DECAYS), rng)
        if clip.fields["background"] != "none":
            noise = background(clip.fields["background"], len(speech), rng)
            speech = clips.mixed(speech, noise, clip.fields["snr"])
        return clips.at_level(speech, clips.LOUDNESS[clip.fields["loudness"]]), [{}]


class Dialogue:
    """Two voices in turn, in one language."""

    NAME, LICENCE, ADDRESS = "dialogue", LICENCE, ADDRESS

    @classmethod
    def plan(cls, _places: clips.Places) -> list[clips.Clip]:
        return [
            _dialogue(f"{cls.NAME}/{voices.CODES[language]}-{split}-{number}.flac", language, split == "train")
            for language in sentences.SENTENCES
            for split, count in DIALOGUES.items()
            for number in range(count)
        ]

    @staticmethod
    def render(clip: clips.Clip) -> tuple:
        """The clip and its segments; turns that do not fit into a clip whole are left out."""
        rng = clips.chance(clip.audio + " sound")
        parts, segments, time = [], [], 0.0
        for number, (fields, recipe) in enumerate(clip.recipe):
            turn = clips.at_level(voices.speak(*recipe), clips.LOUDNESS["normal"])
            end = time + len(turn) / clips.RATE
            if number and end > clips.SECONDS:
                break
            segments.append(fields | {"start": round(time, 2), "end": round(min(end, clips.SECONDS), 2)})
            pause = np.zeros(int(rng.uniform(*PAUSE) * clips.RATE), np.float32)
            parts += [turn, pause]
            time = end + len(pause) / clips.RATE
        return np.concatenate(parts[:-1]), segments


def background(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many samples of a background; babble is six voices of the training set at once."""
    if kind != "babble":
        return sounds.texture(kind, count, rng)
    return sum(_babbler(count, rng) for _ in range(6))


def _babbler(count: int, rng: np.random.Generator) -> np.ndarray:
    gender = clips.pick(rng, voices.VOICES)
    language = clips.pick(rng, sentences.SENTENCES)
    words = " ".join(rng.permutation(sentences.SENTENCES[language][: -sentences.HELD_OUT])[:4].tolist())
    voice = f"{voices.CODES[language]}+{clips.pick(rng, voices.VOICES[gender])}"
    said = clips.at_level(voices.speak(words, voice, int(rng.integers(150, 200)), 50), -24.0)
    return np.resize(np.roll(said, int(rng.integers(len(said)))), count)


def reverberated(speech: np.ndarray, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Speech through a room: noise that falls by 60 dB in `decay` seconds, after the direct sound."""
    time = np.arange(int(decay * clips.RATE)) / clips.RATE
    room = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    room *= (0.7 / np.sum(room**2)) ** 0.5
    room[0] = 1.0
    size = 1 << (len(speech) + len(room) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(room, size), size)
    return wet[: len(speech) + len(room) // 3].astype(np.float32)


def _speaker(rng: np.random.Generator, language: str, train: bool) -> tuple[str, str, str, str]:
    """Gender, voice, words, and why they are held out: a voice, or else a sentence."""
    spoken, cut = sentences.SENTENCES[language], -sentences.HELD_OUT
    gender = clips.pick(rng, voices.VOICES)
    if not train and rng.random() < 0.5:
        return gender, clips.pick(rng, voices.HELD_OUT_VOICES[gender]), clips.pick(rng, spoken[:cut]), "voice"
    words = clips.pick(rng, spoken[:cut] if train else spoken[cut:])
    return gender, clips.pick(rng, voices.VOICES[gender]), words, "" if train else "sentence"


def _scene(name: str, language: str, train: bool) -> clips.Clip:
    rng = clips.chance(name)
    gender, voice, words, held_out = _speaker(rng, language, train)
    fields, held_out, recipe = voices.said(rng, language, words, gender, voice, held_out)
    fields["background"] = clips.pick(rng, BACKGROUNDS)
    if fields["background"] != "none":
        fields["snr"] = clips.pick(rng, RATIOS)
    fields["room"] = clips.pick(rng, ROOMS, list(ROOMS.values())) if fields["background"] != "none" else "reverberant"
    return clips.Clip(name, "speech", fields, held_out, recipe)


def _dialogue(name: str, language: str, train: bool) -> clips.Clip:
    rng = clips.chance(name)
    first = _speaker(rng, language, train)
    second = first
    while second[1] == first[1] or second[3] != first[3]:
        second = _speaker(rng, language, train)
    pool = _pool(language, first[3])
    turns = []
    for number, words in enumerate(rng.permutation(pool)[: clips.pick(rng, TURNS)].tolist()):
        gender, voice, _, _ = (first, second)[number % 2]
        fields = {"speaker": f"Speaker {number % 2 + 1}", "gender": gender, "language": language, "text": words}
        turns.append((fields, (words, f"{voices.CODES[language]}+{voice}", int(rng.integers(165, 210)), 50)))
    return dataclasses.replace(clips.Clip(name, "dialogue", {}, first[3]), recipe=tuple(turns))


def _pool(language: str, held_out: str) -> list[str]:
    spoken, cut = sentences.SENTENCES[language], -sentences.HELD_OUT
    return spoken[cut:] if held_out == "sentence" else spoken[:cut]
