"""AdamW behind a clip by global norm, under a warm-up and half a cosine."""

from __future__ import annotations

import optax
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear from 0 over the warm-up, then half a cosine to 0 at `steps`.

    The rate of step s is the schedule's value at s, so that step 0 has rate 0: the reference steps its schedule
    after its optimizer (transformers' get_cosine_schedule_with_warmup).
    """
    settings = config.optimizer
    warmup = min(settings.warmup_steps, steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.peak_learning_rate, warmup),
            optax.cosine_decay_schedule(settings.peak_learning_rate, max(1, steps - warmup)),
        ],
        [warmup],
    )


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """The reference's optimizer: AdamW with weight decay on every tensor, gradients clipped together."""
    settings = config.optimizer
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            learning_rate(config, steps),
            b1=settings.b1,
            b2=settings.b2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        ),
    )
