"""Dynamic-SUPERB: many tasks over speech, music and sound, each a data set of its own with instruction and label.

Phase-1 is classification. Phase-2 adds numbers and sequences; which metric a task has is said by a table that a
tasks.json beside the data extends: {"TASK or its beginning": {"metric", "domain", "group", "baseline"}}. The metrics of
Phase-2's own evaluation were not at hand: the table below is a reading of the tasks' names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.evaluation import folders, metrics
from desta_jax.evaluation.answers import read_lines
from desta_jax.evaluation.benchmark import Benchmark, Scores, ask_judge, check_split, files
from desta_jax.evaluation.judge import Inquiry, Judge
from desta_jax.evaluation.question import Problems, Prompt, Question, figure, mean, share

PROMPTS = {
    "accuracy": Prompt(
        system="Focus on the audio clips and instruction. Choose one of the options without any explanation.",
        user="{audio} {instruction}",
    ),
    "words": Prompt(
        system="Focus on the audio clips and instruction. Respond directly without any other words",
        user="{audio} {instruction}",
    ),
    "other": Prompt(system="Focus on the audio clips and instruction.", user="{audio} {instruction}"),
}
GROUPS = {
    "content": "LanguageIdentification SpeechCommandRecognition SpeechDetection SpeechTextMatching SpokenTermDetection",
    "speaker": "MultiSpeakerDetection SpeakerCounting SpeakerVerification",
    "semantics": "DialogueActClassification DialogueActPairing IntentClassification SarcasmDetection",
    "degradation": "EnhancementDetection NoiseDetection NoiseSNRLevelPrediction ReverberationDetection",
    "paralinguistics": "AccentClassification DialogueEmotionClassification EmotionRecognition HowFarAreYou "
    "SpoofDetection StressDetection",
    "audio": "BirdSoundDetection ChordClassification EnvironmentalSoundClassification",
}
"""Phase-1's groups of tasks; instances are named TASK_DATASET."""
READ = ("SpeechTextMatching", "SpokenTermDetection")
"""Tasks of Phase-1 about a text beside the clip, which stands in a field of its own, `text`; that of others may be
what is said."""
PHASE_1 = 48
"""Instances of Phase-1 that the published mean is over."""

_METRICS = (  # by name, first match; classification if none does
    ("wer", r"SpeechRecognition_MLS|SuperbASR|OODAsr(Es|Ar|Spon)|(PTBR|AAVE)SpeechRecognition|TargetSpeaker-?ASR|"
            r"SongLyricRecognition|SuperbPR"),
    ("cer", r"OODAsrZh|Code-?[sS]witch(ing)?SpeechRecognition"),
    ("bleu", r"Translation|SuperbST"),
    ("mse", r"[sS]coring$|MOSPrediction|DurationPrediction|DistancePrediction|PositionPrediction|SegmentCounting"),
)  # fmt: skip
_DOMAINS = (
    ("music", r"Music|Instrument|Chord|Song|Singing|Lyric|PitchExtraction|MARBLE|Percussion|VocalTechnique|Beat"),
    ("audio", r"Sound|Animal|Bird|Environment|Beehive|Cat[A-Z]|Emergency|VocalImitation|AudioSegment|Cough"),
    ("speech", r""),
)
_RATES = {"wer": metrics.word_error_rate, "cer": metrics.character_error_rate}
_NUMBERS: dict[str, Callable[..., float | None]] = {
    "mse": metrics.mean_squared_error,
    "mae": metrics.mean_absolute_error,
    "pcc": metrics.correlation,
}
_LOWER_IS_BETTER = ("wer", "cer", "mse", "mae")
_KNOWN = ("accuracy", *_RATES, "bleu", *_NUMBERS)
_RULES = (
    "You see an instruction about sound clips, the true label, and what a model answered. Say YES if the answer "
    "settles on the true label alone, in whatever words, and NO if it does not.\n"
    'End with a line of this form: "Result: <YES or NO>".'
)
_CASE = "Instruction: {instruction}\nTrue label: {label}\nModel's answer: {response}"


def read(data: Path, split: str) -> list[Question]:
    """Rows of every task folder in DATA (Arrow, Parquet, JSONL, or metadata.json or .csv beside the clips)."""
    check_split(split, ("test",), data)
    given = data / "tasks.json"
    table = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else {}
    tasks = sorted(path for path in data.iterdir() if path.is_dir() and folders.splits(path)) if data.is_dir() else []
    if not tasks:
        raise FileNotFoundError(f"{data} has no folder with a task's data")
    questions = []
    for folder in tasks:
        facts = task_facts(folder.name, table)
        if facts["metric"] not in _KNOWN:
            raise ValueError(f"{given}: {folder.name} has the unknown metric {facts['metric']!r}; known: {_KNOWN}")
        rows = list(folders.read(folder, split))
        asked = [_instruction(folder.name, row) for row, _ in rows]
        same = [(instruction, *clips) for instruction, (_, clips) in zip(asked, rows, strict=True)]
        ids = _ids(folder.name, [row for row, _ in rows], same)
        every = zip(ids, asked, rows, strict=True)
        questions += [_question(name, folder.name, facts, instruction, *row) for name, instruction, row in every]
    return questions


