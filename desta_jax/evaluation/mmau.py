"""MMAU (v05.15.25): multiple choice on sound, music and speech, scored by the words of the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.evaluation.answers import read_lines
from desta_jax.evaluation.benchmark import Benchmark, Scores, check_split
from desta_jax.evaluation.judge import Judge
from desta_jax.evaluation.question import Problems, Prompt, Question, by, share

PROMPT = Prompt(
    system='Focus on the audio clips and instructions. Put your answer in the format "The correct answer is: "___" ".',
    user="{audio}\n\n{question} Choose from the following options: {options}",
)
_LEAD = "The correct answer is: "


def read(data: Path, split: str) -> list[Question]:
    """Questions of mmau-SPLIT.json, or of the JSON list that `data` names; clips lie beside the list."""
    file = data
    if data.is_dir():
        if not (found := sorted(path.stem.removeprefix("mmau-") for path in data.glob("mmau-*.json"))):
            raise FileNotFoundError(f"{data} has no mmau-{split}.json, as MMAU is distributed")
        check_split(split, found, data)
        file = data / f"mmau-{split}.json"
    rows = read_lines(file)
    check_split(split, sorted({row["split"] for row in rows}), file)
    return [_question(row, file.parent) for row in rows if row["split"] == split]


def read_predictions(path: Path, split: str) -> list[dict[str, Any]]:
    """The official list with `model_prediction` in its rows (or, of older lists, `model_output`)."""
    rows = []
    for row in read_lines(path):
        text = row.get("model_prediction", row.get("model_output"))
        if row.get("split", split) == split and text is not None:
            rows.append({"id": row["id"], "text": text})
    return rows


def is_right(prediction: str, answer: str, choices: Sequence[str]) -> bool:
    """Whether the prediction has every word of the answer, and none that only wrong choices have.

    As the official string match: words are runs of letters and digits, in lower case; an empty prediction is wrong.
    """
    given, wanted = _words(prediction), _words(answer)
    wrong = set().union(*(_words(choice) for choice in choices)) - wanted
    return bool(given) and wanted <= given and not given & wrong


def without_lead(text: str) -> str:
    """What the prompt has a model say before its answer is no word of it, wherever it stands. Official files hold
    answers as they are scored."""
    return text.replace(_LEAD, "")


def score(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    judge: Judge | None,
    problems: Problems,
    options: Mapping[str, Any],
) -> Scores:
    """Accuracy in percent: total, by task, difficulty, category and sub-category."""
    withheld = [question.id for question in questions if not question.row["answer"]]
    problems.add("answers withheld by the benchmark", *withheld)
    scored = [q.row for q in questions if q.id in answers and q.row["answer"]]
    marks = [is_right(answers[row["id"]], row["answer"], row["choices"]) for row in scored]
    figures: dict[str, Any] = {"total": share(marks)}
    for key in ("task", "difficulty", "category", "sub-category"):
        figures[key] = by(key, [_tidy(row, key) for row in scored], marks)
    return Scores(figures, problems)


def list_options(choices: Sequence[str]) -> str:
    """Choices as the prompt lists them: "A", "B" or "C"."""
    quoted = [f'"{choice}"' for choice in choices]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _question(row: Mapping[str, Any], folder: Path) -> Question:
    """A withheld answer is absent, null or blank in the file, and "" in the question's row."""
    choices, answer = [str(choice) for choice in row["choices"]], row.get("answer")
    kept = {**row, "choices": choices, "answer": "" if answer is None else str(answer).strip()}
    fields = {"question": row["question"], "options": list_options(choices)}
    return Question(row["id"], (folder / row["audio_id"],), fields, PROMPT, kept)


def _tidy(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The row's field; a few rows hold it in a list, ["Reasoning"], or in a printed one, "['Reasoning']"."""
    value = row.get(key)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return {key: value.strip("[]'")} if isinstance(value, str) else {}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))


BENCHMARK = Benchmark(
    name="mmau",
    title="MMAU v05.15.25",
    splits=("test-mini", "test"),
    max_new_tokens=512,
    read=read,
    read_predictions=read_predictions,
    score=score,
    judged=False,
    answer_in=without_lead,
    columns={
        "sound": ("task", "sound"),
        "music": ("task", "music"),
        "speech": ("task", "speech"),
        "average": ("total",),
    },
    published={
        "DeSTA2.5-Audio": (70.57, 56.29, 71.17, 66.00),
        "Audio Flamingo 3": (79.58, 66.77, 66.37, 73.30),
        "Gemini 2.5 Pro": (75.08, 68.26, 71.47, 71.60),
        "Qwen2.5-Omni": (78.10, 65.90, 70.60, 71.50),
        "Kimi-Audio": (75.68, 66.77, 62.16, 68.20),
        "Audio Reasoner": (67.87, 69.16, 66.07, 67.70),
        "Gemini 2.5 Flash Lite": (63.06, 63.47, 72.07, 66.20),
        "Phi-4-mm": (65.47, 64.37, 67.27, 65.70),
        "GPT-4o Audio": (64.56, 56.29, 66.67, 62.50),
        "Audio Flamingo 2": (71.47, 70.96, 44.74, 62.40),
        "Qwen2-Audio-Instruct": (67.27, 56.29, 55.26, 59.60),
        "Gemma 3n": (55.86, 56.89, 61.26, 58.00),
        "GPT-4o mini Audio": (50.75, 39.22, 69.07, 53.00),
        "SALMONN": (41.14, 37.13, 26.43, 34.90),
    },
    sources="test-mini, from the README of kehanlu/DeSTA2.5-Audio",
)
