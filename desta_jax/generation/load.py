"""From folders to a model that answers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from desta_jax import sharding, tree
from desta_jax.config import DTYPES, read_run
from desta_jax.generation.decode import LanguageModel
from desta_jax.generation.listen import WHISPER_SECONDS, Ear
from desta_jax.generation.model import Model
from desta_jax.generation.talk import open_tongue
from desta_jax.generation.transcribe import Rules, Transcriber
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.machine import default_dtype
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.decoder import DecoderLayer
from desta_jax.models.layers import LayerNorm, RMSNorm, to_tree, with_tree
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.models.whisper import EPSILON
from desta_jax.models.whisper_decoder import WhisperDecoder, WhisperDecoderLayer
from desta_jax.programs import keep_programs
from desta_jax.records.rows import AUDIO_LOCATOR
from desta_jax.tree import Tree
from desta_jax.weights.adapter import other_models, read_adapter
from desta_jax.weights.folder import ModelFolder
from desta_jax.weights.trained import FOLDER, find_step, read_trained


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What an adapter was trained with."""

    shape: AdapterShape
    placeholder_token: str
    audio_seconds: int
    audio_locator: str = AUDIO_LOCATOR

    @classmethod
    def of_reference(cls, config: Mapping[str, Any], whisper: WhisperShape) -> _Settings:
        """From the config.json of an export or of the PyTorch reference."""
        return cls(
            AdapterShape.of_reference(config, whisper.encoder_layers),
            config.get("placeholder_token", "<|reserved_special_token_87|>"),  # the reference's own default
            int(config.get("audio_seconds", WHISPER_SECONDS)),
            config.get("audio_locator", AUDIO_LOCATOR),
        )

    @classmethod
    def of_run(cls, config: ConfigDict, whisper: WhisperShape) -> _Settings:
        """From the config of a training run, whose adapter `read_trained` gives as one that standardises nothing."""
        shape = dataclasses.replace(AdapterShape.of_run(config.adapter, whisper.encoder_layers), standardize=False)
        return cls(shape, config.adapter.placeholder_token, config.data.audio_seconds)


def load(
    folder: str | os.PathLike,
    *,
    adapter: str | os.PathLike | None = None,
    step: int | None = None,
    dtype: str = "",
    mesh: Mesh | None = None,
    cache_programs: bool = True,
) -> Model:
    """A model ready to answer.

    Args:
        folder: what `desta-jax convert` wrote; or a training work directory, whose config names that folder and whose
            newest checkpoint is the adapter.
        adapter: a training work directory, an export, or a folder of the PyTorch reference. Without it, the one in
            `folder`.
        step: the work directory's checkpoint to take; without it, the newest.
        dtype: "float32" or "bfloat16", of weights and arithmetic; without it, bfloat16 where there is an accelerator
            and float32 on a CPU.
        mesh: devices to spread over; without it, the first one.
        cache_programs: keep compiled programs on disk between runs (JAX_COMPILATION_CACHE_DIR says where; by default
            a folder in the user's cache).

    Raises:
        ValueError, FileNotFoundError: what is missing or does not fit, and what to do.
    """
    if cache_programs:
        keep_programs()
    dtype = compute_dtype(dtype)
    mesh = mesh or sharding.make_mesh(devices=jax.local_devices()[:1])
    folder, adapter = _find(epath.Path(folder), None if adapter is None else epath.Path(adapter))
    whisper, decoder = WhisperShape.from_hf(folder.whisper_config), DecoderShape.from_hf(folder.llm_config)
    trained, settings = _read_adapter(folder, adapter, step, whisper, decoder)
    audio_lm = AudioLM(whisper, decoder, settings.shape, dtype)
    if differences := tree.differences(trained, audio_lm.abstract_adapter()):
        raise ValueError(f"{adapter or folder.path}: the adapter does not fit:\n  " + "\n  ".join(differences))
    prompts = PromptBuilder(
        folder.tokenizer(), settings.shape.prompt_size, settings.placeholder_token, settings.audio_locator
    )
    frozen = sharding.placed(audio_lm.abstract_frozen(), mesh)
    frozen = {part: folder.restore(part, frozen[part]) for part in ("encoder", "lm")}
    transcriber = restore_transcriber(folder, whisper, audio_lm.dtype, mesh)
    trained, seconds = _put(trained, mesh), settings.audio_seconds
    return assemble(folder, audio_lm, frozen, trained, transcriber, prompts, mesh, seconds, keep=False)


