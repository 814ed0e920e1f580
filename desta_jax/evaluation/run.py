"""From a benchmark's data to its scores: predict, score, write scores.json and a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.endpoint import Endpoint
from desta_jax.evaluation import answers, dynamic_superb, mmau, sakura, speech_ifeval, table, voicebench
from desta_jax.evaluation.answers import Answerer
from desta_jax.evaluation.benchmark import Benchmark, check_installed
from desta_jax.evaluation.judge import EndpointJudge, Judge, ModelJudge, RecordedJudge
from desta_jax.evaluation.question import Problems, Prompt, Question
from desta_jax.files import write_whole

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (dynamic_superb, mmau, sakura, speech_ifeval, voicebench)
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How questions are asked and scored.

    Attributes:
        model: who answers; not needed where there are predictions.
        model_name: how scores and table name it.
        about: the model, adapter, step and dtype that answer: a run is resumed with the same alone. Without them, under
            the same name.
        split: MMAU's test-mini or test, the region of VoiceBench's sd-qa; None takes the usual one.
        system, user: prompts in place of the recommended ones; a user prompt without {audio} asks the language model
            alone, such as Speech-IFEval's reference run: "Speech Input: {textual_audio}\\n\\n{instruction}".
        max_new_tokens: None takes the benchmark's usual number.
        batch_size: questions that the model is given at a time.
        limit: ask, judge and score the first questions only; the scores then are partial, and say so.
        reference: Speech-IFEval's text model, for the forgetting rate: its IFrate, its name in the benchmark's README,
            or the scores.json of its run.
        official_random: seed; VoiceBench's answers that cannot be read are then drawn at random, as officially.
        say: told how the work goes, a line at a time.
    """

    model: Answerer | None = None
    model_name: str = ""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: str | None = None
    system: str | None = None
    user: str | None = None
    max_new_tokens: int | None = None
    batch_size: int = 32
    limit: int | None = None
    reference: float | str | Path | None = None
    official_random: int | None = None
    say: Callable[[str], None] = lambda line: None


