"""How far a model strays from what the language model says when it reads the description: nats a token.

The language model's own greedy answer to the description is followed, token by token; at each the distribution of the
next token with the audio is compared with the one with the description, and so is that of the model told nothing.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ask import GREEDY
from figures import average
from held_out import Clip, spread
from jaxtyping import Array, Bool, Float, Int32
from perception import HEARING, READING, described

from desta_jax.clock import Pace
from desta_jax.evaluation.answers import whole_lines
from desta_jax.evaluation.question import Question
from desta_jax.evaluation.question import ask as messages_of
from desta_jax.generation import Model, Request
from desta_jax.generation import cache as kv
from desta_jax.generation.talk import Tongue, Wish, length_bucket, row_bucket

ANSWER_TOKENS = 30
AT_ONCE = 16
LESS = "all, less told nothing"
NOTHING = "{question}"  # neither audio nor description

INSTRUCTIONS = {  # kinds of instruction that no training row asks: launch/lessons.sh leaves them out
    "poem": "Write a short poem about it.",
    "child": "Explain to a child what you hear.",
    "next": "What could happen next?",
    "title": "Give it a title.",
    "letter": "Write a short letter to a friend about this recording.",
    "advice": "What advice would you give to the person who recorded this?",
    "film": "In which scene of a film could this be heard, and why?",
    "headline": "Write a newspaper headline and one sentence of news about it.",
}


def ask(clips: Sequence[Clip], count: int) -> list[Question]:
    """Every instruction about `count` clips of each kind, real and made ones apart."""
    groups: dict[str, list[Clip]] = collections.defaultdict(list)
    for clip in clips:
        groups[f"{clip.source}/{clip.kind}"].append(clip)
    return [
        Question(
            f"{name}/{group}/{clip.name}",
            (clip.path,),
            {"question": text, "description": described(clip)},
            HEARING,
            {"instruction": name, "group": group},
        )
        for group, members in sorted(groups.items())
        for clip in spread(members, count, f"divergence {group}")
        for name, text in INSTRUCTIONS.items()
    ]


def measure(
    questions: Sequence[Question],
    said: Mapping[str, Sequence[int]],
    model: Model,
    reader: Tongue,
    transcripts: Mapping[str, str] | None,
    file: Path,
    say: Callable[[str], None],
    about: str = "",
) -> list[dict[str, Any]]:
    """Rows of `id kl same tokens compared`: the mean divergence over an answer's tokens, and the share of them whose
    likeliest token is the same. Those that `file` holds of the same (`compared` is a digest of what was read, heard and
    said, and by whom) are not computed again.

    Args:
        said: token ids of the language model's own answer to each question's description.
        model: who hears.
        reader: the language model that reads the description.
        transcripts: of each clip by path; None gives none.
        about: what else says who hears and reads.
    """
    known = {row["id"]: row for row in whole_lines(file)}
    digests = {question.id: _digest(question, said[question.id], transcripts, about) for question in questions}
    waiting = [q for q in questions if known.get(q.id, {}).get("compared") != digests[q.id]]
    waiting.sort(key=lambda q: len(q.fields["description"]))
    pace = Pace(len(waiting))
    with file.open("a", encoding="utf-8") as out:
        for start in range(0, len(waiting), AT_ONCE):
            batch = waiting[start : start + AT_ONCE]
            answers = [list(said[question.id]) for question in batch]
            heard = [_hearing(question, model, transcripts) for question in batch]
            read = [_reading(question, model) for question in batch]
            for row in _rows(batch, compare(model.tongue, heard, reader, read, answers)):
                known[row["id"]] = row = row | {"compared": digests[row["id"]]}
                out.write(json.dumps(row) + "\n")
            out.flush()
            line = pace.add(len(batch))
            say(f"{pace.done} of {pace.total} answers compared, {line}")
    return [known[question.id] for question in questions]


def measure_nothing(
    questions: Sequence[Question],
    said: Mapping[str, Sequence[int]],
    model: Model,
    reader: Tongue,
    file: Path,
    say: Callable[[str], None],
    about: str = "",
) -> list[dict[str, Any]]:
    """As `measure`, of the language model told nothing of the clip."""
    told = [Question(q.id, (), q.fields, HEARING.replaced(None, NOTHING), q.row) for q in questions]
    deaf = Model(model.ear, reader, model.prompts, model.tokenizer)
    return measure(told, said, deaf, reader, None, file, say, about)


def _digest(question: Question, said: Sequence[int], transcripts: Mapping[str, str] | None, about: str) -> str:
    compared = [_heard(question, transcripts), messages_of(question, READING), list(said), about]
    return hashlib.sha256(json.dumps(compared).encode()).hexdigest()[:16]


def _heard(question: Question, transcripts: Mapping[str, str] | None) -> list[dict[str, Any]]:
    messages = messages_of(question, question.prompt)
    for clip in messages[-1].get("audios") or ():
        clip["text"] = " " if transcripts is None else transcripts[clip["audio"]]
    return messages


def _hearing(question: Question, model: Model, transcripts: Mapping[str, str] | None) -> Wish:
    messages = _heard(question, transcripts)
    listening = model.attend_to(messages, "given", "cut")
    return model.wish(Request(messages), listening, model.listen([listening])[0])[0]


def _reading(question: Question, model: Model) -> Wish:
    messages = messages_of(question, READING)
    return Wish(model.prompts.context(messages), None, GREEDY, 1)


def compare(
    one: Tongue, heard: Sequence[Wish], other: Tongue, read: Sequence[Wish], answers: Sequence[Sequence[int]]
) -> list[tuple[Float[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"]]]:
    """For each answer, token by token: the divergence of `heard` by `one` from `read` by `other`, KL(read || heard) in
    nats, and whether both would say the same token next."""
    kl, same = _compare(_logits(other, read, answers), _logits(one, heard, answers))
    kl, same = np.asarray(kl), np.asarray(same)
    return [(kl[row, : len(answer)], same[row, : len(answer)]) for row, answer in enumerate(answers)]


def _logits(tongue: Tongue, wishes: Sequence[Wish], answers: Sequence[Sequence[int]]):
    """What may follow each prompt and each token of its answer but the last."""
    rows, clip = row_bucket(len(wishes), tongue.rows), tongue.audio_lm.adapter.prompt_size
    length = length_bucket(max(len(wish.prompt.tokens) + len(answer) for wish, answer in zip(wishes, answers)))
    tokens, slots = np.zeros((rows, length), np.int32), np.full((rows, length), -1, np.int32)
    present, places = np.zeros((rows, length), bool), np.zeros((rows, ANSWER_TOKENS), np.int32)
    soft = np.zeros((rows, clip, tongue.model.shape.width), tongue.audio_lm.dtype)
    for row, (wish, answer) in enumerate(zip(wishes, answers)):
        size = len(wish.prompt.tokens)
        whole = [*wish.prompt.tokens, *answer]
        tokens[row, : len(whole)], present[row, : len(whole)] = whole, True
        slots[row, :size] = wish.prompt.audio_slots
        places[row, : len(answer)] = size - 1 + np.arange(len(answer))
        if wish.soft is not None:
            soft[row] = wish.soft
    return _read(tongue.audio_lm, tongue.model, tokens, soft, slots, present, places)


@functools.partial(jax.jit, static_argnums=0)
def _read(
    audio_lm,
    model,
    tokens: Int32[Array, "rows tokens"],
    soft: Float[Array, "rows soft d"],
    slots: Int32[Array, "rows tokens"],
    present: Bool[Array, "rows tokens"],
    places: Int32[Array, "rows answer"],
) -> Float[Array, "rows answer v"]:
    x = audio_lm.embed({"lm": {"embed": model.embed}}, tokens, soft, slots)
    cache = kv.empty_cache(audio_lm.decoder, x.shape[0], x.shape[1], audio_lm.dtype)
    x, _ = model(x, present, cache, jnp.int32(0))
    hidden = jnp.take_along_axis(x, places[..., None], axis=1)
    return model.logits(hidden.reshape(-1, hidden.shape[-1])).reshape(*places.shape, -1)


@jax.jit
def _compare(p: Float[Array, "rows answer v"], q: Float[Array, "rows answer v"]):
    p, q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return (jnp.exp(p) * (p - q)).sum(axis=-1), p.argmax(axis=-1) == q.argmax(axis=-1)


def score(
    questions: Sequence[Question], rows: Sequence[Mapping[str, Any]], nothing: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Means over clips (of all answers about one), of all, by kind of clip and by instruction; and of the differences,
    clip by clip, from `nothing`, the rows of the model told nothing."""
    scores = _means(questions, rows)
    if nothing:
        differences = [
            {key: row[key] - other[key] for key in ("kl", "same")} for row, other in zip(rows, nothing, strict=True)
        ]
        scores = {"all": scores.pop("all"), LESS: _means(questions, differences)["all"], **scores}
    return scores


def _means(questions: Sequence[Question], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for question, row in zip(questions, rows, strict=True):
        for name in ("all", question.row["group"], f"instruction: {question.row['instruction']}"):
            groups.setdefault(name, {}).setdefault(str(question.audio), []).append(row)
    return {
        name: {
            "nats": average([np.mean([row["kl"] for row in answers]) for answers in clips.values()]),
            "same token": average([100 * np.mean([row["same"] for row in answers]) for answers in clips.values()]),
        }
        for name, clips in groups.items()
    }


def _rows(questions: Sequence[Question], compared) -> list[dict[str, Any]]:
    return [
        {"id": question.id, "kl": float(kl.mean()), "same": float(same.mean()), "tokens": len(kl)}
        for question, (kl, same) in zip(questions, compared, strict=True)
    ]
