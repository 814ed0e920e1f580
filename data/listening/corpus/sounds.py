"""Everyday sounds made from noise and sines: each maker draws its own parameters by chance."""

import math
from collections.abc import Callable

import clips
import numpy as np

NAME = "made"
LICENCE = "made here: no rights reserved"
ADDRESS = "this repository"
TRAINED, TESTED = 30, 6  # clips of each sound
SECONDS = (3.0, 6.0)
Rng = np.random.Generator


def plan(_places: clips.Places) -> list[clips.Clip]:
    return [_clip(label, number) for label in MAKERS for number in range(TRAINED + TESTED)]


def render(clip: clips.Clip) -> tuple:
    rng = clips.chance(clip.audio + " sound")
    label = clip.fields["label"]
    samples = MAKERS[label][1](int(rng.uniform(*SECONDS) * clips.RATE), rng).astype(np.float32)
    return (samples if label == "silence" else clips.at_level(samples, rng.uniform(-32.0, -16.0))), [{}]


def _clip(label: str, number: int) -> clips.Clip:
    held_out = "clip" if number >= TRAINED else ""
    fields = {"label": label, "category": MAKERS[label][0]}
    return clips.Clip(f"{NAME}/{label.replace(' ', '_')}-{number}.flac", "sound", fields, held_out)


def texture(kind: str, count: int, rng: Rng) -> np.ndarray:
    """So many samples of a kind of background."""
    make = music if kind == "music" else MAKERS[kind][1]
    return make(count, rng).astype(np.float32)


def seconds(count: int) -> np.ndarray:
    return np.arange(count) / clips.RATE


def coloured(count: int, rng: Rng, slope: float, low: float = 20.0, high: float = 8000.0) -> np.ndarray:
    """Noise between two frequencies whose power falls as frequency to the power `slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / clips.RATE)
    spectrum *= np.maximum(frequency, low) ** (-slope / 2) * (frequency >= low) * (frequency <= high)
    noise = np.fft.irfft(spectrum, count)
    return noise / (np.std(noise) + 1e-12)


def tone(frequency: np.ndarray | float, count: int, overtones: tuple = (1.0,)) -> np.ndarray:
    """A tone of a frequency that may change from sample to sample, with overtones of these strengths."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(np.asarray(frequency, float), count)) / clips.RATE
    return sum(strength * np.sin(number * phase) for number, strength in enumerate(overtones, 1))


def struck(count: int, decay: float, attack: float = 0.002) -> np.ndarray:
    """The loudness of something struck: up in `attack` seconds, then down to 1/e every `decay` seconds."""
    time = seconds(count)
    return np.minimum(time / attack, 1.0) * np.exp(-time / decay)


def placed(count: int, starts: np.ndarray, event: Callable[[], np.ndarray]) -> np.ndarray:
    """Events one after the other from these starts (seconds) on, laid over each other where they meet."""
    out = np.zeros(count)
    for start in (np.asarray(starts) * clips.RATE).astype(int):
        if start < count:
            samples = event()[: count - start]
            out[start : start + len(samples)] += samples
    return out


def regular(count: int, gap: float, rng: Rng, unevenness: float = 0.0) -> np.ndarray:
    """Starts every `gap` seconds, shifted by chance by as much as `unevenness` of it."""
    starts = np.arange(rng.uniform(0.0, gap), count / clips.RATE, gap)
    return np.maximum(starts + gap * unevenness * rng.uniform(-1, 1, len(starts)), 0.0)


def scattered(count: int, per_second: float, rng: Rng) -> np.ndarray:
    length = count / clips.RATE
    return np.sort(rng.uniform(0, length, max(1, rng.poisson(per_second * length))))


def silence(count: int, rng: Rng) -> np.ndarray:
    return rng.standard_normal(count) * clips.pick(rng, [0.0, 1e-5, 5e-5])


def steady_tone(low: float, high: float) -> Callable:
    return lambda count, rng: tone(rng.uniform(low, high), count)


def alarm_beep(count: int, rng: Rng) -> np.ndarray:
    frequency, gap = rng.uniform(1500, 3200), rng.uniform(0.25, 0.7)
    length = int(gap * rng.uniform(0.35, 0.6) * clips.RATE)
    return placed(count, regular(count, gap, rng), lambda: tone(frequency, length, (1.0, 0.0, 0.3)))


