"""SAKURA's judged accuracies on a set made by hand."""

import csv
import json

import pytest

from desta_jax.evaluation import sakura
from desta_jax.evaluation.run import evaluate

HEAR = "Which animal is it? (a) cat (b) dog (c) cow"
THINK = "What does it have? (a) Horns (b) Claws (c) Feathers"


@pytest.fixture
def data(tmp_path, write_wav):
    for track in ("Animal", "Emotion"):
        folder = tmp_path / "data" / track
        with_clips = [(f"{track.lower()}{n}.wav", "dog", HEAR, "(b) dog", THINK, "(b) Claws") for n in range(2)]
        for clip in with_clips:
            write_wav(folder / "audio" / clip[0])
        with (folder / "metadata.csv").open("w", newline="") as file:
            header = "file attribute_label single_instruction single_answer multi_instruction multi_answer"
            csv.writer(file).writerows([header.split(), *with_clips])
    return tmp_path


def official(data, answers):
    """The official files of answers {(track, hop, clip number): text}."""
    folder = data / "answers"
    folder.mkdir()
    for track in ("Animal", "Emotion"):
        for hop in ("single", "multi"):
            results = {
                f"some/where/{track.lower()}{n}.wav": {"instruction": HEAR, "response": text, "label": "(b)"}
                for (t, h, n), text in answers.items()
                if (t, h) == (track, hop)
            }
            content = {"attribute": track.lower(), "type": hop, "results": results}
            (folder / f"{track}-{hop}.json").write_text(json.dumps(content))
    return folder


def everywhere(text):
    return {(t, h, n): text for t in ("Animal", "Emotion") for h in ("single", "multi") for n in range(2)}


def test_judged_accuracy_by_track_and_hop_and_multi_given_single(data, judge):
    answers = everywhere("right")
    answers["Animal", "single", 1] = "wrong"
    answers["Emotion", "multi", 0] = "wrong"
    by = judge(lambda each: [f"Explanation: so\nJudgement: {'in' * (each.response == 'wrong')}correct"], "oracle")
    report = evaluate("sakura", data, data / "out", predictions=official(data, answers), judge=by)
    scores = report["scores"]
    assert scores["single"] == {
        "animal": {"value": 50.0, "count": 2},
        "emotion": {"value": 100.0, "count": 2},
        "average": {"value": 75.0, "count": 4},
    }
    assert scores["multi"]["average"] == {"value": 75.0, "count": 4}
    assert scores["multi given single"] == {
        "animal": {"value": 100.0, "count": 1},  # of the one whose animal was heard
        "emotion": {"value": 50.0, "count": 2},
        "average": {"value": 75.0, "count": 3},
    }
    assert report["judge"] == "oracle" and report["complete"]
    assert "(b) Claws" in by.asked[1].messages[1]["content"]


@pytest.mark.parametrize(
    "words", ["", "Judgement: correct", "Explanation: x\nJudgement: correct.", "Explanation: x\nJudgement: yes"]
)
def test_a_verdict_out_of_format_is_named_and_not_right(data, words, judge):
    by = judge(lambda _: [words])
    report = evaluate("sakura", data, data / "out", predictions=official(data, everywhere("a")), judge=by)
    assert report["scores"]["single"]["average"] == {"value": 0.0, "count": 4}
    assert report["problems"]["verdicts out of format"]["count"] == 8


def test_the_judgement_ends_at_an_empty_line(data, judge):
    by = judge(lambda _: ["Explanation: one\ntwo\nJudgement: Correct \n\nThank you"])
    report = evaluate("sakura", data, data / "out", predictions=official(data, everywhere("a")), judge=by)
    assert report["scores"]["multi"]["average"]["value"] == 100.0


def test_no_verdict_at_all_leaves_the_question_out(data, judge):
    by = judge(lambda each: [] if each.id.startswith("Animal") else ["Explanation: x\nJudgement: correct"])
    report = evaluate("sakura", data, data / "out", predictions=official(data, everywhere("a")), judge=by)
    assert report["scores"]["single"] == {
        "emotion": {"value": 100.0, "count": 2},
        "average": {"value": 100.0, "count": 2},
    }
    assert report["problems"]["no verdict from the judge"]["count"] == 4


def test_recorded_judgements_hold_for_their_response_only(data):
    folder = data / "judged"
    folder.mkdir()
    verdict = {"Explanation": "x", "Judgement": "correct", "instruction": HEAR, "model_response": "said", "label": ""}
    other = verdict | {"model_response": "something else"}
    content = {"judge_model": "gpt", "results": {"animal0.wav": verdict, "animal1.wav": other}}
    (folder / "animal_judgements.json").write_text(json.dumps(content))
    report = evaluate("sakura", data, data / "out", predictions=official(data, everywhere("said")), judge=folder)
    assert report["scores"]["single"]["animal"] == {"value": 100.0, "count": 1}
    assert report["problems"]["no verdict from the judge"]["count"] == 7


