"""Many requests from a file to answers in another, resumable."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from desta_jax.generation.model import Answer, Model, Request
from desta_jax.generation.sampling import DEFAULT, Sampling


def answer_file(
    model: Model,
    requests: str | os.PathLike,
    out: str | os.PathLike,
    *,
    max_new_tokens: int = 512,
    sampling: Sampling = DEFAULT,
    transcripts: str = "auto",
    long_audio: str = "cut",
    batch_size: int = 16,
) -> tuple[int, int]:
    """Answers to a JSONL file, a row each: `id text token_ids transcripts`, or `id error` for what can't be answered.

    Rows whose id `out` has already (with a text or an error) are not answered again, so that a run that was stopped
    goes on. A last line that was cut off is dropped.

    Args:
        requests: rows like a manifest's: `id` (or the line's number), `messages` with `audios`; a row may have its own
            `max_new_tokens`. Audio paths are relative to the current directory, or else to the file's.

    Returns:
        How many rows were answered now, and how many of those have an error.

    Raises:
        FileNotFoundError, ValueError: no such file; two rows with one id.
    """
    requests, out = pathlib.Path(requests), pathlib.Path(out)
    rows = list(read_rows(requests))
    _check_unique([row["id"] for row in rows], requests)
    done = _repair(out)
    waiting = [(number, row) for number, row in enumerate(rows) if row["id"] not in done]
    failed = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        for start in range(0, len(waiting), batch_size):
            part = waiting[start : start + batch_size]
            made = [_request(number, row, max_new_tokens, sampling, requests.parent) for number, row in part]
            options = {"transcripts": transcripts, "long_audio": long_audio, "batch_size": batch_size}
            answers = model.answers([item for item in made if isinstance(item, Request)], **options)
            for (_, row), item in zip(part, made):
                answer = next(answers) if isinstance(item, Request) else Answer(error=item)
                failed += answer.error is not None
                file.write(json.dumps({"id": row["id"]} | to_row(answer), ensure_ascii=False) + "\n")
            file.flush()
    return len(waiting), failed


def to_row(answer: Answer) -> dict[str, Any]:
    """An answer as JSON: what went wrong, or text, token ids and transcripts."""
    if answer.error is not None:
        return {"error": answer.error}
    return {
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "transcripts": list(answer.transcripts),
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": len(answer.token_ids),
    }


def read_rows(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, each with an id; one that is no JSON object has an `error` in place of messages."""
    if not file.is_file():
        raise FileNotFoundError(f"--requests: no file {file}")
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                row = {"error": f"{file}, line {number}: not JSON ({error})"}
            if not isinstance(row, dict):
                row = {"error": f"{file}, line {number}: must be a JSON object"}
            yield {"id": str(number), **row}


def _request(
    number: int, row: dict[str, Any], max_new_tokens: int, sampling: Sampling, folder: pathlib.Path
) -> Request | str:
    """What to answer, or what is wrong with the row."""
    if "messages" not in row:
        return row.get("error") or 'the row has no "messages"'
    limit = row.get("max_new_tokens", max_new_tokens)
    if not isinstance(limit, int) or isinstance(limit, bool):
        return f"max_new_tokens: must be a whole number, got {limit!r}"
    return Request(_placed(row["messages"], folder), limit, sampling, number)


def _placed(messages: Any, folder: pathlib.Path) -> Any:
    """Messages whose relative audio paths are found; whatever has another form is left for the model to refuse."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages
    return [
        message | {"audios": [_place(clip, folder) for clip in message["audios"]]}
        if isinstance(message.get("audios"), list)
        else message
        for message in messages
    ]


def _place(clip: Any, folder: pathlib.Path) -> Any:
    path = clip.get("audio") if isinstance(clip, dict) else None
    if not isinstance(path, str) or os.path.exists(path) or not (folder / path).exists():
        return clip
    return clip | {"audio": str(folder / path)}


def _check_unique(ids: Sequence[Any], file: pathlib.Path) -> None:
    seen = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"{file}: two rows have the id {name!r}; answers are told apart by it")
        seen.add(name)


def _repair(out: pathlib.Path) -> set[Any]:
    """The ids that are answered already; what a stopped run left of a last line is cut off."""
    if not out.exists():
        return set()
    whole, done = 0, set()
    with out.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            try:
                done.add(json.loads(line)["id"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{out} has a line that is no answer; name another file, or remove it") from None
            whole += len(line)
    os.truncate(out, whole)
    return done