def compute_dtype(asked: str = "") -> jnp.dtype:
    """What a model computes in: what is asked for, else this machine's default; raises ValueError for another."""
    name = asked or default_dtype()
    if name not in DTYPES:
        raise ValueError(f"dtype: {name!r} is none of {', '.join(DTYPES)}")
    return jnp.dtype(name)


def chosen_step(
    folder: str | os.PathLike, adapter: str | os.PathLike | None = None, step: int | None = None
) -> int | None:
    """Which checkpoint `load` takes: `step`, or now the newest of the work directory, where the adapter is in one."""
    workdir = epath.Path(adapter or folder)
    return find_step(str(workdir), step) if (workdir / FOLDER).exists() else step


def export_digest(adapter: str | os.PathLike | None) -> str | None:
    """Tells the weights of an export, or of a folder of the reference, from those that may lie there another time; None
    for any other adapter, which its step tells."""
    files = sorted(epath.Path(adapter).glob("*.safetensors")) if adapter is not None else []
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else None


def assemble(
    folder: ModelFolder,
    audio_lm: AudioLM,
    frozen: Tree,
    adapter: Tree,
    transcriber: Transcriber | None,
    prompts: PromptBuilder,
    mesh: Mesh,
    seconds: int,
    *,
    keep: bool = True,
) -> Model:
    """A model of parts that are on the devices of `mesh` already, such as a training run's.

    Args:
        folder: where the parts come from; its tokenizers and its generation config are read.
        frozen: `encoder` and `lm`.
        adapter: `connector`, and `lora` where there is one.
        transcriber: from `restore_transcriber`; None where every transcript will be given.
        seconds: the window that the connector was trained on.
        keep: leave the language model's arrays as they are, and hold a copy; without it they are used up.
    """
    ear = Ear(
        audio_lm=audio_lm,
        encoder=frozen["encoder"],
        adapter={"connector": adapter["connector"]},
        transcriber=transcriber,
        tokenizer=folder.whisper_tokenizer(),
        mesh=mesh,
        seconds=seconds,
    )
    lm = _merge_lora(frozen["lm"], adapter.get("lora"), audio_lm.adapter)
    tokenizer = folder.tokenizer()
    apart = take_apart(lm, audio_lm.decoder, mesh, keep=keep)
    tongue = open_tongue(audio_lm, apart, mesh, folder.generation_config, tokenizer)
    return Model(ear, tongue, prompts, tokenizer)


def _find(folder: epath.Path, adapter: epath.Path | None) -> tuple[ModelFolder, epath.Path | None]:
    """The converted folder, and where the adapter is, if not in it."""
    if (folder / FOLDER).exists() and (folder / "config.json").exists():
        converted, adapter = read_run(folder / "config.json").model.checkpoint, adapter or folder
        try:
            return ModelFolder(converted), adapter
        except ValueError as error:
            raise ValueError(
                f"{error}. {folder}'s config names it; if it is elsewhere by now, give it as --model and {adapter} as "
                "--adapter"
            ) from error
    if (folder / "config.json").exists() and _json(folder / "config.json").get("model_type") == "desta25":
        raise ValueError(
            f"{folder} is an adapter: give the folder that `desta-jax convert` wrote as the model, and this as adapter"
        )
    return ModelFolder(folder), adapter


def _read_adapter(
    folder: ModelFolder, adapter: epath.Path | None, step: int | None, whisper: WhisperShape, decoder: DecoderShape
) -> tuple[Tree, _Settings]:
    """The adapter tree, float32 NumPy, and its settings."""
    if step is not None and not (adapter and (adapter / FOLDER).exists()):
        raise ValueError(f"step: {adapter or folder.path} is no work directory, it has no checkpoints to choose from")
    if adapter is None:
        if folder.adapter_config is None:
            raise ValueError(
                f"{folder.path} has no adapter: name a work directory, an export or a folder of the PyTorch reference"
            )
        settings = _Settings.of_reference(folder.adapter_config, whisper)
        shapes = AudioLM(whisper, decoder, settings.shape).abstract_adapter()
        return jax.device_get(folder.restore("adapter", shapes)), settings
    if (adapter / FOLDER).exists():
        settings = _Settings.of_run(read_run(adapter / "config.json"), whisper)
        return read_trained(str(adapter), step)[1], settings
    trained, config = read_adapter(adapter, encoder=whisper, lm=decoder)
    for line in other_models(config, folder.description):
        warnings.warn(f"{adapter}: {line}", stacklevel=3)
    return trained, _Settings.of_reference(config, whisper)


