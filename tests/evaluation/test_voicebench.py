"""VoiceBench's six evaluators on cases worked out by hand from the official rules."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from desta_jax.evaluation import folders, voicebench
from desta_jax.evaluation.run import evaluate
from desta_jax.evaluation.voicebench_answers import bbh, choice, is_refusal


@pytest.mark.parametrize(
    "response, letter",
    [
        ("The correct answer is B.", "B"),
        ("**C)** because", "C"),
        ("C", "C"),
        ("d, I think", "D"),
        ("<1> a", "A"),
        ("(A) is wrong, so the answer is D", "D"),  # a phrase goes before a bare letter
        ("I would choose option c", "C"),
        ("The answer is because of rain", "B"),  # officially so: nothing need follow the letter
        ("答案是B", "B"),
        ("Plants need light", None),
        ("e.", None),
        ("", None),
    ],
)
def test_the_letter_that_an_answer_chooses(response, letter):
    assert choice(response) == letter


@pytest.mark.parametrize(
    "response, refuses",
    [
        ("", True),
        ("I CANNOT do that.", True),
        ("That would be illegal.", True),
        ("抱歉", True),
        ("Sure, here is how.", False),
        ("No.", False),
    ],
)
def test_refusals(response, refuses):
    assert is_refusal(response) == refuses


@pytest.mark.parametrize(
    "task, response, answer",
    [
        ("navigate", "So, the answer is **No**.", 0),
        ("navigate", "Following this, you return to the starting point", 1),
        ("navigate", "In the end you are not back at the starting point", 0),
        ("navigate", "I walk north", None),
        ("navigate", "No. To return to the starting point, you would need to take 3 more steps.", 0),
        ("navigate", "No, you'd have to turn around and walk to get back to the starting point.", 0),
        ("navigate", "Yes, the steps cancel out, so it is not possible to end anywhere but the starting point.", 1),
        ("navigate", "You do not return to the starting point, so the answer is yes", 1),  # by the order of the phrases
        ("sports_understanding", "The sentence is not plausible.", 0),
        ("sports_understanding", "Considering these points, the sentence is plausible", 1),
        ("sports_understanding", "yes", 1),
        ("sports_understanding", "No, the sentence seems to be a plausible mistake.", 0),
        ("sports_understanding", "Yes. It is not implausible at all.", 1),
        ("sports_understanding", "The sentence, Ann ran, is not plausible.", 1),  # officially so
        ("web_of_lies", "Therefore the answer is: yes", 1),
        ("web_of_lies", "So Ann does not tell the truth.", 0),
        ("web_of_lies", "Ann must be lying", 1),  # officially so
        ("hyperbaton", "The correct answer is (B).", 1),
        ("hyperbaton", "Option A has the correct adjective order.", 0),
        ("hyperbaton", "b) red big car", 1),
        ("hyperbaton", "b", 0),  # officially so
        ("hyperbaton", "neither", None),
        ("hyperbaton", "Option (B) is right because the standard order is a list of opinion, size, age.", None),
        ("hyperbaton", "The correct order is found in option B, and the final answer is (A)", 1),
    ],
)
def test_bbh_answers(task, response, answer):
    assert bbh(response, f"{task}-17") == answer


def test_an_unknown_bbh_task_is_an_error():
    with pytest.raises(ValueError, match="'dyck_languages-1' belongs to none"):
        bbh("yes", "dyck_languages-1")


IFEVAL_ROWS = [
    {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
     "kwargs": [{"num_words": None}, {}]},
    {"key": 2, "prompt": "q", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]},
]  # fmt: skip
ROWS = {
    "alpacaeval_full": [{"prompt": "Hi?"}, {"prompt": "Why?"}],
    "commoneval": [{"prompt": "Hi?"}],
    "wildvoice": [{"prompt": "Hi?"}],
    "sd-qa": [{"prompt": "Who?", "reference": "Ann"}, {"prompt": "Who?", "reference": "Bob"}],
    "mmsu": [{"prompt": "Which?", "reference": "A"}, {"prompt": "Which?", "reference": "B"}],
    "openbookqa": [{"prompt": "Which?", "reference": "C"}],
    "bbh": [{"prompt": "", "reference": "(A)", "id": "hyperbaton"}, {"reference": "No", "id": "navigate"}],
    "ifeval": IFEVAL_ROWS,
    "advbench": [{"prompt": "Bad?"}, {"prompt": "Bad?"}],
}  # fmt: skip
SAID = {
    "alpacaeval_full": ["four", "five"],
    "commoneval": ["five"],
    "wildvoice": ["five"],
    "sd-qa": ["Ann", "Cid"],
    "mmsu": ["The answer is A", "no idea"],
    "openbookqa": ["C"],
    "bbh": ["the answer is (a)", "hm"],
    "ifeval": ['"yes"', '*"no"*'],
    "advbench": ["I cannot", "Sure"],
}


@pytest.fixture
def data(tmp_path, write_jsonl, write_wav):
    write_wav(tmp_path / "clip.wav")
    for name, rows in ROWS.items():
        write_jsonl(tmp_path / f"{name}.jsonl", [row | {"audio": "clip.wav"} for row in rows])
        split = "usa" if name == "sd-qa" else "test"
        said = [row | {"response": text} for row, text in zip(rows, SAID[name], strict=True)]
        write_jsonl(tmp_path / "answers" / f"ours-{name}-{split}-audio.jsonl", said)
    return tmp_path


def say(inquiry):
    words = {"four": ["4", "[[4]]", "4.0"], "five": ["5", "5", "5"], "Ann": ["Yes", "yes", "No"]}
    return words.get(inquiry.response, ["No", "no", "Yes"])


def test_every_set_and_the_overall_figure(data, judge, monkeypatch):
    monkeypatch.setattr(voicebench, "_pedant", lambda asked, answers: None)  # not installed
    by = judge(say)
    report = evaluate("voicebench", data, data / "out", predictions=data / "answers", judge=by)
    values = {name: report["scores"][name]["score"]["value"] for name in ROWS}
    assert values == {
        "alpacaeval_full": 4.5,
        "commoneval": 5.0,
        "wildvoice": 5.0,
        "sd-qa": 50.0,
        "mmsu": 50.0,
        "openbookqa": 100.0,
        "bbh": 50.0,
        "ifeval": pytest.approx((50 + 200 / 3 + 100 + 100) / 4, abs=1e-4),  # strict and loose, prompt and instruction
        "advbench": 50.0,
    }
    assert report["scores"]["mmsu"]["unreadable"] == {"value": 50.0, "count": 2}
    assert report["scores"]["overall"]["value"] == pytest.approx(
        (90 + 100 + 100 + 50 + 50 + 100 + 50 + values["ifeval"] + 50) / 9, abs=1e-4
    )
    assert {(each.samples, each.temperature, each.top_p) for each in by.asked} == {(3, 0.5, 0.95)}
    assert any("without the package qa_metrics" in note for note in report["notes"])
    assert "qa_metrics" in (data / "out/scores.md").read_text()


def test_official_answers_to_other_sets_are_left_out_by_name(data, judge, write_jsonl):
    expected = evaluate("voicebench", data, data / "out", predictions=data / "answers", judge=judge(say))["scores"]
    write_jsonl(data / "answers" / "ours-mtbench-test-audio.jsonl", [{"prompt": "?", "response": "Ann"}])
    with pytest.warns(UserWarning, match="nine sets, and left out: ours-mtbench-test-audio.jsonl"):
        report = evaluate("voicebench", data, data / "out", predictions=data / "answers", judge=judge(say))
    assert report["scores"] == expected
    with pytest.raises(ValueError, match="mtbench.*holds none of VoiceBench's sets"):
        evaluate("voicebench", data, data / "out", predictions=data / "answers" / "ours-mtbench-test-audio.jsonl")


def test_official_answers_to_other_rows_are_left_out(data, judge, write_jsonl):
    said = [{"prompt": "Who?", "response": "Ann"}, {"prompt": "Where?", "response": "I cannot"}, {"response": "Sure"}]
    write_jsonl(data / "advbench.jsonl", [{"prompt": f"{who}?", "audio": "clip.wav"} for who in ("Who", "Why", "What")])
    write_jsonl(data / "other/ours-advbench-test-audio.jsonl", said)
    report = evaluate("voicebench", data, data / "out", predictions=data / "other")
    assert report["scores"]["advbench"]["score"] == {"value": 0.0, "count": 2}
    assert report["problems"]["predictions for another question"] == {"count": 1, "ids": ["advbench/1"]}


def test_sd_qa_is_the_mean_with_pedant_where_it_is_installed(data, judge, monkeypatch):
    monkeypatch.setattr(voicebench, "_pedant", lambda asked, answers: {"value": 100.0, "count": len(asked)})
    report = evaluate("voicebench", data, data / "out", predictions=data / "answers", judge=judge(say))
    assert report["scores"]["sd-qa"]["score"] == {"value": 75.0, "count": 2}
    assert not any("qa_metrics" in note for note in report["notes"])


@pytest.mark.parametrize("words", [["great", "5", "5"], ["0", "5", "5"], ["11", "5", "5"]])
def test_a_rating_out_of_format_is_named_and_counts_least(data, judge, words):
    report = evaluate("voicebench", data, data / "out", predictions=data / "answers", judge=judge(lambda _: words))
    assert report["scores"]["commoneval"]["score"]["value"] == pytest.approx(11 / 3, abs=1e-4)
    assert report["problems"]["verdicts out of format"]["count"] >= 4


@pytest.mark.parametrize(
    "words, rating", [("4.", 4.0), (" 4.5\n", 4.5), ("+3", 3.0), ("I say [[2]]", 2.0), ("nan", 1.0)]
)
def test_a_rating_is_read_as_a_number_is(data, judge, words, rating):
    report = evaluate("voicebench", data, data / "out", predictions=data / "answers", judge=judge(lambda _: [words]))
    assert report["scores"]["commoneval"]["score"]["value"] == rating


@pytest.mark.parametrize(
    "response, checked",
    [
        (" yes\n", " yes\n"),
        ("yes <|user|>", "yes"),
        ("<2> yes <|user|>", "yes"),
        (" <2> yes", " <2> yes"),
        ("<2> <1> yes", "<1> yes"),
    ],
)
def test_marks_are_cut_off_an_answer_in_the_official_order(data, monkeypatch, write_jsonl, response, checked):
    seen = []
    monkeypatch.setattr(voicebench.ifeval, "follows", lambda ids, kwargs, text, rules: seen.append(text) or [True])
    said = [row | {"response": response} for row in IFEVAL_ROWS]
    file = write_jsonl(data / "said/ours-ifeval-test-audio.jsonl", said)
    evaluate("voicebench", data, data / "out", predictions=file)
    assert seen == [checked, checked]


def test_without_a_judge_there_is_no_overall_figure(data):
    report = evaluate("voicebench", data, data / "out", predictions=data / "answers")
    assert report["scores"]["commoneval"]["score"] == {"value": None, "count": 0}
    assert report["scores"]["openbookqa"]["score"]["value"] == 100.0
    assert report["scores"]["overall"]["value"] is None


def test_official_random_readings_come_from_the_seed(data):
    def accuracy(seed):
        report = evaluate("voicebench", data, data / "out", predictions=data / "answers", official_random=seed)
        return report["scores"]["mmsu"]["score"]["value"]

    assert {accuracy(seed) for seed in range(12)} == {50.0, 100.0}
    assert accuracy(3) == accuracy(3)


def test_folders_as_datasets_saves_and_as_the_hub_has_them(tmp_path, write_wav):
    clip = write_wav(tmp_path / "clip.wav").read_bytes()
    rows = [{"prompt": "Hi?", "audio": {"bytes": clip, "path": "x.wav"}}]
    saved = tmp_path / "data" / "commoneval" / "test"
    saved.mkdir(parents=True)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as file:
        with pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    hub = tmp_path / "data" / "sd-qa"
    hub.mkdir()
    pyarrow.parquet.write_table(table, hub / "usa-00000-of-00001.parquet")
    first, second = voicebench.read(tmp_path / "data", "test")
    assert (first.id, second.id) == ("commoneval/0", "sd-qa/0")
    assert first.audio == second.audio == (clip,)
    assert first.row == {"prompt": "Hi?", "set": "commoneval"}
    with pytest.raises(ValueError, match="unknown split 'nga': .* has usa"):
        voicebench.read(tmp_path / "data", "nga")


def test_an_empty_cell_is_no_clip(tmp_path):
    clip, empty = {"bytes": b"RIFF", "path": None}, {"bytes": None, "path": None}
    row = {"audio": empty, "audio2": clip, "audio3": "b.AIFF", "audio_text": "a"}
    assert folders.take_audio(row, tmp_path) == ({"audio_text": "a"}, [b"RIFF", tmp_path / "b.AIFF"])


def test_mmsu_comes_in_domains_and_sd_qa_in_regions(tmp_path, write_jsonl, write_wav):
    write_wav(tmp_path / "clip.wav")
    rows = [{"prompt": "Which?", "reference": "A", "audio": "../clip.wav"}]
    for place in ("mmsu/law", "mmsu/physics", "sd-qa/usa", "sd-qa/aus"):
        write_jsonl(tmp_path / f"{place}.jsonl", rows)
    assert [question.id for question in voicebench.read(tmp_path, "test")] == [
        "sd-qa/0",
        "mmsu/law/0",
        "mmsu/physics/0",
    ]
    assert voicebench.read(tmp_path, "aus")[0].id == "sd-qa/aus/0"
    for place in ("mmsu-law", "mmsu-physics", "sd-qa-usa", "sd-qa-aus", "bbh-test"):
        write_jsonl(tmp_path / "said" / f"ours-{place}-audio.jsonl", [{"response": place}])
    said = {row["id"]: row["text"] for row in voicebench.read_predictions(tmp_path / "said", "test")}
    assert said == {
        "sd-qa/0": "sd-qa-usa",
        "sd-qa/aus/0": "sd-qa-aus",
        "mmsu/law/0": "mmsu-law",
        "mmsu/physics/0": "mmsu-physics",
        "bbh/0": "bbh-test",
    }


def test_a_model_hears_the_clip_and_no_text(data, model):
    (data / "bbh.jsonl").unlink()
    asked = model(lambda messages: "A")
    evaluate("voicebench", data, data / "out", model=asked)
    assert asked.asked[0][1]["content"] == "<|AUDIO|>"
    assert asked.asked[0][0]["content"].startswith("You are a voice assistant.")
