"""Cross-entropy over a large vocabulary, without ever holding all the logits."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from desta_jax.batch import IGNORED
from desta_jax.sharding import gather_width

CHUNK = 64
"""Labels a row whose logits exist at one time."""


def label_loss(
    hidden: Float[Array, "rows tokens width"],
    table: Float[Array, "vocabulary width"],
    label_positions: Int32[Array, "rows labels"],
    labels: Int32[Array, "rows labels"],
) -> tuple[Float[Array, ""], Int32[Array, ""]]:
    """Summed negative log-likelihood (nats) of a batch's labels, and how many there are.

    Args:
        hidden: what the language model says at each token.
        table: its output table; logits are hidden @ table.T. It gets no gradient.
        label_positions: where each label is predicted.
        labels: token ids, -1 for none.
    """
    asked = jnp.take_along_axis(hidden, label_positions[..., None], axis=1)
    table = gather_width(jax.lax.stop_gradient(table), "head")
    return cross_entropy(asked, table, labels), jnp.sum(labels != IGNORED, dtype=jnp.int32)


@jax.custom_vjp
def cross_entropy(
    hidden: Float[Array, "rows labels width"],
    table: Float[Array, "vocabulary width"],
    labels: Int32[Array, "rows labels"],
) -> Float[Array, ""]:
    """Summed -log softmax(hidden @ table.T)[labels]; labels of -1 count nothing.

    The table is frozen, so the only gradient is that of `hidden`. It is computed along with the loss, chunk by chunk
    from the same logits: they are never stored and never computed twice.
    """
    return _scan_chunks(hidden, table, labels, _chunk_loss)[0]


def _forward(hidden, table, labels):
    loss, gradient = _scan_chunks(hidden, table, labels, functools.partial(_chunk_loss, with_gradient=True))
    return loss, (gradient, table)


def _backward(residuals, cotangent):
    gradient, table = residuals
    return (gradient * cotangent.astype(gradient.dtype)), jnp.zeros_like(table), None


cross_entropy.defvjp(_forward, _backward)


def _scan_chunks(hidden, table, labels, chunk_loss):
    """Sums losses over chunks of labels; gathers the gradients, if there are any, in the order of the labels."""
    rows, count, width = hidden.shape
    chunk = min(CHUNK, count)
    padding = -count % chunk
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    labels = jnp.pad(labels, ((0, 0), (0, padding)), constant_values=IGNORED)
    chunks = (count + padding) // chunk

    def split(array):
        return jnp.moveaxis(array.reshape(rows, chunks, chunk, *array.shape[2:]), 1, 0)

    def run(total, part):
        loss, gradient = chunk_loss(*part, table)
        return total + loss, gradient

    total, gradient = jax.lax.scan(run, jnp.float32(0), (split(hidden), split(labels)))
    if gradient is not None:
        gradient = jnp.moveaxis(gradient, 0, 1).reshape(rows, chunks * chunk, width)[:, :count]
    return total, gradient


def _chunk_loss(hidden, labels, table, with_gradient=False):
    logits = jnp.einsum("rld,vd->rlv", hidden, table, preferred_element_type=jnp.float32)
    counted = labels != IGNORED
    top = logits.max(-1, keepdims=True)
    exponentials = jnp.exp(logits - top)
    total = exponentials.sum(-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)
    losses = (jnp.log(total) + top - chosen)[..., 0]
    loss = jnp.where(counted, losses, 0).sum()
    if not with_gradient:
        return loss, None
    hit = jax.lax.broadcasted_iota(labels.dtype, logits.shape, 2) == labels[..., None]
    slope = jnp.where(counted[..., None], exponentials / total - hit, 0).astype(table.dtype)
    return loss, jnp.einsum("rlv,vd->rld", slope, table).astype(hidden.dtype)