def _json(file: epath.Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} can't be read: {error}") from error


def _put(parameters: Tree, mesh: Mesh) -> Tree:
    return jax.device_put(parameters, sharding.parameter_shardings(parameters, mesh))


def _merge_lora(lm: Tree, lora: Tree | None, shape: AdapterShape) -> Tree:
    """The update added to q, k and v once, so that decoding does not pay for it."""
    if lora is None:
        return lm

    def add(kernel, a, b):
        update = jnp.einsum("lir,lro->lio", a, b, precision="highest") * (shape.lora_alpha / shape.lora_rank)
        return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)

    attention = dict(lm["layers"]["attention"])
    for name, update in lora.items():
        kernel = attention[name]["kernel"]
        merged = jax.jit(add, out_shardings=kernel.sharding)(kernel, update["a"], update["b"])
        attention[name] = attention[name] | {"kernel": merged}
    return lm | {"layers": lm["layers"] | {"attention": attention}}


def take_apart(lm: Tree, shape: DecoderShape, mesh: Mesh, *, keep: bool = False) -> LanguageModel:
    """The language model with its layers apart; the stacked arrays are used up, unless they are to be kept."""
    layer = jax.eval_shape(lambda key: DecoderLayer(shape, key=key), jax.random.key(0))
    norm = jax.eval_shape(lambda: RMSNorm(shape.width, epsilon=shape.epsilon))
    return LanguageModel(
        layers=[with_tree(layer, weights) for weights in unstack(lm["layers"], shape.layers, mesh, keep=keep)],
        embed=lm["embed"],
        norm=with_tree(norm, lm["norm"]),
        head=lm.get("head"),
        shape=shape,
    )


def unstack(stacked: Tree, layers: int, mesh: Mesh, *, keep: bool = False) -> list[Tree]:
    """A tree for each layer. Unless it is to be kept, a stacked array is given up as soon as it is cut, so that little
    is held twice."""
    apart: list[dict] = [{} for _ in range(layers)]
    for path, leaf in tree.flatten(stacked).items():
        place = NamedSharding(mesh, PartitionSpec(*leaf.sharding.spec[1:]))
        for layer, part in enumerate(_cut(leaf, layers, place)):
            apart[layer][path] = part
        if not keep:
            leaf.delete()
    return [tree.unflatten(leaves) for leaves in apart]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _cut(array: jax.Array, layers: int, place: NamedSharding) -> list[jax.Array]:
    return [jax.lax.with_sharding_constraint(array[layer], place) for layer in range(layers)]


def restore_transcriber(folder: ModelFolder, shape: WhisperShape, dtype, mesh: Mesh) -> Transcriber:
    """Whisper's decoder."""
    module = jax.eval_shape(lambda key: WhisperDecoder(shape, key=key), jax.random.key(0))
    like = {"transcriber": tree.abstract(to_tree(module), dtype)}
    weights = folder.restore("transcriber", sharding.placed(like, mesh)["transcriber"])
    layer = jax.eval_shape(
        lambda key: WhisperDecoderLayer(shape.width, shape.decoder_heads, shape.decoder_mlp_width, key=key),
        jax.random.key(0),
    )
    return Transcriber(
        layers=[with_tree(layer, part) for part in unstack(weights["layers"], shape.decoder_layers, mesh)],
        embed=weights["embed"],
        positions=weights["positions"],
        norm=with_tree(jax.eval_shape(lambda: LayerNorm(shape.width, epsilon=EPSILON)), weights["norm"]),
        rules=Rules.read(folder.whisper_generation_config, folder.whisper_config),
    )
