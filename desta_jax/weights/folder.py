"""A converted folder, opened for a run: its settings and tokenizers, and its parts restored onto devices."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from typing import Any

import jax
import orbax.checkpoint as ocp
import transformers
from etils import epath

from desta_jax import sharding, tree
from desta_jax.files import absolute, is_remote
from desta_jax.weights import settings
from desta_jax.weights.convert import FORMAT, MARKER

IN_FLIGHT_BYTES = 2 * 10**9  # read at a time, unless one device's share of one leaf needs more


class ModelFolder:
    """What `desta-jax convert` wrote, on a local disk or in a bucket (gs://).

    Attributes:
        path: the folder.
        description: desta_jax.json: sources and stored dtypes.
        parts: what can be restored, such as ("lm", "encoder", "transcriber", "adapter").
        llm_config, whisper_config: the models' own config.json.
        generation_config: the language model's; without one its config, as in transformers.
        whisper_generation_config: Whisper's, empty where it has none.
        adapter_config: the adapter's config.json; None without an adapter.
    """

    def __init__(self, path: str | os.PathLike):
        """Reads the settings; raises ValueError if the folder is no converted one, or is not whole."""
        self.path = absolute(path)
        self.description = self._read_description()
        self.parts: tuple[str, ...] = tuple(self.description["parts"])
        self._tokenizers: dict[str, transformers.PreTrainedTokenizerBase] = {}
        self.llm_config = self._read_json("llm/config.json")
        self.whisper_config = self._read_json("whisper/config.json")
        self.generation_config = self._read_json("llm/generation_config.json", default=self.llm_config)
        self.whisper_generation_config = self._read_json("whisper/generation_config.json", default={})
        self.adapter_config = self._read_json("adapter_config.json") if "adapter" in self.parts else None
        absent = [part for part in self.parts if not (self.path / "params" / part / "_METADATA").exists()]
        if absent:
            raise ValueError(f"{self.path} lacks params/{', params/'.join(absent)}: copy or convert it again")

    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        """The language model's, as transformers' AutoTokenizer gives it. All who ask get the same: copy it to change
        it."""
        return self._load_tokenizer("llm")

    def whisper_tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        return self._load_tokenizer("whisper")

    def restore(self, part: str, like: tree.Tree) -> tree.Tree:
        """The weights of a part, each shard read straight to its device.

        Args:
            part: one of `parts`.
            like: jax.ShapeDtypeStructs; weights are cast to their dtype, and laid out by their sharding (on the first
                device where they have none).

        Raises:
            ValueError: no such part, or its leaves are others than `like`'s: names each by its path.
        """
        if part not in self.parts:
            raise ValueError(f"{self.path} has no part {part!r}, only {', '.join(self.parts)}: {_how_to_get(part)}")
        folder = self.path / "params" / part
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like)
        largest = max(map(sharding.local_bytes, tree.flatten(like).values()), default=0)
        in_flight = max(4 * largest, IN_FLIGHT_BYTES)  # shares are read as whole chunks, and float32 takes twice like's
        handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=in_flight / 10**9)
        with ocp.Checkpointer(handler) as checkpointer:
            described = checkpointer.metadata(folder).item_metadata
            if described is None:
                raise ValueError(f"{folder} is damaged, copy or convert it again: its _METADATA can't be read")
            if wrong := tree.differences(described.tree, like):
                raise ValueError(f"{folder} does not fit the model:\n  " + "\n  ".join(wrong))
            restore_args = ocp.checkpoint_utils.construct_restore_args(like)
            try:
                return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(like, restore_args=restore_args))
            except Exception as error:  # Orbax wraps what TensorStore says in a bare one
                damage = _damage(error)
                if damage is None:
                    raise
                raise ValueError(f"{folder} is damaged, copy or convert it again: {damage}") from error

    def _read_description(self) -> dict[str, Any]:
        if not (self.path / MARKER).exists():
            raise ValueError(self._not_converted())
        description = self._read_json(MARKER)
        if description.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} has format {description.get('format')!r}, this desta_jax reads {FORMAT}: convert it again"
            )
        return description

    def _not_converted(self) -> str:
        if (self.path / "config.json").exists():
            return f"{self.path} is a Hugging Face folder: run `desta-jax convert` first, and give its --out here"
        if self.path.with_name(self.path.name + ".partial").exists():
            return f"{self.path} is not finished (there is a {self.path.name}.partial): run `desta-jax convert` again"
        lacking = f"it has no {MARKER}" if self.path.exists() else "there is no such folder"
        return f"{self.path} is no converted folder ({lacking}): `desta-jax convert` makes one"

    def _read_json(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        file = self.path / name
        if default is not None and not file.exists():
            return default
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} can't be read ({error}): copy or convert the folder again") from error

    def _load_tokenizer(self, name: str) -> transformers.PreTrainedTokenizerBase:
        if name not in self._tokenizers:
            try:
                with tempfile.TemporaryDirectory() as scratch:
                    self._tokenizers[name] = settings.load_tokenizer(_local_copy(self.path / name, scratch))
            except ValueError as error:
                raise ValueError(f"{self.path / name}: {error}") from error
        return self._tokenizers[name]


def _local_copy(folder: epath.Path, scratch: str) -> pathlib.Path:
    """transformers reads local folders only: a folder in a bucket is copied to `scratch`."""
    if not is_remote(folder):
        return pathlib.Path(folder)
    for file in folder.iterdir():
        (pathlib.Path(scratch) / file.name).write_bytes(file.read_bytes())
    return pathlib.Path(scratch)


def _damage(error: BaseException | None) -> str | None:
    """What TensorStore says of a file that is lost, or whose checksum does not hold; None if that is not the cause."""
    while error is not None:
        if str(error).startswith(("DATA_LOSS", "NOT_FOUND")):
            return str(error)
        error = error.__cause__
    return None


def _how_to_get(part: str) -> str:
    return "convert it again with --adapter" if part == "adapter" else "convert it again"
