"""The listening corpus's recipe: what is held out and why, what is known of each clip, the same clips each time."""

import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import pytest
import soundfile

sys.path.append(str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "corpus"))
sys.path.append(str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "table"))
import clips
import found
import held_out
import lessons
import make
import music
import prompts
import rcc
import sakura
import scenes
import sentences
import sounds
import voices

NOWHERE = clips.Places(pathlib.Path("nowhere"))
SPOKEN = (voices, scenes.Scenes, scenes.Dialogue)


def stem_whose(rule, prefix="en_test_0_common_voice_en_"):
    """A file name whose checksum follows a rule."""
    return next(stem for stem in (f"{prefix}{n}" for n in range(10_000)) if rule(zlib.crc32(stem.encode())))


UNTOUCHED = stem_whose(lambda crc: crc % 7 == 0 and crc % 5)
UNTOUCHED_TOO = stem_whose(lambda crc: crc % 35 == 0)
TESTED = stem_whose(lambda crc: crc % 5 == 0 and crc % 7)
TRAINED = stem_whose(lambda crc: crc % 5 and crc % 7)
ACTED = stem_whose(lambda crc: crc % 5 and crc % 7, "1001_DFA_SAD_X")
ACTED_TESTED = stem_whose(lambda crc: crc % 5 == 0 and crc % 7, "1001_DFA_SAD_X")
TELEVISION = stem_whose(lambda crc: crc % 5 and crc % 7, "dia1_utt")


@pytest.fixture
def checkout(tmp_path):
    """A checkout of SAKURA with a few clips; those that are not to be touched have no audio."""
    tracks = {
        "Language": dict.fromkeys((UNTOUCHED, UNTOUCHED_TOO, TESTED, TRAINED), "English"),
        "Gender": dict.fromkeys((TESTED, TRAINED), "female"),
        "Emotion": {ACTED: "sad", ACTED_TESTED: "sad", TELEVISION: "happy"},
        "Animal": {"cat": "cat"},
    }
    for track, labels in tracks.items():
        folder = tmp_path / "sakura" / "data" / track
        (folder / "audio").mkdir(parents=True)
        rows = [f"{stem}.wav,{label},a,b,c,d" for stem, label in labels.items()]
        header = "file,attribute_label,single_instruction,single_answer,multi_instruction,multi_answer"
        (folder / "metadata.csv").write_text("\n".join([header, *rows]))
        for stem in labels.keys() & {TESTED, TRAINED, ACTED, ACTED_TESTED}:
            soundfile.write(folder / "audio" / f"{stem}.wav", 0.1 * np.ones(22_050), 22_050)
    return tmp_path / "sakura"


def run(out, *words):
    make.main(["--out", str(out), "--workers", "1", *words])


def by_audio(row):
    return row["audio"]


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def plans():
    """What the sources of synthetic sound plan, by name."""
    return {source.NAME: source.plan(NOWHERE) for source in (*SPOKEN, sounds)}


@pytest.fixture
def few(plans, monkeypatch):
    """Of each source of synthetic sound only a few clips."""
    for source, every in ((voices, 450), (sounds, 279), (scenes.Scenes, 496), (scenes.Dialogue, 199)):
        monkeypatch.setattr(source, "plan", lambda _places, chosen=plans[source.NAME][::every]: chosen)


@pytest.mark.parametrize(
    "stem, split", [(UNTOUCHED, ""), (UNTOUCHED_TOO, ""), (TESTED, "test"), (TRAINED, "train"), (ACTED, "train")]
)
def test_a_benchmark_clip_s_part_is_by_its_checksum(stem, split):
    assert sakura.part(stem) == split


def test_the_table_has_the_same_rule_for_them():
    for stem in (f"clip{number}" for number in range(200)):
        assert held_out.is_test_clip(stem) == (sakura.part(stem) == "test")
        assert bool(held_out.barred_by(stem)) == (sakura.part(stem) != "train")
    assert held_out.MELD == sakura.MELD


