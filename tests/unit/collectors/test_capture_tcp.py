"""TCP in captures: order, repeats, holes, the end of connections."""

import struct
from itertools import permutations

import pytest

from collectors.capture.tcp import WAITING_BYTES_MAX, TcpStreams

FIN, SYN, RST, ACK = 1, 2, 4, 16
SOURCE = (0, 0xFFFF_C0000201)


def segment(sequence: int, body: bytes = b"", flags: int = ACK, port: int = 4000) -> bytes:
    """Return a TCP segment to port 11019."""
    return struct.pack("!HHIIBBHHH", port, 11019, sequence, 0, 5 << 4, flags, 0, 0, 0) + body


def play(*segments: bytes, end: bool = True) -> tuple[list[bytes], int]:
    """Return the chunks of these segments, and how many bytes were missing."""
    streams = TcpStreams()
    made = [c for i, part in enumerate(segments) for c in streams.segment(i, SOURCE, part)]
    made += streams.end() if end else []
    assert all(chunk.stream for chunk in made)
    return [chunk.payload for chunk in made], streams.bytes_missing


@pytest.mark.parametrize("start", [1000, 0xFFFFFFFE])
def test_any_order_gives_the_same_stream(start: int) -> None:
    """Also across the wrap of sequence numbers, and with repeats that overlap."""
    parts = [
        segment((start + at) & 0xFFFFFFFF, b"abcdefghij"[at : at + size])
        for at, size in ((1, 3), (2, 4), (4, 2), (6, 4))
    ]
    for order in permutations(parts):
        chunks, missing = play(segment(start, b"a"), *order)
        assert (b"".join(chunks), missing) == (b"abcdefghij", 0)


def test_a_hole_is_counted_and_stepped_over() -> None:
    """The bytes behind a segment that never came are given at the end of the file."""
    assert play(segment(0, b"ab"), segment(5, b"fg")) == ([b"ab", b"fg"], 3)
    big = bytes(WAITING_BYTES_MAX + 1)
    assert play(segment(0, b"ab"), segment(5, big), end=False) == ([b"ab", big], 3)


def test_fin_waits_for_what_came_before_it() -> None:
    """A connection ends behind its last byte, whatever order the segments came in."""
    assert play(segment(0, b"a"), segment(2, b"c", FIN), segment(1, b"b"))[0] == [
        b"a", b"b", b"c", b"",
    ]  # fmt: skip
    assert play(segment(0, b"a"), segment(1, b"b", FIN))[0] == [b"a", b"b", b""]
    assert play(segment(0, b"a"), segment(1, b"", RST))[0] == [b"a", b""]


def test_a_new_connection_ends_the_old_one() -> None:
    """SYN on known ports: the end of the old connection was not captured."""
    assert play(segment(0, b"a"), segment(700, b"", SYN), segment(701, b"b"))[0] == [
        b"a", b"", b"b",
    ]  # fmt: skip


def test_directions_and_connections_stay_apart() -> None:
    """The key is the sender and both ports."""
    streams = TcpStreams()
    made = streams.segment(0, SOURCE, segment(0, b"a", port=1))
    made += streams.segment(0, SOURCE, segment(90, b"b", port=2))
    made += streams.segment(0, SOURCE, segment(1, b"c", port=1))
    assert [(c.source_port, c.payload) for c in made] == [(1, b"a"), (2, b"b"), (1, b"c")]


def test_data_in_the_first_segment() -> None:
    """With SYN data begins one number later; captures that tools rewrote do not count the SYN."""
    for following in (12, 13):
        chunks, missing = play(segment(9, b"abc", SYN), segment(following, b"def"))
        assert (b"".join(chunks), missing) == (b"abcdef", 0)
