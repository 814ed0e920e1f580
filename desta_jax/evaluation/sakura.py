"""SAKURA: what is heard (single-hop) and what follows from it (multi-hop), scored by a judge."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from desta_jax.evaluation.benchmark import Benchmark, Scores, ask_judge, check_split, files
from desta_jax.evaluation.judge import Inquiry, Judge
from desta_jax.evaluation.question import Problems, Prompt, Question, figure, mean, share

PROMPT = Prompt(
    system="Focus on the audio clips and instruction. Choose one of the options without any explanation.",
    user="{audio} {question}",
)
TRACKS = ("Animal", "Emotion", "Gender", "Language")
HOPS = ("single", "multi")
FORMS = {  # of options that are values of an attribute: another form of the option's word will do, by the rules below
    "female": ("woman", "women", "feminine", "girl", "lady"),
    "male": ("man", "men", "masculine", "boy", "gentleman", "guy"),
    "happy": ("happiness", "happily", "joy", "joyful", "joyous", "cheerful"),
    "sad": ("sadness", "sadly", "sorrow", "sorrowful"),
    "angry": ("anger", "angrily", "furious", "rage"),
    "disgust": ("disgusted", "disgusting"),
    "fear": ("fearful", "afraid", "scared", "frightened"),
}

_RULES = """You check answers to multiple-choice questions about a sound clip that you cannot hear.
You see the question with its options, the true option, and the answer that a model gave.
The answer is correct if it settles on exactly one of the options and that option is the true one. Another form of the
option's word will do ("happiness" for "happy"), and so will its letter alone.
The answer is incorrect if it names none of the options, settles on more than one, or settles on another one.
"""
_CASE = """Question: {question}
True option: {label}
Model's answer: {response}

Reply in this form, on two lines:
Explanation: <why>
Judgement: <the one word correct or incorrect>"""


def read(data: Path, split: str) -> list[Question]:
    """Both questions of every row of DATA/TRACK/metadata.csv (or DATA/data/TRACK); clips in TRACK/audio."""
    root = data / "data" if (data / "data").is_dir() else data
    tracks = [track for track in TRACKS if (root / track / "metadata.csv").is_file()]
    if not tracks:
        raise FileNotFoundError(f"{data} has none of the folders {', '.join(TRACKS)} with a metadata.csv")
    check_split(split, ("test",), data)
    return [question for track in tracks for question in _read_track(root / track)]


def read_predictions(path: Path, split: str) -> list[dict[str, Any]]:
    """The official files {"attribute", "type", "results": {clip: {"response", ...}}}; one, or a folder of them."""
    rows = []
    for file in files(path, "*.json"):
        given = json.loads(file.read_text(encoding="utf-8"))
        try:
            track, hop = given["attribute"].capitalize(), given["type"]
            rows += [
                {"id": _id(track, hop, clip), "text": result["response"]} for clip, result in given["results"].items()
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}: expected the keys attribute, type and results, with a response each") from error
    return rows


def read_verdicts(path: Path, questions: Sequence[Question]) -> dict[str, tuple[str, list[str]]]:
    """The official *_judgements.json; a clip's instruction says which of its two questions was judged."""
    ids = {(Path(q.row["file"]).name, q.row["question"]): q.id for q in questions}
    records = {}
    for file in files(path, "*_judgements.json"):
        for clip, result in json.loads(file.read_text(encoding="utf-8"))["results"].items():
            name = ids.get((Path(clip).name, result["instruction"]))
            if name:
                words = f"Explanation: {result['Explanation']}\nJudgement: {result['Judgement']}"
                records[name] = (result.get("model_response", result.get("response")), [words])
    return records


