"""Recorded animals, instruments and other sounds of Tux Paint's stamps and GCompris, each heard in several ways."""

import functools
import io
import pathlib

import clips
import numpy as np
import packages
import rcc
import sounds

NAME = "found"
LICENCE = "Tux Paint stamps: GPL-2.0-or-later; GCompris: GPL-3.0-or-later, Free Art License 1.2 (its memory-sound)"
ADDRESS = "https://tuxpaint.org/stamps/ and https://gcompris.net"
STAMPS, GCOMPRIS = "tuxpaint-stamps-default", "gcompris-qt-data"
FARM, MEMORY = "explore_farm_animals:resource/animals/", "memory-sound:resource/"  # file.rcc:path in its activity
TRAINED, TESTED = 10, 3  # clips of a recording
LEAST, MOST = 2.5, 6.0  # seconds: shorter sounds come several times

ANIMALS = {  # label: recordings to train on, among the stamps' animals
    "badger": ["mammals/badger"],
    "bear": ["mammals/bears/bear"],
    "beaver": ["mammals/rodents/beaver"],
    "bee": ["insects/bee", "insects/hornet"],
    "bison": ["mammals/bovines/bison"],
    "blackbird": ["birds/blackbird"],
    "bull": ["mammals/bovines/bull"],
    "camel": ["mammals/camel/camel", "mammals/camel/dromedary"],
    "chimpanzee": ["mammals/apes/chimp"],
    "cow": ["mammals/bovines/cow", "mammals/bovines/cow_white"],
    "crow": ["birds/crow"],
    "cuckoo": ["birds/cuckoo"],
    "deer": ["mammals/deer/deer", "mammals/deer/doe", "mammals/deer/caribou"],
    "dog": ["mammals/dogs/dog"],
    "dolphin": ["mammals/aquatic/dolphin"],
    "donkey": ["mammals/equines/donkey"],
    "duck": ["birds/duck", "birds/drake"],
    "elephant": ["mammals/elephant"],
    "fox": ["mammals/dogs/fox"],
    "frog": ["amphibians/frog"],
    "goat": ["mammals/bovines/goat", "mammals/bovines/mountaingoat"],
    "goose": ["birds/gander"],
    "gorilla": ["mammals/apes/gorilla"],
    "grasshopper": ["insects/grasshopper"],
    "hen": ["birds/hen"],
    "hippopotamus": ["mammals/hippopotamus"],
    "horse": ["mammals/equines/horse"],
    "lark": ["birds/lark"],
    "lion": ["mammals/cats/lion"],
    "mouse": ["mammals/rodents/mouse"],
    "orca": ["mammals/aquatic/orca"],
    "owl": ["birds/owl"],
    "penguin": ["birds/penguin"],
    "pig": ["mammals/pig", "mammals/pig_golden"],
    "rooster": ["birds/rooster"],
    "sea lion": ["mammals/aquatic/sea_lion"],
    "seagull": ["birds/seagull"],
    "sheep": ["mammals/bovines/sheep", "mammals/bovines/sheep_lamb"],
    "squirrel": ["mammals/rodents/squirrel"],
    "tiger": ["mammals/cats/tiger"],
    "toucan": ["birds/tucan"],
    "turkey": ["birds/turkey"],
    "vulture": ["birds/vulture"],
    "whale": ["mammals/aquatic/whale"],
    "zebra": ["mammals/equines/zebra"],
}
OTHERS = {  # label: category, and recordings to train on
    "cat": ("animal", [FARM + "cat"]),
    "dog": ("animal", [MEMORY + "LRBark_1_LA_cut"]),
    "fireworks": ("household", ["seasonal/newyears/fireworks"]),
    "toilet flushing": ("household", ["household/toilet"]),
    "vacuum cleaner": ("household", ["household/vacuum_cleaner"]),
    "washing machine": ("household", ["household/Washing-machine"]),
    "saw": ("household", ["household/tools/saw"]),
    "hammer": ("household", ["household/tools/hammer"]),
    "camera shutter": ("household", ["hobbies/camera_35mm"]),
    "whistling kettle": ("household", ["household/kettle"]),
    "glass": ("household", ["household/dishes/glass"]),
    "door": ("household", [MEMORY + "LRDoor_Open_2_LA"]),
    "gong": ("music", [MEMORY + "LRBuddhist_gong_05_LA"]),
    "train": ("machine", [MEMORY + "LRTrain_slowing_down_01_LA_cut"]),
    "factory": ("machine", [MEMORY + f"LRFactory_noise_0{number}_LA" for number in range(1, 7)]),
}
HELD_OUT = {  # label: category, and recordings to test on
    "cat": ("animal", ["seasonal/halloween/blackcat"]),
    "cow": ("animal", [FARM + "cow"]),
    "dog": ("animal", [FARM + "dog", MEMORY + "LRBark_3_LA_cut"]),
    "duck": ("animal", [FARM + "duck"]),
    "frog": ("animal", [MEMORY + "LRFrogsInPondDuringStormLACut"]),
    "hen": ("animal", [FARM + "chickens"]),
    "horse": ("animal", [FARM + "horse"]),
    "mosquito": ("animal", ["animals/insects/mosquito"]),
    "owl": ("animal", [FARM + "owl"]),
    "pig": ("animal", [FARM + "pig"]),
    "sheep": ("animal", [FARM + "sheep"]),
    "thunder": ("nature", ["naturalforces/lightningbolt"]),
    "rain": ("nature", [MEMORY + "LRRain_in_garden_01_LA_cut"]),
    "siren": ("alarm", ["vehicles/emergency/firetruck"]),
    "applause": ("human", [MEMORY + "LRApplauses_1_LA_cut"]),
    "heartbeat": ("human", [MEMORY + "LRHeart_beat_01_LA"]),
    "engine": ("machine", [MEMORY + "LRStartAndStopCarEngine1LACut"]),
}
INSTRUMENTS = {  # GCompris's recordings of instruments, to test on
    "accordion": "accordion",
    "acoustic guitar": "guitar",
    "cello": "cello",
    "clarinet": "clarinet",
    "electric guitar": "electric_guitar",
    "flute": "flute_traversiere",
    "harp": "harp",
    "organ": "organ",
    "piano": "piano",
    "saxophone": "saxophone",
    "trombone": "trombone",
    "trumpet": "trumpet",
    "violin": "violin",
}


