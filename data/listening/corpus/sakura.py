"""Real recordings: the Common Voice and CREMA-D clips of the benchmark SAKURA, from a checkout of its repository.

SAKURA measures models, so some of its clips are for testing only and some are not touched at all: see `part`.
What an adapter can't be shipped on is left out: its Animal track, and the clips of its Emotion track that come from
MELD, which are of a television series.
"""

import csv
import pathlib
import re
import zlib

import clips

NAME = "sakura"
LICENCE = "Common Voice: CC0-1.0; CREMA-D: ODbL-1.0"
ADDRESS = "https://github.com/ckyang1124/SAKURA"
TRACKS = {"Language": "language", "Gender": "gender", "Emotion": "emotion"}
LANGUAGES = {"de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ja": "Japanese"}
LANGUAGES |= {"ko": "Korean", "zh-CN": "Chinese"}
CREMA_D = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
# The actresses among CREMA-D's actors, by the data set's list of them.
CREMA_D_WOMEN = {1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029}
CREMA_D_WOMEN |= {1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073}
CREMA_D_WOMEN |= {1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091}

MELD = re.compile(r"dia\d+_utt\d+")


def part(stem: str) -> str:
    """train, test, or nothing for a clip that is not touched, by its file name without ending."""
    number = zlib.crc32(stem.encode())
    if number % 7 == 0:
        return ""
    return "test" if number % 5 == 0 else "train"


def plan(places: clips.Places) -> list[clips.Clip]:
    """The clips of all tracks; one that stands in two tracks has the labels of both.

    Raises:
        FileNotFoundError: the folder is no checkout of SAKURA.
    """
    if places.sakura is None:
        return []
    labels: dict[str, dict] = {}
    files: dict[str, pathlib.Path] = {}
    for track, column in TRACKS.items():
        folder = places.sakura / "data" / track
        for stem, label in _labels(folder / "metadata.csv"):
            labels.setdefault(stem, _known(stem, track))[column] = label
            files.setdefault(stem, folder / "audio" / f"{stem}.wav")
    return [_clip(stem, fields, files[stem]) for stem, fields in sorted(labels.items())]


def render(clip: clips.Clip) -> tuple:
    return clips.read(clip.recipe), [{}]


def _labels(path: pathlib.Path) -> list[tuple[str, str]]:
    """Names without ending and labels of the clips that may be touched."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; --sakura is a checkout of {ADDRESS} (git clone {ADDRESS})")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(pathlib.PurePath(row["file"]).stem, row["attribute_label"]) for row in csv.DictReader(file)]
    return [(stem, label) for stem, label in rows if part(stem) and not MELD.fullmatch(stem)]


def _known(stem: str, track: str) -> dict:
    """What a file's name says. The sex of an actor is for training only: the actors are the same in both parts."""
    if track != "Emotion":
        return {"language": LANGUAGES[stem.split("_")[0]]}
    actor, sentence = stem.split("_")[:2]
    known = {"speaker": f"CREMA-D {actor}", "language": "English", "text": CREMA_D[sentence]}
    if part(stem) == "train":
        known["gender"] = "female" if int(actor) in CREMA_D_WOMEN else "male"
    return known


def _clip(stem: str, fields: dict, path: pathlib.Path) -> clips.Clip:
    held_out = "clip" if part(stem) == "test" else ""
    return clips.Clip(f"{NAME}/{stem}.flac", "speech", fields, held_out, str(path))
