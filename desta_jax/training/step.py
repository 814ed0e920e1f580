"""One training step: loss over the global batch, gradients of the adapter alone, one update."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32
from ml_collections import ConfigDict

from desta_jax import sharding
from desta_jax.batch import Batch
from desta_jax.models.audio_lm import AudioLM
from desta_jax.training.loss import label_loss
from desta_jax.training.optimizer import learning_rate, make_optimizer
from desta_jax.tree import Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes, and all that a checkpoint holds of it."""

    step: Int32[Array, ""]
    """Steps taken, skipped ones included: it is also where the input stands."""
    skipped: Int32[Array, ""]
    """Steps in a row, up to now, whose update was skipped because loss or gradient was not finite."""
    adapter: Tree
    optimizer: optax.OptState


def init_state(adapter: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before step 0."""
    return TrainState(jnp.int32(0), jnp.int32(0), adapter, optimizer.init(adapter))


def abstract_state(model: AudioLM, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes and dtypes of the state with their shardings: what a checkpoint is restored into."""
    state = jax.eval_shape(lambda adapter: init_state(adapter, optimizer), model.abstract_adapter())
    return sharding.with_shardings(state, state_shardings(state, mesh))


def mean_loss(model: AudioLM, adapter: Tree, frozen: Tree, batch: Batch) -> tuple[Float[Array, ""], Int32[Array, ""]]:
    """Mean loss (nats a label token) of a batch without dropout, and its label tokens: what validation sees."""
    total, count = _summed_loss(adapter, frozen, batch, model=model, key=None, remat="none")
    return total / jnp.maximum(count, 1), count


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Batch,
    *,
    model: AudioLM,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
    remat: str,
    accumulate: int = 1,
) -> tuple[TrainState, dict[str, Array]]:
    """The next state, and the step's metrics.

    The loss is one mean over the label tokens of the global batch, whatever the mesh and `accumulate`. Dropout's keys
    depend on the seed and the step alone, so a resumed run draws what an uninterrupted one would.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    total, count, gradient = _accumulated(state.adapter, frozen, batch, model, key, remat, accumulate)
    scale = 1 / jnp.maximum(count, 1).astype(jnp.float32)
    gradient = jax.tree.map(lambda g: g * scale, gradient)
    norm = optax.tree.norm(gradient)
    loss = total * scale
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    updates, moved = optimizer.update(gradient, state.optimizer, state.adapter)
    keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(finite, new, old))
    following = TrainState(
        step=state.step + 1,
        skipped=jnp.where(finite, 0, state.skipped + 1),
        adapter=keep(optax.apply_updates(state.adapter, updates), state.adapter),
        optimizer=_tick(keep(moved, state.optimizer), state.step + 1),
    )
    metrics = {
        "loss": loss,
        "grad_norm": norm,
        "learning_rate": schedule(state.step),
        "label_tokens": count,
        "skipped": following.skipped,
    }
    return following, metrics


def _tick(optimizer: optax.OptState, step: Int32[Array, ""]) -> optax.OptState:
    """The schedule's clock follows the step even where an update was skipped; Adam's own count does not."""
    return jax.tree.map(
        lambda part: part._replace(count=step) if isinstance(part, optax.ScaleByScheduleState) else part,
        optimizer,
        is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState),
    )


def _summed_loss(adapter, frozen, batch, *, model, key, remat):
    hidden = model.hidden(adapter, frozen, batch, key=key, remat=remat)
    return label_loss(hidden, model.lm(frozen).output_table, batch.label_positions, batch.labels)


def _accumulated(adapter, frozen, batch, model, key, remat, parts):
    """Summed loss, label count and gradient, the batch taken in `parts` parts one after the other."""

    def of_part(part, key):
        loss = functools.partial(_summed_loss, model=model, key=key, remat=remat)
        (total, count), gradient = jax.value_and_grad(loss, has_aux=True)(adapter, frozen, part)
        return total, count, gradient

    if parts == 1:
        return of_part(batch, key)

    def add(carry, part_and_index):
        part, index = part_and_index
        return jax.tree.map(jnp.add, carry, of_part(part, jax.random.fold_in(key, index))), None

    zeros = (jnp.float32(0), jnp.int32(0), jax.tree.map(jnp.zeros_like, adapter))
    sums, _ = jax.lax.scan(add, zeros, (deal(batch, parts), jnp.arange(parts)))
    return sums


def deal(batch: Batch, parts: int) -> Batch:
    """The batch in parts along a new leading axis, rows dealt out in turn: each part lies over all devices as the batch
    does."""
    dealt = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0), batch)
    return jax.tree.map(sharding.constrain_parts, dealt)


def configured_step(config: ConfigDict, model: AudioLM, steps: int) -> Callable:
    """train_step with all but its state, frozen weights and batch given, for a run of so many steps."""
    return functools.partial(
        train_step,
        model=model,
        optimizer=make_optimizer(config, steps),
        schedule=learning_rate(config, steps),
        seed=config.seed,
        remat=config.remat,
        accumulate=config.train.accumulate,
    )


def matmul_precision(config: ConfigDict):
    """A context in which float32 is multiplied as the config says: TPUs would round it to bfloat16 unless told."""
    return jax.default_matmul_precision(config.matmul_precision if config.compute_dtype == "float32" else None)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Adam's moments lie where their parameters lie; counters are whole on every device."""
    adapter = sharding.parameter_shardings(state.adapter, mesh)
    whole = sharding.replicated(mesh)
    structure = jax.tree.structure(state.adapter)

    def like_adapter(node):
        return jax.tree.structure(node) == structure

    optimizer = jax.tree.map(
        lambda node: adapter if like_adapter(node) else whole, state.optimizer, is_leaf=like_adapter
    )
    return TrainState(whole, whole, adapter, optimizer)


def compile_step(step: Callable, mesh: Mesh, state: TrainState, frozen: Tree) -> Callable:
    """The step under jit: the state is donated, the frozen weights are not; every sharding is said."""
    states = state_shardings(state, mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(states, sharding.parameter_shardings(frozen, mesh), sharding.batch_sharding(mesh)),
        out_shardings=(states, sharding.replicated(mesh)),
    )