def score(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    judge: Judge | None,
    problems: Problems,
    options: Mapping[str, Any],
) -> Scores:
    """Accuracy in percent by hop and track, and multi-hop accuracy where the same clip's single-hop was right.

    A verdict out of format counts among the questions, and never as right, as the official script has it. Without
    a judge the option that the answer names decides: no official score, and it says so.
    """
    asked = [question for question in questions if question.id in answers]
    notes = []
    if judge is None:
        marks = {q.id: names_only(answers[q.id], q.row["label"], q.row["question"]) for q in asked}
        notes.append("no judge: answers are matched with the options by rule, which is not SAKURA's official score")
    else:
        words = ask_judge(judge, [_inquiry(question, answers[question.id]) for question in asked], problems)
        marks = {name: _is_correct(name, texts[0], problems) for name, texts in words.items()}
        notes.append("the judge is given SAKURA's criteria in our words")
    return Scores(_figures([question.row for question in asked if question.id in marks], marks), problems, notes)


def names_only(response: str, label: str, question: str, forms: Mapping[str, Sequence[str]] = FORMS) -> bool:
    """Whether the response names the true option, by text or letter, and no other of the question's "(a) ...".

    What follows a "not" is not named. A code of two letters ("it") is its word only where it is the whole answer.

    Args:
        label: the true option, "(b) dog".
        forms: other words for an option's text, in lower case.
    """
    found = re.findall(r"\(([a-z])\)\s*(.*?)(?=\s*\([a-z]\)|\s*$)", question, re.DOTALL)
    texts = {letter: _plain(text).rstrip(".!?") for letter, text in found}
    codes = {letter for letter, text in found if re.fullmatch("[a-z]{2}", text.strip())}
    answer = _plain(response)
    places = {a: _places(answer, text, forms) for a, text in texts.items() if text and a not in codes}
    places |= {a: [False] * (answer.strip(".!?\"' ") == texts[a]) for a in codes}
    said = {letter for letter, negated in places.items() if not all(negated)}
    longest = {a for a in said if not any(a != b and _find(texts[a], texts[b]) for b in said)}
    named = longest if any(places.values()) else _letters(response.strip()) & texts.keys()
    return named == {label.strip()[1:2].lower()}


def _plain(text: str) -> str:
    """In lower case, with plain apostrophes and single spaces."""
    return re.sub(r"\s+", " ", text.replace("’", "'")).strip().casefold()


def _places(answer: str, text: str, forms: Mapping[str, Sequence[str]]) -> list[bool]:
    """For each place where the answer has an option's text or another form of it, whether it stands behind a "not"."""
    words = [text, *forms.get(text, ())]
    return [_NEGATED.search(answer, 0, match.start()) is not None for word in words for match in _find(word, answer)]


_NEGATED = re.compile(r"(?:\b(?:not|neither|nor|never)|n't) (?:(?:be|been|feel|feeling|sound|a|an|the) )*$")


def _find(words: str, text: str) -> list[re.Match]:
    """Where the words stand in the text, and end where words end."""
    return list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text))


def _letters(answer: str) -> set[str]:
    """The letters that an answer chooses: "(b)", "b", "B. ...", "the answer is B"."""
    chosen = r"\(([a-z])\)", r"^([a-z])(?:[.):]|$)", r"\b(?:answer|option|choice)(?: is)?:? ([a-z])(?=[.,;:)]|$)"
    found = [letter for pattern in chosen for letter in re.findall(pattern, answer, re.IGNORECASE)]
    found += re.findall(r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?: is)?:? ([A-Z])\b", answer)  # no article
    return {letter.lower() for letter in found}


