"""The rows of AQA5M manifests: reading them, and finding what is wrong with one before its audio is touched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

AUDIO_LOCATOR = "<|AUDIO|>"  # stands in a message's content where a clip is heard
NO_SPEECH = " "  # the transcript of a clip without speech
ROLES = ("system", "user", "assistant")


class BadRow(ValueError):
    """A row that cannot become a record; `reason` is a short code, the message says what is wrong."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row stands."""

    manifest: str
    line: int
    """From 1."""
    offset: int
    """Byte in the manifest."""
    length: int

    def read(self) -> bytes:
        with open(self.manifest, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row in the form in which records keep it."""

    id: str
    dataset: str
    messages: list[dict]
    response: str
    seed_description: str
    prompt: str

    @property
    def clips(self) -> list[str]:
        """Paths of the clips under the audio root, in reading order."""
        return [clip["audio"] for message in self.messages for clip in message.get("audios", ())]

    def digest(self) -> int:
        """64 bits that say whether two rows are the same sample: their id, messages and response."""
        content = json.dumps([self.id, self.messages, self.response]).encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A line of rejected.jsonl: the row with the reason why it is no record."""

    manifest: str
    line: int
    reason: str
    detail: str
    row: Any
    """The row's JSON, or its text if it is none."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=True)


@dataclasses.dataclass(frozen=True)
class ManifestScan:
    """What one pass over a manifest finds; a blank line is no row."""

    path: str
    sha256: str
    line: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    digest: np.ndarray
    """Of each row, uint64; 0 for a bad one."""
    rejections: dict[int, Rejection]
    """By row number in the manifest."""

    def place(self, row: int) -> Place:
        return Place(self.path, int(self.line[row]), int(self.offset[row]), int(self.length[row]))


def scan_manifest(path: str) -> ManifestScan:
    """Finds a manifest's rows and checks each one's text; raises FileNotFoundError if there is no such file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such manifest")
    sha256, places, digests, rejections = hashlib.sha256(), [], [], {}
    for line, offset, text in _lines(path):
        sha256.update(text)
        if not text.strip():
            continue
        digest = 0
        try:
            digest = parse_row(text, f"{os.path.basename(path)}:{line}").digest()
        except BadRow as error:
            rejections[len(places)] = reject(Place(path, line, offset, len(text)), text, error.reason, str(error))
        places.append((line, offset, len(text)))
        digests.append(digest)
    line, offset, length = np.array(places, np.int64).reshape(-1, 3).T
    return ManifestScan(path, sha256.hexdigest(), line, offset, length, np.array(digests, np.uint64), rejections)


def reject(place: Place, text: bytes, reason: str, detail: str) -> Rejection:
    """The rejection of the row whose bytes are `text`."""
    try:
        row = json.loads(text.decode("utf-8-sig"), parse_constant=str)  # NaN is no JSON
    except (ValueError, RecursionError):
        row = text.decode("utf-8", "replace").strip()
    return Rejection(place.manifest, place.line, reason, detail, row)


def parse_row(text: bytes, name: str) -> Row:
    """The row in one line of a manifest.

    `messages` and `response` must be there. A row without `id` is called `name`; without `dataset`, "unknown". The
    transcript of a clip (`text`) that is missing or null becomes " ", which stands for no speech; "" stays.

    Raises:
        BadRow: bad_json, missing_field, bad_field, unknown_role, clip_count or empty_response.
    """
    fields = _parse_json(text)
    for key in ("messages", "response"):
        if fields.get(key) is None:
            raise BadRow("missing_field", f"no field {key!r}")
    messages = _parse_messages(fields["messages"])
    row = Row(
        id=_string(fields, "id", name),
        dataset=_string(fields, "dataset", "unknown"),
        messages=messages,
        response=_string(fields, "response", ""),
        seed_description=_string(fields, "seed_description", ""),
        prompt=_string(fields, "prompt", ""),
    )
    if not row.response.strip():
        raise BadRow("empty_response", "the response is empty")
    located = sum(message["content"].count(AUDIO_LOCATOR) for message in messages)
    if located != len(row.clips):
        raise BadRow("clip_count", f"{located} {AUDIO_LOCATOR} in the messages, but {len(row.clips)} clips in `audios`")
    return row


def _lines(path: str) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, byte offset, bytes) of each line."""
    offset = 0
    with open(path, "rb") as file:
        for number, text in enumerate(file, 1):
            yield number, offset, text
            offset += len(text)


def _parse_json(text: bytes) -> dict:
    try:
        fields = json.loads(text.decode("utf-8-sig"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        raise BadRow("bad_json", str(error)) from None
    except RecursionError:
        raise BadRow("bad_json", "nested too deeply") from None
    if not isinstance(fields, dict):
        raise BadRow("bad_json", f"expected a JSON object, got {type(fields).__name__}")
    return fields


def _string(fields: dict, key: str, default: str) -> str:
    """A field's text, or the default where it is missing or null; numbers are taken for ids."""
    value = fields.get(key)
    if value is None:
        return default
    if key == "id" and isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise BadRow("bad_field", f"{key!r} should be a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("bad_field", f"{key!r} holds half a surrogate pair, which is no text") from None
    return value


def _parse_messages(messages: Any) -> list[dict]:
    if not isinstance(messages, list) or not messages:
        raise BadRow("bad_field", "'messages' should be a list of at least one message")
    return [_parse_message(message) for message in messages]


def _parse_message(message: Any) -> dict:
    if not isinstance(message, dict):
        raise BadRow("bad_field", f"a message should be an object, got {type(message).__name__}")
    for key in ("role", "content"):
        if message.get(key) is None:
            raise BadRow("missing_field", f"a message without {key!r}")
    if message["role"] not in ROLES:
        raise BadRow("unknown_role", f"role {message['role']!r} is none of {', '.join(ROLES)}")
    audios = message.get("audios") or []
    if not isinstance(audios, list):
        raise BadRow("bad_field", f"'audios' should be a list, got {type(audios).__name__}")
    return {
        "role": message["role"],
        "content": _string(message, "content", ""),
        "audios": [_parse_clip(clip) for clip in audios],
    }


def _parse_clip(clip: Any) -> dict:
    if not isinstance(clip, dict) or not clip.get("audio"):
        raise BadRow("missing_field", "a clip in `audios` without its path, 'audio'")
    return {"audio": _string(clip, "audio", ""), "text": _string(clip, "text", NO_SPEECH)}


def find_duplicates(digests: Sequence[np.ndarray]) -> dict[int, int]:
    """Rows that repeat an earlier one: {row number: number of the first}, over all manifests in order.

    Two rows are the same sample if id, messages and response agree. The id alone does not tell: in AQA5M it names
    the clip, of which several rows may speak.
    """
    digest = np.concatenate(digests)
    order = np.argsort(digest, kind="stable")
    ordered = digest[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(digest) else []
    first = np.repeat(order[starts], np.diff(np.append(starts, len(order)))) if len(digest) else order
    repeats = (first != order) & (ordered != 0)
    return dict(zip(order[repeats].tolist(), first[repeats].tolist(), strict=True))
