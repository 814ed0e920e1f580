"""Reads Qt's binary resource files (.rcc), in which GCompris keeps its recordings."""

import pathlib
import struct
import zlib
from collections.abc import Iterator

HEADER = ">4sIIII"  # magic, version, and where the tree, the data and the names begin
DIRECTORY, COMPRESSED = 2, 1  # flags of a node


def read(path: pathlib.Path) -> dict[str, bytes]:
    """The files in a resource file, by path.

    Raises:
        ValueError: not a resource file.
    """
    content = path.read_bytes()
    magic, version, tree, data, names = struct.unpack_from(HEADER, content)
    if magic != b"qres":
        raise ValueError(f"{path}: not a Qt resource file")
    size = 14 if version < 2 else 22
    return dict(_walk(content, tree, size, data, names, 0, ""))


def _walk(content: bytes, tree: int, size: int, data: int, names: int, node: int, folder: str) -> Iterator:
    at = tree + node * size
    name_at, flags = struct.unpack_from(">IH", content, at)
    path = f"{folder}/{_name(content, names + name_at)}" if node else ""
    if flags & DIRECTORY:
        count, first = struct.unpack_from(">II", content, at + 6)
        for child in range(first, first + count):
            yield from _walk(content, tree, size, data, names, child, path)
        return
    start = data + struct.unpack_from(">I", content, at + 10)[0]
    length = struct.unpack_from(">I", content, start)[0]
    held = content[start + 4 : start + 4 + length]
    yield path, zlib.decompress(held[4:]) if flags & COMPRESSED else held


def _name(content: bytes, at: int) -> str:
    length = struct.unpack_from(">H", content, at)[0]  # then a hash of four bytes
    return content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")
