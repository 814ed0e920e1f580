"""What a run needs on a TPU topology, from the TPU compiler, without a TPU: memory, step time, days."""