def siren(count: int, rng: Rng) -> np.ndarray:
    middle, width, speed = rng.uniform(700, 1000), rng.uniform(200, 400), rng.uniform(0.25, 0.8)
    sweep = middle + width * np.sin(2 * np.pi * (speed * seconds(count) + rng.random()))
    return tone(sweep, count, (1.0, 0.5, 0.3, 0.1))


def telephone(count: int, rng: Rng) -> np.ndarray:
    first, gap, trill = rng.uniform(400, 900), rng.uniform(1.2, 2.0), rng.uniform(15, 25)
    length = int(rng.uniform(0.5, 0.9) * clips.RATE)
    bell = (tone(first, length) + tone(1.25 * first, length)) * (np.sin(2 * np.pi * trill * seconds(length)) > 0)
    return placed(count, regular(count, gap, rng), lambda: bell)


def dial_tone(count: int, rng: Rng) -> np.ndarray:
    first, second = clips.pick(rng, [(350, 440), (425, 425), (400, 425)])
    return tone(first, count) + tone(second, count)


def doorbell(count: int, rng: Rng) -> np.ndarray:
    high = rng.uniform(600, 900)
    length, decay = int(1.5 * clips.RATE), rng.uniform(0.3, 0.6)
    ding, dong = (tone(pitch, length, (1.0, 0.3, 0.2)) * struck(length, decay) for pitch in (high, high * 0.8))
    gap = rng.uniform(0.4, 0.7)
    both = placed(2 * length, np.array([0.0, gap]), iter([ding, dong]).__next__)
    return placed(count, np.array([rng.uniform(0, 0.5), rng.uniform(2.2, 3.5)]), lambda: both)


def bell(count: int, rng: Rng) -> np.ndarray:
    base, decay = rng.uniform(250, 700), rng.uniform(0.8, 2.0)
    length = int(3 * clips.RATE)
    partials = ((0.5, 1.0), (1.0, 1.0), (1.19, 0.8), (1.5, 0.5), (2.0, 0.6), (2.74, 0.3), (3.0, 0.2))
    ring = sum(s * tone(base * p, length) * struck(length, decay / (0.5 + p)) for p, s in partials)
    return placed(count, regular(count, rng.uniform(1.2, 2.2), rng), lambda: ring)


def clicks(gap: tuple, frequency: tuple, decay: float, unevenness: float = 0.0) -> Callable:
    """A maker of short clicks at even times: two pitches in turn, as tick and tock."""

    def make(count: int, rng: Rng) -> np.ndarray:
        low, length = rng.uniform(*frequency), int(0.12 * clips.RATE)
        sides = [tone(low * ratio, length, (1.0, 0.4)) * struck(length, decay, 0.0005) for ratio in (1.0, 1.15)]
        turn = iter(sides * 1000).__next__
        return placed(count, regular(count, rng.uniform(*gap), rng, unevenness), turn)

    return make


def rain(count: int, rng: Rng) -> np.ndarray:
    length = int(0.02 * clips.RATE)

    def drop():
        return tone(rng.uniform(1500, 6000), length) * struck(length, 0.003) * rng.exponential(1.0)

    drops = placed(count, scattered(count, rng.uniform(60, 200), rng), drop)
    return coloured(count, rng, 0.4, 400, 8000) * rng.uniform(0.15, 0.4) + drops


def thunder(count: int, rng: Rng) -> np.ndarray:
    length = int(4 * clips.RATE)

    def roll():
        rumble = coloured(length, rng, 2.0, 25, rng.uniform(150, 350)) * struck(length, rng.uniform(0.8, 1.6), 0.05)
        return rumble * (1 + 0.8 * slow(length, rng, 4.0))

    return placed(count, regular(count, rng.uniform(2.0, 3.5), rng), roll) + 0.01 * coloured(count, rng, 1.0)


def slow(count: int, rng: Rng, hertz: float) -> np.ndarray:
    """A slow wander between about -1 and 1, with no faster movement than `hertz`."""
    return np.clip(coloured(count, rng, 0.5, 0.05, hertz) / 1.5, -1, 1)


