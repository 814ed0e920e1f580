"""The TFRecord container: each record with its length and two checksums, as tf.io.TFRecordWriter writes them."""

from __future__ import annotations

import struct

import google_crc32c

HEADER = 12  # bytes before a record: its length (8) and the checksum of that (4)
FOOTER = 4  # bytes after it: its own checksum


def checksum(data: bytes) -> int:
    """CRC-32C, rotated and offset, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(record: bytes) -> tuple[bytes, bytes]:
    """What stands before and after a record in the file."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", checksum(length)), struct.pack("<I", checksum(record))


def header_length(header: bytes) -> int:
    """The length that a header of 12 bytes announces; raises ValueError if it is damaged."""
    if len(header) != HEADER:
        raise ValueError(f"the file ends inside a record's header ({len(header)} of {HEADER} bytes)")
    length, stored = struct.unpack("<QI", header)
    if checksum(header[:8]) != stored:
        raise ValueError("the checksum of a record's length is wrong")
    return length


def check_record(record: bytes, footer: bytes) -> None:
    """Raises ValueError if the record is not what its checksum says."""
    if len(footer) != FOOTER:
        raise ValueError("the file ends inside a record")
    if struct.unpack("<I", footer)[0] != checksum(record):
        raise ValueError("the checksum of a record is wrong")
