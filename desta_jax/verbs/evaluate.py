"""`desta-jax evaluate`: the figures of a model on the paper's benchmarks."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

from absl import flags

from desta_jax.files import is_remote
from desta_jax.verbs.generate import load_model
from desta_jax.verbs.verb import UsageError, Verb, say

BENCHMARKS = ("dynamic_superb", "mmau", "sakura", "speech_ifeval", "voicebench")
SELF = "self"  # a judge: the model that answers
OPENAI = "https://api.openai.com/v1"


def define(values: flags.FlagValues) -> None:
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    flags.DEFINE_enum("benchmark", None, [*BENCHMARKS, "all"], "all: those for which --data has a folder", values)
    text("data", None, "the benchmark as it is distributed; for all, a folder that holds one for each, by name", values)
    text("model", None, "who answers: the folder from `convert`, or a run's work directory", values)
    text("adapter", None, "a run's work directory, a folder from `export`, or one of the PyTorch reference", values)
    number("step", None, "the work directory's checkpoint; without it, the newest", 0, flag_values=values)
    text("out", None, "the folder to write", values)
    text("predictions", None, "in place of --model: answers that are there, in our layout or the official one", values)
    text(
        "judge",
        None,
        "who judges answers that no rule can score: recorded verdicts (a file or folder in the official layout), a "
        f"folder from `convert`, {SELF} (the model that answers), or the name of a model at --judge_url",
        values,
    )
    text("judge_url", OPENAI, "an OpenAI-compatible endpoint, up to /v1", values)
    text("judge_key", "OPENAI_API_KEY", "the environment variable that holds its key", values)
    number("judge_at_once", 8, "questions to it under way at a time", 1, flag_values=values)
    text("split", None, "MMAU's test-mini or test, the region of VoiceBench's sd-qa; without it the usual one", values)
    text("system", None, "a system prompt in place of the recommended one", values)
    text(
        "user", None, "a user prompt likewise, such as '{audio} {question}'; without {audio} only text is read", values
    )
    number("max_new_tokens", None, "of an answer; without it the benchmark's usual number", 1, flag_values=values)
    number("batch_size", 32, "questions answered together", 1, flag_values=values)
    number("limit", None, "only the first so many questions; the scores say so", 1, flag_values=values)
    text(
        "reference",
        None,
        "the text model's IFrate, for Speech-IFEval's forgetting rate: a number, a name such as Llama3.1-8B-Instruct, "
        "or the scores.json of its run",
        values,
    )
    number(
        "official_random",
        None,
        "a seed: VoiceBench's choices that can't be read are drawn, as officially; without it they are wrong",
        flag_values=values,
    )
    text("name", None, "how scores and table name the model", values)
    flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "by default float32 on a CPU, else bfloat16", values)
    text("mesh", None, "DATA,FSDP,TENSOR: spread over all devices; without it, the first is used", values)


def run(values: flags.FlagValues) -> None:
    _check(values)
    from desta_jax.evaluation.run import evaluate, summarise
    from desta_jax.generation import chosen_step, export_digest
    from desta_jax.machine import default_dtype

    if values.model:
        values.step = chosen_step(values.model, values.adapter, values.step)
        values.dtype = values.dtype or default_dtype()

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        model = None if values.predictions else _Lazy(functools.partial(load_model, values))
        report = evaluate(
            values.benchmark,
            values.data,
            values.out,
            predictions=values.predictions,
            judge=_judge(values, model),
            model=model,
            model_name=_name(values),
            about={name: values[name].value for name in ("model", "adapter", "step", "dtype")}
            | {"adapter_digest": export_digest(values.adapter)},
            split=values.split,
            system=values.system,
            user=values.user,
            max_new_tokens=values.max_new_tokens,
            batch_size=values.batch_size,
            limit=values.limit,
            reference=values.reference,
            official_random=values.official_random,
            say=say,
        )
    print(summarise(report))
    say(f"{values.out}: scores.json, scores.md" + ("" if values.predictions else " and predictions.jsonl"))


def _check(values: flags.FlagValues) -> None:
    if bool(values.model) == bool(values.predictions):
        how_many = "only one" if values.model else "one"
        raise UsageError(f"give {how_many} of --model (who answers) and --predictions (answers that are there)")
    if os.path.isfile(values.out):
        raise UsageError(f"--out: {values.out} is a file; give a folder")
    if values.predictions and (values.adapter or values.step is not None):
        raise UsageError("--adapter and --step belong to --model")
    if not values.data and not values.predictions:
        raise UsageError("--data must be given")
    if values.judge == SELF and not values.model:
        raise UsageError(f"--judge {SELF} needs --model")
    for path in filter(None, [values.data, values.predictions, values.out]):
        if is_remote(path):
            raise UsageError(f"{path}: benchmarks and scores are on a local disk")
    for path in filter(None, [values.data, values.predictions, values.model, values.adapter]):
        if not is_remote(path) and not os.path.exists(path):
            raise FileNotFoundError(f"there is no {path}")


def _name(values: flags.FlagValues) -> str:
    """Whoever answers, as scores name them."""
    if values.name or values.predictions:
        return values.name or values.predictions
    adapter = f" with {values.adapter}" if values.adapter else ""
    return values.model + adapter + (f", step {values.step}" if values.step is not None else "")


class _Lazy:
    """A model that is loaded when it is first asked something: wrong data are noticed before."""

    def __init__(self, load: Callable[[], Any]):
        self._load = load

    @functools.cached_property
    def _model(self) -> Any:
        return self._load()

    def generate(self, messages, **options):
        return self._model.generate(messages, **options)


def _judge(values: flags.FlagValues, model: _Lazy | None):
    from desta_jax.evaluation.run import make_judge

    name = values.judge
    if name is None:
        return None
    if name == SELF:
        return make_judge(f"{_name(values)}, which answered", values.out, model=model, say=say)
    if os.path.isfile(os.path.join(name, "desta_jax.json")):
        reader = _Lazy(functools.partial(_Reader, name, values.dtype or ""))
        return make_judge(name, values.out, model=reader, say=say)
    if os.path.isfile(os.path.join(name, "config.json")):
        raise ValueError(f"--judge: {name} is a Hugging Face folder; run `desta-jax convert` first, and give its --out")
    if not os.path.exists(name) and values.judge_url == OPENAI and os.sep in name:
        raise FileNotFoundError(f"--judge: there is no {name}")
    where = {"url": values.judge_url, "key_variable": values.judge_key, "at_once": values.judge_at_once}
    return make_judge(name, values.out, say=say, **where)


class _Reader:
    """A language model alone, without an adapter: it reads what a judge is asked."""

    def __init__(self, folder: str, dtype: str):
        from desta_jax.generation.text import open_backbone

        self._backbone = open_backbone(folder, dtype=dtype)
        say(f"the judge {folder} is loaded")

    def generate(self, messages, *, max_new_tokens, batch_size, **sampling):
        from desta_jax.generation import Sampling

        return self._backbone.write(messages, Sampling(**sampling), max_new_tokens)


VERB = Verb(
    summary="a model's figures on MMAU, SAKURA, Speech-IFEval, VoiceBench and Dynamic-SUPERB, beside published ones",
    usage="--benchmark NAME|all --data DIR --model DIR [--adapter DIR] --out DIR [--judge WHO] | "
    "... --predictions FILE_OR_DIR",
    define=define,
    run=run,
    required=("benchmark", "out"),
    examples=(
        "desta-jax evaluate --benchmark mmau --data data/mmau --model runs/smol --out scores/mmau",
        "desta-jax evaluate --benchmark sakura --data data/sakura --model runs/smol --out scores/sakura "
        "--judge gpt-4o-2024-11-20",
        "desta-jax evaluate --benchmark speech_ifeval --data data/speech_ifeval --predictions scores/sif "
        "--out scores/again --judge some-model --judge_url http://localhost:8000/v1 --reference Llama3.1-8B-Instruct",
        "desta-jax evaluate --benchmark all --data data --model runs/paper --out scores/all --mesh 1,1,4",
    ),
    notes="OUT gets predictions.jsonl (written as answers come; the same command goes on where it was stopped), "
    "scores.json (every figure with its count, the judge, and what was missing) and scores.md (the same as a table, "
    "beside the published rows). What could not be answered or judged is counted and named, never taken as right. "
    "An endpoint's verdicts are kept in OUT/judge-cache.jsonl and not asked for, nor paid, again.",
)
