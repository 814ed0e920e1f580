"""A model's answers: written row by row, resumed where a run stopped, read back, matched with their questions."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from desta_jax.clock import Pace
from desta_jax.evaluation.question import Messages, Problems, Prompt, Question, ask
from desta_jax.files import cut_to_whole_lines, lock, write_whole


class Answer(Protocol):
    """What a model made of one list of messages."""

    text: str
    transcripts: Sequence[str]
    token_ids: Sequence[int]
    error: str | None


class Answerer(Protocol):
    """A model that answers lists of messages, as desta_jax.generation makes it."""

    def generate(
        self, messages: Sequence[Messages], *, max_new_tokens: int, temperature: float, batch_size: int
    ) -> Sequence[Answer]: ...


def predict(
    questions: Sequence[Question],
    model: Answerer,
    out: Path,
    *,
    max_new_tokens: int,
    model_name: str = "",
    about: Mapping[str, Any] = {},
    system: str | None = None,
    user: str | None = None,
    temperature: float = 0.0,
    batch_size: int = 32,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Answers to questions that `out` (predictions.jsonl) has none for yet, a line each, written as they come.

    A line is `id asked text transcripts token_ids`, where `asked` is a digest of the messages; or `id error` where no
    answer could be had. Such a question is asked again the next time, and so is one that the data now put differently.
    What the lines were asked with stands beside them in settings.json.

    Args:
        model_name: as a resumed run must give it again.
        about: what else says who answers, such as the adapter and its step, likewise; a "model" goes before its name.
        batch_size: questions that the model is given at a time.
        say: told how far it is.

    Raises:
        ValueError: `out` has answers of another model, or to other prompts or lengths; or another process writes it.
    """
    settings = {"model": model_name, **about, "system": system, "user": user}
    settings |= {"max_new_tokens": max_new_tokens, "temperature": temperature}
    every = (_Asked.of(question, question.prompt.replaced(system, user)) for question in questions)
    with _begun(out, settings) as (file, known):
        waiting = [
            each for each in every if each.id not in known or known[each.id].get("asked", each.digest) != each.digest
        ]
        if len(waiting) < len(questions):
            say(f"{len(questions) - len(waiting)} of {len(questions)} questions are answered already")
        pace, failed = Pace(len(waiting)), 0
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            for row in _answer(batch, model, max_new_tokens, temperature):
                failed += "error" in row
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
            line, failures = pace.add(len(batch)), f", {failed} could not be answered" if failed else ""
            say(f"{pace.done} of {pace.total} questions{failures}, {line}")


def newest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the lines that runs appended, a question's last: it may have been asked again."""
    return list({row["id"]: row for row in rows}.values())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file, or of a JSON list.

    Raises:
        FileNotFoundError, ValueError: naming the file and the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        rows = _json(text, str(path))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path}: expected a JSON list of objects")
        return rows
    return [
        _object(line, f"{path}, line {number}") for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]


def match(
    questions: Sequence[Question], predictions: Iterable[Mapping[str, Any]], problems: Problems
) -> dict[str, str]:
    """The one answer to each question, by id.

    A question with no answer, or with several that differ, is left out and named in `problems`; so is an answer that
    comes with another prompt than the question's.
    """
    known = {question.id: question.fields.get("prompt") for question in questions}
    texts: dict[str, set[str]] = {}
    failed = set()
    for row in predictions:
        name, text = str(row["id"]), row.get("text")
        if name not in known:
            problems.add("predictions for no question", name)
        elif known[name] and (row.get("prompt") or known[name]) != known[name]:
            problems.add("predictions for another question", name)
        elif not isinstance(text, str) or row.get("error"):
            failed.add(name)
        elif name in texts:
            problems.add("duplicate predictions", name)
            texts[name].add(text)
        else:
            texts[name] = {text}
    answers = {}
    for question in questions:
        several = texts.get(question.id, set())
        if len(several) == 1:
            answers[question.id] = next(iter(several))
        elif several:
            problems.add("predictions that contradict each other", question.id)
        else:
            problems.add("failed predictions" if question.id in failed else "missing predictions", question.id)
    return answers


def forget_others(out: Path, about: Mapping[str, Any]) -> None:
    """Takes away answers in `out` that are not by whom `about` says."""
    beside = out.with_name("settings.json")
    before = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    if any(before.get(key) != value for key, value in about.items()):
        out.unlink(missing_ok=True)


@contextlib.contextmanager
def _begun(out: Path, settings: Mapping[str, Any]) -> Iterator[tuple[IO[str], dict[str, Mapping[str, Any]]]]:
    """The answers' file for this process alone, with its settings beside it; and the answers that are there, by id."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name("settings.json")
    with out.open("a", encoding="utf-8") as file:
        lock(file, f"another process is writing {out}: wait for it, or choose another --out")
        known = {row["id"]: row for row in newest(whole_lines(out)) if "error" not in row}
        if known and beside.exists():
            _check_settings(beside, settings)
        write_whole(beside, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        yield file, known


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key, value in settings.items() if before.get(key) != value]
    if changed:
        lines = "\n".join(f"  {key}: {before.get(key)!r} then, {settings[key]!r} now" for key in changed)
        raise ValueError(f"{path.parent} holds predictions made with other settings; choose another --out\n{lines}")


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Rows written so far; a last line that a killed run left unfinished is cut off the file."""
    return read_lines(path) if cut_to_whole_lines(path) else []


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A question as a model is asked it, or why it cannot be."""

    id: str
    messages: Messages
    trouble: str
    digest: str
    """Tells it from another question of the same id: some data number their rows."""

    @classmethod
    def of(cls, question: Question, prompt: Prompt) -> _Asked:
        messages, clips = ask(question, prompt), question.audio if prompt.hears else ()
        missing = [str(clip) for clip in clips if isinstance(clip, Path) and not clip.is_file()]
        trouble = f"missing audio: {', '.join(missing)}" if missing else ""
        if prompt.hears and not clips:
            trouble = "the data name no clip"
        named = [hashlib.sha256(clip).hexdigest() if isinstance(clip, bytes) else clip.name for clip in clips]
        texts = [(message["role"], message["content"]) for message in messages]
        digest = hashlib.sha256(json.dumps([texts, named]).encode()).hexdigest()[:16]
        return cls(question.id, messages, trouble, digest)


def _answer(batch: Sequence[_Asked], model: Answerer, max_new_tokens: int, temperature: float) -> list[dict[str, Any]]:
    rows = [{"id": each.id, "error": each.trouble} for each in batch if each.trouble]
    asked = [each for each in batch if not each.trouble]
    if asked:
        messages = [each.messages for each in asked]
        given = model.generate(messages, max_new_tokens=max_new_tokens, temperature=temperature, batch_size=len(asked))
        rows += [_row(each, answer) for each, answer in zip(asked, given, strict=True)]
    return rows


def _row(asked: _Asked, answer: Answer) -> dict[str, Any]:
    if answer.error:
        return {"id": asked.id, "error": answer.error}
    transcripts, tokens = list(answer.transcripts), [int(token) for token in answer.token_ids]
    given = {"text": answer.text, "transcripts": transcripts, "token_ids": tokens}
    return {"id": asked.id, "asked": asked.digest, **given}


def _object(text: str, where: str) -> dict[str, Any]:
    row = _json(text, where)
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object")
    return row


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
