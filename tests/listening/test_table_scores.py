"""How answers are read and counted: words that name a value, intervals, formats, SAKURA's clips."""

import pathlib
import sys
import zlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "table"))

import figures
import formats
import held_out
import hops
import perception

from desta_jax.evaluation.question import Prompt, Question


def asked(kind, column, value, values):
    return {"kind": kind, "column": column, "value": value, "values": values}


@pytest.mark.parametrize(
    ("answer", "value", "right"),
    [
        ("The speaker is female.", "female", True),
        ("The speaker is female.", "male", False),  # "male" is in "female", but is no word there
        ("A man is speaking.", "male", True),
        ("A woman is speaking.", "male", False),
        ("MALES", "male", True),
        ("It could be a man or a woman.", "male", False),
        ("It could be a man or a woman.", "female", False),
        ("I can't tell.", "male", False),
        ("The speaker is not a man.", "male", False),
        ("The speaker is not a man but a woman.", "female", True),
        ("It isn’t a woman.", "female", False),
        ("", "male", False),
    ],
)
def test_an_answer_is_right_if_it_names_the_value_and_no_other(answer, value, right):
    assert perception.is_right(answer, asked("speech", "gender", value, ["female", "male"])) == right


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("C'est du français.", "French"),
        ("这是中文。", "Chinese"),
        ("The clip is in Mandarin Chinese.", "Chinese"),
        ("Frenchman", None),
        ("French and Italian", None),
        ("French, not Italian", "French"),
        ("The speaker does not speak French.", None),
    ],
)
def test_languages_are_named_in_other_languages_too(answer, value):
    row = asked("speech", "language", "", ["French", "Chinese", "Italian"])
    right = [name for name in row["values"] if perception.is_right(answer, row | {"value": name})]
    assert right == ([value] if value else [])


def test_of_names_that_overlap_the_longest_counts():
    values = {"none": ("no background noise",), "noise": (), "white noise": ()}
    assert perception.named("There is no background noise.", values) == {"none"}
    assert perception.named("White noise.", values) == {"white noise"}
    assert perception.named("White noise, and other noise.", values) == {"white noise", "noise"}


def test_what_is_denied_is_not_named_but_no_echo_is_a_name():
    rooms = {"dry": ("no echo",), "reverberant": ("echo",)}
    assert perception.named("There is no echo.", rooms) == {"dry"}
    assert perception.named("There is no significant echo.", rooms) == set()
    assert perception.named("An echo, no more.", rooms) == {"reverberant"}


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [  # (share + z²/2n ± z sqrt(share (1 - share) / n + z²/4n²)) / (1 + z²/n) with z = 1.96, by hand
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe's example (1998, table I)
    ],
)
def test_wilson_interval(right, count, low, high):
    assert figures.wilson(right, count) == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_nothing_is_no_number():
    assert figures.share([])["value"] is None and figures.text(figures.share([])) == "-"


def test_means_have_the_interval_of_students_t():
    figure = figures.average([1.0, 2.0, 3.0])  # deviation 1, so 4.3027 / sqrt(3) on either side, as t tables have it
    assert (figure["value"], figure["low"], figure["high"]) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-4)
    assert figures.average([1.0])["low"] is None


def test_a_ratio_is_of_sums():
    figure = figures.ratio([(1, 2), (2, 2)])
    assert figure["value"] == 75 and figure["low"] == 50 and figure["high"] == 100


def test_runs_with_other_seeds_are_one_figure():
    runs = [figures.share([True, True]), figures.share([True, False])]
    figure = figures.of_seeds(runs)
    assert (figure["value"], figure["low"], figure["high"], figure["seeds"]) == (75, 50, 100, 2)
    assert figures.of_seeds(runs[:1]) == runs[0]


