"""AdamW behind a clip by global norm, under a warm-up and half a cosine."""

from __future__ import annotations

import functools

import optax
from ml_collections import ConfigDict

from desta_jax.tree import map_with_path, match


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear from 0 over the warm-up, then half a cosine to 0 at `steps`.

    The rate of step s is the schedule's value at s, so that step 0 has rate 0: the reference steps its schedule
    after its optimizer (transformers' get_cosine_schedule_with_warmup).
    """
    settings = config.optimizer
    warmup = settings.warmup_steps
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.peak_learning_rate, warmup),
            optax.cosine_decay_schedule(settings.peak_learning_rate, max(1, steps - warmup)),
        ],
        [warmup],
    )


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """The reference's optimizer: AdamW with weight decay on every tensor, gradients clipped together. What standardises
    frames is measured, not trained: it has no gradient, and does not decay."""
    settings = config.optimizer
    decays = functools.partial(map_with_path, lambda path, leaf: not match(r"frames\.\w+", path))
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity(),
        optax.adamw(
            learning_rate(config, steps),
            b1=settings.b1,
            b2=settings.b2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            mask=decays if config.adapter.standardize_clips else None,
        ),
    )
