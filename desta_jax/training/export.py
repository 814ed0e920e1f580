"""A run's adapter as a folder that the PyTorch reference loads."""

from __future__ import annotations

import pathlib

from etils import epath

from desta_jax import tree
from desta_jax.config import read_run
from desta_jax.models.shapes import tap_layers_for
from desta_jax.training.run import make_model
from desta_jax.weights import hub
from desta_jax.weights.adapter import write_adapter
from desta_jax.weights.folder import ModelFolder
from desta_jax.weights.trained import read_trained


def export(
    workdir: str,
    out: str,
    *,
    model: str = "",
    step: int | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes the adapter of a work directory's checkpoint as model.safetensors, config.json and a model card.

    Args:
        workdir: of `desta-jax train`.
        out: the folder to make.
        model: the converted folder, where it is no longer at the place that the run's config names.
        step: of the checkpoint; None takes the newest.
        dtype: "float32", or "bfloat16" for half the size.
        overwrite: whether an older export in `out` may be replaced.

    Raises:
        FileNotFoundError, ValueError: there is no run, no such checkpoint, or no converted folder.
    """
    file = epath.Path(workdir) / "config.json"
    if not file.exists():
        raise FileNotFoundError(f"{workdir} has no config.json: it is not the work directory of a run")
    config = read_run(file)
    try:
        folder = ModelFolder(model or config.model.checkpoint)
    except ValueError as error:
        raise ValueError(f"{error}. If it is elsewhere by now, name the place with --model") from error
    llm, encoder = folder.description["llm"], folder.description["encoder"]
    _, adapter = read_trained(workdir, step)
    config.adapter.standardize_clips = 0  # which the checkpoint, as it is read, has folded in
    if differences := tree.differences(adapter, make_model(config, folder).abstract_adapter()):
        raise ValueError(
            f"{folder.path} is not what {workdir} was trained on; give the converted folder that was with --model:\n  "
            + "\n  ".join(differences)
        )
    return write_adapter(
        out,
        adapter,
        llm_model_id=hub.name_of(llm) or config.model.llm or llm["source"],
        encoder_model_id=hub.name_of(encoder) or config.model.encoder or encoder["source"],
        tap_layers=tap_layers_for(folder.whisper_config["encoder_layers"], config.adapter.tap_layers),
        placeholder_token=config.adapter.placeholder_token,
        audio_seconds=config.data.audio_seconds,
        lora_alpha=config.adapter.lora_alpha,
        lora_dropout=config.adapter.lora_dropout,
        dtype=dtype,
        overwrite=overwrite,
    )
