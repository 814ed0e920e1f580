"""Where a model comes from: a folder, or a name on the Hugging Face Hub with an optional @revision."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import huggingface_hub
from huggingface_hub import errors

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "chat_template.jinja",
    "chat_template.json",
)
SETTINGS_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    *TOKENIZER_FILES,
)
# Shards are named exactly: some repositories hold a float32 twin ("model.fp32-00001-of-00002.safetensors") beside them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
    "model-??????-of-??????.safetensors",
)
NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def resolve(source: str | os.PathLike, patterns: Sequence[str] = SETTINGS_FILES + WEIGHT_FILES) -> pathlib.Path:
    """The local folder of a model: `source` itself if it is one, else downloaded (resumed, kept in the Hub's cache).

    Args:
        source: a folder, or "owner/name" or "owner/name@revision" on the Hub.
        patterns: the files to download; others stay where they are.

    Raises:
        ValueError: no such folder or model, no access to it, or the Hub can't be reached; says what to do.
    """
    folder = pathlib.Path(source).expanduser()
    if folder.is_dir():
        return folder
    name, _, revision = str(source).partition("@")
    if folder.exists() or not NAME.fullmatch(name):
        raise ValueError(f"{source}: no such folder, and not a name on the Hugging Face Hub (owner/name[@revision])")
    return pathlib.Path(_download(name, revision or None, patterns))


def revision_of(folder: pathlib.Path) -> str | None:
    """The commit of a folder in the Hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def name_of(origin: Mapping[str, str]) -> str | None:
    """A model's name on the Hub, without a revision, by its entry in desta_jax.json; None if it came from a folder."""
    name = origin["source"].partition("@")[0]
    return name if "revision" in origin and NAME.fullmatch(name) else None


def _download(name: str, revision: str | None, patterns: Sequence[str]) -> str:
    page, nowhere = f"https://huggingface.co/{name}", f"{name}: there is no such folder here"
    try:
        return huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns))
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{name} is gated: accept its licence at {page}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{name} has no revision {revision!r}: see {page}/commits for those it has") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"{nowhere}, and no such model on the Hugging Face Hub: check the spelling; if it is private, log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except Exception as error:  # connections fail with the HTTP client's own errors, which huggingface_hub passes on
        raise ValueError(
            f"{nowhere}, and it could not be downloaded from the Hugging Face Hub ({type(error).__name__}: {error}). "
            "Check the spelling, or the connection, and try again: a download resumes. Without a connection, copy the "
            "model's folder here and give its path"
        ) from error