def evaluate(
    benchmark: str,
    data: str | Path | None,
    out: str | Path,
    *,
    predictions: str | Path | None = None,
    judge: Judge | str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Predict with a model, or take predictions that are there, and score them.

    Args:
        benchmark: a name of BENCHMARKS, or "all": DATA then holds a folder for each, by that name.
        data: the benchmark as distributed; None where the predictions' files hold the questions too.
        out: folder for predictions.jsonl, scores.json and scores.md; begun predictions are resumed.
        predictions: a predictions.jsonl, or a file or folder in the benchmark's official layout. With "all" a folder
            with one of these for each benchmark, by name.
        judge: who gives verdicts; or a file or folder of recorded ones in the benchmark's official layout.
        settings: the attributes of Settings.

    Returns:
        what scores.json holds.

    Raises:
        ValueError, FileNotFoundError: naming what is wrong, where, and what to do.
    """
    given = Settings(**settings)
    if benchmark == "all":
        return _evaluate_all(data, Path(out), predictions, judge, given)
    if benchmark not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)} and all")
    check_installed([BENCHMARKS[benchmark]])
    return _evaluate_one(BENCHMARKS[benchmark], data, Path(out), predictions, judge, given)


def evaluate_in_training(
    benchmarks: Mapping[str, str | Path],
    out: str | Path,
    model: Answerer,
    step: int,
    *,
    adapter: str = "",
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Scores of chosen benchmarks for a training log, without a judge; files go to OUT/step-STEP/BENCHMARK.

    Args:
        benchmarks: {benchmark: its data}.
        adapter: tells its weights from others; answers that other weights gave at this step are taken away.
        limit: questions of each.
        say: told how the work goes.

    Returns:
        {"mmau/sound": 70.57, ...}: the columns of the published tables that could be scored.
    """
    figures, about = {}, {"adapter": adapter}
    for name, data in benchmarks.items():
        folder = Path(out) / f"step-{step}" / name
        answers.forget_others(folder / "predictions.jsonl", about)
        report = evaluate(name, data, folder, model=model, model_name=f"step {step}", about=about, limit=limit, say=say)
        figures |= {f"{name}/{column}": value for column, value in headline(report).items() if value is not None}
    return figures


def summarise(report: Mapping[str, Any]) -> str:
    """What `evaluate` returns, as tables to read: our figures beside the published ones, and what was missing."""
    reports = report["benchmarks"].values() if "benchmarks" in report else [report]
    return "\n".join(table.summarise(BENCHMARKS[each["benchmark"]], each) for each in reports)


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
    at_once: int = 8,
    model: Answerer | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Judge | Path:
    """The judge that a command names: a file or folder of recorded verdicts, a model of ours, or an endpoint's model.

    Args:
        out: where the endpoint's verdicts are kept (judge-cache.jsonl).
        model: a model of ours that answers to `name`.
        say: told how the judging goes, a line at a time.
    """
    if model is not None:
        return ModelJudge(model, name, say=say)
    if Path(name).exists():
        return Path(name)
    endpoint = Endpoint(url.rstrip("/"), name, key_variable, at_once)
    return EndpointJudge(endpoint, Path(out) / "judge-cache.jsonl", say=say)


def _evaluate_all(
    data: str | Path | None,
    out: Path,
    predictions: str | Path | None,
    judge: Judge | str | Path | None,
    settings: Settings,
) -> dict[str, Any]:
    if data is None:
        raise ValueError("all benchmarks at once need data: a folder that holds one for each")
    if settings.system is not None or settings.user is not None:
        raise ValueError("prompts differ by benchmark: set them for one benchmark at a time")
    present = [name for name in BENCHMARKS if (Path(data) / name).exists()]
    if not present:
        raise FileNotFoundError(f"{data} has none of the folders {', '.join(BENCHMARKS)}")
    if settings.split and not any(settings.split in BENCHMARKS[name].splits for name in present):
        known = "; ".join(f"{name}: {', '.join(BENCHMARKS[name].splits)}" for name in present)
        raise ValueError(f"no benchmark has a split {settings.split!r} ({known})")
    check_installed(BENCHMARKS[name] for name in present)
    reports = {}
    for name in present:
        there = None if predictions is None else _one_of(Path(predictions), name)
        verdicts = Path(judge) / name if isinstance(judge, (str, Path)) else judge
        if isinstance(verdicts, Path) and not verdicts.exists():
            verdicts = None
        split = settings.split if settings.split in BENCHMARKS[name].splits else None
        reports[name] = _evaluate_one(
            BENCHMARKS[name], Path(data) / name, out / name, there, verdicts, dataclasses.replace(settings, split=split)
        )
    whole = {"benchmarks": reports, "missing benchmarks": [name for name in BENCHMARKS if name not in present]}
    _write(out, whole, "\n".join(table.write(BENCHMARKS[name], report) for name, report in reports.items()))
    return whole


def _evaluate_one(
    benchmark: Benchmark,
    data: str | Path | None,
    out: Path,
    predictions: str | Path | None,
    judge: Judge | str | Path | None,
    settings: Settings,
) -> dict[str, Any]:
    split = settings.split or benchmark.splits[0]
    problems = Problems()
    questions = _without_repeats(_read(benchmark, _existing(data, predictions), split), problems)
    options = {"reference": _reference(settings.reference), "official_random": settings.official_random}
    judge = _judge(benchmark, judge, questions, settings.say)
    if predictions is None:
        rows = _own(benchmark, _predict(benchmark, questions, out / "predictions.jsonl", settings))
    else:
        rows = _read_predictions(benchmark, _existing(predictions), split)
        _check_some_belong(rows, questions, predictions, benchmark)
    first = {question.id for question in questions[: settings.limit]}
    texts = {name: text for name, text in answers.match(questions, rows, problems).items() if name in first}
    settings.say(f"{benchmark.name}: scoring {len(texts)} answers" + (f", judged by {judge.name}" if judge else ""))
    scores = benchmark.score(questions, texts, judge, problems, options)
    silent = settings.user is not None and not Prompt("", settings.user).hears
    report = {
        "benchmark": benchmark.name,
        "split": split,
        "model": settings.model_name,
        "judge": None if judge is None else judge.name,
        "questions": len(questions),
        "answered": len(texts),
        "complete": len(texts) == len(questions),
        "scores": scores.figures,
        "problems": scores.problems.to_json(),
        "notes": (["asked without audio"] if silent else []) + scores.notes,
    }
    _write(out, report, table.write(benchmark, report))
    return report


def _read(benchmark: Benchmark, data: Path, split: str) -> Sequence[Question]:
    try:
        return benchmark.read(data, split)
    except KeyError as error:
        raise ValueError(f"{data}: a row has no {error}; is this {benchmark.name} as distributed?") from error


def _write(out: Path, report: Mapping[str, Any], tables: str) -> None:
    write_whole(out / "scores.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_whole(out / "scores.md", tables)


def _existing(*paths: str | Path | None) -> Path:
    path = next((Path(path) for path in paths if path is not None), None)
    if path is None:
        raise ValueError("the benchmark's data are needed")
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    return path


def _predict(
    benchmark: Benchmark, questions: Sequence[Question], file: Path, settings: Settings
) -> list[Mapping[str, Any]]:
    if settings.model is None:
        raise ValueError("either a model, to answer the questions, or predictions are needed")
    answers.predict(
        questions[: settings.limit],
        settings.model,
        file,
        max_new_tokens=settings.max_new_tokens or benchmark.max_new_tokens,
        model_name=settings.model_name,
        about=settings.about,
        system=settings.system,
        user=settings.user,
        batch_size=settings.batch_size,
        say=lambda line: settings.say(f"{benchmark.name}: {line}"),
    )
    return answers.newest(answers.read_lines(file))


def _without_repeats(questions: Sequence[Question], problems: Problems) -> list[Question]:
    """Questions by id, the first of each; the rest is named in `problems`."""
    unique: dict[str, Question] = {}
    for question in questions:
        if question.id in unique:
            problems.add("questions that the data repeats", question.id)
        unique.setdefault(question.id, question)
    return list(unique.values())


def _read_predictions(benchmark: Benchmark, path: Path, split: str) -> list[dict[str, Any]]:
    """Predictions in our layout, rows of `id` and `text` or `error`, or else in the benchmark's."""
    if path.is_dir() and (path / "predictions.jsonl").is_file():
        path = path / "predictions.jsonl"
    if path.is_file() and path.suffix == ".jsonl":
        rows = answers.read_lines(path)
        if rows and all("id" in row and ("text" in row or "error" in row) for row in rows):
            return _own(benchmark, answers.newest(rows) if any("asked" in row for row in rows) else rows)
    return benchmark.read_predictions(path, split)


def _own(benchmark: Benchmark, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows in our layout with the answers that their texts hold."""
    return [
        row | {"text": benchmark.answer_in(row["text"])} if isinstance(row.get("text"), str) else row for row in rows
    ]


def _check_some_belong(
    rows: Sequence[Mapping[str, Any]], questions: Sequence[Question], given: str | Path, benchmark: Benchmark
) -> None:
    """Scores of nothing are a mistake in what was given, and would take the place of good ones."""
    if not rows:
        raise ValueError(f"{given} holds no predictions for {benchmark.name}")
    known = {question.id for question in questions}
    if not any(str(row["id"]) in known for row in rows):
        raise ValueError(
            f"{given}: none of its {len(rows)} predictions is for a question of {benchmark.name}; the first is for "
            f"{rows[0]['id']!r}, the data's first question is {next(iter(known), None)!r}"
        )


def _judge(
    benchmark: Benchmark, judge: Judge | str | Path | None, questions: Sequence[Question], say: Callable[[str], None]
) -> Judge | None:
    """The judge, recorded verdicts read; None, said so, for a benchmark that asks none."""
    if not isinstance(judge, (str, Path)):
        if judge and not benchmark.judged:
            say(f"{benchmark.name} is scored by rules alone: {judge.name} is not asked")
            return None
        return judge
    if benchmark.read_verdicts is None:
        raise ValueError(f"{benchmark.name} has no layout for recorded verdicts; choose another judge or none")
    return RecordedJudge(f"verdicts recorded in {judge}", benchmark.read_verdicts(Path(judge), questions))


def _reference(reference: float | str | Path | None) -> float | None:
    """The text model's IFrate, in percent: the number itself, a README's name, or a run's scores.json."""
    if reference is None:
        return None
    if str(reference) in speech_ifeval.REFERENCES:
        return speech_ifeval.REFERENCES[str(reference)]
    try:
        rate = float(str(reference))
    except ValueError:
        rate = None
    if rate is not None:
        if not 0 < rate <= 100:
            raise ValueError(f"reference: an IFrate is above 0 and at most 100 percent, not {reference}")
        return rate
    if not Path(reference).is_file():
        known = ", ".join(speech_ifeval.REFERENCES)
        raise ValueError(f"reference {reference}: neither a number, nor a scores.json, nor one of {known}")
    report = json.loads(Path(reference).read_text(encoding="utf-8"))
    report = report.get("benchmarks", {}).get("speech_ifeval", report)  # of `all`
    rate = table.value_at(report["scores"], ("IFrate",)) if "scores" in report else None
    if rate is None:
        raise ValueError(f"{reference} has no IFrate; it needs chain-of-thought, and a judge for it")
    return rate


def _one_of(folder: Path, name: str) -> Path:
    found = [path for path in (folder / name, folder / f"{name}.jsonl", folder / f"{name}.json") if path.exists()]
    if not found:
        raise FileNotFoundError(f"{folder} has no predictions named {name}")
    return found[0]