@pytest.mark.parametrize(
    ("name", "crc", "testing"),
    [
        ("clip3", 3198769780, True),  # divisible by 5, not by 7
        ("clip10", 2436604380, False),  # by both: not touched at all
        ("clip0", 664800206, False),  # not by 5: trained on
    ],
)
def test_clips_of_sakura_are_for_testing_by_their_names(name, crc, testing):
    assert zlib.crc32(name.encode()) == crc
    assert held_out.is_test_clip(f"{name}.wav") == held_out.is_test_clip(f"audio/{name}.flac") == testing


@pytest.mark.parametrize(
    ("name", "followed", "not_followed"),
    [
        ("fewer than ten words", "A dog barks twice.", "A dog barks twice, and then a cat answers it."),
        ("at most twenty words", "dog " * 20, "dog " * 21),
        ("at least thirty words", "dog " * 30, "dog " * 29),
        ("one sentence", "A dog barks.", "A dog barks. A cat answers."),
        ("at least three sentences", "A dog. A cat. A cow.", "A dog. A cat."),
        ("one word", "Rooster.", "A rooster."),
        ("in French", "Une femme parle anglais dans cet enregistrement.", "12:30"),
        ("in French", "Un homme parle en français.", "Une femme"),
        ("in Spanish", "Una mujer habla español en esta grabación.", "A woman speaks Spanish."),
        ("in German", "Eine Frau spricht auf Deutsch über das Wetter.", "A woman speaks about the weather."),
        ("a list", "Here:\n- a dog\n- a cat", "A dog and a cat."),
        ("a list", "1) a dog\n2) a cat", "1.5 seconds of a dog"),
        ("a list", "* a dog", "*A dog* barks.\n-3 dB"),
        ("a numbered list", "1. a dog", "- a dog"),
        ("a numbered list", "Heard:\n 1) a dog", "1.5 seconds of a dog"),
        ("upper case", "A DOG.", "A Dog."),
        ("lower case", "a dog.", "A dog."),
        ("JSON", '{"sound": "dog"}', "sound: dog"),
        ("JSON", '```json\n["dog"]\n```', '"dog"'),
        ("JSON", "[]", "12"),
        ("no commas", "A dog and a cat.", "A dog, a cat."),
        ("quotation marks", '"A dog."', 'A "dog".'),
        ("a question", "Who is it?", "Who is it? A dog."),
        ("starts with a phrase", "In this audio a dog barks.", "A dog barks in this audio."),
        ("ends with a phrase", "A dog barks. That is all.", "That is all. A dog."),
        ("a word in it", "Listen to the dog.", "A dog barks."),
        ("a word left out", "A dog barks.", "The audio has a dog."),
        ("a title", "<<A dog>> It barks.", "A dog: it barks."),
        ("yes or no", "Yes.", "Yes, somebody does."),
        ("an exclamation", "A dog!", "A dog! It barks."),
    ],
)
def test_formats_are_checked_by_rules(name, followed, not_followed):
    assert formats.FORMATS[name].followed(followed)
    assert not formats.FORMATS[name].followed(not_followed)


def test_no_format_is_followed_by_saying_nothing():
    assert not [name for name, form in formats.FORMATS.items() if form.followed("")]


def clips(values, kind="speech", column="gender", **row):
    return [
        held_out.Clip(
            pathlib.Path(f"{kind}-{column}-{number}.wav"), kind, {column: value, **row}, f"({column}: {value})", " "
        )
        for number, value in enumerate(values)
    ]


def test_formats_are_chosen_on_clips_that_are_not_counted():
    questions = formats.ask(clips(["male", "female"] * 4) + clips(["dog"] * 8, "sound", "label"), 2)
    halves = {half: {q.row["clip"] for q in questions if q.row["half"] == half} for half in ("choosing", "counting")}
    assert not halves["choosing"] & halves["counting"]
    assert [len(each) for each in halves.values()] == [2, 2]
    read = {q.id: q.row["format"] == "one word" for q in questions}
    text = formats.followed_in_text(questions, read)
    assert [name for name in text if text[name]["counted"]] == ["one word"]
    kept = formats.counted(questions, text)
    assert {(q.row["format"], q.row["half"]) for q in kept} == {("one word", "counting")}
    heard = {kept[0].id: True, kept[1].id: False}
    assert formats.score(kept, read, heard)["of text"]["value"] == 50


