"""A CRC-32 behind a file (ADR 0004): pickles, shared libraries and their like do not look so far."""

import zlib
from pathlib import Path

from telemetry.errors import DecodeError

CHECKSUM_BYTES = 4  # little-endian


def seal(data: bytes) -> bytes:
    """Return data with its checksum behind it."""
    return data + zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little")


def check(path: Path) -> None:
    """Raise DecodeError where the checksum behind a file is not that of the rest, or OSError."""
    data = memoryview(path.read_bytes())
    rest, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if zlib.crc32(rest).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise DecodeError("checksum", f"{path}: its checksum is not that of its {len(rest)} bytes")
