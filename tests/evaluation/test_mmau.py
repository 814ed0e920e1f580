"""MMAU's string match and accuracies, worked out by hand from the official rule."""

import json

import pytest

from desta_jax.evaluation import mmau
from desta_jax.evaluation.run import evaluate

CHOICES = ["A dog", "A big cat", "Rain and wind"]


@pytest.mark.parametrize(
    "prediction, answer, right",
    [
        ("A dog", "A dog", True),
        ("the DOG, a big one?", "A dog", False),  # "big" is of a wrong choice only
        ("It is a dog.", "A dog", True),
        ("dog", "A dog", False),  # every word of the answer is wanted
        ("a wind and a rain", "Rain and wind", False),  # "a" is of wrong choices only
        ("wind and rain", "Rain and wind", True),  # order does not matter
        ("a cat a dog", "A dog", False),
        ("adog", "A dog", False),
        ("", "A dog", False),
        ("?!", "A dog", False),
    ],
)
def test_string_match(prediction, answer, right):
    assert mmau.is_right(prediction, answer, CHOICES) == right


def test_a_repeated_choice_is_no_wrong_one():
    assert mmau.is_right("yes", "Yes", ["yes", "Yes", "no"])


def row(number, **changes):
    return {
        "id": f"q{number}",
        "audio_id": f"./test-mini-audios/q{number}.wav",
        "question": "What is it?",
        "choices": CHOICES,
        "answer": "A dog",
        "task": "sound",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "Animals",
        "difficulty": "easy",
        **changes,
    }


@pytest.fixture
def data(tmp_path):
    rows = [row(0), row(1, task="music", difficulty="hard"), row(2, category="['Reasoning']"), row(3, split="test")]
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps(rows))
    return tmp_path


def test_accuracy_by_every_group(data):
    rows = json.loads((data / "mmau-test-mini.json").read_text())
    rows[0]["category"] = ["Reasoning"]
    for each, text in zip(rows, ["A dog", "A big cat", 'The correct answer is: "A dog".'], strict=False):
        each["model_prediction"] = text
    official = data / "answers.json"
    official.write_text(json.dumps(rows))
    report = evaluate("mmau", data, data / "out", predictions=official)
    scores = report["scores"]
    assert scores["total"] == {"value": 66.6667, "count": 3}
    assert scores["task"] == {"sound": {"value": 100.0, "count": 2}, "music": {"value": 0.0, "count": 1}}
    assert scores["difficulty"]["hard"] == {"value": 0.0, "count": 1}
    assert scores["category"] == {"Reasoning": {"value": 66.6667, "count": 3}}
    assert report["complete"] and report["problems"] == {}
    assert report["judge"] is None
    assert "| this run" in (data / "out/scores.md").read_text() and "70.57" in (data / "out/scores.md").read_text()


@pytest.mark.parametrize(
    "text", ["Sure. The correct answer is: Yes", "The correct answer is: Yes, or: The correct answer is: Yes"]
)
def test_the_lead_is_no_word_of_an_answer_wherever_it_stands(tmp_path, text):
    asked = row(0, choices=["Yes", "The no is correct"], answer="Yes", model_prediction=text)
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps([asked]))
    (tmp_path / "ours.jsonl").write_text(json.dumps({"id": asked["id"], "text": text}))
    for file, value in (("ours.jsonl", 100.0), ("mmau-test-mini.json", 0.0)):  # official files are scored as they are
        report = evaluate("mmau", tmp_path, tmp_path / f"out {value}", predictions=tmp_path / file)
        assert report["scores"]["total"] == {"value": value, "count": 1}


def test_the_recommended_prompt(data):
    question = mmau.read(data, "test-mini")[0]
    assert question.fields["options"] == '"A dog", "A big cat" or "Rain and wind"'
    assert question.audio == (data / "test-mini-audios/q0.wav",)
    assert mmau.list_options(["yes"]) == '"yes"'


def test_rows_without_a_prediction_are_left_out_and_counted(data):
    rows = json.loads((data / "mmau-test-mini.json").read_text())
    rows[0]["model_prediction"] = "A dog"
    (data / "answers.json").write_text(json.dumps(rows))
    report = evaluate("mmau", data, data / "out", predictions=data / "answers.json")
    assert report["scores"]["total"] == {"value": 100.0, "count": 1}
    assert (report["answered"], report["questions"], report["complete"]) == (1, 3, False)
    assert report["problems"]["missing predictions"] == {"count": 2, "ids": ["q1", "q2"]}
    assert "PARTIAL: 1 of 3" in (data / "out/scores.md").read_text()


@pytest.mark.parametrize("withheld", [{}, {"answer": None}, {"answer": ""}, {"answer": " "}])
def test_withheld_answers_score_nothing(tmp_path, withheld):
    without = {key: value for key, value in row(0, split="test").items() if key != "answer"}
    (tmp_path / "mmau-test.json").write_text(json.dumps([without | withheld | {"model_prediction": "A bird"}]))
    report = evaluate("mmau", tmp_path, tmp_path / "out", predictions=tmp_path / "mmau-test.json", split="test")
    assert report["scores"]["total"] == {"value": None, "count": 0}
    assert report["problems"]["answers withheld by the benchmark"]["ids"] == ["q0"]


def test_numbers_are_choices_as_their_digits(tmp_path):
    asked = row(0, choices=[0, 2, 3], answer=0, model_prediction="0")
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps([asked]))
    report = evaluate("mmau", tmp_path, tmp_path / "out", predictions=tmp_path / "mmau-test-mini.json")
    assert report["scores"]["total"] == {"value": 100.0, "count": 1}


def test_an_unknown_split_is_an_error(data):
    with pytest.raises(ValueError, match="unknown split 'train': .* has test, test-mini"):
        evaluate("mmau", data / "mmau-test-mini.json", data / "out", predictions=data, split="train")
