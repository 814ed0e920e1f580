"""Clips to what the language model needs of them: soft tokens, and transcripts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from desta_jax import sharding
from desta_jax.audio.load import SAMPLE_RATE
from desta_jax.audio.mel import log_mel
from desta_jax.generation.talk import on, row_bucket
from desta_jax.generation.transcribe import Transcriber
from desta_jax.models.audio_lm import AudioLM
from desta_jax.tree import Tree

CLIPS_AT_ONCE = 8
WHISPER_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Heard:
    """A clip, heard."""

    soft: Float[Array, "queries lm_width"]
    transcript: str | None
    """None unless it was asked for."""


@dataclasses.dataclass(frozen=True)
class Ear:
    """The encoder, the connector and the Whisper decoder on their devices."""

    audio_lm: AudioLM
    encoder: Tree
    adapter: Tree
    transcriber: Transcriber | None
    tokenizer: object
    """Whisper's."""
    mesh: Mesh
    seconds: int
    """The window that the connector was trained on."""

    def listen(self, clips: Sequence[Float[np.ndarray, " samples"]], transcribe: Sequence[bool]) -> list[Heard]:
        """Hears the first window of each clip (16 kHz); writes down those where `transcribe`.

        The encoder runs once for both, unless the connector's window is not Whisper's.
        """
        order = sorted(range(len(clips)), key=lambda clip: not transcribe[clip])  # those to write down together
        heard: dict[int, Heard] = {}
        with on(self.mesh):
            for start in range(0, len(order), CLIPS_AT_ONCE):
                part = order[start : start + CLIPS_AT_ONCE]
                heard |= self._listen([clips[clip] for clip in part], part, sum(transcribe[clip] for clip in part))
        return [heard[clip] for clip in range(len(clips))]

    def _listen(self, clips: list[np.ndarray], names: list[int], transcribe: int) -> dict[int, Heard]:
        """The first `transcribe` of these are written down."""
        soft, frames = hear(self.audio_lm, self.encoder, self.adapter, self._batch(clips, self.seconds))
        texts: list[str | None] = [None] * len(clips)
        if transcribe:
            if self.seconds != WHISPER_SECONDS:
                batch = self._batch(clips[:transcribe], WHISPER_SECONDS)
                frames = hear(self.audio_lm, self.encoder, self.adapter, batch)[1]
            tokens = self.transcriber(frames[: row_bucket(transcribe, sharding.row_shards(self.mesh))])[:transcribe]
            texts[:transcribe] = [
                text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            ]
        return {name: Heard(soft[row], texts[row]) for row, name in enumerate(names)}

    def _batch(self, clips: list[np.ndarray], seconds: int) -> Float[Array, "clips samples"]:
        rows = row_bucket(len(clips), sharding.row_shards(self.mesh))
        return jax.device_put(lay_out(clips, rows, seconds), sharding.batch_sharding(self.mesh))


def lay_out(
    clips: Sequence[Float[np.ndarray, " samples"]], rows: int, seconds: int
) -> Float[np.ndarray, "rows samples"]:
    """The first `seconds` of each clip (16 kHz); silence after shorter ones, and in rows without a clip."""
    audio = np.zeros((rows, seconds * SAMPLE_RATE), np.float32)
    for row, clip in enumerate(clips):
        audio[row, : len(clip)] = clip[: audio.shape[1]]
    return audio


@functools.partial(jax.jit, static_argnums=0)
def hear(
    audio_lm: AudioLM, encoder: Tree, adapter: Tree, audio: Float[Array, "clips samples"]
) -> tuple[Float[Array, "clips queries lm_width"], Float[Array, "clips frames width"]]:
    """Soft tokens, and the encoder's last hidden states after its norm, which Whisper's decoder looks at."""
    mel = sharding.constrain_rows(log_mel(audio, audio_lm.whisper.mels)).astype(audio_lm.dtype)
    whisper = audio_lm.encoder({"encoder": encoder})
    taps, last = whisper(mel, audio_lm.adapter.tap_layers, all_layers=True)
    return audio_lm.soft_tokens(adapter, taps), jnp.asarray(whisper.norm(last))