def plan(places: clips.Places) -> list[clips.Clip]:
    stamps = packages.folder(STAMPS, places.cache) / "usr/share/tuxpaint/stamps"
    gcompris = packages.folder(GCOMPRIS, places.cache) / "usr/share/gcompris-qt/rcc"
    planned = []
    for label, recordings in ANIMALS.items():
        planned += _heard(label, "animal", [f"animals/{recording}" for recording in recordings], "")
    for label, (category, recordings) in OTHERS.items():
        planned += _heard(label, category, recordings, "")
    for label, (category, recordings) in HELD_OUT.items():
        planned += _heard(label, category, recordings, "recording")
    for instrument, file in INSTRUMENTS.items():
        name = f"{NAME}/{_plain(instrument)}-recorded.flac"
        recipe = f"instruments:resource/{file}"
        planned.append(clips.Clip(name, "music", {"instrument": instrument}, "recording", recipe))
    return [_with_folders(clip, stamps, gcompris) for clip in planned]


def render(clip: clips.Clip) -> tuple:
    """A recording a little faster or slower, several times if it is short, at some level, half the time with hiss."""
    rng = clips.chance(clip.audio + " sound")
    samples = _recording(*clip.recipe)
    samples = clips.resampled(samples, round(clips.RATE * rng.uniform(0.93, 1.07)))
    samples = _cut(samples, rng) if len(samples) > MOST * clips.RATE else _repeated(samples, rng)
    if rng.random() < 0.5:
        noise = sounds.coloured(len(samples), rng, rng.uniform(0.0, 1.5))
        samples = clips.mixed(samples, noise, rng.uniform(15.0, 30.0))
    return clips.at_level(samples.astype(np.float32), rng.uniform(-30.0, -16.0)), [{}]


def _heard(label: str, category: str, recordings: list[str], held_out: str) -> list[clips.Clip]:
    fields = {"label": label, "category": category}
    return [
        clips.Clip(f"{NAME}/{_plain(label)}-{_plain(recording)}-{copy}.flac", "sound", fields, held_out, recording)
        for recording in recordings
        for copy in range(TESTED if held_out else TRAINED)
    ]


def _plain(name: str) -> str:
    return name.replace(" ", "_").replace("/", ".").replace(":", ".")


def _with_folders(clip: clips.Clip, stamps: pathlib.Path, gcompris: pathlib.Path) -> clips.Clip:
    """The clip with its recording as a file, and the name in that file if it holds several."""
    activity, _, name = clip.recipe.rpartition(":")
    recipe = (str(gcompris / f"{activity}.rcc"), f"/{name}.ogg") if activity else (str(stamps / f"{name}.ogg"), "")
    return clips.Clip(clip.audio, clip.kind, clip.fields, clip.held_out, recipe)


@functools.cache
def _recording(path: str, name: str) -> np.ndarray:
    if not name:
        return clips.read(path)
    held = rcc.read(pathlib.Path(path))
    return clips.read(io.BytesIO(next(content for key, content in held.items() if key.endswith(name))))


def _cut(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """MOST seconds from the first half, where a long recording has its sound."""
    room = len(samples) - int(MOST * clips.RATE)
    start = int(rng.integers(room + 1)) // 2
    return samples[start : start + int(MOST * clips.RATE)]


def _repeated(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length = len(samples) / clips.RATE
    pause = rng.uniform(0.1, 0.6)
    times = max(1, round((rng.uniform(LEAST, 5.0) + pause) / (length + pause)))
    return clips.joined([samples] * times, pause)
