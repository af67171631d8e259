"""Bodies of HTTP requests: by length or in chunks, packed or not, never more than a maximum."""

import io
import zlib
from collections.abc import Iterator
from typing import Any

BLOCK_BYTES = 65_536


class HttpRefusedError(Exception):
    """A request that is answered with an error; `status` and the sentence go to the client."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class TooSlowError(Exception):
    """The request's time is over."""


class Body:
    """The body of one request: by length or in chunks, packed or not, bounded either way."""

    def __init__(self, stream: io.BufferedIOBase, headers: Any, most: int) -> None:
        self._stream = stream
        self._headers = headers
        self._most = most
        self.whole = False

    def blocks(self) -> Iterator[bytes]:
        """Yield the body unpacked; raise HttpRefusedError for what is no body or too large."""
        encoding = self._headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "deflate", ""):
            raise HttpRefusedError(415, f"Content-Encoding {encoding!r} is not gzip or identity")
        total = 0
        source = self._raw()
        for block in unpacked(source) if encoding in ("gzip", "deflate") else source:
            total += len(block)
            if total > self._most:
                raise HttpRefusedError(413, f"the body is longer than {self._most} bytes")
            yield block
        self.whole = True

    def _raw(self) -> Iterator[bytes]:
        try:
            if "chunked" in self._headers.get("Transfer-Encoding", "").lower():
                yield from self._chunks()
            else:
                yield from self._exactly(self._length())
        except TimeoutError as error:
            raise TooSlowError from error
        except OSError as error:
            raise HttpRefusedError(400, "the connection ended within the body") from error

    def _length(self) -> int:
        length = self._headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit():
            raise HttpRefusedError(400, f"Content-Length {length!r} is no number")
        if int(length) > self._most:
            raise HttpRefusedError(413, f"the body is longer than {self._most} bytes")
        return int(length)

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length:
            block = self._stream.read(min(length, BLOCK_BYTES))
            if not block:
                raise HttpRefusedError(400, "the connection ended within the body")
            length -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._stream.readline(1024).split(b";")[0].strip()
            try:
                length = int(line, 16)
            except ValueError as error:
                raise HttpRefusedError(400, "a chunk of the body has no length") from error
            if not 0 <= length <= self._most:
                raise HttpRefusedError(413, f"the body is longer than {self._most} bytes")
            if length == 0:
                break
            yield from self._exactly(length)
            self._stream.readline(8)
        while self._stream.readline(8192) not in (b"\r\n", b"\n", b""):
            pass


def unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield gzip or zlib data unpacked in bounded blocks; raise HttpRefusedError where it is neither."""
    machine = zlib.decompressobj(wbits=47)  # finds gzip and zlib by itself
    for packed in blocks:
        while packed:
            try:
                made = machine.decompress(packed, BLOCK_BYTES)
            except zlib.error as error:
                raise HttpRefusedError(
                    400, f"the body is not packed as it says: {error}"
                ) from error
            if made:
                yield made
            packed = machine.unconsumed_tail
            if machine.eof and machine.unused_data:  # members of a concatenated file
                packed = machine.unused_data
                machine = zlib.decompressobj(wbits=47)
    if not machine.eof:
        raise HttpRefusedError(400, "the packed body ends too early")