def read_predictions(path: Path, split: str) -> list[dict[str, Any]]:
    """Files TASK.jsonl with `response` and the row's `file`; rows without one, or of one file, in the data's order."""
    answers = []
    for file in files(path, "*.jsonl"):
        rows = read_lines(file)
        names = _ids(file.stem, rows, range(len(rows)))
        answers += [{"id": name, "text": row.get("response")} for name, row in zip(names, rows, strict=True)]
    return answers


def task_facts(task: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Metric, domain, group and baseline of a task: by its name, changed by the entries of `table` it begins with."""
    facts = {
        "metric": next((metric for metric, names in _METRICS if re.search(names, task)), "accuracy"),
        "domain": next(domain for domain, names in _DOMAINS if re.search(names, task)),
        "group": next((group for group, names in GROUPS.items() if task.split("_")[0] in names.split()), None),
        "baseline": None,
    }
    entries = sorted((name for name in table if task.startswith(name)), key=len)
    for name in entries:
        facts |= table[name]
    return facts


def score(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    judge: Judge | None,
    problems: Problems,
    options: Mapping[str, Any],
) -> Scores:
    """Each task by its metric; accuracy by Phase-1's groups; by domain, accuracy and the gain over a baseline.

    The gain is 100 x (score - baseline) / baseline, turned round where lower is better, averaged over a domain's tasks
    that have a baseline in tasks.json. Answers without a number are left out of a task of numbers, which says how many
    they are; so are those that a judge gave no verdict on.
    """
    tasks: dict[str, list[Question]] = {}
    for question in questions:
        if question.id in answers:
            tasks.setdefault(question.row["task"], []).append(question)
    words = _judge_labels(tasks, answers, judge, problems)
    done = {task: _score_task(asked, answers, words, problems) for task, asked in tasks.items()}
    facts = {task: asked[0].row["facts"] for task, asked in tasks.items()}
    accurate = {task: each for task, each in done.items() if each["metric"] == "accuracy"}
    figures = {
        "accuracy": mean(accurate.values()) if accurate else figure(None, 0),
        "group": _means(accurate, facts, "group"),
        "domain": _means(accurate, facts, "domain"),
        "gain over baseline": _means(_gains(done, facts), facts, "domain"),
        "task": done,
    }
    known = sum(facts[task]["group"] in GROUPS for task in accurate)
    notes = [
        f"accuracy is the mean over {len(accurate)} tasks, {known} of them in Phase-1's groups, which have {PHASE_1}",
        "metrics of Phase-2 tasks are our reading of their names; tasks.json changes them",
    ]
    if judge is None:
        notes.append("no judge: an answer is right that names its label and no other of the task's")
    else:
        notes.append("the judge is asked in our words")
    return Scores(figures, problems, notes)


def names_label(response: str, label: str, labels: Sequence[str]) -> bool:
    """Whether the answer has the label's words in a row, and no other label that is not part of it."""
    answer, wanted = _plain(response), _plain(label)
    others = [_plain(other) for other in labels]
    wrong = [other for other in others if other and other != wanted and _within(other, answer)]
    if not wanted or not _within(wanted, answer):
        return False
    return all(_within(other, wanted) for other in wrong)


def only_number(response: str) -> float | None:
    """The number that an answer gives, if it gives just one; a unit may follow at once ("12.7dB", but not "1st")."""
    number = r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\d.]*\d)(?!(?:st|nd|rd|th)\b)"
    found = re.findall(number, response.replace(",", ""))
    return float(found[0]) if len(set(found)) == 1 else None


def _judge_labels(
    tasks: Mapping[str, Sequence[Question]], answers: Mapping[str, str], judge: Judge | None, problems: Problems
) -> dict[str, list[str]] | None:
    if judge is None:
        return None
    asked = [q for several in tasks.values() for q in several if q.row["facts"]["metric"] == "accuracy"]
    return ask_judge(judge, [_inquiry(question, answers[question.id]) for question in asked], problems)


def _score_task(
    asked: Sequence[Question],
    answers: Mapping[str, str],
    words: Mapping[str, list[str]] | None,
    problems: Problems,
) -> dict[str, Any]:
    metric = asked[0].row["facts"]["metric"]
    if metric == "accuracy":
        return {"metric": metric, **_accuracy(asked, answers, words, problems)}
    labels = [str(question.row["label"]) for question in asked]
    given = [answers[question.id] for question in asked]
    if metric in _NUMBERS:
        return {"metric": metric, **_numbers(metric, asked, given)}
    if metric == "bleu":
        return {"metric": metric, **figure(metrics.bleu(labels, given), len(asked))}
    references, heard = [metrics.normalize(text) for text in labels], [metrics.normalize(text) for text in given]
    kept = [(reference, text) for reference, text in zip(references, heard, strict=True) if reference.strip()]
    value = 100 * _RATES[metric](*map(list, zip(*kept, strict=True))) if kept else None
    return {"metric": metric, **figure(value, len(kept))}


