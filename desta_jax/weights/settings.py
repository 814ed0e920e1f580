"""What a model folder holds beside its weights: configs, tokenizer, chat template, generation and feature settings."""

from __future__ import annotations

import pathlib
import shutil

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


def problems(folder: pathlib.Path, name: str, vocabulary: int, *, chat: bool) -> list[str]:
    """A line for each thing that a run would miss: a tokenizer within the embeddings and, for chat, its template."""
    try:
        tokenizer = load_tokenizer(folder)
    except ValueError as error:
        return [f"{name}: {error}"]
    lines = []
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        lines.append(
            f"{name}: its tokenizer goes up to id {largest}, its embeddings to {vocabulary - 1} only: "
            "take weights and tokenizer from the same model"
        )
    if chat and not tokenizer.chat_template:
        lines.append(
            f"{name}: its tokenizer has no chat template: take the model's instruction-tuned version, "
            "or put a chat_template.jinja in its folder"
        )
    return lines
