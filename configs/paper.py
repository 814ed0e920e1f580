"""DeSTA2.5-Audio as its paper trains it: Llama 3.1 8B Instruct, Whisper large-v3, the 131 M connector, AQA5M.

    desta-jax train --config configs/paper.py --workdir gs://BUCKET/runs/paper \\
        --config.model.checkpoint=gs://BUCKET/models/paper --config.data.train=gs://BUCKET/aqa5m/train

Every other value is the default in desta_jax/config.py, which is the reference implementation's: AdamW at 1e-4
after 5000 steps of warm-up, 96 samples a step, 5 epochs. For a TPU slice set mesh.fsdp so that the 16 GB of frozen
weights fit beside the activations: `desta-jax plan` tells.
"""


def get_config():
    return {
        "model": {"llm": "meta-llama/Llama-3.1-8B-Instruct", "encoder": "openai/whisper-large-v3"},
        "adapter": {"tap_layers": (7, 15, 23, 31)},
    }