def _accuracy(
    asked: Sequence[Question],
    answers: Mapping[str, str],
    words: Mapping[str, list[str]] | None,
    problems: Problems,
) -> dict[str, Any]:
    if words is not None:
        return share(_yes(question.id, words, problems) for question in asked if question.id in words)
    labels = sorted({str(question.row["label"]) for question in asked})
    return share(names_label(answers[question.id], str(question.row["label"]), labels) for question in asked)


def _numbers(metric: str, asked: Sequence[Question], given: Sequence[str]) -> dict[str, Any]:
    labels, numbers = [], [only_number(text) for text in given]
    for question in asked:
        try:
            labels.append(float(question.row["label"]))
        except (TypeError, ValueError):
            raise ValueError(
                f"{question.id}: the label {question.row['label']!r} is no number, as {metric} takes; give the task "
                "another metric in tasks.json"
            ) from None
    pairs = [(label, number) for label, number in zip(labels, numbers, strict=True) if number is not None]
    value = _NUMBERS[metric](*map(list, zip(*pairs, strict=True))) if pairs else None
    return figure(value, len(pairs)) | {"no number": share(number is None for number in numbers)}


def _gains(done: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    gains = {}
    for task, each in done.items():
        baseline = facts[task]["baseline"]
        if baseline and each["value"] is not None:
            sign = -1 if each["metric"] in _LOWER_IS_BETTER else 1
            gains[task] = figure(sign * 100 * (each["value"] - baseline) / abs(baseline), each["count"])
    return gains


def _means(
    done: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]], key: str
) -> dict[str, dict[str, Any]]:
    names = sorted({facts[task][key] for task in done if facts[task][key]})
    return {name: mean(each for task, each in done.items() if facts[task][key] == name) for name in names}


def _instruction(task: str, row: Mapping[str, Any]) -> str | None:
    """A row's, with the text that it is about."""
    told = task.split("_")[0] in READ and row.get("text")
    return f"{row.get('instruction')}\nText: {row['text']}" if told else row.get("instruction")


def _question(
    name: str,
    task: str,
    facts: Mapping[str, Any],
    instruction: str,
    row: Mapping[str, Any],
    clips: Sequence[Path | bytes],
) -> Question:
    for key in ("instruction", "label"):
        if key not in row:
            raise ValueError(f"row {name}: no field {key!r}")
    metric = facts["metric"]
    prompt = PROMPTS["accuracy" if metric == "accuracy" else "words" if metric in _RATES else "other"]
    kept = {"task": task, "facts": facts, "instruction": instruction, "label": row["label"]}
    return Question(name, tuple(clips), {"instruction": instruction}, prompt, kept)


def _inquiry(question: Question, response: str) -> Inquiry:
    case = _CASE.format(instruction=question.row["instruction"], label=question.row["label"], response=response)
    return Inquiry(question.id, response, [{"role": "system", "content": _RULES}, {"role": "user", "content": case}])


def _yes(name: str, words: Mapping[str, list[str]], problems: Problems) -> bool:
    found = re.search(r"result:\s*(yes|no)", words[name][0], re.IGNORECASE)
    if not found:
        problems.add("verdicts out of format", name)
    return bool(found) and found.group(1).lower() == "yes"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _within(words: str, text: str) -> bool:
    return f" {words} " in f" {text} "


def _ids(task: str, rows: Sequence[Mapping[str, Any]], asked: Sequence[Hashable]) -> list[str]:
    """By the rows' files, or their numbers where they name none; what else is asked of a file has its occurrence's
    number, and what is asked again the number that it had."""
    ids, occurrences, firsts = [], Counter(), {}
    for number, (row, question) in enumerate(zip(rows, asked, strict=True)):
        name = f"{task}/{row.get('file') or row.get('file1') or number}"
        first = firsts.setdefault((name, question), occurrences[name])
        occurrences[name] += 1
        ids.append(f"{name}#{first}" if first else name)
    return ids


BENCHMARK = Benchmark(
    name="dynamic_superb",
    title="Dynamic-SUPERB",
    splits=("test",),
    max_new_tokens=512,
    read=read,
    read_predictions=read_predictions,
    score=score,
    columns={"accuracy": ("accuracy",)} | {group: ("group", group) for group in GROUPS},
    published={
        name: (value, None, None, None, None, None, None)
        for name, value in {
            "DeSTA2.5-Audio": 69.53,
            "Qwen2-Audio": 51.69,
            "Qwen-Audio": 40.79,
            "SALMONN": 36.44,
            "LTU-AS": 36.11,
        }.items()
    },
    packages=("jiwer", "sacrebleu"),
    sources=f"Phase-1, {PHASE_1} tasks, mean accuracy, from the author's page of DeSTA2.5-Audio",
)
