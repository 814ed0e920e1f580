"""How far the plan's estimates can be trusted, and the table of the README.

    python tests/benchmarks/plan.py matmuls     products compiled for TPUs: the compiler's cycles against the peak
    python tests/benchmarks/plan.py cpu         a training step on this CPU: estimated and measured
    python tests/benchmarks/plan.py table       the paper's run on eight topologies, as Markdown rows

`cpu` reads the compiled step as the plan reads a TPU's, with the arithmetic and memory rates that this machine shows
in one product and one copy; a CPU's compiler gives no cycles, so every operation is priced by its flops and bytes.
Its seconds are the process's own CPU time, which other work on the machine disturbs least.
The first and last need the TPU compiler (pip install -e ".[tpu]"), not a TPU. The table takes a compilation of
some minutes for each row, which --cache keeps.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
SHAPES = [  # rows, inputs, outputs: of the language model's and the encoder's layers
    (2432, 4096, 4096),
    (2432, 4096, 14336),
    (2432, 14336, 4096),
    (12000, 1280, 1280),
    (12000, 1280, 5120),
    (8192, 8192, 8192),
]
TABLE = [
    ("v4-32", 96),
    ("v5e-16", 96),
    ("v5e-256", 2048),
    ("v5p-8", 96),
    ("v5p-128", 512),
    ("v6e-16", 96),
    ("v6e-256", 2048),
    ("2xv5e-256", 4096),
]
MICRO = {
    "compute_dtype": "float32",
    "model.llm": "SmolLM2-135M-Instruct",
    "model.encoder": "whisper-base",
    "adapter.num_layers": 2,
    "adapter.prompt_size": 16,
    "data.max_length": 160,
    "data.audio_seconds": 8,
    "train.batch_size": 4,
    "train.steps": 100,
}
REPEATS = 3


def matmuls(topology_name):
    """Prints the share of the peak at which the compiler's cycles see each product."""
    from desta_jax.plan.compile import tpu_environment
    from desta_jax.plan.estimate import estimate
    from desta_jax.plan.network import Network
    from desta_jax.plan.topology import parse_topology

    topology = parse_topology(topology_name)
    os.environ.update(tpu_environment(topology))
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    description = topologies.get_topology_desc(
        platform="tpu", topology_name=topology.compiler_name, **topology.compiler_options
    )
    here = jax.sharding.SingleDeviceSharding(description.devices[0])
    network = Network(topology, {"data": 1}, [(0, 0, 0, 0)])
    for rows, inputs, outputs in SHAPES:
        left, right = (
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=here) for shape in ((rows, inputs), (inputs, outputs))
        )
        text = jax.jit(jnp.matmul).lower(left, right).compile().as_text()
        tally = estimate(text, topology.chip, network)
        assert tally.flops == 2 * rows * inputs * outputs
        share = tally.flops / tally.seconds / topology.chip.peak_flops
        print(f"{topology.name:7} {rows:6} x {inputs:5} x {outputs:5}  {share:.2f} of peak", flush=True)


def cpu():
    """Prints a step's time as estimated from its program and as measured."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from desta_jax import sharding
    from desta_jax.config import make_config
    from desta_jax.plan.estimate import estimate
    from desta_jax.plan.network import Network
    from desta_jax.plan.program import arguments, lower_step
    from desta_jax.plan.shapes import find_models, find_work
    from desta_jax.plan.topology import parse_topology
    from desta_jax.training.run import make_model

    jax.config.update("jax_platforms", "cpu")
    topology = parse_topology("v5e-1")
    chip = dataclasses.replace(topology.chip, name="cpu", peak_flops=_peak(), hbm_bandwidth=_bandwidth())
    print(f"this CPU: {chip.peak_flops / 1e9:.0f} GFLOP in float32 and {chip.hbm_bandwidth / 1e9:.1f} GB a CPU second")
    for changes in ({}, {"train.batch_size": 8}, {"remat": "none"}):
        config = make_config(MICRO | changes)
        models = find_models(config)
        work, model = find_work(config, models), make_model(config, models)
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
        compiled = lower_step(config, model, work.shapes, work.steps, mesh).compile()
        network = Network(dataclasses.replace(topology, chip=chip), {"data": 1}, [(0, 0, 0, 0)])
        tally = estimate(compiled.as_text(), chip, network)
        rng = np.random.default_rng(0)

        def fill(leaf, rng=rng):
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                return jnp.asarray(0.02 * rng.standard_normal(leaf.shape), leaf.dtype)
            return jnp.zeros(leaf.shape, leaf.dtype)

        state, frozen, batch = jax.tree.map(fill, arguments(config, model, work.shapes, work.steps, mesh))
        times = []
        for _ in range(REPEATS + 1):
            start = time.process_time()
            state, _ = jax.block_until_ready(compiled(state, frozen, batch))
            times.append(time.process_time() - start)
        measured = min(times[1:])
        print(
            f"{changes or 'as it is'!s:26} estimated {tally.seconds:6.2f} s, measured {measured:6.2f} s "
            f"({tally.seconds / measured:.2f}); {tally.flops / 1e9:.0f} GFLOP, {tally.bytes / 1e9:.1f} GB",
            flush=True,
        )


def _peak():
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    return 2 * 2048**3 / _seconds(jax.jit(jnp.matmul), a, a)


def _bandwidth():
    import jax
    import jax.numpy as jnp

    a = jnp.ones(1 << 26)
    return 2 * a.nbytes / _seconds(jax.jit(lambda x: x + 1), a)


def _seconds(function, *arguments):
    import jax

    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(10):
        start = time.process_time()
        jax.block_until_ready(function(*arguments))
        times.append(time.process_time() - start)
    return min(times)


def table(cache):
    """Prints a row for each topology; the commands are those that a user would give."""
    print("| topology | chips | batch | mesh | HBM a chip | step | samples/s | MFU | 5 epochs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for topology, batch in TABLE:
        command = [sys.executable, "-m", "desta_jax", "plan", "--config", str(ROOT / "configs" / "paper.py")]
        command += ["--topology", topology, f"--config.train.batch_size={batch}", "--json"]
        command += ["--cache", cache] if cache else []
        row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        mesh = " x ".join(map(str, row["mesh"].values()))
        start = (
            f"| {topology} | {row['chips']} | {batch} | {mesh} | {row['hbm_gb']:.1f} of {row['hbm_limit_gb']:.1f} GB |"
        )
        if not row["fits"]:
            print(f"{start} does not fit | | | |", flush=True)
            continue
        print(
            f"{start} {1e3 * row['step_seconds']:.0f} ms | {row['samples_per_second']:.0f} | "
            f"{100 * row['mfu']:.0f} % | {row['days']:.1f} days |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("matmuls", "cpu", "table"))
    parser.add_argument("--topology", default="v5e-4", help="of matmuls")
    parser.add_argument("--cache", help="of table")
    arguments = parser.parse_args()
    if arguments.what == "matmuls":
        matmuls(arguments.topology)
    elif arguments.what == "cpu":
        cpu()
    else:
        table(arguments.cache)


if __name__ == "__main__":
    main()
