"""`desta-jax generate`: answers about audio."""

from __future__ import annotations

import json
import os
import time
import warnings
from typing import Any

from absl import flags

from desta_jax.files import is_remote
from desta_jax.verbs.verb import UsageError, Verb, say


def define(values: flags.FlagValues) -> None:
    text, number, several = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_multi_string
    text("model", None, "the folder from `convert`, or a run's work directory", values)
    text("adapter", None, "a run's work directory, a folder from `export`, or one of the PyTorch reference", values)
    number("step", None, "the work directory's checkpoint; without it, the newest", 0, flag_values=values)
    several("audio", [], "clips to ask about: anything that soundfile or librosa opens", flag_values=values)
    several("text", [], "their transcripts, one for each clip; without them Whisper listens", flag_values=values)
    text("prompt", None, "the question; <|AUDIO|> in it says where a clip stands, else clips come first", values)
    text("system", None, "the system prompt; without it, the reference's where there are clips", values)
    flags.DEFINE_bool("json", False, "print one JSON object, with transcripts, token counts and timings", values)
    flags.DEFINE_bool("chat", False, "a conversation in the terminal", values)
    text("requests", None, "a JSONL file of rows with `messages`, as in a manifest", values)
    text("out", None, "the JSONL file of the answers to --requests", values)
    number("batch_size", 16, "requests answered together", 1, flag_values=values)
    number("max_new_tokens", 512, "of an answer", 1, flag_values=values)
    flags.DEFINE_float("temperature", 0.7, "of the tokens drawn; 0 is greedy", 0, flag_values=values)
    flags.DEFINE_float("top_p", 0.9, "draw from the likeliest tokens of so much probability", 0, 1, flag_values=values)
    own = "; without it, what the model's generation config says, or"
    number("top_k", None, f"draw from so many of the likeliest tokens, 0 is all{own} 50", 0, flag_values=values)
    penalty = f"above 1, what was said becomes less likely, also where the likeliest is taken{own} 1"
    flags.DEFINE_float("repetition_penalty", None, penalty, 0, flag_values=values)
    number("seed", 0, "the same seed and request give the same answer", flag_values=values)
    flags.DEFINE_enum(
        "transcripts",
        "auto",
        ["auto", "given"],
        "auto: as the reference, a clip without speech has none, and Whisper writes those that are not given; given: "
        "as they are given",
        values,
    )
    flags.DEFINE_enum(
        "long_audio", "cut", ["cut", "windows"], "hear the first 30 s of a longer clip, or all, 30 s at a time", values
    )
    flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "by default float32 on a CPU, else bfloat16", values)
    text("mesh", None, "DATA,FSDP,TENSOR: spread over all devices; without it, the first is used", values)


def run(values: flags.FlagValues) -> int | None:
    _check(values)
    for file in [*values.audio, *filter(None, [values.requests])]:  # loading the model takes longer than to see this
        if not os.path.exists(file):
            raise FileNotFoundError(f"{file}: no such file")
        if os.path.isdir(file):
            raise ValueError(f"{file}: is a folder; give a file")
    if values.out and os.path.isdir(values.out):
        raise ValueError(f"--out: {values.out} is a folder; give a file")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        if values.requests:
            return _answer_file(values)
        if values.chat:
            _chat(values)
        else:
            _answer(values)


def _check(values: flags.FlagValues) -> None:
    given = sum([values.prompt is not None, values.chat, values.requests is not None])
    if given != 1:
        how_many = "only one" if given else "one"
        raise UsageError(f"give {how_many} of --prompt (a question), --chat and --requests (a file)")
    if (values.requests is None) != (values.out is None):
        raise UsageError("--requests and --out belong together: the questions' file and the answers'")
    if values.prompt is None and (values.audio or values.text or values.json):
        raise UsageError("--audio, --text and --json belong to --prompt; in a chat, /audio FILE adds a clip")
    if values.text and len(values.text) != len(values.audio):
        raise UsageError(f"--text: {len(values.text)} transcripts for {len(values.audio)} clips; give one for each")
    if values.out is not None and is_remote(values.out):
        raise UsageError(f"--out: {values.out} must be a local file, since answers are added to it one by one")
    if values.requests is not None and values.system is not None:
        raise UsageError("--system: the rows of --requests have their own system messages")


def load_model(values: flags.FlagValues):
    """The model that the flags model, adapter, step, dtype and mesh name."""
    from desta_jax.generation import load
    from desta_jax.sharding import make_mesh

    start = time.monotonic()
    mesh = make_mesh(*_mesh_sizes(values.mesh)) if values.mesh else None
    model = load(values.model, adapter=values.adapter, step=values.step, dtype=values.dtype or "", mesh=mesh)
    say(f"{values.model} is loaded ({time.monotonic() - start:.1f} s)")
    return model


