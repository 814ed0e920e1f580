"""DeSTA2.5-Audio in JAX and Flax: train, run and evaluate an audio language model on TPUs."""

__version__ = "0.1.0"
