"""Random micro models, for tests and `launch/quickstart.sh --micro`: every part of a run, in seconds, on a CPU."""


def get_config():
    return {
        "compute_dtype": "float32",
        "adapter": {
            "num_layers": 1,
            "prompt_size": 8,
            "tap_layers": (0, 1),
            "placeholder_token": "<|placeholder|>",
        },
        "data": {"max_length": 128, "validation_max_length": 128, "audio_seconds": 4, "threads": 1},
        "train": {"batch_size": 4, "steps": 20},
        "optimizer": {"peak_learning_rate": 1e-2, "warmup_steps": 2},
        "checkpoint": {"every_steps": 10},
        "evaluate": {"every_steps": 10},
        "log": {"every_steps": 5},
    }
