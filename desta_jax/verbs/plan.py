"""`desta-jax plan`: what a run needs on a TPU topology, without a TPU."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import OVERRIDE, Verb, say


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "a Python file with get_config(), such as configs/paper.py", values)
    flags.DEFINE_string("topology", None, "chips, such as v5e-256, v5p-128, v6e-16 or 2xv5e-256", values)
    flags.DEFINE_bool("json", False, "print one JSON object", values)
    flags.DEFINE_string("cache", None, "where compilations are kept (default: ~/.cache/desta_jax/plan)", values)
    flags.DEFINE_multi_string(OVERRIDE, [], "changes a key of the config: --config.train.batch_size=512", values)


def run(values: flags.FlagValues) -> None:
    import json

    from desta_jax.config import load_config
    from desta_jax.plan import report

    config = load_config(values.config, values[OVERRIDE].value)
    result = report.plan(config, values.topology, cache=values.cache, say=say)
    print(json.dumps(result) if values.json else report.describe(result))


VERB = Verb(
    summary="what a run needs on a TPU topology: memory, step time, days; no TPU is needed",
    usage="--config FILE --topology NAME [--json] [--config.KEY=VALUE ...]",
    define=define,
    run=run,
    required=("config", "topology"),
    examples=(
        "desta-jax plan --config configs/paper.py --topology v5e-16",
        "desta-jax plan --config configs/paper.py --topology 2xv5e-256 --config.train.batch_size=4096 --json",
    ),
    notes="The TPU compiler compiles the real training step ahead of time, which takes one to five minutes for a large "
    "model and is remembered. It comes with pip install 'desta_jax[tpu]'. No weights are needed: the shapes are those "
    "of model.checkpoint if that folder is on this disk, else those of model.llm and model.encoder, which are names of "
    "known models or folders with a config.json. Topologies are named as Google names them: v5e-16 and v6e-16 have 16 "
    "chips, but v4 and v5p names count TensorCores, two a chip: v5p-8 has 4 chips. v5p:4x4x8 gives the chips by their "
    "shape, 2xv5e-256 is two slices. A config that sets no mesh is planned with fsdp over the chips of a slice.",
)