def _figures(rows: Sequence[Mapping[str, Any]], marks: Mapping[str, bool]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for hop in HOPS:
        tracks = {
            track: [marks[row["id"]] for row in rows if (row["track"], row["hop"]) == (track, hop)] for track in TRACKS
        }
        figures[hop] = {track.lower(): share(right) for track, right in tracks.items() if right}
    figures["multi given single"] = {}
    for track in TRACKS:
        known = [row for row in rows if (row["track"], row["hop"]) == (track, "multi") and _single(row) in marks]
        if known:
            right = [marks[row["id"]] for row in known if marks[_single(row)]]
            figures["multi given single"][track.lower()] = share(right)
    for hop in figures:
        found = figures[hop]
        figures[hop]["average"] = mean(list(found.values())) if found else figure(None, 0)
    return figures


def _read_track(folder: Path) -> list[Question]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    questions = []
    for row in rows:
        for hop in HOPS:
            try:
                text, label = row[f"{hop}_instruction"], row[f"{hop}_answer"]
            except KeyError as error:
                raise ValueError(f"{folder / 'metadata.csv'}: no column {error}") from error
            name = _id(folder.name, hop, row["file"])
            kept = {"id": name, "track": folder.name, "hop": hop, "file": row["file"], "question": text, "label": label}
            clip = _clip(folder / "audio" / Path(row["file"]).name)
            questions.append(Question(name, (clip,), {"question": text}, PROMPT, kept))
    return questions


def _clip(path: Path) -> Path:
    """The clip, or the one of that name with another extension."""
    return path if path.is_file() else next(iter(sorted(path.parent.glob(f"{path.stem}.*"))), path)


def _id(track: str, hop: str, clip: str) -> str:
    return f"{track}/{hop}/{Path(clip).stem}"


def _single(row: Mapping[str, Any]) -> str:
    return _id(row["track"], "single", row["file"])


def _inquiry(question: Question, response: str) -> Inquiry:
    case = _CASE.format(question=question.row["question"], label=question.row["label"], response=response)
    messages = [{"role": "system", "content": _RULES}, {"role": "user", "content": case}]
    return Inquiry(question.id, response, messages, top_p=0.9)


def _is_correct(name: str, words: str, problems: Problems) -> bool:
    """The word after "Judgement: "; anything but correct or incorrect is named and not right."""
    found = re.search(r"Explanation: .*?\nJudgement: (.*?)(?:\n\n|$)", words, re.DOTALL)
    verdict = found.group(1).strip().lower() if found else ""
    if verdict not in ("correct", "incorrect"):
        problems.add("verdicts out of format", name)
    return verdict == "correct"


BENCHMARK = Benchmark(
    name="sakura",
    title="SAKURA",
    splits=("test",),
    max_new_tokens=512,
    read=read,
    read_predictions=read_predictions,
    read_verdicts=read_verdicts,
    score=score,
    columns={
        f"{track.lower()} {hop}": (hop, track.lower())
        for track in ("Gender", "Language", "Emotion", "Animal", "Average")
        for hop in HOPS
    },
    published={
        "DeSTA2.5-Audio": (None, None, None, None, None, None, None, None, None, 69.85),
        "DeSTA2": (88.4, 85.2, 94.2, 75.4, 34.8, 36.4, 34.4, 31.2, 63.0, 57.1),
        "GPT-4o Audio": (None, None, 95.2, 83.6, 38.2, 23.8, 80.6, 55.4, 71.3, 54.3),
        "Qwen2-Audio-Instruct": (88.0, 47.2, 83.8, 48.0, 64.2, 39.8, 88.8, 61.4, 81.2, 49.1),
        "Qwen-Audio-Chat": (49.6, 43.8, 87.6, 40.6, 63.2, 37.0, 92.2, 66.0, 73.2, 46.9),
        "Gemini-1.5-pro": (74.0, 43.4, 97.2, 90.6, 39.2, 24.0, 42.0, 28.6, 63.1, 46.6),
        "SALMONN": (59.8, 48.6, 21.8, 29.6, 19.8, 28.2, 68.6, 34.6, 42.5, 35.3),
        "Gemini-1.5-flash": (77.0, 24.2, 98.2, 79.8, 24.6, 19.4, 27.2, 16.2, 56.8, 34.9),
        "GAMA-IT": (76.4, 39.8, 5.6, 19.4, 5.6, 24.2, 85.2, 51.4, 43.2, 33.7),
        "LTU-AS": (52.4, 19.6, 16.8, 11.4, 28.6, 19.6, 65.6, 21.8, 40.9, 18.1),
    },
    sources="README of ckyang1124/SAKURA; DeSTA2.5-Audio from its author's page; judge gpt-4o-2024-11-20",
)
