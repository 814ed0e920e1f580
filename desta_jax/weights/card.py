"""The model card that goes with an exported adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from desta_jax.models.shapes import REFERENCE_LORA, REFERENCE_TAPS
from desta_jax.weights.hub import NAME

REFERENCE_ENCODERS = {
    "openai/whisper-tiny": 4,
    "openai/whisper-small": 12,
    "openai/whisper-medium": 24,
    "openai/whisper-large-v3": 32,
}
"""The encoders that the PyTorch reference knows by name, by their depth; which says the layers that it then taps."""

CARD = """\
---
{front_matter}
---
# A DeSTA2.5-Audio adapter

A Q-Former connector{with_lora} that lets a frozen language model hear, trained with desta_jax.

| | |
|---|---|
| language model (frozen) | {llm} |
| speech encoder (frozen) | {encoder}, layers {taps} (from 0) |
| connector | {layers} Q-Former layers, {prompt_size} soft tokens a clip of {audio_seconds} s |
| trained parameters | {parameters:,} |

This folder holds the trained parameters only; the two frozen models are loaded beside it, by their names in
`config.json`.

With PyTorch (https://github.com/kehanlu/DeSTA2.5-Audio):

    from desta import DeSTA25AudioModel
    model = DeSTA25AudioModel.from_pretrained("PATH/TO/THIS/FOLDER")
{notes}
With desta_jax:

    desta-jax convert --llm {llm} --encoder {encoder} --adapter PATH/TO/THIS/FOLDER --out MODEL
    desta-jax generate --model MODEL --audio CLIP.wav --prompt "What do you hear?"

The method is that of DeSTA2.5-Audio (https://arxiv.org/abs/2507.02768).
"""


def model_card(config: Mapping[str, Any], parameters: int) -> str:
    """The README.md of an adapter with this config.json."""
    notes = "".join(f"\nNote: {note}\n" for note in reference_limits(config))
    return CARD.format(
        front_matter=_front_matter(config),
        with_lora=", with LoRA on the language model," if config["use_lora"] else "",
        llm=config["llm_model_id"],
        encoder=config["encoder_model_id"],
        taps=", ".join(map(str, config["target_layer_ids"])),
        layers=config["qformer_num_hidden_layers"],
        prompt_size=config["prompt_size"],
        audio_seconds=config["audio_seconds"],
        parameters=parameters,
        notes=notes,
    )


def reference_limits(config: Mapping[str, Any]) -> list[str]:
    """Why the PyTorch reference would refuse this adapter or compute something else; empty if it would not."""
    limits = []
    encoder, taps = config["encoder_model_id"], config["target_layer_ids"]
    if encoder not in REFERENCE_ENCODERS:
        limits.append(f"the PyTorch code knows {', '.join(REFERENCE_ENCODERS)} by name and refuses other encoders.")
    elif taps != (known := list(REFERENCE_TAPS[REFERENCE_ENCODERS[encoder]])):
        limits.append(f"the PyTorch code taps layers {known} of this encoder whatever it is told.")
    if config["use_lora"] and any(config[key] != REFERENCE_LORA[key] for key in ("lora_rank", "lora_alpha")):
        limits.append("the PyTorch code makes LoRA of rank 16 and alpha 16 only; lora/ is a PEFT adapter by itself.")
    if (seconds := config["audio_seconds"]) != 30:
        limits.append(f"the PyTorch code pads every clip to 30 s; this adapter was trained on windows of {seconds} s.")
    return limits


def _front_matter(config: Mapping[str, Any]) -> str:
    bases = [config["llm_model_id"], config["encoder_model_id"]]
    hub_names = [base for base in bases if NAME.fullmatch(base)]
    lines = ["pipeline_tag: audio-text-to-text", "tags: [audio, speech, desta, adapter]"]
    return "\n".join(lines + (["base_model:", *(f"- {name}" for name in hub_names)] if hub_names else []))