def _mesh_sizes(text: str) -> list[int]:
    try:
        data, fsdp, tensor = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"--mesh: write three numbers, such as 1,2,4, not {text!r}") from None
    return [data, fsdp, tensor]


def _sampling(values: flags.FlagValues):
    from desta_jax.generation import Sampling

    return Sampling(values.temperature, values.top_p, values.top_k, values.seed, values.repetition_penalty)


def _answer(values: flags.FlagValues) -> None:
    from desta_jax.generation import Request

    request = Request(_messages(values), values.max_new_tokens, _sampling(values))
    options = {"transcripts": values.transcripts, "long_audio": values.long_audio}
    model = load_model(values)
    if values.json:
        print(json.dumps(_whole_answer(model, request, options), ensure_ascii=False))
        return
    for piece in model.stream(request, **options, heard=_say_heard):
        print(piece, end="", flush=True)
    print()


def _messages(values: flags.FlagValues) -> list[dict[str, Any]]:
    from desta_jax.generation.model import SYSTEM, user_message

    texts = values.text or [None] * len(values.audio)
    clips = [{"audio": audio, "text": text} for audio, text in zip(values.audio, texts)]
    system = (SYSTEM if clips else "") if values.system is None else values.system
    return [{"role": "system", "content": system}] * bool(system) + [user_message(values.prompt, clips)]


def _whole_answer(model, request, options) -> dict[str, Any]:
    from desta_jax.generation.requests import to_row

    (answer,) = model.answers([request], **options)
    if answer.error is not None:
        raise ValueError(answer.error)
    return to_row(answer) | {"timings": {part: round(seconds, 3) for part, seconds in answer.timings.items()}}


def _say_heard(transcripts: tuple[str, ...]) -> None:
    from desta_jax.generation.chat import heard

    for transcript in transcripts:
        say(heard(transcript))


def _chat(values: flags.FlagValues) -> None:
    from desta_jax.generation.chat import Chat, converse
    from desta_jax.generation.model import SYSTEM

    chat = Chat(
        load_model(values),
        system=SYSTEM if values.system is None else values.system,
        max_new_tokens=values.max_new_tokens,
        sampling=_sampling(values),
        transcripts=values.transcripts,
        long_audio=values.long_audio,
    )
    converse(chat)


def _answer_file(values: flags.FlagValues) -> int:
    """Exit status 1 where rows were asked and none could be answered."""
    from desta_jax.generation import chosen_step, export_digest
    from desta_jax.generation.requests import answer_file, read_requests

    read_requests(values.requests)  # what is wrong with them is known before the model is loaded
    values.step = chosen_step(values.model, values.adapter, values.step)
    sampling, model = _sampling(values), load_model(values)
    asked, errors = answer_file(
        model,
        values.requests,
        values.out,
        max_new_tokens=values.max_new_tokens,
        sampling=sampling,
        transcripts=values.transcripts,
        long_audio=values.long_audio,
        batch_size=values.batch_size,
        about={name: values[name].value for name in ("model", "adapter", "step")}
        | {"dtype": model.tongue.audio_lm.dtype.name, "adapter_digest": export_digest(values.adapter)},
        report=say,
    )
    told = f'; {len(errors):,} could not be answered, see their "error"; the first: {errors[0]}' if errors else ""
    say(f"{values.out}: {asked - len(errors):,} answers written{told}")
    return 1 if asked and len(errors) == asked else 0


VERB = Verb(
    summary="answers about audio: one question, a conversation, or a file of requests",
    usage="--model DIR [--adapter DIR] --prompt TEXT [--audio FILE ...] [--json] | ... --chat | "
    "... --requests FILE --out FILE",
    define=define,
    run=run,
    required=("model",),
    examples=(
        'desta-jax generate --model models/smol --adapter adapters/smol --audio a.wav --prompt "What do you hear?"',
        'desta-jax generate --model models/smol --audio a.wav b.mp3 --prompt "Who is older?" --temperature 0 --json',
        "desta-jax generate --model runs/smol --chat",
        "desta-jax generate --model models/paper --adapter adapters/paper --requests asked.jsonl --out answers.jsonl "
        "--temperature 0 --batch_size 32 --mesh 1,1,4",
    ),
    notes="An answer is printed as it comes, and what was heard beside it, on stderr. Rows of --requests are like a "
    'manifest\'s, {"id": ..., "messages": [...]}; a row may have its own max_new_tokens. Rows of --out are {"id", '
    '"asked", "text", "token_ids", "transcripts", ...}, or {"id", "error"} for what cannot be answered, which does not '
    "stop the others; the same command goes on where it was stopped, and tries rows with an error again; "
    "OUT.settings.json holds what it was asked with, which must stay the same, as must what is answered. "
    "Compiled programs are kept in the user's cache, so that the next start is quick.",
)