def test_of_the_benchmark_only_what_may_be_used_is(checkout, tmp_path):
    run(tmp_path / "out", "--sources", "sakura", "--sakura", str(checkout))
    train, test = (rows_of(tmp_path / "out" / split / "speech.jsonl") for split in ("train", "test"))
    common = {"source": "sakura", "language": "English", "gender": "female", "duration": 1.0}
    common |= {"said": "", "caption": "A woman speaks English."}
    acted = {"source": "sakura", "speaker": "CREMA-D 1001", "language": "English", "emotion": "sad"}
    acted |= {"text": "Don't forget a jacket.", "duration": 1.0, "said": "Don't forget a jacket."}
    known = acted | {"audio": f"sakura/{ACTED}.flac", "gender": "male"}
    known |= {"caption": "A man speaks English and expresses sadness."}
    assert sorted(train, key=by_audio) == [known, common | {"audio": f"sakura/{TRAINED}.flac"}]
    assert rows_of(tmp_path / "out" / "train" / "real.jsonl") == train
    unasked = acted | {"audio": f"sakura/{ACTED_TESTED}.flac", "held_out": "clip"}  # its actor is trained on
    unasked |= {"caption": "A person speaks English and expresses sadness."}
    assert sorted(test, key=by_audio) == [unasked, common | {"audio": f"sakura/{TESTED}.flac", "held_out": "clip"}]
    made = {path.stem for path in (tmp_path / "out" / "audio").rglob("*.flac")}
    assert made == {TESTED, TRAINED, ACTED, ACTED_TESTED}


def test_what_is_known_of_a_clip_follows_its_source(checkout, tmp_path):
    out = tmp_path / "out"

    def genders_after(change):
        for track in ("Language", "Gender"):
            metadata = checkout / "data" / track / "metadata.csv"
            metadata.write_text("\n".join(filter(None, map(change, metadata.read_text().splitlines()))))
        run(out, "--sources", "sakura", "--sakura", str(checkout))
        rows = rows_of(out / "train" / "real.jsonl")
        return [row["gender"] for row in rows if row["audio"] == f"sakura/{TRAINED}.flac"]

    assert genders_after(str) == ["female"]
    other = out / f"audio/sakura/{ACTED}.flac"
    made = other.stat().st_mtime_ns
    assert genders_after(lambda line: line.replace(",female,", ",male,")) == ["male"]
    assert genders_after(lambda line: "" if line.startswith(TRAINED) else line) == []
    assert other.stat().st_mtime_ns == made  # what has not changed is not made twice


def test_without_the_benchmark_its_clips_are_left_out_loudly(tmp_path, capsys):
    run(tmp_path / "out", "--sources", "sakura")
    assert "LEFT OUT" in capsys.readouterr().err
    assert not (tmp_path / "out" / "train" / "speech.jsonl").read_text()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="--sakura is a checkout"):
        run(tmp_path / "out", "--sources", "sakura", "--sakura", str(tmp_path))


@pytest.mark.parametrize("name", [source.NAME for source in SPOKEN])
def test_no_held_out_voice_or_sentence_is_trained_on(name, plans):
    said = {"": set(), "voice": set(), "sentence": set()}
    for clip in plans[name]:
        turns = [clip.recipe] if clip.kind == "speech" else [recipe for _, recipe in clip.recipe]
        said[clip.held_out] |= {(words, code.split("+")[1]) for words, code, *_ in turns}
    words, used = ({key: {pair[i] for pair in pairs} for key, pairs in said.items()} for i in (0, 1))
    assert used["voice"] and not used["voice"] & used[""]
    assert words["sentence"] and not words["sentence"] & words[""]
    assert {voice for held_out in voices.HELD_OUT_VOICES.values() for voice in held_out} >= used["voice"]


def test_babble_has_no_held_out_voice(monkeypatch):
    used = []

    def speak(words, voice, _rate, _pitch):
        used.append((words, voice.split("+")[1]))
        return np.ones(100, np.float32)

    monkeypatch.setattr(voices, "speak", speak)
    for seed in range(20):
        scenes.background("babble", 10, clips.chance(str(seed)))
    held_out = {voice for several in voices.HELD_OUT_VOICES.values() for voice in several}
    assert used and not {voice for _, voice in used} & held_out
    late = {words for spoken in sentences.SENTENCES.values() for words in spoken[-sentences.HELD_OUT :]}
    assert not any(sentence in words for words, _ in used for sentence in late)


def test_every_language_says_the_same_number_of_different_sentences():
    assert {len(set(spoken)) for spoken in sentences.SENTENCES.values()} == {24}
    assert sentences.SENTENCES.keys() == voices.CODES.keys()


def test_clips_have_names_of_their_own(plans):
    planned = [clip.audio for several in plans.values() for clip in several]
    assert len(planned) == len(set(planned)) > 5000


