"""`desta-jax train`: the run of a config."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import OVERRIDE, UsageError, Verb, say


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "a Python file with get_config(), such as configs/smol.py", values)
    flags.DEFINE_string("workdir", None, "the folder of the run", values)
    flags.DEFINE_multi_string(OVERRIDE, [], "changes a key of the config: --config.train.steps=100", values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of the run's first process; on Cloud TPU not needed", values)
    flags.DEFINE_integer("processes", None, "how many processes the run has; on Cloud TPU not needed", 1, None, values)
    flags.DEFINE_integer("process_index", None, "which of them this is, from 0; on TPU not needed", 0, None, values)


def run(values: flags.FlagValues) -> int:
    from desta_jax import distributed
    from desta_jax.config import load_config
    from desta_jax.evaluation.in_training import Examiner
    from desta_jax.training.loop import train

    config = load_config(values.config, values[OVERRIDE].value)
    try:
        distributed.start(values.coordinator, values.processes, values.process_index)
    except ValueError as error:
        raise UsageError(str(error)) from error
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
    "then 75; it is 70 when no step ended for stall.exit_seconds. A file WORKDIR/profile_request that holds a number "
    "has so many steps profiled.",
)
