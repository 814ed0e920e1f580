"""Many requests from a file to answers in another, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from desta_jax.clock import Pace
from desta_jax.files import lock, write_whole
from desta_jax.generation.model import Answer, Model, Request
from desta_jax.generation.sampling import DEFAULT, Sampling
from desta_jax.inputs.prompt import is_text


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
    about: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[int, list[str]]:
    """Answers to a JSONL file, a row each: `id asked text token_ids transcripts`, or `id error` for what can't be
    answered; `asked` is a digest of the row's request.

    Rows that `out` has an answer to are not asked again, so that a run that was stopped goes on. A last line that was
    cut off is dropped; a row with an error gives way to a new try. What the rows were asked with stands beside them,
    in OUT.settings.json, and must be the same when a run goes on; and so must the requests that are answered.

    Args:
        requests: rows like a manifest's: `id` (or the line's number), `messages` with `audios`; a row may have its own
            `max_new_tokens`. Audio paths are relative to the current directory, or else to the file's.
        about: what else must be the same when a run goes on, such as the model's name.
        report: told how far the work is, after each batch.

    Returns:
        How many rows were asked now, and what is wrong with those of them that have an error.

    Raises:
        FileNotFoundError, ValueError: no such file, or no row in it; two rows with one id; `out` holds something else
            than answers, or answers that were begun with other settings, or to other requests of the same ids, or that
            another process is writing.
    """
    requests, out = pathlib.Path(requests), pathlib.Path(out)
    rows = read_requests(requests)
    if out.exists() and out.samefile(requests):
        raise ValueError(f"{out} is the file of requests: name another --out")
    options = {"transcripts": transcripts, "long_audio": long_audio}
    settings = dict(about or {}) | {"max_new_tokens": max_new_tokens} | dataclasses.asdict(sampling) | options
    asked = {row["id"]: _digest(row) for row in rows}
    with _begun(out, settings, asked) as done, out.open("a", encoding="utf-8") as file:
        waiting = [(number, row) for number, row in enumerate(rows) if row["id"] not in done]
        if before := len(rows) - len(waiting):
            report(f"{before:,} of {len(rows):,} rows have their answers already")
        pace, failed = Pace(len(waiting)), []
        for start in range(0, len(waiting), batch_size):
            part = waiting[start : start + batch_size]
            made = [_request(number, row, max_new_tokens, sampling, requests.parent) for number, row in part]
            answers = model.answers(
                [item for item in made if isinstance(item, Request)], **options, batch_size=batch_size
            )
            given = [next(answers) if isinstance(item, Request) else Answer(error=item) for item in made]
            for (_, row), answer in zip(part, given):
                known_by = {"asked": asked[row["id"]]} if answer.error is None else {}
                file.write(_line({"id": row["id"]} | known_by | to_row(answer)))
            file.flush()
            failed += [answer.error for answer in given if answer.error is not None]
            line, errors = pace.add(len(part)), f", {len(failed):,} failed" if failed else ""
            finished = before + pace.done
            report(f"{finished:,} of {len(rows):,} rows ({finished / len(rows):.1%}){errors}, {line}")
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


def read_requests(file: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a JSONL file, each with an id; one that can't be used has an `error` in place of messages.

    Raises:
        FileNotFoundError, ValueError: no such file, no row in it, or two with one id.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"--requests: no file {file}")
    with file.open("rb") as lines:
        rows = [_row(line, number, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"--requests: {file} has no rows")
    _check_unique([row["id"] for row in rows], file)
    return rows


def _row(line: bytes, number: int, where: str) -> dict[str, Any]:
    nameless = f"line {number}"  # no other row's id, as the number alone may be
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"id": nameless, "error": f"{where}: not JSON ({error})"}
    if not isinstance(row, dict):
        return {"id": nameless, "error": f"{where}: must be a JSON object"}
    row = {"id": str(number), **row}
    if not isinstance(row["id"], (str, int)):
        return {"id": nameless, "error": f'{where}: "id" must be a text or a whole number, got {row["id"]!r}'}
    if "messages" not in row:
        return {"id": row["id"], "error": f'{where}: the row has no "messages"'}
    return row


def _line(row: Mapping[str, Any]) -> str:
    """A row of JSONL, readable in any script; with escapes where an id or a file's name is no text."""
    line = json.dumps(row, ensure_ascii=False)
    return (line if is_text(line) else json.dumps(row)) + "\n"


def _request(
    number: int, row: dict[str, Any], max_new_tokens: int, sampling: Sampling, folder: pathlib.Path
) -> Request | str:
    """What to answer, or what is wrong with the row."""
    if "messages" not in row:
        return row["error"]
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
    if not isinstance(path, str) or os.path.exists(path) or not os.path.exists(folder / path):
        return clip
    return clip | {"audio": str(folder / path)}


def _check_unique(ids: Sequence[Any], file: pathlib.Path) -> None:
    seen = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"{file}: two rows have the id {name!r}; answers are told apart by it")
        seen.add(name)


def _digest(row: Mapping[str, Any]) -> str:
    """Tells a request from another of the same id: where rows have none, a line more gives all after it other ones."""
    asked = json.dumps([row.get("messages"), row.get("max_new_tokens")], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


@contextlib.contextmanager
def _begun(out: pathlib.Path, settings: Mapping[str, Any], asked: Mapping[Any, str]) -> Iterator[set[Any]]:
    """The answers' file for this process alone, with its settings beside it; gives the ids that have answers."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f"{out.name}.settings.json")
    with beside.open("a+", encoding="utf-8") as file:
        lock(file, f"another process is writing {out}: wait for it, or name another --out")
        file.seek(0)
        before = file.read()
        try:
            done = _answered(out, begun=bool(before))
        except ValueError:
            if not before:
                beside.unlink()  # of a folder of somebody else's nothing is kept
            raise
        if done:
            _check_settings(out, before, settings)
        others = [name for name, digest in done.items() if digest and asked.get(name, digest) != digest]
        if others:
            raise ValueError(
                f"{out} holds answers to other requests of the same ids, {others[0]!r} the first of {len(others)}; give"
                " the same requests, or name another --out"
            )
        file.truncate(0)
        file.write(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        file.flush()
        yield set(done)


def _check_settings(out: pathlib.Path, before: str, now: Mapping[str, Any]) -> None:
    """Raises ValueError if answers are there that were asked with other settings."""
    if not before.strip():  # answers from elsewhere
        return
    then = json.loads(before)
    changed = [f"  {key}: {then.get(key)!r} then, {now[key]!r} now" for key in now if then.get(key) != now[key]]
    if changed:
        raise ValueError(
            f"{out} holds answers with other settings; give the same, or name another --out\n" + "\n".join(changed)
        )


def _answered(out: pathlib.Path, *, begun: bool) -> dict[Any, str | None]:
    """The ids that have answers, with the digests of their requests; errors, and what a stopped run left of a last
    line, are taken out of the file.

    Raises ValueError, and changes nothing, where a line is neither answer nor error; without `begun` the last too.
    """
    if not out.exists():
        return {}
    data = out.read_bytes()
    *lines, last = data.split(b"\n")
    if last and not begun:
        lines.append(last)
    kept, done = [], {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            name, is_answer = row["id"], set(row) != {"id", "error"}
            if is_answer and "token_ids" not in row:
                raise ValueError("a row of another file")
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{out}, line {number}: is no answer; name another --out, or take that line out of the file"
            ) from None
        if is_answer:
            kept.append(line + b"\n")
            done[name] = row.get("asked")
    whole = b"".join(kept)
    if whole != data:
        write_whole(out, whole)
    return done