def wind(count: int, rng: Rng) -> np.ndarray:
    gust = 1 + 0.8 * slow(count, rng, 0.6)
    howl = tone(rng.uniform(300, 600) * (1 + 0.15 * slow(count, rng, 0.8)), count) * 0.15
    return (coloured(count, rng, 1.5, 60, rng.uniform(700, 1500)) + howl * rng.integers(2)) * gust**2


def waves(count: int, rng: Rng) -> np.ndarray:
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * (seconds(count) / rng.uniform(2.5, 4.5) + rng.random()))
    return coloured(count, rng, 1.0, 100, 5000) * (0.08 + swell**3)


def engine(count: int, rng: Rng) -> np.ndarray:
    speed = rng.uniform(25, 70) * (1 + 0.03 * slow(count, rng, 2.0))
    hum = tone(speed, count, tuple(rng.uniform(0.3, 1.0, 14) / np.arange(1, 15) ** 0.5))
    return hum + coloured(count, rng, 1.0, 60, 1200) * 0.8


def helicopter(count: int, rng: Rng) -> np.ndarray:
    chop = np.maximum(np.sin(2 * np.pi * np.cumsum(np.full(count, rng.uniform(9, 15))) / clips.RATE), 0) ** 4
    return coloured(count, rng, 1.5, 40, rng.uniform(700, 1600)) * (0.1 + chop)


def heartbeat(count: int, rng: Rng) -> np.ndarray:
    length, gap, pitch = int(0.25 * clips.RATE), rng.uniform(0.6, 1.1), rng.uniform(45, 75)
    thump = tone(pitch, length, (1.0, 0.5, 0.25)) * struck(length, 0.05, 0.01)
    starts = regular(count, gap, rng)
    return placed(count, starts, lambda: thump) + 0.7 * placed(count, starts + 0.3 * gap, lambda: thump)


def thuds(gap: tuple, band: tuple, decay: float, unevenness: float, group: tuple = (1, 2)) -> Callable:
    """A maker of dull blows of noise, one at a time or in groups."""

    def make(count: int, rng: Rng) -> np.ndarray:
        length, low = int(0.3 * clips.RATE), rng.uniform(*band)
        many, within = int(rng.integers(*group)), rng.uniform(0.15, 0.25)
        starts = regular(count, rng.uniform(*gap), rng, unevenness)
        starts = np.concatenate([starts + number * within for number in range(many)])
        return placed(count, starts, lambda: coloured(length, rng, 1.0, low, 3 * low) * struck(length, decay))

    return make


def applause(count: int, rng: Rng) -> np.ndarray:
    length = int(0.03 * clips.RATE)

    def clap():
        low = rng.uniform(700, 1500)
        return coloured(length, rng, 0.3, low, 3 * low) * struck(length, 0.006) * rng.uniform(0.3, 1.0)

    return placed(count, scattered(count, rng.uniform(80, 250), rng), clap)


def whistle(count: int, rng: Rng) -> np.ndarray:
    base = rng.uniform(1200, 2400)
    glide = base * (1 + rng.uniform(0.1, 0.35) * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * seconds(count)))
    return tone(glide, count) + 0.08 * coloured(count, rng, 0, base * 0.7, base * 1.6)


def fire(count: int, rng: Rng) -> np.ndarray:
    length = int(0.02 * clips.RATE)

    def crack():
        return coloured(length, rng, 0.0, 800, 7000) * struck(length, rng.uniform(0.001, 0.004)) * rng.exponential(1.5)

    roar = coloured(count, rng, 1.5, 40, 500) * (1 + 0.5 * slow(count, rng, 3.0)) * 0.2
    return roar + placed(count, scattered(count, rng.uniform(8, 25), rng), crack)


def dripping(count: int, rng: Rng) -> np.ndarray:
    length = int(0.15 * clips.RATE)

    def drip():
        rise = np.linspace(1.0, rng.uniform(1.3, 1.8), length) * rng.uniform(700, 1400)
        return tone(rise, length) * struck(length, rng.uniform(0.015, 0.04))

    return placed(count, regular(count, rng.uniform(0.4, 1.2), rng, 0.2), drip)


