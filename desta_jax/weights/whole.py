"""Folders that are either whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from desta_jax.files import is_remote, lock


@contextlib.contextmanager
def whole_folder(
    out: str | os.PathLike, *, overwrite: bool, is_older: Callable[[pathlib.Path], bool]
) -> Iterator[pathlib.Path]:
    """OUT.partial to write into; it becomes OUT when all is written and on the disk, and goes away on an error.

    Args:
        out: the folder to make.
        overwrite: whether an older one may be replaced.
        is_older: whether a folder is such an older one; any other is never replaced.

    Raises:
        ValueError: OUT exists and may not be replaced, or another process is writing it.
    """
    check_free(out, overwrite=overwrite, is_older=is_older)
    out = pathlib.Path(out).resolve()  # a link to a folder on another disk stays one
    partial = out.with_name(out.name + ".partial")
    with _alone(partial):
        try:
            yield partial
            _sync(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _put_in_place(partial, out, is_older)


def check_free(out: str | os.PathLike, *, overwrite: bool, is_older: Callable[[pathlib.Path], bool]) -> None:
    """Raises ValueError if OUT exists and may not be replaced, or is no local path; see `whole_folder`."""
    if is_remote(out):
        raise ValueError(f"{out}: only local folders are written; write to one, then copy it to the bucket")
    out = pathlib.Path(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} exists and is a file: give another folder to write to")
    if not any(out.iterdir()):
        return
    if not is_older(out):
        raise ValueError(f"{out} exists and holds something else, which is never replaced: give another folder")
    if not overwrite:
        raise ValueError(f"{out} exists: give another folder, or --overwrite to replace it")
    if (aside := _aside(out)).exists() and not is_older(aside):
        raise ValueError(f"{aside}, where {out} is put aside, holds something else: give another folder, or move it")


def write_json(file: pathlib.Path, content: Mapping[str, Any]) -> None:
    """A file of such a folder, as people read it."""
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _alone(partial: pathlib.Path) -> Iterator[None]:
    """An empty folder that no other process writes to; the system gives it free when this one dies."""
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    refusal = f"another process is writing {partial}: wait for it, or give another folder"
    try:
        lock(descriptor, refusal)
        if not partial.exists() or not os.path.samestat(os.fstat(descriptor), partial.stat()):  # just renamed
            raise ValueError(refusal)
        for path in partial.iterdir():  # what an interrupted run left
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    finally:
        os.close(descriptor)


def _sync(folder: pathlib.Path) -> None:
    """Waits until every file is on the disk: a power failure after the rename must not leave holes."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(partial: pathlib.Path, out: pathlib.Path, is_older: Callable[[pathlib.Path], bool]) -> None:
    aside = _aside(out)
    if aside.exists() and is_older(aside):  # of a run that was killed as it did this
        shutil.rmtree(aside)
    replaced = out.exists()
    if replaced:
        out.rename(aside)  # not deleted in place: a kill in the middle would leave half a folder under the name
    partial.rename(out)
    if replaced:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(out: pathlib.Path) -> pathlib.Path:
    return out.with_name(out.name + ".replaced")
