"""Makes a small spoken dataset in AQA5M's form, with the speech synthesiser eSpeak NG: wav files and rows.

    python launch/spoken_clips.py OUT           # OUT/audio/*.wav, OUT/train.jsonl, OUT/validation.jsonl

Women and men say sentences in five languages; each clip gets questions with answers in plain words, about the language,
the voice and what is said. The sentences of validation.jsonl are not in train.jsonl. Clips that are there are left
alone; from nothing, the same command makes the same files.
"""

import _ctypes
import argparse
import ctypes
import json
import os
import pathlib
import wave

import espeakng_loader

LANGUAGES = {"en-us": "English", "es": "Spanish", "fr": "French", "de": "German", "it": "Italian"}
VOICES = {"f2": "woman", "f5": "woman", "m3": "man", "m7": "man"}  # variants of eSpeak NG's speakers
SENTENCES = {  # the last HELD_OUT of each are for validation
    "en-us": [
        "The train leaves at nine in the morning.",
        "My sister lives in a small house by the sea.",
        "We would like two cups of coffee, please.",
        "It will rain in the afternoon.",
        "The children are playing in the garden.",
        "He bought bread and cheese at the market.",
        "The library is closed on Sunday.",
        "Can you open the window?",
    ],
    "es": [
        "El tren sale a las nueve de la mañana.",
        "Mi hermana vive en una casa pequeña cerca del mar.",
        "Quisiéramos dos tazas de café, por favor.",
        "Va a llover por la tarde.",
        "Los niños juegan en el jardín.",
        "Compró pan y queso en el mercado.",
        "La biblioteca está cerrada el domingo.",
        "¿Puedes abrir la ventana?",
    ],
    "fr": [
        "Le train part à neuf heures du matin.",
        "Ma sœur habite une petite maison près de la mer.",
        "Nous voudrions deux tasses de café, s'il vous plaît.",
        "Il va pleuvoir cet après-midi.",
        "Les enfants jouent dans le jardin.",
        "Il a acheté du pain et du fromage au marché.",
        "La bibliothèque est fermée le dimanche.",
        "Pouvez-vous ouvrir la fenêtre?",
    ],
    "de": [
        "Der Zug fährt um neun Uhr morgens ab.",
        "Meine Schwester wohnt in einem kleinen Haus am Meer.",
        "Wir möchten bitte zwei Tassen Kaffee.",
        "Am Nachmittag wird es regnen.",
        "Die Kinder spielen im Garten.",
        "Er hat auf dem Markt Brot und Käse gekauft.",
        "Die Bibliothek ist am Sonntag geschlossen.",
        "Kannst du das Fenster öffnen?",
    ],
    "it": [
        "Il treno parte alle nove di mattina.",
        "Mia sorella vive in una piccola casa vicino al mare.",
        "Vorremmo due tazze di caffè, per favore.",
        "Nel pomeriggio pioverà.",
        "I bambini giocano in giardino.",
        "Ha comprato pane e formaggio al mercato.",
        "La biblioteca è chiusa la domenica.",
        "Puoi aprire la finestra?",
    ],
}
SEED = 1
HELD_OUT = 2  # sentences of each language
SYSTEM = "Focus on the audio clips and instructions."
QUESTIONS = [
    ("What language is spoken in the audio?", "The language spoken is {language}."),
    ("Is the speaker a man or a woman?", "The speaker is a {speaker}."),
    ("Describe the audio.", 'A {speaker} speaks {language}, and says: "{words}"'),
    ("What does the speaker say?", 'The speaker says: "{words}"'),
]


