"""From a benchmark's data to its scores: predict, score, write scores.json and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.evaluation import answers, dynamic_superb, mmau, sakura, speech_ifeval, table, voicebench
from desta_jax.evaluation.answers import Answerer
from desta_jax.evaluation.benchmark import Benchmark
from desta_jax.evaluation.judge import EndpointJudge, Judge, ModelJudge, RecordedJudge
from desta_jax.evaluation.question import Problems, Question

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (dynamic_superb, mmau, sakura, speech_ifeval, voicebench)
}


def evaluate(
    benchmark: str,
    data: str | Path | None,
    out: str | Path,
    *,
    model: Answerer | None = None,
    model_name: str = "",
    predictions: str | Path | None = None,
    judge: Judge | str | Path | None = None,
    split: str | None = None,
    system: str | None = None,
    user: str | None = None,
    max_new_tokens: int | None = None,
    limit: int | None = None,
    reference: float | str | Path | None = None,
    official_random: int | None = None,
) -> dict[str, Any]:
    """Predict with a model, or take predictions that are there, and score them.

    Args:
        benchmark: a name of BENCHMARKS, or "all": DATA then holds a folder for each, by that name.
        data: the benchmark as distributed; None where the predictions' files hold the questions too.
        out: folder for predictions.jsonl, scores.json and scores.md; begun predictions are resumed.
        model: who answers; not needed with `predictions`.
        model_name: how scores and table name it.
        predictions: a predictions.jsonl, or a file or folder in the benchmark's official layout. With "all" a folder
            with one of these for each benchmark, by name.
        judge: who gives verdicts; or a file or folder of recorded ones in the benchmark's official layout.
        split: MMAU's test-mini or test, the region of VoiceBench's sd-qa; None takes the usual one.
        system, user: prompts in place of the recommended ones.
        limit: ask the first questions only; the scores then are partial, and say so.
        reference: Speech-IFEval's text model, for the forgetting rate: its IFrate, its name in the benchmark's README,
            or the scores.json of its run.
        official_random: seed; VoiceBench's answers that cannot be read are then drawn at random, as officially.

    Returns:
        what scores.json holds.

    Raises:
        ValueError, FileNotFoundError: naming what is wrong, where, and what to do.
    """
    given = {
        "split": split, "system": system, "user": user, "max_new_tokens": max_new_tokens, "limit": limit,
        "reference": reference, "official_random": official_random, "model": model, "model_name": model_name,
    }  # fmt: skip
    if benchmark == "all":
        return _evaluate_all(data, Path(out), predictions=predictions, judge=judge, **given)
    if benchmark not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)} and all")
    return _evaluate_one(BENCHMARKS[benchmark], data, Path(out), predictions=predictions, judge=judge, **given)


def evaluate_in_training(
    benchmarks: Mapping[str, str | Path], out: str | Path, model: Answerer, step: int, *, limit: int | None = None
) -> dict[str, float]:
    """Scores of chosen benchmarks for a training log, without a judge; files go to OUT/step-STEP/BENCHMARK.

    Args:
        benchmarks: {benchmark: its data}.
        limit: questions of each.

    Returns:
        {"mmau/sound": 70.57, ...}: the columns of the published tables that could be scored.
    """
    figures = {}
    for name, data in benchmarks.items():
        report = evaluate(
            name, data, Path(out) / f"step-{step}" / name, model=model, model_name=f"step {step}", limit=limit
        )
        figures |= {f"{name}/{column}": value for column, value in headline(report).items() if value is not None}
    return figures


def headline(report: Mapping[str, Any]) -> dict[str, float | None]:
    """A report's figures for the columns of the published table."""
    columns = BENCHMARKS[report["benchmark"]].columns
    return {column: table.value_at(report["scores"], path) for column, path in columns.items()}


def make_judge(
    name: str,
    out: str | Path,
    *,
    url: str = "https://api.openai.com/v1",
    key_variable: str = "OPENAI_API_KEY",
    model: Answerer | None = None,
) -> Judge | Path:
    """The judge that a command names: a file or folder of recorded verdicts, a model of ours, or an endpoint's model.

    Args:
        out: where the endpoint's verdicts are kept (judge-cache.jsonl).
        model: a model of ours that answers to `name`.
    """
    if model is not None:
        return ModelJudge(model, name)
    if Path(name).exists():
        return Path(name)
    return EndpointJudge(name, Path(out) / "judge-cache.jsonl", url.rstrip("/"), key_variable)


