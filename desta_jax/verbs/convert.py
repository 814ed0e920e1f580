"""`desta-jax convert`: Hugging Face weights in."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import Verb, say


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("llm", None, "Llama 3, Qwen2(.5) or Qwen3: a Hugging Face folder or NAME[@REVISION]", values)
    flags.DEFINE_string("encoder", None, "Whisper, of any size: a Hugging Face folder or NAME[@REVISION]", values)
    flags.DEFINE_string("adapter", None, "a folder from `export` or the PyTorch reference, to start from", values)
    flags.DEFINE_string("out", None, "the folder to write", values)
    flags.DEFINE_bool("overwrite", False, "replace the folder if it is there", values)


def run(values: flags.FlagValues) -> None:
    from desta_jax.weights.convert import convert

    convert(values.llm, values.encoder, values.out, adapter=values.adapter, overwrite=values.overwrite, progress=say)
    say(f"{values.out} is made")


VERB = Verb(
    summary="Hugging Face weights to the one folder that a run needs",
    usage="--llm DIR_OR_NAME --encoder DIR_OR_NAME [--adapter DIR] --out DIR",
    define=define,
    run=run,
    required=("llm", "encoder", "out"),
    examples=(
        "desta-jax convert --llm Qwen/Qwen2.5-7B-Instruct --encoder openai/whisper-large-v3 --out models/qwen",
        "desta-jax convert --llm folders/qwen --encoder folders/whisper --adapter folders/desta --out models/mine",
    ),
)
