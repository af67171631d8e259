"""Messages are cut out of streams whatever the chunks, and a long one is never two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.syslog.frames import Connections, Frame, of_datagrams
from tests.support.syslog_messages import ARRIVAL_NS, SECOND, block, chunks

LIMIT = 100


def cut(
    data: bytes, cuts: list[int], *, multi_line: bool = False
) -> tuple[list[tuple[bytes, int]], list[int]]:
    """Return the messages of one connection's octets with their cut flag, and the tally."""
    connections = Connections(4, LIMIT)
    tally = np.zeros(len(Frame), np.uint64)
    whole = chunks(data, cuts)
    half = whole.datagrams // 2
    found = []
    for part in (whole.slice(0, half), whole.slice(half, whole.datagrams)):
        if part.datagrams:
            made = connections.cut(part, multi_line=multi_line, tally=tally)
            found += [
                (made.work[s : s + n].tobytes(), int(c))
                for s, n, c in zip(made.start, made.size, made.cut, strict=True)
            ]
    assert connections.open == 0
    return found, tally.tolist()


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        pytest.param(b"<1>a\n<2>b\n", [b"<1>a", b"<2>b"], id="lines"),
        pytest.param(b"4 <1>a4 <2>b", [b"<1>a", b"<2>b"], id="octet-counts"),
        pytest.param(b"<1>a\n4 <2>b<3>c\n", [b"<1>a", b"<2>b", b"<3>c"], id="both-in-one-stream"),
        pytest.param(b"4 <1>a\n\n4 <2>b\r\n", [b"<1>a", b"<2>b"], id="count-and-line-end"),
        pytest.param(
            b"8 <1>a\nb\nc<2>d\n", [b"<1>a\nb\nc"[:8], b"<2>d"], id="line-ends-in-a-count"
        ),
        pytest.param(b"12 apples\n", [b"12 apples"], id="digits-are-no-count-without-priority"),
        pytest.param(b"0004 <1>a\n", [b"0004 <1>a"], id="a-count-begins-with-no-0"),
        pytest.param(b"1234567 <1>a\n", [b"1234567 <1>a"], id="a-count-has-six-digits"),
        pytest.param(b"<1>last", [b"<1>last"], id="connection-ends-without-a-line-end"),
        pytest.param(b"20 <1>short", [b"<1>short"], id="connection-ends-within-a-count"),
        pytest.param(b"<1>nul\0\n", [b"<1>nul"], id="nul"),
        pytest.param(b"\n \n\0\n", [], id="nothing"),
    ],
)
def test_frames(data: bytes, messages: list[bytes]) -> None:
    """RFC 6587 sections 3.4.1 and 3.4.2."""
    assert [message for message, _ in cut(data, [])[0]] == messages


LONG = (
    b"<13>" + b"x" * 150 + b"\n250 <13>" + b"y" * 246 + b"<14>" + b"z" * 96 + b"\n<5>end\n"
    b"100 <15>" + b"w" * 96 + b"<6>after\n"
)  # fmt: skip


def test_a_long_message_is_cut_and_never_two() -> None:
    found, tally = cut(LONG, [])
    assert [(message[:4], len(message), flag) for message, flag in found] == [
        (b"<13>", LIMIT, 1),
        (b"<13>", LIMIT, 1),
        (b"<14>", LIMIT, 0),  # exactly the limit
        (b"<5>e", 6, 0),
        (b"<15>", LIMIT, 0),
        (b"<6>a", 8, 0),
    ]
    assert tally[Frame.CUT] == 2


MIXED = b"16 <1>2 - - - - - -17 <4>11 - - - - - -\n<13>hello\r\n\n12 apples\n" + LONG + b"<5>end"


@given(st.lists(st.integers(1, len(MIXED) - 1), max_size=40))
def test_any_cut_of_the_stream_gives_the_same_messages(cuts: list[int]) -> None:
    assert cut(MIXED, cuts) == cut(MIXED, [])


LINES = b"<133>Msg 1\nLine 2\n<133>Msg 2\n<test/>\n\nfoo\n<1>a"


@given(st.lists(st.integers(1, len(LINES) - 1), max_size=40))
def test_with_multi_line_only_a_priority_begins_a_message(cuts: list[int]) -> None:
    found, _ = cut(LINES, cuts, multi_line=True)
    assert [message for message, _ in found] == [
        b"<133>Msg 1\nLine 2",
        b"<133>Msg 2\n<test/>\n\nfoo",
        b"<1>a",
    ]


def test_every_octet_alone() -> None:
    assert cut(MIXED, list(range(len(MIXED)))) == cut(MIXED, [])


def test_connections_beyond_the_bound_are_refused_and_counted() -> None:
    connections = Connections(2, LIMIT)
    tally = np.zeros(len(Frame), np.uint64)
    for port in (1, 2, 3):
        connections.cut(block("<1>unfinished", port=port), multi_line=False, tally=tally)
    assert (connections.open, connections.refused) == (2, 1)
    connections.cut(block(b"", port=1), multi_line=False, tally=tally)
    made = connections.cut(block("<1>now there is room\n", port=3), multi_line=False, tally=tally)
    assert made.size.size == 1
    assert connections.refused == 1


def test_connections_do_not_mix() -> None:
    connections = Connections(8, LIMIT)
    tally = np.zeros(len(Frame), np.uint64)
    for part in (b"<1>fr", b"om "):
        for port in (1, 2):
            connections.cut(block(part, port=port), multi_line=False, tally=tally)
    for port in (2, 1):
        made = connections.cut(block(f"{port}\n", port=port), multi_line=False, tally=tally)
        text = made.work[made.start[0] : made.start[0] + made.size[0]].tobytes()
        assert text == f"<1>from {port}".encode()


def test_what_waits_behind_a_line_end_is_told_after_a_while() -> None:
    connections = Connections(8, LIMIT)
    tally = np.zeros(len(Frame), np.uint64)
    made = connections.cut(block("<1>alone\n"), multi_line=True, tally=tally)
    assert made.size.size == 0
    assert connections.overdue(ARRIVAL_NS) is None
    waiting = connections.overdue(ARRIVAL_NS + SECOND)
    assert waiting is not None
    assert connections.cut(waiting, multi_line=True, tally=tally).size.tolist() == [8]
    assert connections.overdue(ARRIVAL_NS + SECOND) is None


def test_a_datagram_is_one_message_and_a_long_one_is_cut() -> None:
    tally = np.zeros(len(Frame), np.uint64)
    made = of_datagrams(block("<1>a\n<2>b\n\0", "", " \n", "x" * 300), LIMIT, tally)
    assert made.size.tolist() == [9, LIMIT]
    assert made.datagram.tolist() == [0, 3]
    assert made.cut.tolist() == [0, 1]
    assert tally[Frame.EMPTY] == 2
    assert tally[Frame.CUT] == 1
