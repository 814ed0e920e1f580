"""Predictions that are resumed, matched, partial or broken; all benchmarks at once; scores during training."""

import fcntl
import json

import pyarrow
import pyarrow.parquet
import pytest

from desta_jax.evaluation import run
from desta_jax.evaluation.judge import EndpointJudge, ModelJudge
from desta_jax.evaluation.run import evaluate, evaluate_in_training, make_judge


@pytest.fixture
def data(tmp_path, write_wav):
    rows = [
        {"id": f"q{n}", "audio_id": f"clips/q{n}.wav", "question": "Who?", "choices": ["Ann", "Bob"], "answer": "Ann",
         "task": "speech", "split": "test-mini", "category": "x", "sub-category": "y", "difficulty": "easy"}
        for n in range(4)
    ]  # fmt: skip
    folder = tmp_path / "mmau"
    for row in rows:
        write_wav(folder / row["audio_id"])
    (folder / "mmau-test-mini.json").write_text(json.dumps(rows))
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_are_written_row_by_row_and_resumed(data, tmp_path, model):
    def until_the_third(messages):
        if "q2" in messages[1]["audios"][0]["audio"]:
            raise KeyboardInterrupt
        return "Ann"

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate("mmau", data, out, model=model(until_the_third), batch_size=1)
    assert [row["id"] for row in lines(out / "predictions.jsonl")] == ["q0", "q1"]
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"id": "q2", "te')  # what a killed process leaves
    again = model(lambda messages: "Ann")
    report = evaluate("mmau", data, out, model=again, batch_size=1)
    assert len(again.asked) == 2
    assert report["scores"]["total"] == {"value": 100.0, "count": 4} and report["complete"]
    rows = lines(out / "predictions.jsonl")
    assert len({row["asked"] for row in rows}) == 4  # each clip is another question
    assert rows[3] == {
        "id": "q3", "asked": rows[3]["asked"], "text": "Ann", "transcripts": ["heard"], "token_ids": [1, 2]
    }  # fmt: skip
    assert json.loads((out / "scores.json").read_text()) == report


@pytest.fixture(params=["named", "held"])
def numbered(request, tmp_path, write_wav):
    """Writes a data set whose rows have numbers alone; their clips are files, or lie in the rows."""
    clips = [write_wav(tmp_path / f"data/clips/{number}.wav", hz=100 * (1 + number)) for number in range(3)]

    def write(numbers):
        if request.param == "named":
            rows = [{"prompt": f"{number}?", "audio": f"clips/{number}.wav"} for number in numbers]
            (tmp_path / "data/advbench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            held = [{"prompt": f"{number}?", "audio": {"bytes": clips[number].read_bytes()}} for number in numbers]
            (tmp_path / "data/advbench").mkdir(exist_ok=True)
            file = tmp_path / "data/advbench/test-00000-of-00001.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(held), file)
        return tmp_path / "data"

    return write


def test_a_question_that_took_the_place_of_another_is_asked(numbered, tmp_path, model):
    out, first = tmp_path / "out", model(lambda _: "I cannot")
    evaluate("voicebench", numbered([0, 1, 2]), out, model=first)
    moved = model(lambda _: "Sure")
    report = evaluate("voicebench", numbered([0, 2]), out, model=moved)
    assert moved.asked == [first.asked[2]]
    assert report["scores"]["advbench"]["score"] == {"value": 50.0, "count": 2}
    assert report["problems"] == {"predictions for no question": {"count": 1, "ids": ["advbench/2"]}}
    back = model(lambda _: "I cannot")
    assert evaluate("voicebench", numbered([0, 1, 2]), out, model=back)["complete"]
    assert back.asked == [first.asked[1]]


def test_data_that_moved_are_the_same_questions_and_so_are_lines_without_a_digest(data, tmp_path, model):
    out = tmp_path / "out"
    evaluate("mmau", data, out, model=model(lambda _: "Ann"))
    again = model(lambda _: "Bob")
    evaluate("mmau", data.rename(tmp_path / "moved"), out, model=again)
    older = [{key: value for key, value in row.items() if key != "asked"} for row in lines(out / "predictions.jsonl")]
    (out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in older))
    assert evaluate("mmau", tmp_path / "moved", out, model=again)["complete"] and not again.asked


