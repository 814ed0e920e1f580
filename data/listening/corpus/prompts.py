"""Recorded people: the prompts of Asterisk, the names of Tux Paint's stamps, the words of KTuberling."""

import dataclasses
import gzip
import pathlib
import re
import zlib

import clips
import packages
import soundfile


@dataclasses.dataclass(frozen=True)
class Voice:
    """A person, and the package that holds what they said."""

    name: str
    language: str
    gender: str
    package: str
    texts: str = ""
    """The package that lists the words, where there is one."""
    held_out: bool = False


SECONDS = (0.9, 8.0)
MOST = 200  # clips of a voice
TESTED = 40  # of a voice held out


class Asterisk:
    """Prompts of a telephone exchange, recorded in studios at 8 kHz, with their texts."""

    NAME = "asterisk"
    LICENCE = (
        "CC-BY-SA-3.0: recorded by Allison Smith (theivrvoice.com), June Wallack (junewallack.com), Carlo Flora "
        "(carloflora.com), Marco Menardi and Paola Dal Zot (voip.ammdomus.it); CC-BY-3.0: Maxim Topal (ivrvoice.ru)"
    )
    ADDRESS = "https://downloads.asterisk.org/pub/telephony/sounds/ and http://www.voip.ammdomus.it"
    CORE = "asterisk-core-sounds"
    VOICES = (
        Voice("Allison Smith", "English", "female", f"{CORE}-en-wav", f"{CORE}-en"),
        Voice("Allison Smith", "Spanish", "female", f"{CORE}-es-wav", f"{CORE}-es"),
        Voice("June Wallack", "French", "female", f"{CORE}-fr-wav", f"{CORE}-fr"),
        Voice("Carlo Flora", "Italian", "male", f"{CORE}-it-wav", f"{CORE}-it"),
        Voice("IvrvoiceRU", "Russian", "female", f"{CORE}-ru-wav", f"{CORE}-ru"),
        Voice("Paola Dal Zot", "Italian", "female", "asterisk-prompt-it-menardi-wav", held_out=True),
    )

    @classmethod
    def plan(cls, places: clips.Places) -> list[clips.Clip]:
        return [clip for voice in cls.VOICES for clip in _prompts(voice, places.cache)]

    @staticmethod
    def render(clip: clips.Clip) -> tuple:
        return clips.read(clip.recipe[0]), [{}]


