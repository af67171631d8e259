"""Writes datagrams and chunks of byte streams as a pcapng file of raw IP packets that any tool reads.

Source: pcapng file format (draft-ietf-opsawg-pcapng); RFC 791, 768, 8200, 9293.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from collectors.block import DatagramBlock
from collectors.capture.reader import LINK_RAW
from collectors.datagram import Datagram

SEGMENT_BYTES = 32 * 1024  # of a stream: an IP packet holds less than twice that
_UDP, _TCP = 17, 6
_FIN_ACK, _PUSH_ACK = 0x11, 0x18


class PcapngWriter:
    """One file. Everything is sent to ::1 or 127.0.0.1, by whoever sent it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        resolution = struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HH", 0, 0)
        self._block(1, struct.pack("<HHI", LINK_RAW, 0, 0) + resolution)
        self._sent: dict[tuple[int, int, int, int], int] = {}  # bytes of each open stream
        self.datagrams = 0

    def write(self, datagram: Datagram, *, destination_port: int) -> None:
        """Append one datagram, or a chunk of a stream as segments of its connection."""
        self.datagrams += 1
        data = datagram.payload
        if not datagram.stream:
            udp = struct.pack(
                "!HHHH", datagram.source_port, destination_port, (len(data) + 8) & 0xFFFF, 0
            )
            self._packet(datagram, _UDP, udp + data)
            return
        # No SYN: where a ring begins, connections are open for long.
        key = (
            datagram.source_high, datagram.source_low, datagram.source_port, destination_port,
        )  # fmt: skip
        sent = self._sent.get(key, 0)
        for at in range(0, max(len(data), 1), SEGMENT_BYTES):
            flags = _PUSH_ACK if data else _FIN_ACK
            tcp = struct.pack(
                "!HHIIBBHHH", datagram.source_port, destination_port, sent & 0xFFFFFFFF, 0,
                5 << 4, flags, 0xFFFF, 0, 0,
            )  # fmt: skip
            part = data[at : at + SEGMENT_BYTES]
            self._packet(datagram, _TCP, tcp + part)
            sent += len(part)
        if data:
            self._sent[key] = sent
        else:  # the stream ended
            self._sent.pop(key, None)

    def _packet(self, datagram: Datagram, protocol: int, body: bytes) -> None:
        size = len(body)
        if datagram.source_high == 0 and datagram.source_low >> 32 == 0xFFFF:
            source = (datagram.source_low & 0xFFFFFFFF).to_bytes(4, "big")
            ip = struct.pack("!BBHHHBBH", 0x45, 0, (size + 20) & 0xFFFF, 0, 0, 64, protocol, 0)
            ip += source + b"\x7f\x00\x00\x01"
        else:
            source = (datagram.source_high << 64 | datagram.source_low).to_bytes(16, "big")
            ip = struct.pack("!IHBB", 6 << 28, size & 0xFFFF, protocol, 64)
            ip += source + bytes(15) + b"\x01"
        packet = ip + body
        ns = datagram.arrival_ns
        head = struct.pack("<IIIII", 0, ns >> 32, ns & 0xFFFFFFFF, len(packet), len(packet))
        self._block(6, head + packet + bytes(-len(packet) % 4))

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _block(self, kind: int, body: bytes) -> None:
        size = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + size + body + size)


def datagrams_of(block: DatagramBlock, *, stream: bool = False) -> Iterator[Datagram]:
    """Yield a block's datagrams, or chunks, one by one: for files, not for the hot path."""
    for i in range(block.datagrams):
        start = int(block.offset[i])
        yield Datagram(
            int(block.arrival_ns[i]),
            int(block.exporter_high[i]),
            int(block.exporter_low[i]),
            int(block.exporter_port[i]),
            0,
            block.payload[start : start + int(block.length[i])].tobytes(),
            stream,
        )
