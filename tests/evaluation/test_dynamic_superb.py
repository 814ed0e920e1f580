"""Dynamic-SUPERB: labels, numbers and sequences, groups, domains and gains, by hand."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from desta_jax.evaluation import dynamic_superb
from desta_jax.evaluation.run import evaluate


@pytest.mark.parametrize(
    "response, label, right",
    [
        ("The answer is happy.", "happy", True),
        ("Unhappy", "happy", False),
        ("happy or sad", "happy", False),
        ("very happy", "very happy", True),  # another label is part of the right one
        ("very happy", "happy", False),
        ("I don't know", "happy", False),
        ("", "happy", False),
    ],
)
def test_an_answer_is_right_that_names_its_label_alone(response, label, right):
    assert dynamic_superb.names_label(response, label, ["happy", "sad", "very happy"]) == right


@pytest.mark.parametrize(
    "response, number",
    [
        ("4", 4.0),
        ("About -3.5 dB.", -3.5),
        ("1,200", 1200.0),
        ("4 of 5", None),
        ("4, yes 4", 4.0),
        ("none", None),
        ("12.7dB", 12.7),
        ("-0.25m", -0.25),
        ("12s", 12.0),
        ("the 1st of 3", 3.0),
        ("1.2.3", None),
    ],
)
def test_the_only_number_of_an_answer(response, number):
    assert dynamic_superb.only_number(response) == number


@pytest.mark.parametrize(
    "task, metric, domain, group",
    [
        ("EmotionRecognition_MELD", "accuracy", "speech", "paralinguistics"),
        ("BirdSoundDetection_Warblrb10k", "accuracy", "audio", "audio"),
        ("ChordClassification_AcousticGuitarAndPiano", "accuracy", "music", "audio"),
        ("MultiLingualSpeechRecognition_MLS-de", "wer", "speech", None),
        ("SuperbOODAsrZh_CommonVoice7-Test", "cer", "speech", None),
        ("SuperbST_CoVoST2-Test", "bleu", "speech", None),
        ("SingingAutomaticMOSPrediction_SingMOS", "mse", "music", None),
    ],
)
def test_what_a_name_says_of_a_task(task, metric, domain, group):
    facts = dynamic_superb.task_facts(task, {})
    assert (facts["metric"], facts["domain"], facts["group"]) == (metric, domain, group)


def test_the_table_goes_by_beginnings_the_longest_last():
    table = {"Emotion": {"domain": "music", "baseline": 1.0}, "EmotionRecognition": {"domain": "audio"}}
    facts = dynamic_superb.task_facts("EmotionRecognition_MELD", table)
    assert (facts["domain"], facts["baseline"]) == ("audio", 1.0)


TASKS = {
    "SpeakerVerification_VCTK": [("same?", "Yes"), ("same?", "No")],
    "EmotionRecognition_MELD": [("feels?", "happy"), ("feels?", "sad"), ("feels?", "sad"), ("feels?", "happy")],
    "SuperbASR_LibriSpeech-TestClean": [("write", "one two"), ("write", "three four")],
    "SuperbST_CoVoST2-Test": [("translate", "the small house on the hill")],
    "L2EnglishFluency_speechocean762-Scoring": [("rate", "3"), ("rate", "5")],
}
SAID = {
    "SpeakerVerification_VCTK": ["yes", "Yes"],
    "EmotionRecognition_MELD": ["happy", "sad", "sad", "sad"],
    "SuperbASR_LibriSpeech-TestClean": ["One, two!", "three for"],
    "SuperbST_CoVoST2-Test": ["the small house on the hill"],
    "L2EnglishFluency_speechocean762-Scoring": ["It is a 4", "good"],
}


@pytest.fixture
def data(tmp_path, write_wav, write_jsonl):
    """One task in each layout, and a table with baselines."""
    root = tmp_path / "data"
    clip = write_wav(tmp_path / "clip.wav").read_bytes()
    for task, rows in TASKS.items():
        folder = root / task
        folder.mkdir(parents=True)
        table = [{"instruction": i, "label": label, "file": f"f{n}"} for n, (i, label) in enumerate(rows)]
        if task.startswith("Speaker"):  # a pair of clips, as the hub has it
            cells = [
                row | {"audio": {"bytes": clip, "path": None}, "audio2": {"bytes": b"2", "path": None}} for row in table
            ]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(cells), folder / "test-00000-of-00001.parquet")
        elif task.startswith("Emotion"):
            for n in range(len(rows)):
                (folder / f"f{n}.wav").write_bytes(clip)
            (folder / "metadata.json").write_text(json.dumps({f"f{n}.wav": row for n, row in enumerate(table)}))
        elif task.startswith("SuperbASR"):
            lines = [f"data/test/f{n}.flac,f{n},{i},{label}" for n, (i, label) in enumerate(rows)]
            (folder / "metadata.csv").write_text("\n".join(["file_name,file,instruction,label", *lines]))
        else:
            write_jsonl(folder / "test.jsonl", [row | {"audio": f"{row['file']}.wav"} for row in table])
        names = [f"f{n}.wav" if task.startswith("Emotion") else f"f{n}" for n in range(len(rows))]
        said = [{"file": name, "response": text} for name, text in zip(names, SAID[task], strict=True)]
        write_jsonl(tmp_path / "answers" / f"{task}.jsonl", said)
    (root / "tasks.json").write_text(json.dumps({"Emotion": {"baseline": 50.0}, "SuperbASR": {"baseline": 50.0}}))
    return root


def test_every_kind_of_task(data):
    report = evaluate("dynamic_superb", data, data / "out", predictions=data.parent / "answers")
    scores = report["scores"]
    assert scores["task"] == {
        "EmotionRecognition_MELD": {"metric": "accuracy", "value": 75.0, "count": 4},
        "L2EnglishFluency_speechocean762-Scoring": {
            "metric": "mse", "value": 1.0, "count": 1, "no number": {"value": 50.0, "count": 2}
        },
        "SpeakerVerification_VCTK": {"metric": "accuracy", "value": 50.0, "count": 2},
        "SuperbASR_LibriSpeech-TestClean": {"metric": "wer", "value": 25.0, "count": 2},
        "SuperbST_CoVoST2-Test": {"metric": "bleu", "value": 100.0, "count": 1},
    }  # fmt: skip
    assert scores["accuracy"] == {"value": 62.5, "count": 6}  # the mean over tasks, not questions
    assert scores["group"] == {
        "paralinguistics": {"value": 75.0, "count": 4},
        "speaker": {"value": 50.0, "count": 2},
    }
    assert scores["gain over baseline"] == {"speech": {"value": 50.0, "count": 6}}  # 75 for 50; error 25 for 50
    assert report["complete"] and report["problems"] == {}


def test_clips_come_in_order_and_prompts_by_kind(data):
    questions = {question.row["task"]: question for question in dynamic_superb.read(data, "test")}
    pair = questions["SpeakerVerification_VCTK"]
    assert [len(clip) for clip in pair.audio] == [len(pair.audio[0]), 1]
    assert pair.prompt.system.endswith("Choose one of the options without any explanation.")
    spoken = questions["SuperbASR_LibriSpeech-TestClean"]
    assert spoken.audio == (data / "SuperbASR_LibriSpeech-TestClean/data/test/f1.flac",)
    assert spoken.prompt.system.endswith("Respond directly without any other words")


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ("SpeechTextMatching_LJSpeech", ["Do they match?\nText: He sat.", "Do they match?\nText: She sat."]),
        ("SpeakerVerification_VCTK", ["Do they match?"]),  # there, the text may be what is said
    ],
)
def test_a_text_that_a_task_is_about_is_read(tmp_path, write_wav, write_jsonl, task, asked):
    write_wav(tmp_path / task / "a.wav")
    rows = [
        {"instruction": "Do they match?", "text": text, "label": "yes", "file": "a.wav", "audio": "a.wav"}
        for text in ("He sat.", "She sat.", "He sat.")
    ]
    write_jsonl(tmp_path / task / "test.jsonl", rows)
    questions = {question.id: question for question in dynamic_superb.read(tmp_path, "test")}
    assert [question.fields["instruction"] for question in questions.values()] == asked


def test_several_questions_about_a_file_count_each_and_true_repeats_once(tmp_path, write_wav, write_jsonl):
    task = "SpeakerVerification_VCTK"
    rows = [("same?", "Yes", "b"), ("same?", "No", "c"), ("same?", "Yes", "b"), ("other?", "Yes", "b")]
    for clip in "abc":
        write_wav(tmp_path / "data" / task / f"{clip}.wav")
    table = [
        {"instruction": asked, "label": label, "file": "a.wav", "audio": "a.wav", "audio2": f"{other}.wav"}
        for asked, label, other in rows
    ]
    write_jsonl(tmp_path / "data" / task / "test.jsonl", table)
    said = [{"file": "a.wav", "response": text} for text in ("Yes", "No", "Yes", "No")]
    write_jsonl(tmp_path / "said" / f"{task}.jsonl", said)
    report = evaluate("dynamic_superb", tmp_path / "data", tmp_path / "out", predictions=tmp_path / "said")
    assert report["scores"]["task"][task] == {"metric": "accuracy", "value": 66.6667, "count": 3}
    assert report["problems"]["questions that the data repeats"]["ids"] == [f"{task}/a.wav"]
    assert report["problems"]["predictions for no question"]["ids"] == [f"{task}/a.wav#2"]
    assert report["complete"]


def test_two_clips_are_placed_and_given_as_files(data, model):
    for task in TASKS:
        if not task.startswith("Speaker"):
            for file in (data / task).iterdir():
                file.unlink()
    asked = model(lambda messages: messages[1]["content"])
    evaluate("dynamic_superb", data, data / "out", model=asked)
    user = asked.asked[0][1]
    assert user["content"] == "<|AUDIO|>\n<|AUDIO|> same?"
    assert len(user["audios"]) == 2


def test_a_note_says_over_how_many_tasks_accuracy_is(data, write_jsonl):
    row = {"instruction": "sound?", "label": "cough", "audio": "a.wav"}
    write_jsonl(data / "CoughDetection_Some/test.jsonl", [row])
    write_jsonl(data.parent / "answers/CoughDetection_Some.jsonl", [{"response": "cough"}])
    report = evaluate("dynamic_superb", data, data / "out", predictions=data.parent / "answers")
    note = "accuracy is the mean over 3 tasks, 2 of them in Phase-1's groups, which have 48"
    assert note in report["notes"] and f"Note: {note}." in (data / "out/scores.md").read_text()


def test_a_judge_reads_the_labels(data, judge):
    by = judge(lambda inquiry: ["Result: YES"] if inquiry.id.endswith("f1") else ["hm"])
    report = evaluate("dynamic_superb", data, data / "out", predictions=data.parent / "answers", judge=by)
    assert report["scores"]["task"]["SpeakerVerification_VCTK"]["value"] == 50.0
    assert report["problems"]["verdicts out of format"]["count"] == 5
    assert len(by.asked) == 6  # neither transcripts nor numbers are judged
    assert "the judge is asked in our words" in report["notes"]


def test_what_is_wrong_with_the_data_is_said(data, tmp_path):
    (data / "tasks.json").write_text('{"Emotion": {"metric": "f1"}}')
    with pytest.raises(ValueError, match="EmotionRecognition_MELD has the unknown metric 'f1'"):
        evaluate("dynamic_superb", data, data / "out", predictions=data)
    with pytest.raises(FileNotFoundError, match="no folder with a task's data"):
        evaluate("dynamic_superb", tmp_path / "answers", data / "out", predictions=data)
    with pytest.raises(ValueError, match="unknown split 'train'"):
        evaluate("dynamic_superb", data, data / "out", predictions=data, split="train")
