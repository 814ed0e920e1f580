"""One step, and eight of them, against PyTorch's AdamW; and what a step must not do."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import transformers

from desta_jax import sharding, tree
from desta_jax.config import make_config
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.training.checkpoint import from_dict, to_dict
from desta_jax.training.optimizer import learning_rate, make_optimizer
from desta_jax.training.step import compile_step, init_state, mean_loss, state_shardings, train_step
from desta_jax.weights import names

STEPS = 8
RUN = {"optimizer.peak_learning_rate": 1e-4, "optimizer.warmup_steps": 2}


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The reference, our model of it, frozen weights, adapter."""
    reference = oracle.Reference("llama")
    folder = reference.convert(tmp_path_factory.mktemp("llama"))
    model = AudioLM(
        WhisperShape.from_hf(folder.whisper_config),
        DecoderShape.from_hf(folder.llm_config),
        AdapterShape(num_layers=2, prompt_size=5, tap_layers=(0, 2, 3), dropout=0.0),
        jnp.float32,
    )
    frozen = {part: folder.restore(part, like) for part, like in model.abstract_frozen().items()}
    return reference, model, frozen, folder.restore("adapter", model.abstract_adapter())


def start(setting, mesh=None, accumulate=1, remat="none", model=None, lora=None):
    """(step, state, compiled, frozen): a step over the mesh, its state, and what it is made of."""
    _, oracle_model, frozen, adapter = setting
    adapter = adapter if lora is None else {**adapter, "lora": lora}
    config = make_config(RUN)
    optimizer, schedule = make_optimizer(config, STEPS), learning_rate(config, STEPS)
    mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
    state = init_state(jax.tree.map(jnp.copy, adapter), optimizer)
    state = jax.device_put(state, state_shardings(state, mesh))
    run = functools.partial(train_step, model=model or oracle_model, optimizer=optimizer, schedule=schedule, seed=0,
                            remat=remat, accumulate=accumulate)  # fmt: skip
    frozen = jax.device_put(frozen, sharding.parameter_shardings(frozen, mesh))
    compiled = compile_step(run, mesh, state, frozen)

    def step(state, batch):
        with jax.set_mesh(mesh):
            return compiled(state, frozen, sharding.put_batch(batch, mesh, batch.rows))

    return step, state, compiled, frozen


def test_eight_steps_are_pytorchs(setting, plain):
    reference, *_ = setting
    batch = oracle.random_batch(rows=8)
    parameters = reference.trained()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 2, STEPS)
    step, state = plain
    try:
        for _ in range(STEPS):
            loss = reference.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            state, metrics = step(state, batch)
            np.testing.assert_allclose(metrics["loss"], loss.item(), rtol=1e-4)
            np.testing.assert_allclose(metrics["grad_norm"], norm.item(), rtol=1e-3)
            np.testing.assert_allclose(metrics["learning_rate"], schedule.get_last_lr()[0], rtol=1e-5, atol=1e-12)
            optimizer.step()
            schedule.step()
        rules = names.connector_rules(taps=3, prompt_size=5, width=32, layers=2, lm_width=32)
        flat = tree.flatten(state.adapter)
        for rule in rules:
            for name, ours in rule.outward(
                np.asarray(flat["connector." + rule.path.removeprefix("connector.")])
            ).items():
                apart = np.linalg.norm(ours - parameters[name].detach().numpy())
                moved = (parameters[name] - before[name]).norm().item()
                # Adam divides a gradient by its own size: where it is only rounding, as the keys' biases' is, which
                # softmax cancels, an element may go another way. A tensor as a whole may not.
                assert apart <= (2 if name.endswith("key.bias") else 1e-3) * moved, name
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(before[name])


@pytest.mark.parametrize(("warmup", "steps"), [(2, 8), (0, 5), (5000, 258530), (5000, 1000)])
def test_rates_are_the_references(warmup, steps):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    expected = transformers.get_cosine_schedule_with_warmup(optimizer, warmup, steps).lr_lambdas[0]
    ours = learning_rate(make_config({"optimizer.warmup_steps": warmup}), steps)
    for step in {0, 1, warmup // 2, warmup, warmup + 1, steps // 2, steps - 1} & set(range(steps)):
        np.testing.assert_allclose(ours(step), 1e-4 * expected(step), rtol=1e-4, atol=1e-10)  # float32 cosine


@pytest.fixture(scope="module")
def one_device(setting):
    """A model with dropout, a batch, and the metrics of two steps on one device."""
    model = dataclasses.replace(setting[1], adapter=dataclasses.replace(setting[1].adapter, dropout=0.3))
    batch = oracle.random_batch(rows=8)
    step, state, *_ = start(setting, model=model)
    metrics = []
    for _ in range(2):
        state, told = step(state, batch)
        metrics.append(told)
    return model, batch, metrics, to_dict(state)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)], ids=str)