def _evaluate_all(
    data: str | Path | None,
    out: Path,
    *,
    predictions: str | Path | None,
    judge: Judge | str | Path | None,
    **given: Any,
) -> dict[str, Any]:
    if data is None:
        raise ValueError("all benchmarks at once need data: a folder that holds one for each")
    if given["system"] is not None or given["user"] is not None:
        raise ValueError("prompts differ by benchmark: set them for one benchmark at a time")
    present = [name for name in BENCHMARKS if (Path(data) / name).exists()]
    if not present:
        raise FileNotFoundError(f"{data} has none of the folders {', '.join(BENCHMARKS)}")
    reports = {}
    for name in present:
        there = None if predictions is None else _one_of(Path(predictions), name)
        verdicts = Path(judge) / name if isinstance(judge, (str, Path)) else judge
        if isinstance(verdicts, Path) and not verdicts.exists():
            verdicts = None
        one = given | {"split": given["split"] if given["split"] in BENCHMARKS[name].splits else None}
        reports[name] = _evaluate_one(
            BENCHMARKS[name], Path(data) / name, out / name, predictions=there, judge=verdicts, **one
        )
    whole = {"benchmarks": reports, "missing benchmarks": [name for name in BENCHMARKS if name not in present]}
    _write(out / "scores.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    _write(out / "scores.md", "\n".join(table.write(BENCHMARKS[name], report) for name, report in reports.items()))
    return whole


def _evaluate_one(
    benchmark: Benchmark,
    data: str | Path | None,
    out: Path,
    *,
    model: Answerer | None,
    model_name: str,
    predictions: str | Path | None,
    judge: Judge | str | Path | None,
    split: str | None,
    system: str | None,
    user: str | None,
    max_new_tokens: int | None,
    limit: int | None,
    reference: float | str | Path | None,
    official_random: int | None,
) -> dict[str, Any]:
    split = split or benchmark.splits[0]
    source = Path(data if data is not None else predictions or "")
    if not source.exists():
        raise FileNotFoundError(f"no data at {source}")
    problems = Problems()
    questions = _without_repeats(benchmark.read(source, split), problems)
    if predictions is None:
        if model is None:
            raise ValueError("either a model, to answer the questions, or predictions are needed")
        file = out / "predictions.jsonl"
        tokens = max_new_tokens or benchmark.max_new_tokens
        answers.predict(questions[:limit], model, file, max_new_tokens=tokens, system=system, user=user)
        rows = _newest(answers.read_lines(file))
    else:
        rows = _read_predictions(benchmark, Path(predictions), split)
    texts = answers.match(questions, rows, problems)
    judge = _recorded(benchmark, judge, questions)
    options = {"reference": _reference(reference), "official_random": official_random}
    scores = benchmark.score(questions, texts, judge, problems, options)
    report = {
        "benchmark": benchmark.name,
        "split": split,
        "model": model_name,
        "judge": None if judge is None else judge.name,
        "questions": len(questions),
        "answered": len(texts),
        "complete": len(texts) == len(questions),
        "scores": scores.figures,
        "problems": scores.problems.to_json(),
        "notes": scores.notes,
    }
    _write(out / "scores.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _write(out / "scores.md", table.write(benchmark, report))
    return report


def _without_repeats(questions: Sequence[Question], problems: Problems) -> list[Question]:
    """Questions by id, the first of each; the rest is named in `problems`."""
    unique: dict[str, Question] = {}
    for question in questions:
        if question.id in unique:
            problems.add("questions that the data repeats", question.id)
        unique.setdefault(question.id, question)
    return list(unique.values())


def _newest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the lines that runs appended, a question's last: a failed one may have been asked again."""
    return list({row["id"]: row for row in rows}.values())


def _read_predictions(benchmark: Benchmark, path: Path, split: str) -> list[dict[str, Any]]:
    """Predictions in our layout, rows of `id` and `text` or `error`, or else in the benchmark's."""
    if path.is_dir() and (path / "predictions.jsonl").is_file():
        path = path / "predictions.jsonl"
    if path.is_file() and path.suffix == ".jsonl":
        rows = answers.read_lines(path)
        if rows and all("id" in row and ("text" in row or "error" in row) for row in rows):
            return rows
    return benchmark.read_predictions(path, split)


def _recorded(benchmark: Benchmark, judge: Judge | str | Path | None, questions: Sequence[Question]) -> Judge | None:
    if not isinstance(judge, (str, Path)):
        return judge
    if benchmark.read_verdicts is None:
        raise ValueError(f"{benchmark.name} has no layout for recorded verdicts; choose another judge or none")
    return RecordedJudge(f"verdicts recorded in {judge}", benchmark.read_verdicts(Path(judge), questions))


def _reference(reference: float | str | Path | None) -> float | None:
    """The text model's IFrate: the number itself, a README's name, or a run's scores.json."""
    if reference is None or isinstance(reference, (int, float)):
        return reference
    if str(reference) in speech_ifeval.REFERENCES:
        return speech_ifeval.REFERENCES[str(reference)]
    try:
        return float(reference)
    except (TypeError, ValueError):
        pass
    if not Path(reference).is_file():
        known = ", ".join(speech_ifeval.REFERENCES)
        raise ValueError(f"reference {reference}: neither a number, nor a scores.json, nor one of {known}")
    rate = table.value_at(json.loads(Path(reference).read_text(encoding="utf-8"))["scores"], ("IFrate",))
    if rate is None:
        raise ValueError(f"{reference} has no IFrate; it needs chain-of-thought, and a judge for it")
    return rate


def _one_of(folder: Path, name: str) -> Path:
    found = [path for path in (folder / name, folder / f"{name}.jsonl", folder / f"{name}.json") if path.exists()]
    if not found:
        raise FileNotFoundError(f"{folder} has no predictions named {name}")
    return found[0]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
