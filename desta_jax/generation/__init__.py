"""Listening and answering: transcription, voice activity, decoding, chat. `load(folder)` gives a model to ask."""

from desta_jax.generation.load import chosen_step, export_digest, load
from desta_jax.generation.model import Answer, Model, Request
from desta_jax.generation.sampling import Sampling

__all__ = ["Answer", "Model", "Request", "Sampling", "chosen_step", "export_digest", "load"]
