"""The Batch: every array that crosses from host to device."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Int16, Int32

IGNORED = -1  # in audio_slots: a text token; in labels: no label


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of tokens with the clips they speak of, at fixed shapes.

    A row holds one sample, or several when samples are packed; a sample sees only itself. Rows are filled from
    the left and padded on the right; a clip slot that no sample uses holds silence and no token points at it.
    """

    audio: Int16[Array, "rows clips samples"]
    """16 kHz mono PCM, cut or zero-padded to the audio window."""
    tokens: Int32[Array, "rows tokens"]
    """Vocabulary ids. Where a soft token stands, any valid id."""
    positions: Int32[Array, "rows tokens"]
    """Rotary positions, from 0 in each sample."""
    segments: Int32[Array, "rows tokens"]
    """Which of the row's samples a token belongs to, from 1; 0 is padding."""
    audio_slots: Int32[Array, "rows tokens"]
    """Index into the row's soft tokens (clip * prompt_size + query), or -1 for a text token."""
    label_positions: Int32[Array, "rows labels"]
    """Where the hidden state that predicts each label stands (one before the label's own token); 0 if none."""
    labels: Int32[Array, "rows labels"]
    """The token ids to predict, from the left; -1 where there is none."""

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]


def empty_batch(rows: int, clips: int, samples: int, tokens: int, labels: int) -> Batch:
    """A batch of padding: what rows are written into. np.zeros takes memory only where a clip is written."""

    def zeros(*shape, dtype=np.int32):
        return np.zeros(shape, dtype)

    def ignored(*shape):
        return np.full(shape, IGNORED, np.int32)

    return Batch(
        audio=zeros(rows, clips, samples, dtype=np.int16),
        tokens=zeros(rows, tokens),
        positions=zeros(rows, tokens),
        segments=zeros(rows, tokens),
        audio_slots=ignored(rows, tokens),
        label_positions=zeros(rows, labels),
        labels=ignored(rows, labels),
    )
