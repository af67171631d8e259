"""Single datagrams, as captures, cases and tests have them, and blocks made of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from collectors.block import DatagramBlock
from telemetry.identity import address_text

DATAGRAMS_PER_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram of a capture, or one chunk of a TCP stream."""

    arrival_ns: int
    source_high: int
    source_low: int
    source_port: int
    destination_port: int
    payload: bytes
    stream: bool = False  # a chunk of a TCP stream; with no payload: the stream ended


def sender(datagram: Datagram) -> str:
    """Return the sender as people read it."""
    return f"{address_text(datagram.source_high, datagram.source_low)}:{datagram.source_port}"


def blocks(datagrams: Iterator[Datagram]) -> Iterator[DatagramBlock]:
    """Pack datagrams into blocks; arrival times are made never to fall, as a socket's are."""
    waiting: list[Datagram] = []
    last = 0
    for datagram in datagrams:
        waiting.append(datagram)
        if len(waiting) >= DATAGRAMS_PER_BLOCK:
            made = pack(waiting, last)
            last = int(made.arrival_ns[-1])
            yield made
            waiting = []
    if waiting:
        yield pack(waiting, last)


def pack(datagrams: list[Datagram], not_before_ns: int = 0) -> DatagramBlock:
    """Return one block of these datagrams."""
    length = np.array([len(d.payload) for d in datagrams], np.int32)
    offset = np.zeros(len(datagrams), np.int64)
    np.cumsum(length[:-1], out=offset[1:])
    arrival = np.maximum.accumulate(
        np.array([max(d.arrival_ns, not_before_ns) for d in datagrams], np.int64)
    )
    return DatagramBlock(
        np.frombuffer(b"".join(d.payload for d in datagrams), np.uint8),
        offset,
        length,
        np.array([d.source_high for d in datagrams], np.uint64),
        np.array([d.source_low for d in datagrams], np.uint64),
        np.array([d.source_port for d in datagrams], np.uint16),
        arrival,
        0,
        int(arrival[-1]) if datagrams else not_before_ns,
    )