def test_perception_is_asked_in_equal_numbers_and_of_real_clips_apart():
    made = clips(["male"] * 9 + ["female"] * 7)
    real = clips(["male"] * 6 + ["female"] * 6, source="sakura")
    questions = perception.ask(made + real, 5, 4)
    counts = {}
    for question in questions:
        key = question.row["attribute"], question.row["value"]
        counts[key] = counts.get(key, 0) + 1
    assert set(counts) == {(f"{s}/speech gender", v) for s in ("made", "real") for v in ("male", "female")}
    assert {count for (name, _), count in counts.items() if name[:4] == "made"} == {5}
    assert {count for (name, _), count in counts.items() if name[:4] == "real"} == {4}
    more = {question.id: question for question in perception.ask(made + real, 6, 6)}
    assert all(more[question.id] == question for question in questions)  # what was answered stays answered


def test_chance_is_guessing_evenly_or_the_most_frequent_value():
    questions = perception.ask(clips(["male"] * 6 + ["female"] * 5), 6, 6)
    found = perception.chance(questions)["made/speech gender"]
    assert (found["even"], found["most_frequent"]) == (50, pytest.approx(100 * 6 / 11, abs=1e-3))


def sakura_question(track, hop, clip, label):
    row = {"track": track, "hop": hop, "file": f"{clip}.wav", "question": "Which? (a) cat (b) dog", "label": label}
    return Question(f"{track}/{hop}/{clip}", (), {}, Prompt("", ""), row)


def test_television_is_never_trained_on_and_counted_apart():
    questions = [sakura_question("Emotion", "single", clip, "(a) cat") for clip in ("dia1_utt2", "1001_DFA_SAD_XX")]
    counts = hops.score(questions, {question.id: "(a) cat" for question in questions})["single"]
    assert {name: one["count"] for name, one in counts.items()} == {
        "Emotion": 2,
        "Emotion, of MELD": 1,
        "trained tracks": 1,
    }


def test_what_follows_is_counted_where_what_is_heard_was_right():
    questions = [sakura_question("Gender", hop, clip, "(a) cat") for clip in "xy" for hop in ("single", "multi")]
    questions += [sakura_question("Animal", "single", "z", "(b) dog")]
    right, wrong = "(a) cat", "(b) dog"
    answers = {
        "Gender/single/x": right,
        "Gender/multi/x": wrong,
        "Gender/single/y": wrong,
        "Gender/multi/y": right,
        "Animal/single/z": wrong,
    }
    scores = hops.score(questions, answers)
    assert (scores["single"]["Gender"]["value"], scores["multi"]["Gender"]["value"]) == (50, 50)
    assert (scores[hops.GIVEN]["Gender"]["value"], scores[hops.GIVEN]["Gender"]["count"]) == (0, 1)
    assert scores["single"]["trained tracks"]["count"] == 2  # Animal is never trained on
    assert hops.chance(questions)["single"] == {"Gender": 50, "trained tracks": 50, "Animal": 50}


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("A woman speaks English.", "(a) Male (b) Female", "(b) Female"),
        ("A woman speaks English and expresses anger.", "(a) angry (b) sad", "(a) angry"),
        ("C'est du français.", "(a) German (b) French", "(b) French"),
    ],
)
def test_an_option_of_sakura_has_the_names_of_its_value(answer, options, right):
    question = sakura_question("Gender", "single", "x", right)
    question.row["question"] = f"Which? {options}"
    assert hops.score([question], {question.id: answer})["single"]["Gender"]["value"] == 100
