"""TCP of captures: the segments of each direction of a connection as one byte stream in chunks.

Segments are put in order within bounds, repeats are dropped. Where one never comes, the stream goes
on behind the hole and the missing bytes are counted: decoders find the next message themselves. FIN
and RST end a connection: a chunk of length 0, as the stream listener gives it.

Source: RFC 9293 section 3.
"""

import struct
from dataclasses import dataclass, field

from collectors.datagram import Datagram

STREAMS_MAX = 4096
WAITING_BYTES_MAX = 1 << 20  # of one stream behind a hole
_FIN, _SYN, _RST = 1, 2, 4


@dataclass(slots=True)
class _Stream:
    following: int  # sequence number of the next byte
    waiting: dict[int, bytes] = field(default_factory=dict)
    waiting_bytes: int = 0
    ends_at: int = -1  # sequence number of its FIN
    opened: bool = False  # its SYN had data, and nothing came since


class TcpStreams:
    """Byte streams of all connections of a capture, each direction by itself."""

    def __init__(self) -> None:
        self._streams: dict[tuple[int, int, int, int], _Stream] = {}
        self.bytes_missing = 0
        self._now_ns = 0

    def segment(self, arrival_ns: int, source: tuple[int, int], tcp: bytes) -> list[Datagram]:
        """Take one segment; return the chunks that are in order now."""
        if len(tcp) < 20:
            return []
        self._now_ns = arrival_ns
        source_port, destination_port, sequence = struct.unpack_from("!HHI", tcp)
        flags = tcp[13]
        body = tcp[(tcp[12] >> 4) * 4 :]
        key, size = (*source, source_port, destination_port), len(body)
        made: list[Datagram] = []
        stream = self._streams.get(key)
        if stream is None or flags & _SYN:
            if stream is not None:
                made += self._flush(key, stream)
                made.append(self._chunk(key, b""))
            elif flags & _RST:
                return []
            if len(self._streams) >= STREAMS_MAX:
                oldest = next(iter(self._streams))
                made += self._flush(oldest, self._streams.pop(oldest))
            sequence = (sequence + bool(flags & _SYN)) & 0xFFFFFFFF
            stream = self._streams[key] = _Stream(sequence)
            made += self._take(key, stream, sequence, body) if body else []
            stream.opened = bool(flags & _SYN and body)
            body = b""
        if body:
            if stream.opened and sequence == (stream.following - 1) & 0xFFFFFFFF:
                stream.following = sequence  # rewritten captures count no number for the SYN
            stream.opened = False
            made += self._take(key, stream, sequence, body)
        if flags & _FIN:
            stream.ends_at = (sequence + size) & 0xFFFFFFFF
        if flags & _RST or stream.ends_at == stream.following:
            made += self._flush(key, stream)
            made.append(self._chunk(key, b""))
            del self._streams[key]
        return made

    def end(self) -> list[Datagram]:
        """Return what still waited behind holes; no connection ends by the end of a file."""
        made = [part for key, stream in self._streams.items() for part in self._flush(key, stream)]
        self._streams.clear()
        return made

    def _take(
        self, key: tuple[int, int, int, int], stream: _Stream, sequence: int, body: bytes
    ) -> list[Datagram]:
        ahead = _distance(stream.following, sequence)
        if ahead + len(body) <= 0:
            return []  # a repeat
        if ahead <= 0:
            made = [self._chunk(key, body[-ahead:] if ahead else body)]
            stream.following = (sequence + len(body)) & 0xFFFFFFFF
            return made + self._in_order(key, stream)
        if len(body) > len(stream.waiting.get(sequence, b"")):
            stream.waiting_bytes += len(body) - len(stream.waiting.get(sequence, b""))
            stream.waiting[sequence] = body
        return self._flush(key, stream) if stream.waiting_bytes > WAITING_BYTES_MAX else []

    def _in_order(self, key: tuple[int, int, int, int], stream: _Stream) -> list[Datagram]:
        made = []
        while stream.waiting:
            nearest = min(stream.waiting, key=lambda at: _distance(stream.following, at))
            ahead = _distance(stream.following, nearest)
            if ahead > 0:
                break
            body = stream.waiting.pop(nearest)
            stream.waiting_bytes -= len(body)
            if ahead + len(body) > 0:
                made.append(self._chunk(key, body[-ahead:] if ahead else body))
                stream.following = (nearest + len(body)) & 0xFFFFFFFF
        return made

    def _flush(self, key: tuple[int, int, int, int], stream: _Stream) -> list[Datagram]:
        """Go on behind the holes."""
        made = []
        while stream.waiting:
            nearest = min(stream.waiting, key=lambda at: _distance(stream.following, at))
            self.bytes_missing += _distance(stream.following, nearest)
            stream.following = nearest
            made += self._in_order(key, stream)
        return made

    def _chunk(self, key: tuple[int, int, int, int], body: bytes) -> Datagram:
        high, low, source_port, destination_port = key
        return Datagram(self._now_ns, high, low, source_port, destination_port, body, stream=True)


def _distance(start: int, to: int) -> int:
    """Return how far ahead of `start` a sequence number is; negative: behind."""
    return ((to - start + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
