"""The paper's comparison: the same run with LoRA on the language model's q, k and v projections beside the connector.

    desta-jax train --config configs/lora.py --workdir gs://BUCKET/runs/lora \\
        --config.model.checkpoint=gs://BUCKET/models/paper --config.data.train=gs://BUCKET/aqa5m/train
"""


def get_config():
    return {
        "model": {"llm": "meta-llama/Llama-3.1-8B-Instruct", "encoder": "openai/whisper-large-v3"},
        "adapter": {"tap_layers": (7, 15, 23, 31), "lora_rank": 16},
    }
