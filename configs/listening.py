"""A small model that hears, made on one machine from its own words: data/listening/README.md tells the whole of it.

SmolLM2 135M Instruct and Whisper base, as configs/smol.py, but for hours and thousands of rows. Rows are packed,
since most are far shorter than the longest; precision and remat are what a CPU with bfloat16 does fastest.
launch/listening.sh runs it for each lesson, with weights of the data.
"""


def get_config():
    return {
        "compute_dtype": "float32",
        "matmul_precision": "bfloat16",
        "model": {
            "checkpoint": "models/smol",
            "llm": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "encoder": "openai/whisper-base",
        },
        "adapter": {
            "num_layers": 1,
            "prompt_size": 32,
            "tap_layers": (1, 2, 3, 5),
            "standardize_clips": 200,
            "placeholder_token": "<reponame>",
        },
        "data": {"max_length": 256, "validation_max_length": 256, "audio_seconds": 8, "pack": True},
        "train": {"batch_size": 16, "steps": 400},
        "optimizer": {"peak_learning_rate": 1e-3, "warmup_steps": 30},
        "remat": "scores",
        "checkpoint": {"every_steps": 25},
        "evaluate": {"every_steps": 200},
    }