def test_a_question_whose_data_name_no_clip_is_not_asked(tmp_path, model, write_jsonl, write_wav):
    write_wav(tmp_path / "data/0.wav")
    write_jsonl(tmp_path / "data/advbench.jsonl", [{"prompt": "0?", "audio": "0.wav"}, {"prompt": "1?", "sound": "1"}])
    asked = model(lambda _: "I cannot")
    report = evaluate("voicebench", tmp_path / "data", tmp_path / "out", model=asked)
    assert len(asked.asked) == 1 and report["problems"]["failed predictions"]["ids"] == ["advbench/1"]
    assert {"id": "advbench/1", "error": "the data name no clip"} in lines(tmp_path / "out/predictions.jsonl")
    evaluate("voicebench", tmp_path / "data", tmp_path / "read", model=asked, user="{prompt}")
    assert [messages[-1]["content"] for messages in asked.asked[1:]] == ["0?", "1?"]


def test_resuming_with_another_prompt_is_an_error(data, tmp_path, model):
    evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"), limit=1)
    with pytest.raises(ValueError, match="(?s)choose another --out.*system: None then, 'Guess.' now"):
        evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"), system="Guess.")


def test_settings_hold_for_answers_and_one_process_writes_them(data, tmp_path, model):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate("mmau", data, tmp_path / "out", model=model(interrupt), system="Gess.")
    report = evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"), system="Guess.")
    assert report["answered"] == 4
    with (tmp_path / "out/predictions.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing .*predictions.jsonl"):
            evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"), system="Guess.")


def test_our_own_predictions_are_scored_again_as_they_were(data, tmp_path, model, write_wav):
    evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"))
    write_wav(data / "clips/q1.wav", hz=700)
    first = evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Bob"))
    again = evaluate("mmau", data, tmp_path / "again", predictions=tmp_path / "out")
    assert again["scores"] == first["scores"] and again["answered"] == 4 and again["problems"] == {}


def test_data_of_another_form_are_named(data, tmp_path, model):
    file = data / "mmau-test-mini.json"
    rows = json.loads(file.read_text())
    del rows[2]["choices"]
    file.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="mmau: a row has no 'choices'; is this mmau as distributed"):
        evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"))


def test_missing_audio_is_named_and_asked_again_once_it_is_there(data, tmp_path, model, write_wav):
    (data / "clips/q1.wav").unlink()
    report = evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"))
    assert report["problems"]["failed predictions"] == {"count": 1, "ids": ["q1"]}
    assert report["scores"]["total"] == {"value": 100.0, "count": 3} and not report["complete"]
    assert any("missing audio" in row.get("error", "") for row in lines(tmp_path / "out/predictions.jsonl"))
    write_wav(data / "clips/q1.wav")
    report = evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Bob"))
    assert report["scores"]["total"] == {"value": 75.0, "count": 4} and report["problems"] == {}


def test_a_models_error_on_a_question_is_kept_and_named(data, tmp_path, model):
    failing = model(lambda messages: ValueError("broken clip") if "q3" in str(messages) else "Ann")
    report = evaluate("mmau", data, tmp_path / "out", model=failing)
    assert report["problems"]["failed predictions"]["ids"] == ["q3"]
    assert lines(tmp_path / "out/predictions.jsonl")[-1] == {"id": "q3", "error": "broken clip"}


def test_prompts_can_be_set(data, tmp_path, model):
    asked = model(lambda _: "Ann")
    evaluate("mmau", data, tmp_path / "a", model=asked, system="", user="<|AUDIO|> {question} {options}?", limit=1)
    assert asked.asked[0] == [
        {"role": "user", "content": '<|AUDIO|> Who? "Ann" or "Bob"?', "audios": [{"audio": str(data / "clips/q0.wav")}]}
    ]
    with pytest.raises(ValueError, match=r"it may name {question}, {options}, {audio}"):
        evaluate("mmau", data, tmp_path / "b", model=asked, user="{audio} {transcript}")
    with pytest.raises(ValueError, match="does not place the clips"):
        evaluate("mmau", data, tmp_path / "c", model=asked, user="{audio} {audio}")


def test_the_recommended_prompt_for_mmau(data, tmp_path, model):
    asked = model(lambda _: "Ann")
    evaluate("mmau", data, tmp_path / "out", model=asked, limit=1)
    system, user = asked.asked[0]
    assert user["content"] == '<|AUDIO|>\n\nWho? Choose from the following options: "Ann" or "Bob"'
    assert system["content"] == (
        'Focus on the audio clips and instructions. Put your answer in the format "The correct answer is: "___" ".'
    )


