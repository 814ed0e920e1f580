"""Hugging Face folders to a converted folder: everything that a run needs, with weights as sharded Orbax checkpoints.

    OUT/desta_jax.json            what it was made from, and its parts
    OUT/llm/, OUT/whisper/        configs, tokenizers, chat template, generation and feature settings, as they were
    OUT/adapter_config.json       where an adapter was given
    OUT/params/PART/              one Orbax checkpoint a part: lm, encoder, transcriber (Whisper's decoder), adapter

The language model is stored in bfloat16, as the reference loads it; Whisper as its file has it, since float16 values do
not survive bfloat16; the adapter in float32. Weights pass through in blocks: memory holds a few of them, never a model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from desta_jax import tree
from desta_jax.clock import time_left
from desta_jax.models.shapes import DecoderShape, WhisperShape, tap_layers_for
from desta_jax.weights import hub, names, settings, stream, tensors
from desta_jax.weights.adapter import other_models, read_adapter
from desta_jax.weights.whole import check_free, whole_folder, write_json

FORMAT = 1
MARKER = "desta_jax.json"
LM_DTYPE = np.dtype(ml_dtypes.bfloat16)
PROBLEMS_SHOWN = 40
SECONDS_BETWEEN_LINES = 5.0

Leaves = dict[str, stream.StreamedLeaf]
_Parts = Sequence[tensors.StoredTensor]


@dataclasses.dataclass(frozen=True)
class _Source:
    """A foreign model: where it came from, its config.json read into a shape, and its tensors, not yet read."""

    name: str
    folder: pathlib.Path
    config: dict[str, Any]
    shape: Any
    stored: dict[str, tensors.StoredTensor]


def convert(
    llm: str | os.PathLike,
    encoder: str | os.PathLike,
    out: str | os.PathLike,
    adapter: str | os.PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
    """Converts a language model, a Whisper and perhaps an adapter of the PyTorch reference; returns `out`.

    Args:
        llm, encoder, adapter: Hugging Face folders, or names on the Hub with an optional @revision.
        out: the folder to make; written to OUT.partial and renamed, so that a folder of this name is whole.
        overwrite: whether an older converted folder may be replaced.
        progress: gets a line of text every few seconds, with the time left.

    Raises:
        ValueError: anything wrong with what was given, with every missing, unknown and misshapen tensor by name; before
            anything is written.
    """
    check_free(out, overwrite=overwrite, is_older=_is_converted)
    lm = _open(llm, "language model", DecoderShape.from_hf)
    whisper = _open(encoder, "encoder", WhisperShape.from_hf)
    _check(lm, whisper)
    parts = {"lm": _lm_leaves(lm), **_whisper_leaves(whisper)}
    adapter_config = None
    if adapter is not None:
        parts["adapter"], adapter_config = _adapter_leaves(adapter, whisper.shape, lm.shape)
    description = _description(lm, whisper, parts, adapter)
    for line in other_models(adapter_config or {}, description):
        warnings.warn(f"{adapter}: {line}", stacklevel=2)
    with whole_folder(out, overwrite=overwrite, is_older=_is_converted) as partial:
        _write_parts(partial / "params", parts, progress)
        settings.copy(lm.folder, partial / "llm")
        settings.copy(whisper.folder, partial / "whisper")
        if adapter_config is not None:
            write_json(partial / "adapter_config.json", adapter_config)
        write_json(partial / MARKER, description)
    return pathlib.Path(out)


def _is_converted(folder: pathlib.Path) -> bool:
    return (folder / MARKER).is_file()


def _open(source: str | os.PathLike, what: str, read_shape: Callable[[Mapping], Any]) -> _Source:
    folder = hub.resolve(source)
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {source}: config.json can't be read ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{what} {source}: config.json is no JSON object")
    try:
        shape = read_shape(config)
    except KeyError as error:
        raise ValueError(f"{what} {source}: config.json lacks {error}") from error
    except ValueError as error:
        raise ValueError(f"{what} {source}: {error}") from error
    except (TypeError, AttributeError) as error:  # a value of another kind, such as null
        raise ValueError(f"{what} {source}: config.json has a value of the wrong kind: {error}") from error
    return _Source(str(source), folder, config, shape, tensors.list_tensors(folder))


def _check(lm: _Source, whisper: _Source) -> None:
    """Raises one ValueError with every problem of both models."""
    whisper_rules = names.whisper_encoder_rules(whisper.shape) + names.whisper_decoder_rules(whisper.shape)
    tables = {"language model": (lm, names.decoder_table(lm.shape))}
    tables["encoder"] = (whisper, names.Table(whisper_rules, copies=names.WHISPER_COPIES))
    problems = []
    for what, (source, table) in tables.items():
        lines = table.problems({name: tensor.shape for name, tensor in source.stored.items()})
        lines += tensors.unreadable(source.stored, (name for rule in table.rules for name in rule.names))
        lines = lines or _unequal_copies(table, source.stored)
        problems += [f"{what} {source.name}: {line}" for line in lines]
    problems += settings.llm_problems(lm.folder, lm.name, lm.shape.vocabulary)
    problems += settings.whisper_problems(whisper.folder, whisper.name, whisper.shape.vocabulary, whisper.config)
    if len(problems) > PROBLEMS_SHOWN:
        problems[PROBLEMS_SHOWN:] = [f"and {len(problems) - PROBLEMS_SHOWN} more"]
    if problems:
        raise ValueError("The models can't be converted:\n  " + "\n  ".join(problems))


def _unequal_copies(table: names.Table, stored: Mapping[str, tensors.StoredTensor]) -> list[str]:
    """A line for each tied tensor that is stored twice with two values, of which only one could be taken."""
    return [
        f"{copy} differs from {first}, but config.json ties them: set tie_word_embeddings as the model was trained"
        for copy, first in table.copies.items()
        if copy in stored and not _equal(stored[copy], stored[first])
    ]


def _equal(one: tensors.StoredTensor, other: tensors.StoredTensor) -> bool:
    rows = _block_rows(one.shape, one.dtype.itemsize)
    return all(
        np.array_equal(one.read(start, start + rows), other.read(start, start + rows))
        for start in range(0, one.shape[0], rows)
    )


def _lm_leaves(lm: _Source) -> Leaves:
    rules = names.decoder_table(lm.shape).rules
    return {rule.path: _leaf(rule, lm.stored, LM_DTYPE) for rule in rules}


def _whisper_leaves(whisper: _Source) -> dict[str, Leaves]:
    parts = {
        "encoder": names.whisper_encoder_rules(whisper.shape),
        "transcriber": names.whisper_decoder_rules(whisper.shape),
    }
    return {part: {rule.path: _leaf(rule, whisper.stored, None) for rule in rules} for part, rules in parts.items()}


def _adapter_leaves(adapter: str | os.PathLike, whisper: WhisperShape, lm: DecoderShape) -> tuple[Leaves, dict]:
    arrays, config = read_adapter(adapter, encoder=whisper, lm=lm)
    taps = tap_layers_for(whisper.encoder_layers, tuple(config.get("target_layer_ids") or ()))
    leaves = {path: stream.from_array(array) for path, array in tree.flatten(arrays).items()}
    return leaves, config | {"target_layer_ids": list(taps)}


def _leaf(rule: names.Rule, stored: Mapping[str, tensors.StoredTensor], dtype: np.dtype | None) -> stream.StreamedLeaf:
    """The leaf of a rule, read when it is written; `dtype` None keeps that of the file."""
    parts = [stored[name] for name in rule.names]
    kinds = {part.dtype for part in parts}
    dtype = dtype or (kinds.pop() if len(kinds) == 1 else np.dtype("float32"))
    whole = int(np.prod(rule.shape)) * dtype.itemsize
    if whole <= stream.BLOCK_BYTES or (rule.reversed and not rule.layers):
        rows, blocks = rule.shape[0], _one_block
    elif rule.layers:
        rows, blocks = 1, _layer_blocks
    else:
        rows, blocks = _block_rows(rule.shape, dtype.itemsize), _row_blocks
    return stream.StreamedLeaf(rule.shape, dtype, rows, lambda: blocks(rule, parts, dtype, rows))


def _one_block(rule: names.Rule, parts: _Parts, dtype: np.dtype, rows: int) -> Iterator[stream.Block]:
    arrays = [_cast(rule.inward(part.read()), dtype) for part in parts]
    yield 0, np.stack(arrays) if rule.layers else arrays[0]


def _layer_blocks(rule: names.Rule, parts: _Parts, dtype: np.dtype, rows: int) -> Iterator[stream.Block]:
    for layer, part in enumerate(parts):
        yield layer, _cast(rule.inward(part.read()), dtype)[np.newaxis]


def _row_blocks(rule: names.Rule, parts: _Parts, dtype: np.dtype, rows: int) -> Iterator[stream.Block]:
    for start in range(0, rule.shape[0], rows):
        yield start, _cast(parts[0].read(start, start + rows), dtype)


def _block_rows(shape: tuple[int, ...], itemsize: int) -> int:
    """A power of two (files and the parts in them halve it), as many rows as a block may have."""
    row = max(1, int(np.prod(shape[1:])) * itemsize)
    return 1 << max(0, (stream.BLOCK_BYTES // row).bit_length() - 1)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype, copy=False)


def _write_parts(folder: pathlib.Path, parts: Mapping[str, Leaves], progress: Callable[[str], None]) -> None:
    folder.mkdir()
    total = sum(leaf.nbytes for leaves in parts.values() for leaf in leaves.values())
    wrote = _reporter(total, progress)
    for part, leaves in parts.items():
        stream.write_checkpoint(folder / part, leaves, wrote)


def _reporter(total: int, progress: Callable[[str], None]) -> Callable[[int], None]:
    """Turns bytes written into lines with the time left."""
    started = spoke = time.monotonic()
    done = 0

    def wrote(count: int) -> None:
        nonlocal done, spoke
        done += count
        now = time.monotonic()
        if now - spoke >= SECONDS_BETWEEN_LINES:
            spoke = now
            progress(f"converted {done / 1e9:.1f} of {total / 1e9:.1f} GB, {time_left(done, total, now - started)}")

    return wrote


def _description(
    lm: _Source, whisper: _Source, parts: Mapping[str, Leaves], adapter: str | os.PathLike | None
) -> dict[str, Any]:
    described = {
        "format": FORMAT,
        "llm": _origin(lm, parts["lm"]),
        "encoder": _origin(whisper, parts["encoder"]),
        "parts": list(parts),
    }
    return described | ({"adapter": {"source": str(adapter), "dtype": "float32"}} if adapter is not None else {})


def _origin(source: _Source, leaves: Leaves) -> dict[str, Any]:
    revision = hub.revision_of(source.folder)
    place = source.name if revision else str(source.folder.resolve())
    origin = {"source": place, "dtype": " ".join(sorted({leaf.dtype.name for leaf in leaves.values()}))}
    return origin | ({"revision": revision} if revision else {})
