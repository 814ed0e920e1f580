"""The paper's recipe on another backbone: Qwen2.5 7B Instruct with Whisper large-v3.

    desta-jax convert --llm Qwen/Qwen2.5-7B-Instruct --encoder openai/whisper-large-v3 --out models/qwen25_7b
    desta-jax train --config configs/qwen25_7b.py --workdir runs/qwen25_7b --config.data.train=records/train

Responses should be this backbone's own, written by it as the paper's are by Llama: a backbone learns to hear best from
answers in its own words.
"""


def get_config():
    return {
        "model": {
            "checkpoint": "models/qwen25_7b",
            "llm": "Qwen/Qwen2.5-7B-Instruct",
            "encoder": "openai/whisper-large-v3",
        },
        "adapter": {"tap_layers": (7, 15, 23, 31), "placeholder_token": "<|video_pad|>"},
    }