@pytest.mark.parametrize(
    "extra, kind, count, right",
    [
        ([{"id": "q0", "text": "Ann"}], "duplicate predictions", 1, 4),
        ([{"id": "q0", "text": "Bob"}], "predictions that contradict each other", 1, 3),
        ([{"id": "zz", "text": "Ann"}], "predictions for no question", 1, 4),
    ],
)
def test_predictions_of_doubt_are_named_and_not_right(data, tmp_path, write_jsonl, extra, kind, count, right):
    rows = [{"id": f"q{n}", "text": "Ann"} for n in range(4)] + extra
    file = write_jsonl(tmp_path / "p.jsonl", rows)
    report = evaluate("mmau", data, tmp_path / "out", predictions=file)
    assert report["problems"][kind]["count"] == count
    assert report["scores"]["total"]["count"] == right


def test_a_partial_run_says_how_partial_it_is(data, tmp_path, model):
    report = evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"), limit=1)
    assert (report["answered"], report["questions"], report["complete"]) == (1, 4, False)
    assert "PARTIAL: 1 of 4 questions answered (25.0 %)" in (tmp_path / "out/scores.md").read_text()


def test_a_limit_holds_for_predictions_that_are_there_and_for_the_judge(tmp_path, judge, write_jsonl):
    rows = [{"prompt": f"{number}?", "audio": "clip.wav"} for number in range(4)]
    write_jsonl(tmp_path / "data/commoneval.jsonl", rows)
    answered = [{"id": f"commoneval/{number}", "text": "Yes."} for number in range(4)]
    said = write_jsonl(tmp_path / "predictions.jsonl", answered)
    asked = judge(lambda _: ["5"])
    report = evaluate("voicebench", tmp_path / "data", tmp_path / "out", predictions=said, judge=asked, limit=2)
    assert [inquiry.id for inquiry in asked.asked] == ["commoneval/0", "commoneval/1"]
    assert (report["answered"], report["questions"], report["complete"]) == (2, 4, False)
    assert "PARTIAL: 2 of 4 questions answered" in (tmp_path / "out/scores.md").read_text()


def test_a_question_that_the_data_repeats_counts_once(data, tmp_path, write_jsonl):
    rows = json.loads((data / "mmau-test-mini.json").read_text())
    (data / "mmau-test-mini.json").write_text(json.dumps(rows + rows[:1]))
    file = write_jsonl(tmp_path / "p.jsonl", [{"id": row["id"], "text": "Ann"} for row in rows])
    report = evaluate("mmau", data, tmp_path / "out", predictions=file)
    assert report["scores"]["total"]["count"] == 4
    assert report["problems"]["questions that the data repeats"]["ids"] == ["q0"]


def test_all_benchmarks_that_the_data_hold(data, tmp_path, model, write_jsonl, write_wav):
    write_wav(tmp_path / "voicebench/clip.wav")
    write_jsonl(tmp_path / "voicebench/advbench.jsonl", [{"prompt": "Bad?", "audio": "clip.wav"}])
    whole = evaluate("all", tmp_path, tmp_path / "out", model=model(lambda _: "I cannot"), model_name="ours")
    assert set(whole["benchmarks"]) == {"mmau", "voicebench"}
    assert whole["missing benchmarks"] == ["dynamic_superb", "sakura", "speech_ifeval"]
    assert whole["benchmarks"]["voicebench"]["scores"]["advbench"]["score"]["value"] == 100.0
    text = (tmp_path / "out/scores.md").read_text()
    assert "## MMAU" in text and "## VoiceBench" in text and "| ours" in text
    assert (tmp_path / "out/mmau/predictions.jsonl").exists()
    scored = evaluate("all", tmp_path, tmp_path / "again", predictions=tmp_path / "out")
    assert scored["benchmarks"]["mmau"]["scores"] == whole["benchmarks"]["mmau"]["scores"]


@pytest.mark.parametrize(
    "benchmark, package", [("speech_ifeval", "nltk"), ("voicebench", "langdetect"), ("dynamic_superb", "sacrebleu")]
)
@pytest.mark.parametrize("all_at_once", [False, True])
def test_what_scoring_needs_is_missed_before_anything_is_asked(
    data, tmp_path, model, without, benchmark, package, all_at_once
):
    without(package)
    (tmp_path / benchmark).mkdir()
    asked = model(lambda _: "Ann")
    chosen, where = ("all", tmp_path) if all_at_once else (benchmark, tmp_path / benchmark)
    with pytest.raises(ValueError, match=rf'needs {package}: pip install -e "\.\[evaluate\]"'):
        evaluate(chosen, where, tmp_path / "out", model=asked)
    assert not asked.asked and not (tmp_path / "out").exists()
    evaluate("mmau", data, tmp_path / "out", model=asked)