def buzzer(count: int, rng: Rng) -> np.ndarray:
    frequency = rng.uniform(90, 240)
    length = int(rng.uniform(0.5, 1.2) * clips.RATE)
    return placed(count, regular(count, rng.uniform(1.4, 2.2), rng), lambda: np.sign(tone(frequency, length)))


def mosquito(count: int, rng: Rng) -> np.ndarray:
    pitch = rng.uniform(450, 700) * (1 + 0.08 * slow(count, rng, 3.0))
    return tone(pitch, count, (1.0, 0.6, 0.5, 0.3, 0.2)) * (1 + 0.8 * slow(count, rng, 1.0))


def crickets(count: int, rng: Rng) -> np.ndarray:
    pitch, pulse = rng.uniform(3800, 5200), rng.uniform(25, 40)
    length = int(rng.uniform(0.15, 0.4) * clips.RATE)
    chirp = tone(pitch, length) * np.maximum(np.sin(2 * np.pi * pulse * seconds(length)), 0)
    return placed(count, regular(count, rng.uniform(0.5, 0.9), rng), lambda: chirp)


def static(count: int, rng: Rng) -> np.ndarray:
    burst = (slow(count, rng, 12.0) > rng.uniform(-0.4, 0.3)).astype(float)
    return coloured(count, rng, 0.0, 300, 7500) * (0.1 + burst)


def laser(count: int, rng: Rng) -> np.ndarray:
    length = int(rng.uniform(0.2, 0.5) * clips.RATE)
    zap = tone(np.geomspace(rng.uniform(3000, 6000), rng.uniform(150, 400), length), length, (1.0, 0.3))
    return placed(count, regular(count, rng.uniform(0.6, 1.2), rng), lambda: zap * struck(length, 0.3))


def music(count: int, rng: Rng) -> np.ndarray:
    """A soft progression of chords, as a background."""
    length, root = int(rng.uniform(0.5, 0.9) * clips.RATE), rng.uniform(110, 220)
    chords = [[0, 4, 7, 12], [9, 12, 16, 21], [5, 9, 12, 17], [7, 11, 14, 19]]

    def chord(steps):
        notes = (tone(root * 2 ** (step / 12), length, (1.0, 0.4, 0.2, 0.1)) for step in steps)
        return sum(notes) * struck(length, 0.6, 0.01)

    bars = [chord(steps) for steps in chords]
    turn = iter(bars * math.ceil(count / length)).__next__
    return placed(count, np.arange(0, count, length) / clips.RATE, turn)


MAKERS = {
    "silence": ("silence", silence),
    "white noise": ("noise", lambda count, rng: coloured(count, rng, 0.0, rng.uniform(20, 80))),
    "pink noise": ("noise", lambda count, rng: coloured(count, rng, 1.0, rng.uniform(20, 60))),
    "brown noise": ("noise", lambda count, rng: coloured(count, rng, 2.0, rng.uniform(20, 40))),
    "radio static": ("noise", static),
    "low tone": ("tone", steady_tone(90, 240)),
    "high tone": ("tone", steady_tone(2000, 5000)),
    "whistle": ("tone", whistle),
    "dial tone": ("tone", dial_tone),
    "alarm beep": ("alarm", alarm_beep),
    "siren": ("alarm", siren),
    "buzzer": ("alarm", buzzer),
    "telephone": ("alarm", telephone),
    "doorbell": ("alarm", doorbell),
    "bell": ("alarm", bell),
    "clock ticking": ("household", clicks((0.45, 1.0), (1800, 3200), 0.006)),
    "dripping water": ("household", dripping),
    "knocking": ("household", thuds((1.2, 2.0), (150, 350), 0.02, 0.1, (2, 5))),
    "rain": ("nature", rain),
    "thunder": ("nature", thunder),
    "wind": ("nature", wind),
    "ocean waves": ("nature", waves),
    "fire": ("nature", fire),
    "engine": ("machine", engine),
    "helicopter": ("machine", helicopter),
    "laser": ("machine", laser),
    "heartbeat": ("human", heartbeat),
    "footsteps": ("human", thuds((0.45, 0.7), (200, 600), 0.03, 0.06)),
    "applause": ("human", applause),
    "mosquito": ("animal", mosquito),
    "crickets": ("animal", crickets),
}
