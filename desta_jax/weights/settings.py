"""What a model folder holds beside its weights: configs, tokenizer, chat template, generation and feature settings."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import transformers

from desta_jax.weights import hub


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies those settings that exist."""
    target.mkdir()
    for name in hub.SETTINGS_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def load_tokenizer(folder: pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    """The folder's tokenizer, as AutoTokenizer gives it; raises ValueError if there is none or it can't be read."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ValueError("it has no tokenizer: copy tokenizer.json and tokenizer_config.json from the original model")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises bare ones
        raise ValueError(f"its tokenizer can't be read: {error}") from error


def llm_problems(folder: pathlib.Path, name: str, vocabulary: int) -> list[str]:
    """A line for each thing that a run would miss of a language model's settings."""
    tokenizer, lines = _checked_tokenizer(folder, name, vocabulary)
    if tokenizer is not None:
        lines += [f"{name}: {line}" for line in _chat_problems(tokenizer)]
    return lines + _generation_config(folder, name)[1]


def whisper_problems(folder: pathlib.Path, name: str, vocabulary: int, config: Mapping[str, Any]) -> list[str]:
    """A line for each thing that a run would miss of a Whisper's settings; `config` is its config.json."""
    generation, lines = _generation_config(folder, name)
    for key in ("decoder_start_token_id", "eos_token_id"):
        if generation.get(key) is None and config.get(key) is None:
            lines.append(
                f"{name}: neither generation_config.json nor config.json has {key}: copy them from the original"
            )
    return _checked_tokenizer(folder, name, vocabulary)[1] + lines


def _checked_tokenizer(
    folder: pathlib.Path, name: str, vocabulary: int
) -> tuple[transformers.PreTrainedTokenizerBase | None, list[str]]:
    try:
        tokenizer = load_tokenizer(folder)
    except ValueError as error:
        return None, [f"{name}: {error}"]
    lines = []
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        lines.append(
            f"{name}: its tokenizer goes up to id {largest}, its embeddings to {vocabulary - 1} only: "
            "take weights and tokenizer from the same model"
        )
    return tokenizer, lines


def _chat_problems(tokenizer: transformers.PreTrainedTokenizerBase) -> list[str]:
    if not tokenizer.eos_token:
        return ["its tokenizer has no eos_token: name it in tokenizer_config.json"]
    if not tokenizer.chat_template:
        return [
            "its tokenizer has no chat template: take the model's instruction-tuned version, or put a "
            "chat_template.jinja in its folder"
        ]
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    except Exception as error:  # Jinja's own, a template's own words, or that none of several is the default one
        return [f"its chat template can't be used: {error}"]
    return []


def _generation_config(folder: pathlib.Path, name: str) -> tuple[dict[str, Any], list[str]]:
    file = folder / "generation_config.json"
    try:
        content = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        return {}, [f"{name}: {file} is not JSON ({error}): copy it from the original model, or remove it"]
    if not isinstance(content, dict):
        return {}, [f"{name}: {file} is no JSON object: copy it from the original model, or remove it"]
    return content, []
