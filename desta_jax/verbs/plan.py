"""`desta-jax plan`: what a run needs on a TPU topology, without a TPU."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import OVERRIDE, UsageError, Verb, say

TRIED = ("batch", "remat", "mesh")


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "a Python file with get_config(), such as configs/paper.py", values)
    flags.DEFINE_string("topology", None, "chips, such as v5e-256, v5p-128, v6e-16 or 2xv5e-256", values)
    flags.DEFINE_bool("json", False, "print JSON: an object, with --sweep a list of them", values)
    flags.DEFINE_bool("sweep", False, "try batch sizes, remat and mesh shapes, and rank what fits", values)
    flags.DEFINE_multi_integer("batch", [], "train.batch_size to try with --sweep", flag_values=values)
    flags.DEFINE_multi_string("remat", [], "remat to try with --sweep: all, matmuls, scores, none", values)
    flags.DEFINE_multi_string("mesh", [], "data x fsdp x tensor to try with --sweep, such as 1x16x1", values)
    flags.DEFINE_string("cache", None, "where compilations are kept (default: ~/.cache/desta_jax/plan)", values)
    flags.DEFINE_multi_string(OVERRIDE, [], "changes a key of the config: --config.train.batch_size=512", values)


def run(values: flags.FlagValues) -> None:
    if not values.sweep and (extra := [f"--{name}" for name in TRIED if values[name].value]):
        raise UsageError(f"{' and '.join(extra)} goes with --sweep; for one plan set --config.KEY=VALUE")
    import json

    from desta_jax.config import load_config
    from desta_jax.plan import report, sweep

    config = load_config(values.config, values[OVERRIDE].value)
    if values.sweep:
        tried = {"batches": values.batch, "remats": values.remat, "meshes": values.mesh}
        result = sweep.sweep(config, values.topology, **tried, cache=values.cache, say=say)
        page = sweep.describe
    else:
        result = report.plan(config, values.topology, cache=values.cache, say=say)
        page = report.describe
    print(json.dumps(result) if values.json else page(result))


VERB = Verb(
    summary="what a run needs on a TPU topology: memory, step time, days; no TPU is needed",
    usage="--config FILE --topology NAME [--sweep] [--json] [--config.KEY=VALUE ...]",
    define=define,
    run=run,
    required=("config", "topology"),
    examples=(
        "desta-jax plan --config configs/paper.py --topology v5e-16",
        "desta-jax plan --config configs/paper.py --topology 2xv5e-256 --config.train.batch_size=4096 --json",
        "desta-jax plan --config configs/paper.py --topology v6e-16 --sweep --batch 96 192 --remat all matmuls",
    ),
    notes="The TPU compiler compiles the real training step ahead of time, which takes minutes for a large model and "
    "is remembered. It comes with pip install -e '.[tpu]'. No weights are needed: the shapes are those of "
    "model.checkpoint if that folder is on this disk, else those of model.llm and model.encoder, which are names of "
    "known models or folders with a config.json. Topologies are named as Google names them: v5e-16 and v6e-16 have 16 "
    "chips, but v4 and v5p names count TensorCores, two a chip: v5p-8 has 4 chips. v5p:4x4x8 gives the chips by their "
    "shape, 2xv5e-256 is two slices. A config that sets no mesh is planned with fsdp over the chips of a slice.",
)
