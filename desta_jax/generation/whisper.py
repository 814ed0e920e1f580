"""The Whisper model of a converted folder by itself: clips to transcripts."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from desta_jax import sharding
from desta_jax.audio.mel import log_mel
from desta_jax.generation.listen import WHISPER_SECONDS, lay_out
from desta_jax.generation.load import compute_dtype, restore_transcriber
from desta_jax.generation.talk import row_bucket
from desta_jax.generation.transcribe import Transcriber
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import NO_ADAPTER, DecoderShape, WhisperShape
from desta_jax.programs import keep_programs
from desta_jax.tree import Tree
from desta_jax.weights.folder import ModelFolder


@dataclasses.dataclass(frozen=True)
class Whisper:
    """Speech to text, on one device."""

    audio_lm: AudioLM
    encoder: Tree
    transcriber: Transcriber
    tokenizer: Any

    def transcribe(self, clips: Sequence[Float[np.ndarray, " samples"]]) -> list[str]:
        """What is said in each clip (16 kHz; its first 30 seconds), together in one batch; greedy."""
        return [text.strip() for text in self.tokenizer.batch_decode(self.tokens(clips), skip_special_tokens=True)]

    def tokens(self, clips: Sequence[Float[np.ndarray, " samples"]]) -> list[list[int]]:
        """Whisper's tokens of each clip."""
        audio = lay_out(clips, row_bucket(len(clips)), WHISPER_SECONDS)
        return self.transcriber(_frames(self.audio_lm, self.encoder, audio))[: len(clips)]


def load_whisper(folder: str | os.PathLike, *, dtype: str = "", cache_programs: bool = True) -> Whisper:
    """Whisper as `desta-jax convert` put it into a folder, with neither language model nor adapter.

    Args:
        folder: what `desta-jax convert` wrote.
        dtype: "float32" or "bfloat16"; without it, bfloat16 where there is an accelerator and float32 on a CPU.
        cache_programs: as for generation.load.

    Raises:
        ValueError, FileNotFoundError: what is missing in the folder, or a dtype that is none of these.
    """
    if cache_programs:
        keep_programs()
    dtype = compute_dtype(dtype)
    opened = ModelFolder(folder)
    shape = WhisperShape.from_hf(opened.whisper_config)
    audio_lm = AudioLM(shape, DecoderShape.from_hf(opened.llm_config), NO_ADAPTER, dtype)
    mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
    like = sharding.placed({"encoder": audio_lm.abstract_frozen()["encoder"]}, mesh)
    encoder = opened.restore("encoder", like["encoder"])
    return Whisper(audio_lm, encoder, restore_transcriber(opened, shape, dtype, mesh), opened.whisper_tokenizer())


@functools.partial(jax.jit, static_argnums=0)
def _frames(
    audio_lm: AudioLM, encoder: Tree, audio: Float[Array, "clips samples"]
) -> Float[Array, "clips frames width"]:
    """The encoder's last hidden states after its norm."""
    whisper = audio_lm.encoder({"encoder": encoder})
    mel = log_mel(audio, audio_lm.whisper.mels).astype(audio_lm.dtype)
    return whisper.norm(whisper(mel, (), all_layers=True)[1])
