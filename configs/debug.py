"""The reference implementation's debug run: Qwen3-0.6B, Whisper tiny, two connector layers. Fits one small GPU.

desta-jax convert --llm Qwen/Qwen3-0.6B --encoder openai/whisper-tiny --out models/debug
desta-jax train --config configs/debug.py --workdir runs/debug --config.data.train=records/train
"""


def get_config():
    return {
        "model": {"checkpoint": "models/debug", "llm": "Qwen/Qwen3-0.6B", "encoder": "openai/whisper-tiny"},
        "adapter": {"num_layers": 2, "tap_layers": (0, 1, 2, 3), "placeholder_token": "<|video_pad|>"},
        "train": {"batch_size": 8, "steps": 200},
        "optimizer": {"warmup_steps": 20},
        "checkpoint": {"every_steps": 100},
    }