def test_the_same_command_makes_the_same_files_and_only_once(few, tmp_path, capsys):
    for name in ("one", "two"):
        run(tmp_path / name, "--sources", "espeak,made,scenes,dialogue")
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert one == two and sum(path.suffix == ".flac" for path in one) > 10
    capsys.readouterr()
    notes = tmp_path / "one" / "made" / "espeak.jsonl"
    notes.write_text(notes.read_text()[:-20])  # broken off while it was written
    run(tmp_path / "one", "--sources", "espeak,made,scenes,dialogue")
    assert "espeak: 4 clips, 3 of them there" in capsys.readouterr().out
    again = {path: (tmp_path / "one" / path).read_bytes() for path in one if path.parts[0] != "made"}
    assert again == {path: content for path, content in one.items() if path.parts[0] != "made"}


def test_rows_say_what_the_recipe_chose(few, tmp_path):
    run(tmp_path, "--sources", "espeak,made,scenes,dialogue")
    rows = [
        row | {"split": split}
        for split in make.SPLITS
        for kind in make.KINDS
        for row in rows_of(tmp_path / split / f"{kind}.jsonl")
    ]
    choices = {"gender": voices.VOICES, "rate": voices.RATES, "pitch": voices.PITCHES, "loudness": clips.LOUDNESS}
    choices |= {"background": scenes.BACKGROUNDS, "room": scenes.ROOMS, "language": voices.CODES}
    for row in rows:
        samples, rate = soundfile.read(tmp_path / "audio" / row["audio"])
        assert rate == 16_000 and samples.ndim == 1 and abs(len(samples) / rate - row["duration"]) < 0.01
        assert ("held_out" in row) == (row["split"] == "test")
        assert all(row[name] in options for name, options in choices.items() if name in row)
        assert ("snr" in row) == (row.get("background", "none") != "none")
        if row["source"] == "dialogue":
            assert 0 <= row["start"] < row["end"] <= row["duration"] + 0.01
    corpus = json.loads((tmp_path / "corpus.json").read_text())
    counted = sum(source[split]["clips"] for source in corpus["sources"].values() for split in make.SPLITS)
    assert counted == len({row["audio"] for row in rows})
    assert all(source["licence"] and source["address"] for source in corpus["sources"].values())


def test_new_clips_leave_the_order_of_the_others(few, tmp_path):
    run(tmp_path, "--sources", "espeak")
    before = [row["audio"] for row in rows_of(tmp_path / "train" / "speech.jsonl")]
    run(tmp_path, "--sources", "scenes")
    after = [row["audio"] for row in rows_of(tmp_path / "train" / "speech.jsonl")]
    assert [name for name in after if name in before] == before and len(after) > len(before)


@pytest.mark.parametrize("snr", scenes.RATIOS)
def test_a_background_stands_at_the_ratio_that_is_stated(snr):
    rng = clips.chance("ratio")
    speech, noise = rng.standard_normal(16_000), sounds.texture("rain", 16_000, rng)
    added = clips.mixed(speech, noise, snr) - speech
    assert 10 * np.log10(clips.power(speech) / clips.power(added)) == pytest.approx(snr, abs=1e-3)  # float32 noise


def test_a_room_rings_on():
    click = np.zeros(1600, np.float32)
    click[0] = 1.0
    heard = scenes.reverberated(click, 1.0, clips.chance("room"))
    early, late = clips.power(heard[800:2400]), clips.power(heard[3200:4800])  # 0.05 to 0.15 s, and 0.2 to 0.3 s
    assert len(heard) > len(click) and 10 * np.log10(early / late) == pytest.approx(9, abs=2)  # 60 dB a second


def test_slow_speech_lasts_longer_and_high_speech_is_higher():
    words = "The children are playing in the garden."
    slow, fast = (voices.speak(words, "en-us+m3", rate, 50) for rate in (100, 300))
    assert len(slow) > 2 * len(fast)
    low, high = (voices.speak(words, "en-us+m3", 160, pitch) for pitch in (10, 90))
    assert fundamental(high) > 1.2 * fundamental(low)


