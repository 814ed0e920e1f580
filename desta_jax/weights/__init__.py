"""Weights in and out: Hugging Face folders to a converted one, and the adapter to and from the PyTorch reference."""