def test_scores_during_training(data, tmp_path, model):
    figures = evaluate_in_training({"mmau": data}, tmp_path / "out", model(lambda _: "Ann"), 30, limit=2)
    assert figures == {"mmau/speech": 100.0, "mmau/average": 100.0}
    assert (tmp_path / "out/step-30/mmau/scores.json").exists()


def test_what_other_weights_answered_at_a_step_is_asked_again(data, tmp_path, model):
    def score(answer, adapter):
        said = model(lambda _: answer)
        figures = evaluate_in_training({"mmau": data}, tmp_path / "out", said, 30, adapter=adapter)
        return figures["mmau/average"], len(said.asked)

    assert score("Ann", "one") == (100, 4)
    assert score("Bob", "one") == (100, 0)
    assert score("Bob", "other") == (0, 4)


def test_what_is_wrong_is_said(data, tmp_path, model):
    with pytest.raises(ValueError, match="unknown benchmark 'mmlu'; known are .*mmau.* and all"):
        evaluate("mmlu", data, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no nowhere"):
        evaluate("mmau", "nowhere", tmp_path)
    with pytest.raises(ValueError, match="either a model, to answer the questions, or predictions"):
        evaluate("mmau", data, tmp_path)
    with pytest.raises(ValueError, match="prompts differ by benchmark"):
        evaluate("all", data, tmp_path, model=model(lambda _: "Ann"), system="x")
    with pytest.raises(ValueError, match="mmau has no layout for recorded verdicts"):
        evaluate("mmau", data, tmp_path, predictions=data / "mmau-test-mini.json", judge=data)
    (tmp_path / "p.jsonl").write_text('{"id": "q0", "text": "Ann"}\n{"id"\n')
    with pytest.raises(ValueError, match=r"p.jsonl, line 2: not JSON"):
        evaluate("mmau", data, tmp_path, predictions=tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", "", "p.jsonl holds no predictions for mmau"),
        ("p.json", "[]", "p.json holds no predictions for mmau"),
        (
            "p.jsonl",
            '{"id": "x7", "text": "Ann"}\n',
            "none of its 1 predictions is for a question .*'x7', the data's first question is 'q",
        ),
        ("p.jsonl", '{"id": "q0", "text": "Ann"}\n["q1"]\n', "p.jsonl, line 2: expected a JSON object"),
        ("p.json", '{"q0": "Ann"}', "p.json: expected a JSON list of objects"),
    ],
)
def test_predictions_of_nothing_are_refused_and_scores_that_are_there_stay(data, tmp_path, name, content, message):
    (tmp_path / "scores.json").write_text("good")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        evaluate("mmau", data, tmp_path, predictions=tmp_path / name)
    assert (tmp_path / "scores.json").read_text() == "good"


def test_what_scoring_cannot_use_is_said_before_anything_is_asked(data, tmp_path, model):
    asked = model(lambda _: "Ann")
    for wrong, message in [({"reference": "GPT-2"}, "neither a number"), ({"judge": tmp_path}, "no layout")]:
        with pytest.raises(ValueError, match=message):
            evaluate("mmau", data, tmp_path / "out", model=asked, **wrong)
    assert not (tmp_path / "out").exists()


def test_a_judge_that_is_not_asked_is_in_no_score(data, tmp_path, model, judge):
    said = []
    asked = judge(lambda _: ["yes"])
    report = evaluate("mmau", data, tmp_path / "out", model=model(lambda _: "Ann"), judge=asked, say=said.append)
    assert report["judge"] is None and not asked.asked
    assert any("scored by rules alone" in line for line in said)


def test_a_judge_by_its_name(tmp_path, model):
    assert make_judge(str(tmp_path), tmp_path) == tmp_path
    assert isinstance(make_judge("ours", tmp_path, model=model(lambda _: "")), ModelJudge)
    judge = make_judge("gpt-4o", tmp_path, url="http://localhost:1/v1/")
    assert isinstance(judge, EndpointJudge) and judge.endpoint.url == "http://localhost:1/v1"
    assert judge.cache == tmp_path / "judge-cache.jsonl"


def test_every_published_row_fits_its_table():
    for benchmark in run.BENCHMARKS.values():
        for name, values in benchmark.published.items():
            assert len(values) == len(benchmark.columns), f"{benchmark.name}: {name}"
