"""`desta-jax train`: the run of a config."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import OVERRIDE, Verb, say


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "a Python file with get_config(), such as configs/smol.py", values)
    flags.DEFINE_string("workdir", None, "the folder of the run", values)
    flags.DEFINE_multi_string(OVERRIDE, [], "changes a key of the config: --config.train.steps=100", values)


def run(values: flags.FlagValues) -> int:
    from desta_jax.config import load_config
    from desta_jax.evaluation.in_training import Examiner
    from desta_jax.training.loop import train

    config = load_config(values.config, values[OVERRIDE].value)
    examiner = Examiner(config, values.workdir, say)
    return train(config, values.workdir, answers=examiner.answers, scores=examiner.scores)


VERB = Verb(
    summary="train the adapter, or resume where the run stopped",
    usage="--config FILE --workdir DIR [--config.KEY=VALUE ...]",
    define=define,
    run=run,
    required=("config", "workdir"),
    examples=(
        "desta-jax train --config configs/smol.py --workdir runs/smol --config.model.checkpoint=models/smol",
        "desta-jax train --config configs/paper.py --workdir gs://bucket/runs/paper --config.mesh.fsdp=16",
        "desta-jax train --config configs/smol.py --workdir runs/smol --config.evaluate.benchmarks=mmau=data/mmau "
        "--config.evaluate.benchmark_every_steps=500",
    ),
    notes="Any key of the config can be changed from the command line; a wrong key is an error that suggests the "
    "right one. A folder that holds a checkpoint is resumed. SIGTERM and Ctrl-C save first, and the exit status is "
    "then 75.",
)
