"""Synthetic speech of eSpeak NG: women and men in many languages, at chosen rates, pitches and levels."""

import pathlib
import sys

import clips
import numpy as np
import sentences

sys.path.append(str(pathlib.Path(__file__).parents[3] / "launch"))
import spoken_clips

NAME = "espeak"
LICENCE = "made here with eSpeak NG (GPL-3.0-or-later; what it speaks is free of it)"
ADDRESS = "https://github.com/espeak-ng/espeak-ng"
CODES = {
    "English": "en-us",
    "Spanish": "es",
    "French": "fr",
    "German": "de",
    "Italian": "it",
    "Portuguese": "pt-br",
    "Russian": "ru",
    "Chinese": "cmn",
    "Japanese": "ja",
    "Korean": "ko",
    "Dutch": "nl",
    "Polish": "pl",
}
VOICES = {  # eSpeak NG's variants
    "female": ["f1", "f2", "f3", "f4", "Alicia", "Annie", "aunty", "belinda", "linda", "steph", "steph3"],
    "male": ["m1", "m2", "m3", "m4", "m8", "Alex", "Andy", "Denis", "Gene", "Marco", "Michael", "paul", "rob", "adam"],
}
HELD_OUT_VOICES = {"female": ["f5", "Andrea", "anika"], "male": ["m7", "quincy", "travis"]}
RATES = {"slow": (90, 115), "normal": (150, 185), "fast": (260, 320)}  # words a minute
PITCHES = {"low": (8, 18), "medium": (42, 58), "high": (82, 97)}  # of 0 to 99; 50 is the voice as it is
WEIGHTS = (0.3, 0.4, 0.3)
TRAINED = 6  # clips of each sentence to train on
TESTED = 3  # clips of each held-out sentence, and of each held-out voice and language
RATE_PARAMETER, PITCH_PARAMETER = 1, 3  # espeakRATE and espeakPITCH of speak_lib.h


class Speaker(spoken_clips.Espeak):
    """eSpeak NG at a rate and a pitch."""

    def speak(self, words: str, voice: str, rate: int, pitch: int) -> np.ndarray:
        """The words as float32 samples at 16 kHz, without the silence before and after them."""
        self.library.espeak_SetVoiceByName(voice.encode())  # first, for it sets the parameters anew
        self.library.espeak_SetParameter(RATE_PARAMETER, rate, 0)
        self.library.espeak_SetParameter(PITCH_PARAMETER, pitch, 0)
        samples = np.frombuffer(self.say(words, voice), np.int16).astype(np.float32) / 32768
        return clips.resampled(trimmed(samples), self.rate)


def speak(words: str, voice: str, rate: int, pitch: int) -> np.ndarray:
    """The words by an eSpeak NG that is loaded anew, for it carries the waver of its voices over from what it said."""
    with Speaker() as speaker:
        return speaker.speak(words, voice, rate, pitch)


def trimmed(samples: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def plan(_places: clips.Places) -> list[clips.Clip]:
    """Every sentence in several voices, the held-out ones in voices trained on; held-out voices say the others."""
    planned = []
    for language, spoken in sentences.SENTENCES.items():
        train, test = spoken[: -sentences.HELD_OUT], spoken[-sentences.HELD_OUT :]
        for number, words in enumerate(train):
            planned += [_clip(language, words, f"{number}-{copy}", "") for copy in range(TRAINED)]
        for number, words in enumerate(test, len(train)):
            planned += [_clip(language, words, f"{number}-{copy}", "sentence") for copy in range(TESTED)]
        for gender, held_out in HELD_OUT_VOICES.items():
            for voice in held_out:
                planned += [held_out_voice(language, gender, voice, copy) for copy in range(TESTED)]
    return planned


def held_out_voice(language: str, gender: str, voice: str, copy: int) -> clips.Clip:
    name = f"{NAME}/{CODES[language]}-{voice}-{copy}.flac"
    rng = clips.chance(name)
    words = clips.pick(rng, sentences.SENTENCES[language][: -sentences.HELD_OUT])
    return clips.Clip(name, "speech", *said(rng, language, words, gender, voice, "voice"))


def _clip(language: str, words: str, number: str, held_out: str) -> clips.Clip:
    name = f"{NAME}/{CODES[language]}-{number}.flac"
    rng = clips.chance(name)
    gender = clips.pick(rng, VOICES)
    return clips.Clip(name, "speech", *said(rng, language, words, gender, clips.pick(rng, VOICES[gender]), held_out))


def said(rng: np.random.Generator, language: str, words: str, gender: str, voice: str, held_out: str) -> tuple:
    """Fields, held_out and recipe of words said plainly in a voice, at a rate, pitch and level drawn by chance."""
    rate, pitch, loudness = (clips.pick(rng, names, WEIGHTS) for names in (RATES, PITCHES, clips.LOUDNESS))
    fields = {
        "speaker": f"eSpeak NG {voice}",
        "language": language,
        "gender": gender,
        "text": words,
        "rate": rate,
        "pitch": pitch,
        "loudness": loudness,
        "background": "none",
        "room": "dry",
    }
    code = f"{CODES[language]}+{voice}"
    recipe = (words, code, int(rng.integers(*RATES[rate])), int(rng.integers(*PITCHES[pitch])))
    return fields, held_out, recipe


def render(clip: clips.Clip) -> tuple:
    return clips.at_level(speak(*clip.recipe), clips.LOUDNESS[clip.fields["loudness"]]), [{}]
