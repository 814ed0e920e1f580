"""Benchmarks: predictions of a model, official scores, and tables beside published figures."""