def test_every_mesh_gives_the_same_steps(setting, one_device, shape):
    """Sums in another order: float32's few parts in 10^6, a little more after Adam's division. Dropout included."""
    model, batch, expected, after = one_device
    step, state, *_ = start(setting, sharding.make_mesh(*shape), model=model)
    for told in expected:
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics["loss"], told["loss"], rtol=2e-5)
        np.testing.assert_allclose(metrics["grad_norm"], told["grad_norm"], rtol=2e-4)
    means, wanted = (tree.flatten(jax.device_get(each["adam"]["mean"])) for each in (to_dict(state), after))
    whole = np.sqrt(sum(np.square(mean).sum() for mean in wanted.values()))
    for (
        path,
        mean,
    ) in wanted.items():  # the mean of two gradients; the keys' biases', which softmax cancels, is rounding
        assert np.linalg.norm(means[path] - mean) <= 2e-4 * np.linalg.norm(mean) + 1e-6 * whole, path


WHOLE = {
    "encoder.conv1.kernel",
    "encoder.conv2.kernel",
    "encoder.positions",
    "connector.prompts",
    "connector.tap_weights",
}
"""What every device holds whole of more than a vector: a few MB at true size."""


@pytest.mark.parametrize(
    ("shape", "moves"),
    [
        ((8, 1, 1), "all-reduce"),
        ((1, 8, 1), "all-gather all-reduce all-to-all"),
        ((2, 2, 2), "all-gather all-reduce collective-permute"),
    ],
    ids=str,
)
def test_nothing_is_copied_or_moved_that_need_not_be(setting, shape, moves):
    """Of the compiled step: where its arguments and results lie, and by which collectives it goes from one to the next.

    Over fsdp alone the one all-to-all brings embeddings, looked up where their columns are, to their rows; where fsdp
    and tensor meet, shards of weights change places once.
    """
    _, model, _, adapter = setting
    batch, mesh = oracle.random_batch(rows=8), sharding.make_mesh(*shape)
    _, state, compiled, frozen = start(setting, mesh)
    with jax.set_mesh(mesh):
        program = compiled.lower(state, frozen, sharding.put_batch(batch, mesh, batch.rows)).compile()
    (states, weights, _), _ = program.input_shardings
    leaves = tree.flatten(frozen) | tree.flatten(state.adapter)
    places = tree.flatten(weights) | tree.flatten(states.adapter)  # None for what the step does not use
    whole = {path for path, place in places.items() if place is not None and place.is_fully_replicated}
    large = {path for path in whole if leaves[path].ndim > 1 and not path.endswith(("bias", "scale"))}
    assert shape == (8, 1, 1) or large == WHOLE
    moments = to_dict(states)["adam"]
    for path, place in tree.flatten(states.adapter).items():
        for name in ("mean", "variance"):
            assert tree.flatten(moments[name])[path].is_equivalent_to(place, leaves[path].ndim), path
    kept = jax.tree.map(lambda one, other: one.spec == other.spec, states, program.output_shardings[0])
    assert all(jax.tree.leaves(kept)), "a step gives back what the next one takes"
    found = re.findall(
        r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", program.as_text()
    )
    assert (
        set(found) == set(moves.split()) and found.count("all-to-all") <= 1 and found.count("collective-permute") <= 3
    )


def test_lora_is_split_and_gives_the_same_steps_on_a_mesh(setting):
    """As `test_every_mesh_gives_the_same_steps`, and every one of its matrices lies over as many devices as it can."""
    _, model, *_ = setting
    model = dataclasses.replace(model, adapter=dataclasses.replace(model.adapter, lora_rank=4, lora_dropout=0.1))
    fresh = model.init_adapter(jax.random.key(1))["lora"]
    lora = jax.tree.map(lambda leaf: 0.1 * jax.random.normal(jax.random.key(2), leaf.shape), fresh)  # B starts at zero
    batch, told = oracle.random_batch(rows=8), []
    for shape in ((1, 1, 1), (2, 2, 2)):
        mesh = sharding.make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])
        step, state, *_ = start(setting, mesh, model=model, lora=lora)
        state, first = step(state, batch)
        state, second = step(state, batch)
        told.append([(metrics["loss"], metrics["grad_norm"]) for metrics in (first, second)])
    np.testing.assert_allclose(told[1], told[0], rtol=2e-4)
    for path, leaf in tree.flatten(state.adapter["lora"]).items():
        assert leaf.addressable_shards[0].data.size == leaf.size // 2, path  # A over fsdp, B over tensor