class Stamps:
    """Names of things, read by volunteers: three at a time, for each is short."""

    NAME = "stamps"
    LICENCE = "GPL-2.0-or-later: read by volunteers of Tux Paint"
    ADDRESS = "https://tuxpaint.org/stamps/"
    PACKAGE = "tuxpaint-stamps-default"
    VOICES = {
        "es": Voice("Estefanía Ortiz", "Spanish", "female", PACKAGE),
        "fr": Voice("PaulK", "French", "male", PACKAGE, held_out=True),
        "be": Voice("Kseniya Buraya", "Belarusian", "female", PACKAGE),
        "bg": Voice("Krasimir Petkov", "Bulgarian", "male", PACKAGE),
        "ca": Voice("Pere Pujal", "Catalan", "male", PACKAGE),
        "da": Voice("Joe Dalton", "Danish", "male", PACKAGE),
        "el": Voice("Kiriaki Serafeim", "Greek", "female", PACKAGE),
    }
    EACH, TRAINED, PAUSE = 3, 70, 0.25

    @classmethod
    def plan(cls, places: clips.Places) -> list[clips.Clip]:
        folder = packages.folder(cls.PACKAGE, places.cache)
        return [clip for code, voice in cls.VOICES.items() for clip in cls._said(code, voice, folder)]

    @classmethod
    def _said(cls, code: str, voice: Voice, folder: pathlib.Path) -> list[clips.Clip]:
        files = sorted(folder.rglob(f"*_desc_{code}.ogg"), key=lambda path: zlib.crc32(path.name.encode()))
        count = min(len(files) // cls.EACH, TESTED if voice.held_out else cls.TRAINED)
        groups = [files[number * cls.EACH : (number + 1) * cls.EACH] for number in range(count)]
        return [_clip(f"{cls.NAME}/{code}-{number}", voice, group) for number, group in enumerate(groups)]

    @classmethod
    def render(cls, clip: clips.Clip) -> tuple:
        return clips.joined([clips.read(path) for path in clip.recipe], cls.PAUSE), [{}]


class Words:
    """Words and digits read by volunteers in sixteen languages, several at a time; who they are is not known."""

    NAME = "words"
    LICENCE = "GPL-2.0-or-later: read by volunteers of KDE and Tux Paint"
    ADDRESS = "https://apps.kde.org/ktuberling/ and https://tuxpaint.org/stamps/"
    WORDS, DIGITS = "ktuberling-data", "tuxpaint-stamps-default"
    LANGUAGES = {
        "ca": "Catalan",
        "da": "Danish",
        "de": "German",
        "el": "Greek",
        "en": "English",
        "en_GB": "English",
        "es": "Spanish",
        "fr": "French",
        "it": "Italian",
        "ja": "Japanese",
        "ko": "Korean",
        "lt": "Lithuanian",
        "nl": "Dutch",
        "pt": "Portuguese",
        "ru": "Russian",
        "sl": "Slovenian",
        "sv": "Swedish",
        "uk": "Ukrainian",
        "zh_tw": "Chinese",
    }
    EACH, MOST, ROWS_OF_DIGITS, PAUSE = 4, 20, 8, 0.25

    @classmethod
    def plan(cls, places: clips.Places) -> list[clips.Clip]:
        """Words in groups, each of them once, and digits in any order, for there are only ten to train on."""
        words = packages.folder(cls.WORDS, places.cache) / "usr/share/ktuberling/sounds"
        digits = packages.folder(cls.DIGITS, places.cache) / "usr/share/tuxpaint/stamps/symbols/math"
        planned = []
        for code, language in cls.LANGUAGES.items():
            planned += cls._words(code, language, words / code)
            planned += cls._digits(code, language, sorted(digits.glob(f"[0-9]_{code}.ogg")))
        return planned

    @classmethod
    def _words(cls, code: str, language: str, folder: pathlib.Path) -> list[clips.Clip]:
        files = sorted(folder.glob("*.*"), key=lambda path: zlib.crc32(path.name.encode()))
        groups = [files[at : at + cls.EACH] for at in range(0, len(files) - cls.EACH + 1, cls.EACH)][: cls.MOST]
        return [cls._clip(f"{cls.NAME}/{code}-{n}.flac", language, group, n % 6 == 5) for n, group in enumerate(groups)]

    @classmethod
    def _digits(cls, code: str, language: str, files: list[pathlib.Path]) -> list[clips.Clip]:
        names = [f"{cls.NAME}/{code}-digits-{number}.flac" for number in range(cls.ROWS_OF_DIGITS if files else 0)]
        orders = [clips.chance(name).permutation(len(files))[: cls.EACH + 1].tolist() for name in names]
        return [cls._clip(name, language, [files[n] for n in order], False) for name, order in zip(names, orders)]

    @staticmethod
    def _clip(name: str, language: str, files: list[pathlib.Path], held_out: bool) -> clips.Clip:
        recipe = tuple(str(path) for path in files)
        return clips.Clip(name, "speech", {"language": language}, "clip" if held_out else "", recipe)

    @classmethod
    def render(cls, clip: clips.Clip) -> tuple:
        return clips.joined([clips.read(path) for path in clip.recipe], cls.PAUSE), [{}]


def _prompts(voice: Voice, cache: pathlib.Path) -> list[clips.Clip]:
    """A voice's prompts, short enough for a clip and long enough to be heard."""
    root = next((packages.folder(voice.package, cache) / "usr/share/asterisk/sounds").iterdir())
    texts = _texts(packages.folder(voice.texts, cache)) if voice.texts else {}
    planned = []
    for path in sorted(root.rglob("*.wav"), key=lambda path: zlib.crc32(str(path.relative_to(root)).encode())):
        key = str(path.relative_to(root).with_suffix(""))
        if _fits(path, key) and (not texts or _spoken(texts.get(key, ""))):
            name = f"{Asterisk.NAME}/{root.name}-{key.replace('/', '_')}"
            planned.append(_clip(name, voice, [path], texts.get(key, "")))
    return planned[: TESTED if voice.held_out else MOST]


def _texts(folder: pathlib.Path) -> dict[str, str]:
    lines = gzip.decompress(next(folder.rglob("core-sounds-*.txt.gz")).read_bytes()).decode().splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line and not line.startswith(";")]
    return {key.strip(): words.strip() for key, words in pairs}


def _spoken(text: str) -> bool:
    """Whether a text is words: tones, silences and notes to the reader stand in brackets."""
    return len(text) >= 6 and not re.search(r"[\[\](){}<>]", text)


def _fits(path: pathlib.Path, key: str) -> bool:
    if key.split("/")[0] in ("silence", "letters", "phonetic", "beep", "beeperr"):
        return False
    return SECONDS[0] <= soundfile.info(path).duration <= SECONDS[1]


def _clip(name: str, voice: Voice, paths: list[pathlib.Path], text: str = "") -> clips.Clip:
    fields = {"speaker": voice.name, "language": voice.language, "gender": voice.gender}
    if text:
        fields["text"] = text
    apart = zlib.crc32((text or name).encode()) % 8 == 0
    held_out = "voice" if voice.held_out else ("sentence" if text else "clip") if apart else ""
    return clips.Clip(f"{name}.flac", "speech", fields, held_out, tuple(str(path) for path in paths))
