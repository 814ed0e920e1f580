"""What one record holds, and its bytes: a tf.train.Example, written and read without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence

TEXT_FIELDS = ("id", "dataset", "messages", "response", "seed_description", "prompt")
FEATURES = ("id", "dataset", "messages", "num_samples", "prompt", "response", "seed_description", "audio")
"""Names in the order of the record: `audio` is last, so that everything else can be read without it."""

_LENGTH_DELIMITED = 2  # protobuf wire types
_VARINT = 0
_BYTES_LIST, _INT64_LIST = 1, 3  # fields of tf.train.Feature


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row of AQA5M with its clips."""

    id: str
    dataset: str
    messages: list[dict]
    """{"role", "content", "audios": [{"audio": path in the manifest, "text": transcript}]}"""
    response: str
    num_samples: list[int]
    """Length of each clip at 16 kHz, whole: clips longer than the encoder's window are kept so."""
    audio: list[bytes]
    """One FLAC file (16 kHz, mono, 16 bits) a clip, in reading order; empty where only the text was read."""
    seed_description: str = ""
    prompt: str = ""

    @property
    def transcripts(self) -> list[str]:
        """The text that came with each clip, in reading order; " " stands for no speech."""
        return [clip["text"] for message in self.messages for clip in message.get("audios", ())]


def encode(sample: Sample) -> tuple[bytes, int]:
    """A sample's record, and the length of the part of it that comes before the audio."""
    texts = {name: [getattr(sample, name).encode()] for name in TEXT_FIELDS if name != "messages"}
    texts["messages"] = [dump_messages(sample.messages).encode()]
    head = b""
    for name in FEATURES[:-1]:
        head += _entry(name, _int64_list(sample.num_samples) if name == "num_samples" else _bytes_list(texts[name]))
    audio = _entry("audio", _bytes_list(sample.audio))
    opening = _tag(1, _LENGTH_DELIMITED) + _varint(len(head) + len(audio))
    return opening + head + audio, len(opening) + len(head)


def dump_messages(messages: Sequence[dict]) -> str:
    """Messages as the record keeps them: compact JSON, not escaped."""
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))


def decode(record: bytes) -> Sample:
    """The sample of a whole record; raises ValueError if the bytes are not one."""
    features = _features(record)
    return _sample(features, audio=[bytes(clip) for clip in _feature(features, "audio")])


def decode_text(record: bytes) -> Sample:
    """The sample without its audio, of a whole record or of the part that comes before the audio."""
    return _sample(_features(record), audio=[])


def text_length(record: bytes) -> int:
    """Where the audio begins in a record, or the whole length if another writer put something after it."""
    end = 0
    for name, start, stop in _entries(memoryview(record)):
        if name == "audio" and stop == len(record):
            return start
        end = stop
    return end


def _sample(features: dict[str, list], audio: list[bytes]) -> Sample:
    texts = {name: _text(features, name) for name in TEXT_FIELDS}
    try:
        texts["messages"] = json.loads(texts["messages"])
    except json.JSONDecodeError as error:
        raise ValueError(f"not a record of this schema: feature 'messages' is not JSON ({error})") from None
    return Sample(num_samples=_feature(features, "num_samples"), audio=audio, **texts)


def _text(features: dict[str, list], name: str) -> str:
    values = _feature(features, name)
    if len(values) != 1:
        raise ValueError(f"not a record of this schema: feature {name!r} has {len(values)} values instead of one")
    try:
        return str(values[0], "utf-8")
    except (UnicodeDecodeError, TypeError):
        raise ValueError(f"not a record of this schema: feature {name!r} is not UTF-8 text") from None


def _feature(features: dict[str, list], name: str) -> list:
    if name not in features:
        raise ValueError(f"not a record of this schema: feature {name!r} is missing (found {sorted(features)})")
    return features[name]


# Writing protobuf: Example {Features {map<string, Feature>}}, each level a length-delimited field.


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written in two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _delimited(field: int, payload: bytes) -> bytes:
    return _tag(field, _LENGTH_DELIMITED) + _varint(len(payload)) + payload


def _bytes_list(values: Sequence[bytes]) -> bytes:
    return _delimited(_BYTES_LIST, b"".join(_delimited(1, value) for value in values))


def _int64_list(values: Sequence[int]) -> bytes:
    packed = _delimited(1, b"".join(_varint(value) for value in values)) if values else b""
    return _delimited(_INT64_LIST, packed)


def _entry(name: str, feature: bytes) -> bytes:
    return _delimited(1, _delimited(1, name.encode()) + _delimited(2, feature))


# Reading protobuf.


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while shift < 70:
        byte = data[at]  # IndexError past the end is turned into ValueError by the caller
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise ValueError("a varint of more than ten bytes")


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, stop) of each length-delimited field; (number, value, -1) of each varint."""
    while at < end:
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == _LENGTH_DELIMITED:
            length, at = _read_varint(data, at)
            if at + length > end:
                raise ValueError(f"a field of {length} bytes where {end - at} are left")
            yield tag >> 3, at, at + length
            at += length
        elif wire == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value, -1
        else:
            raise ValueError(f"unexpected wire type {wire}")


def _entries(data: memoryview) -> Iterator[tuple[str, int, int]]:
    """(feature name, start, stop) of each entry of the map; `data` may end after any entry."""
    tag, at = _read_varint(data, 0)
    if tag != 1 << 3 | _LENGTH_DELIMITED:
        raise ValueError("no tf.train.Features")
    _, at = _read_varint(data, at)  # the length of all features, which a record cut before its audio does not reach
    start = at
    for field, inner, stop in _fields(data, at, len(data)):
        if field != 1 or stop < 0:
            raise ValueError("no map of features")
        _, name_start, name_stop = next(_fields(data, inner, stop))
        yield str(data[name_start:name_stop], "utf-8"), start, stop
        start = stop


def _features(record: bytes) -> dict[str, list]:
    data = memoryview(record)
    try:
        return {name: _values(data, start, stop) for name, start, stop in _entries(data)}
    except (ValueError, IndexError, StopIteration) as error:
        raise ValueError(f"not a tf.train.Example: {error}") from None


def _values(data: memoryview, start: int, stop: int) -> list:
    """The values of one entry: memoryviews of a bytes list, ints of an int64 list."""
    _, entry_start, entry_stop = next(_fields(data, start, stop))
    for field, feature_start, feature_stop in _fields(data, entry_start, entry_stop):
        if field != 2:
            continue
        for kind, list_start, list_stop in _fields(data, feature_start, feature_stop):
            if kind == _BYTES_LIST:
                return [data[a:b] for _, a, b in _fields(data, list_start, list_stop)]
            if kind == _INT64_LIST:
                return _integers(data, list_start, list_stop)
    return []


def _integers(data: memoryview, start: int, stop: int) -> list[int]:
    values = []
    for _, at, end in _fields(data, start, stop):
        if end < 0:  # one number not packed
            values.append(at)
        while at < end:
            value, at = _read_varint(data, at)
            values.append(value)
    return [value - (1 << 64) if value >> 63 else value for value in values]
