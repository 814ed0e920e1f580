"""Files of one JSON object a line in a work directory, on a local disk or in a bucket."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from etils import epath

from desta_jax.files import is_remote, write_whole


class JsonLines:
    """A file of one JSON object a line that a kill leaves readable.

    On a local disk each line is appended at once. An object store cannot append: there the file is written anew by
    `flush`.
    """

    def __init__(self, path: epath.Path, *, keep_below: int = sys.maxsize):
        """Keeps the lines of steps up to `keep_below`: what came after them will be done, and written, again."""
        self._path, self._local = path, not is_remote(path)
        self._lines = [line for line in _whole_lines(path) if json.loads(line)["step"] <= keep_below]
        write_whole(path, self._text())
        self._file = open(path, "a") if self._local else None  # noqa: SIM115

    def has(self, step: int) -> bool:
        """Whether a line of this step was there at the start."""
        return any(json.loads(line)["step"] == step for line in self._lines)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a line; what is not finite is null, for JSON has no word for it."""
        line = json.dumps({key: value if _is_json(value) else None for key, value in row.items()})
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
        else:
            self._lines.append(line)

    def flush(self) -> None:
        """Writes the file anew where it is not appended to."""
        if not self._local:
            write_whole(self._path, self._text())

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()

    def _text(self) -> str:
        return "".join(line + "\n" for line in self._lines)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def read_json_lines(path: epath.Path) -> list[dict[str, Any]]:
    """The objects of a file's whole lines; none where there is no file."""
    return [json.loads(line) for line in _whole_lines(path)]


def _whole_lines(path: epath.Path) -> list[str]:
    """The lines of a file: a kill may have left part of one at its end, which may look like a whole one's."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
