"""Speech-IFEval: rule and judge verdicts, IFrate, forgetting rate and word error rate, by hand."""

import pytest

from desta_jax.evaluation import speech_ifeval
from desta_jax.evaluation.run import evaluate

CAPITAL = {"instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]}
BULLETS = {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": 1}]}
ROWS = {
    "closed_ended_questions": [
        {"audio_filepath": "a/1.wav", "instruction": "Write it.\nIn capitals.", "metric": "wer",
         "label": "HI <YOU> ALL", "dataset": "Automatic_speech_recognition", "id": 0, **CAPITAL},
        {"audio_filepath": "a/2.wav", "instruction": "Happy?\nIn capitals.", "metric": "accuracy", "label": "yes",
         "dataset": "Speech_emotion_recognition", "id": 1, **CAPITAL},
    ],
    "creative_writing": [
        {"audio_filepath": "a/1.wav", "instruction": "List it.", "metric": "open", "dataset": "Gender_recognition",
         "id": 2, **BULLETS},
    ],
    "chain-of-thought": [
        {"audio_filepath": "a/1.wav", "instruction": "Think.", "metric": "cot", "dataset": "MMAU"},
        {"audio_filepath": "a/2.wav", "instruction": "Think.", "metric": "cot", "dataset": "MMAU"},
    ],
}  # fmt: skip
SAID = {
    "closed_ended_questions": ["SAYS: HI YOU TALL", "no"],
    "creative_writing": ["1. one"],
    "chain-of-thought": ["first, then", "x"],
}
HEARD = {"wer": "hi <you> tall", "accuracy": "Fine.\nresult: yes", "cot": "Result: NO"}


@pytest.fixture
def data(tmp_path, write_jsonl, write_wav):
    for subset, rows in ROWS.items():
        write_jsonl(tmp_path / "eval_data" / f"{subset}.jsonl", rows)
        answered = [row | {"response": text} for row, text in zip(rows, SAID[subset], strict=True)]
        write_jsonl(tmp_path / "answers" / f"{subset}.jsonl", answered)
    for clip in ("a/1.wav", "a/2.wav"):
        write_wav(tmp_path / "audios" / clip)
    return tmp_path


@pytest.fixture
def by(judge):
    metrics = {row["instruction"]: row["metric"] for rows in ROWS.values() for row in rows}

    def say(inquiry):
        text = inquiry.messages[1]["content"]
        metric = next(metric for instruction, metric in metrics.items() if instruction in text)
        return ["Result: YES"] if inquiry.response == "first, then" else [HEARD[metric]]

    return judge(say)


def test_every_part_of_the_score(data, by):
    report = evaluate("speech_ifeval", data, data / "out", predictions=data / "answers", judge=by, reference=50.0)
    scores = report["scores"]
    assert scores["closed-ended"]["total"] == {"value": 50.0, "count": 2}
    assert scores["closed-ended"]["instructions"] == {"change case": {"value": 50.0, "count": 2}}
    assert scores["closed-ended"]["datasets"]["Speech_emotion_recognition"] == {"value": 0.0, "count": 1}
    assert scores["creative writing"]["total"] == {"value": 100.0, "count": 1}
    assert scores["chain-of-thought"]["total"] == {"value": 50.0, "count": 2}
    assert scores["IFrate"] == {"value": 66.6667, "count": 5}
    assert scores["forgetting rate"]["value"] == pytest.approx(100 * (66.6667 - 50) / 50, abs=1e-4)
    task = scores["task performance"]["closed_ended_questions"]
    assert task["Speech_emotion_recognition"] == {"value": 100.0, "count": 1}
    assert task["word error rate"] == {"value": 33.3333, "count": 1}  # "tall" for "all", of three words
    assert report["complete"] and report["problems"] == {}


def test_without_a_judge_there_is_no_ifrate(data):
    report = evaluate("speech_ifeval", data, data / "out", predictions=data / "answers", reference=50.0)
    assert report["scores"]["closed-ended"]["total"]["value"] == 50.0
    assert report["scores"]["IFrate"] == {"value": None, "count": 0}
    assert "forgetting rate" not in report["scores"] and "chain-of-thought" not in report["scores"]


def test_recorded_verdicts_and_their_format(data, write_jsonl):
    reports = data / "reports"
    rows = [
        row | {"response": text} for row, text in zip(ROWS["chain-of-thought"], SAID["chain-of-thought"], strict=True)
    ]
    words = ["I think\nRESULT: Yes", "YES"]
    recorded = [row | {"eval_response": word} for row, word in zip(rows, words, strict=True)]
    write_jsonl(reports / "llm_eval@chain-of-thought.jsonl", recorded)
    report = evaluate("speech_ifeval", data, data / "out", predictions=data / "answers", judge=reports)
    assert report["scores"]["chain-of-thought"]["total"] == {"value": 50.0, "count": 2}
    assert report["problems"]["verdicts out of format"]["count"] == 1
    assert report["problems"]["no verdict from the judge"]["count"] == 2  # closed-ended ones were not recorded
    assert "reports" in report["judge"]


def test_rows_are_matched_by_clip_and_instruction_not_by_number(data, write_jsonl):
    answered = [row | {"response": "HI", "id": row["id"] + 1} for row in ROWS["closed_ended_questions"]]
    file = write_jsonl(data / "shifted" / "closed_ended_questions.jsonl", answered)
    report = evaluate("speech_ifeval", data, data / "out", predictions=file)
    assert report["scores"]["closed-ended"]["total"] == {"value": 100.0, "count": 2}
    assert report["problems"]["missing predictions"]["count"] == 3


def test_an_instruction_that_cannot_be_checked_is_named(data, write_jsonl):
    rows = [ROWS["creative_writing"][0] | {"kwargs": [{}]}]
    write_jsonl(data / "eval_data/creative_writing.jsonl", rows)
    report = evaluate("speech_ifeval", data, data / "out", predictions=data / "answers")
    assert report["scores"]["creative writing"]["total"] == {"value": None, "count": 0}
    named = report["problems"]["questions whose instructions cannot be checked"]["ids"][0]
    assert named.startswith("creative_writing/a/1.wav") and "num_bullets" in named


def test_the_reference_run_reads_text(data, write_jsonl, model):
    rows = [row | {"textual_audio": "[00:00] hi (Emotion: happy)"} for row in ROWS["chain-of-thought"]]
    (data / "eval_data/chain-of-thought.jsonl").unlink()
    question = speech_ifeval.read(data, "test")[0]
    assert question.audio == (data / "audios/a/1.wav",)
    asked = model(lambda messages: "x")
    other = data / "text"
    write_jsonl(other / "chain-of-thought.jsonl", rows)
    report = evaluate(
        "speech_ifeval",
        other,
        data / "out",
        model=asked,
        system="Follow.",
        user="Speech Input: {textual_audio}\n{instruction}",
    )
    assert asked.asked[0][1] == {"role": "user", "content": "Speech Input: [00:00] hi (Emotion: happy)\nThink."}
    assert "asked without audio" in report["notes"]


def test_reference_by_name_and_by_run(data, by):
    first = evaluate("speech_ifeval", data, data / "out", predictions=data / "answers", judge=by)
    for reference, rate in (
        ("Llama3-8B-Instruct", 92.53),
        (data / "out/scores.json", first["scores"]["IFrate"]["value"]),
    ):
        report = evaluate(
            "speech_ifeval", data, data / "again", predictions=data / "answers", judge=by, reference=reference
        )
        assert report["scores"]["forgetting rate"]["value"] == pytest.approx(100 * (66.6667 - rate) / rate, abs=1e-3)
    for wrong in ("nan", -5, 0, 101.0, "inf"):
        with pytest.raises(ValueError, match="reference: an IFrate is above 0 and at most 100 percent"):
            evaluate("speech_ifeval", data, data / "again", predictions=data / "answers", reference=wrong)
    with pytest.raises(ValueError, match="reference GPT-2: neither a number"):
        evaluate("speech_ifeval", data, data / "again", predictions=data / "answers", reference="GPT-2")


def test_the_published_forgetting_rate_follows_from_its_ifrate():
    assert round(speech_ifeval.forgetting_rate(89.23, 92.53), 2) == -3.57


def test_a_file_of_another_name_is_an_error(data, write_jsonl):
    file = write_jsonl(data / "answers.jsonl", [{"audio_filepath": "a", "instruction": "b", "response": "c"}])
    with pytest.raises(ValueError, match="a file of Speech-IFEval is named"):
        evaluate("speech_ifeval", data, data / "out", predictions=file)