class Espeak:
    """eSpeak NG, through its C interface (speak_lib.h); loaded anew after `with`, whatever it said before."""

    SYNCHRONOUS, UTF8, ALL_IS_WELL = 2, 1, 0  # synthesise in the call, to the callback; the text's encoding; EE_OK

    def __init__(self):
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = os.fsencode(espeakng_loader.get_data_path())
        self.rate = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, data, 0)
        if self.rate <= 0:
            raise OSError("eSpeak NG does not start: its data may be missing; install espeakng-loader again")
        self.pcm = bytearray()
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._take)  # kept, for C does not count references
        self.library.espeak_SetSynthCallback(self.callback)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)

    def _take(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self.pcm += ctypes.string_at(samples, 2 * count)
        return 0

    def say(self, words: str, voice: str) -> bytes:
        """16-bit samples of the words in a voice such as "es+f2"; raises ValueError if there is no such voice."""
        if self.library.espeak_SetVoiceByName(voice.encode()) != self.ALL_IS_WELL:
            raise ValueError(f"eSpeak NG has no voice {voice}")
        self.library.espeak_ng_SetRandSeed(SEED)  # its voices waver at random
        self.pcm.clear()
        text = words.encode() + b"\0"
        self.library.espeak_Synth(text, len(text), 0, 0, 0, self.UTF8, None, None)
        return bytes(self.pcm)


def make(out: pathlib.Path, languages: list[str], sentences: int) -> dict[str, int]:
    """Writes the dataset, and returns how many rows each of its files has."""
    (out / "audio").mkdir(parents=True, exist_ok=True)
    rows = {"train": [], "validation": []}
    with Espeak() as espeak:
        for language in languages:
            for number, words in enumerate(SENTENCES[language]):
                held_out = number >= len(SENTENCES[language]) - HELD_OUT
                if not held_out and number >= sentences:
                    continue
                for speaker, voice in enumerate(VOICES):
                    clip = f"{language}-{voice}-{number}.wav"
                    seconds = write_clip(out / "audio" / clip, espeak, words, f"{language}+{voice}")
                    question = QUESTIONS[(number + speaker) % len(QUESTIONS)]
                    rows["validation" if held_out else "train"].append(
                        row(clip, language, voice, words, seconds, question)
                    )
    for split, lines in rows.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(out / f"{split}.jsonl", text.encode())
    return {split: len(lines) for split, lines in rows.items()}


def write_clip(path: pathlib.Path, espeak: Espeak, words: str, voice: str) -> float:
    """Writes a clip unless it is there; returns its seconds."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        with wave.open(str(partial), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(espeak.rate)
            file.writeframes(espeak.say(words, voice))
        partial.rename(path)
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


def row(clip: str, language: str, voice: str, words: str, seconds: float, question: tuple[str, str]) -> dict:
    """A row of AQA5M: what is asked about a clip, and the answer."""
    instruction, answer = question
    speaker, spoken, length = VOICES[voice], LANGUAGES[language], f"{round(seconds):02d}"
    gender = {"woman": "Female", "man": "Male"}[speaker]
    description = f"[00:00-00:{length}] {words} (Language: {spoken}, Gender: {gender}, Duration: {round(seconds)}s)"
    user = {
        "role": "user",
        "content": f"{instruction} <start_audio><|AUDIO|><end_audio>",
        "audios": [{"audio": clip, "text": words}],
    }
    return {
        "id": clip.removesuffix(".wav"),
        "dataset": "spoken_clips",
        "seed_description": description,
        "prompt": instruction,
        "messages": [{"role": "system", "content": SYSTEM}, user],
        "response": answer.format(language=spoken, speaker=speaker, words=words),
    }


def write_whole(path: pathlib.Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        partial = path.with_suffix(".partial")
        partial.write_bytes(content)
        partial.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=list(LANGUAGES))
    parser.add_argument("--sentences", type=int, default=6, help="of each language, in train.jsonl (default: 6, all)")
    arguments = parser.parse_args()
    rows = make(arguments.out, arguments.languages, arguments.sentences)
    print(f"{arguments.out}: {rows['train']} rows to train on and {rows['validation']} held out, with their clips")


if __name__ == "__main__":
    main()
