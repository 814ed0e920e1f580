"""The real small pair on a laptop's CPU: SmolLM2 135M Instruct and Whisper base. launch/quickstart.sh runs this one.

    desta-jax convert --llm HuggingFaceTB/SmolLM2-135M-Instruct --encoder openai/whisper-base --out models/smol
    desta-jax train --config configs/smol.py --workdir runs/smol --config.data.train=records/train

float32, because CPUs compute it faster than bfloat16 under JAX; 8 seconds of audio, because the encoder's cost grows
with the window.
"""


def get_config():
    return {
        "compute_dtype": "float32",
        "model": {
            "checkpoint": "models/smol",
            "llm": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "encoder": "openai/whisper-base",
        },
        "adapter": {
            "num_layers": 1,
            "prompt_size": 32,
            "tap_layers": (1, 2, 3, 5),
            "standardize_clips": 32,
            "placeholder_token": "<reponame>",  # in SmolLM2's vocabulary, and never in a conversation
        },
        "data": {"max_length": 160, "validation_max_length": 160, "audio_seconds": 8},
        "train": {"batch_size": 8, "steps": 32},
        "optimizer": {"peak_learning_rate": 1e-3, "warmup_steps": 4},
        "checkpoint": {"every_steps": 16},
        "evaluate": {"every_steps": 16},
        "log": {"every_steps": 4},
    }