def test_activations_stay_where_their_rows_are(setting, one_device):
    """Weights come to the rows, not rows to the weights: no device ever holds all rows of an activation."""
    model, batch, *_ = one_device
    mesh = sharding.make_mesh(2, 2, 2)
    _, state, compiled, frozen = start(setting, mesh, model=model)
    with jax.set_mesh(mesh):
        program = compiled.lower(state, frozen, sharding.put_batch(batch, mesh, batch.rows)).compile()
    text = program.as_text()
    rows, clips, _ = batch.audio.shape
    for whole, length in ((rows * clips, oracle.FRAMES), (rows, batch.tokens.shape[1])):
        assert f"[{whole // 4},{length},32]" in text  # four places along data and fsdp
        assert f"[{whole},{length},32]" not in text
    for path, leaf in tree.flatten(frozen).items():
        if path.endswith("kernel") and leaf.ndim == 3 and "lm." in path:
            assert leaf.addressable_shards[0].data.size == leaf.size // 4, path  # over fsdp and tensor


def test_accumulation_and_remat_give_the_whole_batchs_step(setting, plain):
    batch = oracle.random_batch(rows=8)
    whole, state = plain
    _, expected = whole(state, batch)
    parts, state, *_ = start(setting, accumulate=4, remat="all")
    _, metrics = parts(state, batch)
    assert metrics["label_tokens"] == expected["label_tokens"]
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], expected["grad_norm"], rtol=1e-4)


@pytest.fixture(scope="module")
def plain(setting):
    """One compiled step on one device, and the state before it; it takes copies, so that each test has its own."""
    step, state, *_ = start(setting)
    return (lambda state, batch: step(jax.tree.map(jnp.copy, state), batch)), state


def test_a_loss_that_is_not_finite_changes_nothing_but_the_clock(plain):
    batch = oracle.random_batch(rows=8)
    step, state = plain
    state, _ = step(state, batch)
    broken = dataclasses.replace(state, adapter=jax.tree.map(jnp.copy, state.adapter))
    broken.adapter["connector"]["tap_weights"] = broken.adapter["connector"]["tap_weights"].at[0, 0].set(jnp.nan)
    kept = jax.device_get(broken)
    after, metrics = step(broken, batch)
    assert not np.isfinite(metrics["loss"])
    assert (int(after.step), int(after.skipped), int(metrics["skipped"])) == (2, 1, 1)
    for path, leaf in tree.flatten(to_dict(after)).items():
        if path not in ("step", "skipped"):
            np.testing.assert_array_equal(leaf, tree.flatten(to_dict(kept))[path], err_msg=path)


def test_the_skip_counter_starts_again_after_a_good_step(plain):
    step, state = plain
    state = dataclasses.replace(state, skipped=state.skipped + 3)
    assert int(step(state, oracle.random_batch(rows=8))[0].skipped) == 0


def test_frozen_weights_cost_no_gradient(setting):
    """Their gradients would add a third to the decoder's arithmetic, and show in the step's FLOPs."""
    step, state, compiled, frozen = start(setting)
    _, model, _, adapter = setting
    batch = jax.tree.map(jnp.asarray, oracle.random_batch(tokens=200, clips=1, rows=24))

    def loss(adapter, frozen):
        return mean_loss(model, adapter, frozen, batch)[0]

    def flops(function, *arguments):
        return function.lower(*arguments).cost_analysis()["flops"]

    adapter_alone = flops(jax.jit(jax.grad(loss)), adapter, frozen)
    everything = flops(jax.jit(jax.grad(loss, argnums=(0, 1))), adapter, frozen)
    beside = flops(compiled, state, frozen, batch) - adapter_alone  # AdamW's arithmetic
    assert 0 <= beside < (everything - adapter_alone) / 2


def test_the_state_on_disk_is_plain_dicts_and_comes_back(plain):
    step, state = plain
    state, _ = step(state, oracle.random_batch(rows=8))
    plain = to_dict(state)
    assert all("." not in key for key in plain)
    back = from_dict(plain, state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(state)):
        np.testing.assert_array_equal(one, other)