def fundamental(samples):
    """The frequency between 60 and 400 Hz at which a voice repeats itself, in the middle of what it says."""
    middle = samples[len(samples) // 2 :][:8000]
    likeness = np.fft.irfft(np.abs(np.fft.rfft(middle, 16_384)) ** 2)
    shortest, longest = clips.RATE // 400, clips.RATE // 60
    return clips.RATE / (shortest + np.argmax(likeness[shortest:longest]))


def test_a_voice_says_the_same_whatever_was_said_before():
    said = [voices.speak(words, "fr+f2", 160, 50) for words in ("un", "deux trois", "un")]
    np.testing.assert_array_equal(said[0], said[2])


def test_a_long_clip_is_cut_and_loses_its_text(monkeypatch, tmp_path):
    clip = clips.Clip("long/a.flac", "speech", {"language": "English", "text": "too long"})
    long = type("Long", (), {"render": staticmethod(lambda _clip: (np.ones(200_000, np.float32), [{}]))})
    monkeypatch.setitem(make.SOURCES, "long", long)
    (row,) = make.render(("long", clip, tmp_path))
    assert row["duration"] == 8.0 and "text" not in row
    assert np.abs(soundfile.read(tmp_path / "long" / "a.flac")[0]).max() < 1


@pytest.mark.parametrize("label", sounds.MAKERS)
def test_each_made_sound_sounds(label):
    clip = clips.Clip(f"made/{label}-test.flac", "sound", {"label": label})
    samples, _ = sounds.render(clip)
    assert np.isfinite(samples).all()
    assert (clips.power(samples) < 1e-6) == (label == "silence")


def test_a_tune_keeps_to_its_scale_and_its_tempo():
    for mode, third in (("major", 4), ("minor", 3)):
        notes = music.tune("piano", mode, 8, clips.chance(mode))
        last = max(notes)[2]
        steps = {(key - last) % 12 for _, _, key, _ in notes}
        assert steps <= set(music.MODES[mode]) and third in steps
        assert max(start + length for start, length, _, _ in notes) <= 8.0


def test_held_out_recordings_are_none_that_are_trained_on():
    trained = {f"animals/{recording}" for several in found.ANIMALS.values() for recording in several}
    trained |= {recording for _, several in found.OTHERS.values() for recording in several}
    assert not trained & {recording for _, several in found.HELD_OUT.values() for recording in several}
    assert found.HELD_OUT.keys() <= found.ANIMALS.keys() | found.OTHERS.keys() | sounds.MAKERS.keys()
    assert found.INSTRUMENTS.keys() <= music.INSTRUMENTS.keys()


def test_prompts_that_are_not_words_are_passed_over():
    assert prompts._spoken("Agent logged off.")
    assert not any(map(prompts._spoken, ("[ascending tones]", "(7 secondi di silenzio)", "")))


def test_a_resource_file_is_read(tmp_path):
    name = "ab".encode("utf-16-be")
    names = struct.pack(">HI", 0, 0) + struct.pack(">HI", 2, 0) + name
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHHHI", 6, 0, 0, 0, 0)
    data = struct.pack(">I", 5) + b"sound"
    header = struct.pack(">4sIIII", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(data))
    (tmp_path / "a.rcc").write_bytes(header + tree + data + names)
    assert rcc.read(tmp_path / "a.rcc") == {"/ab": b"sound"}
    (tmp_path / "a.rcc").write_bytes(bytes(40))
    with pytest.raises(ValueError, match="not a Qt resource file"):
        rcc.read(tmp_path / "a.rcc")


def test_a_lesson_asks_about_one_attribute_of_values_that_are_alike_often():
    voices_of = [("English", 9), ("Korean", 3), ("French", 2), ("German", 2)]
    rows = [
        {"audio": f"{language}-{n}", "source": "sakura", "language": language, "gender": "male", "text": "words"}
        for language, count in voices_of
        for n in range(count)
    ]
    rows += [{"audio": "acted", "source": "sakura", "language": "English", "emotion": "sad", "speaker": "1001"}]
    found = lessons.lessons(rows)
    asked = [row["audio"] for row in found["language"]]
    assert asked == [f"{language}-{n}" for language, count in [("English", 2), *voices_of[1:]] for n in range(count)]
    assert [row["audio"] for row in found["emotion"]] == ["acted"] and len(found["gender"]) == 16
    assert found["language"][0] == {"audio": "English-0", "source": "sakura", "language": "English", "said": ""}
    assert found["emotion"][0] == {"audio": "acted", "source": "sakura", "emotion": "sad", "said": ""}
