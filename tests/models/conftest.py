"""Small random models of every family, in PyTorch and converted to ours."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import oracle
import pytest

from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.training.step import mean_loss


@dataclasses.dataclass
class Pair:
    reference: oracle.Reference
    model: AudioLM
    frozen: dict
    adapter: dict

    def __post_init__(self):
        self._hidden = jax.jit(self.model.hidden, static_argnames="remat")
        self._loss = jax.jit(functools.partial(mean_loss, self.model))
        self._gradient = jax.jit(jax.value_and_grad(functools.partial(mean_loss, self.model), has_aux=True))

    def hidden(self, batch, key=None, frozen=None):
        return self._hidden(self.adapter, frozen or self.frozen, batch, key=key)

    def loss(self, batch):
        """Mean loss and label count."""
        return self._loss(self.adapter, self.frozen, batch)

    def gradient(self, batch):
        """Mean loss and its gradient by the adapter."""
        (loss, _), gradient = self._gradient(self.adapter, self.frozen, batch)
        return loss, gradient


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """The reference of a family beside our model with the same weights, in float32; made when first asked for."""
    made = {}

    def pair(family):
        if family not in made:
            reference = oracle.Reference(family)
            folder = reference.convert(tmp_path_factory.mktemp(family))
            model = AudioLM(
                WhisperShape.from_hf(folder.whisper_config),
                DecoderShape.from_hf(folder.llm_config),
                AdapterShape(num_layers=2, prompt_size=5, tap_layers=(0, 2, 3), dropout=0.1),
                jnp.float32,
            )
            frozen = {part: folder.restore(part, like) for part, like in model.abstract_frozen().items()}
            made[family] = Pair(reference, model, frozen, folder.restore("adapter", model.abstract_adapter()))
        return made[family]

    return pair


@pytest.fixture(scope="session")
def llama(pairs):
    return pairs("llama")