@pytest.mark.parametrize(
    "response, right",
    [
        ("dog", True),
        ("It is a Dog.", True),
        ("(b)", True),
        ("b", True),
        ("(b) dog", True),
        ("B", True),
        ("(B).", True),
        ("b)", True),
        ("a cat or a dog", False),
        ("(a) dog", True),  # the words go before the letter
        ("cow", False),
        ("(a) or (b)", False),
        ("a horse", False),
        ("", False),
        ("The answer is B.", True),
        ("The correct answer is: b.", True),
        ("Option B, I think", True),
        ("B. A barking animal", True),
        ("A barking animal", False),
        ("The answer is a dog", True),
        ("The answer is a horse", False),  # no letter
        ("It is not a dog.", False),
        ("(b), not a dog", False),  # the words go before the letter
        ("not a cat but a dog", True),
        ("Not only a dog", True),
        ("It isn't a cat, and it isn't a cow.", False),
    ],
)
def test_option_match_without_a_judge(response, right):
    assert sakura.names_only(response, "(b) dog", HEAR) == right


@pytest.mark.parametrize(
    "response, right",
    [
        ("They are likely to cry and to frown.", True),
        ("they are likely to cry and to frown", True),
        ("They are likely to cry.", False),
        ("They are likely to cry. They are likely to cry and to frown.", True),  # the one holds the other
        ("They smile!", False),
    ],
)
def test_options_that_are_sentences_are_matched_without_their_stops(response, right):
    question = "What then? (a) They are likely to cry. (b) They are likely to cry and to frown. (c) They smile!"
    assert sakura.names_only(response, "(b) They are likely to cry and to frown.", question) == right


SEX, FEELING = "Who? (a) Female (b) Male", "How? (a) happy (b) sad (c) fear"


@pytest.mark.parametrize(
    "response, question, letter",
    [
        ("A woman speaks English.", SEX, "a"),
        ("A man speaks English.", SEX, "b"),
        ("a female", SEX, "a"),
        ("A woman speaks English and is male.", SEX, ""),
        ("female and male", SEX, ""),
        ("A human", SEX, ""),
        ("This is not a man.", SEX, ""),
        ("The speaker is not a man but a woman.", SEX, "a"),
        ("A man speaks English and expresses happiness.", FEELING, "a"),
        ("She doesn't sound happy; she is afraid.", FEELING, "c"),
        ("happiness and sadness", FEELING, ""),
        ("B. joy", FEELING, "a"),
    ],
)
def test_other_forms_of_sex_and_emotion_name_their_option(response, question, letter):
    assert [a for a in "abc" if sakura.names_only(response, f"({a}) it", question)] == list(letter)


@pytest.mark.parametrize(
    "response, right",
    [
        ("What is it?", False),
        ("it", True),
        ('"It".', True),
        ("(b)", True),
        ("(b) it", True),
        ("fr", False),
    ],
)
def test_a_code_of_two_letters_is_no_word(response, right):
    assert sakura.names_only(response, "(b) it", "Which code? (a) fr (b) it") == right
    assert sakura.names_only("She is Ms. Smith.", "(a) Ms.", "Which title? (a) Ms. (b) Mr.")


def test_a_model_is_asked_both_questions_of_a_clip(data, model):
    asked = model(lambda messages: "(b)")
    report = evaluate("sakura", data, data / "out", model=asked)
    assert report["scores"]["multi"]["average"]["value"] == 100.0
    assert "not SAKURA's official score" in report["notes"][0]
    system, user = asked.asked[0]
    assert system["content"].endswith("Choose one of the options without any explanation.")
    assert user["content"] == f"<|AUDIO|> {HEAR}"
    assert user["audios"] == [{"audio": str(data / "data/Animal/audio/animal0.wav")}]


def test_files_of_another_layout_are_an_error(data, tmp_path):
    (tmp_path / "x.json").write_text('{"results": {}}')
    with pytest.raises(ValueError, match="x.json: expected the keys attribute, type and results"):
        evaluate("sakura", data, data / "out", predictions=tmp_path / "x.json")
    with pytest.raises(FileNotFoundError, match=r"Animal, Emotion, Gender, Language"):
        evaluate("sakura", tmp_path / "data" / "Animal", data / "out", predictions=tmp_path)
