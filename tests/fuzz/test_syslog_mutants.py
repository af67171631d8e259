"""Mutated log messages and streams: no crash, each message in exactly one count, bounded."""

import numpy as np
import pytest

from collectors.datagram import Datagram, pack
from collectors.syslog.frames import Frame
from telemetry.identity import address_pair
from tests.support.syslog_messages import ARRIVAL_NS, SECOND, SYSLOG_LINES, make_syslog
from tocsin.testing.rows import rows_of

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
MUTANTS = 10_000
DEEP_MUTANTS = 200_000
BLOCK = 250
PIECES = (
    b"<", b">", b"<191>", b"1 - - - - - -", b"[x y=\"", b"\\\"", b"]", b"%A-5-B: ", b"%%01A/4/B(l)[1]:",
    b"Feb 29 23:59:60 ", b"2026-09-21T14:13:20+", b"9" * 30, b"\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
    b"RP/0/RP0/CPU0:", b"TMNX: 1 Base A-B-C", b"fpc0 ", b"'", b"(" * 40, b"  " * 40, b"a b c d " * 30,
    b"12 ", b"999999 <", b"1 <", b"re0.", b"e\xcc\x81", b"\xf0\x9f\x92", b"x" * 700,
)  # fmt: skip


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    made = bytearray(
        data[: int(random.integers(0, len(data) + 1))] if random.random() < 0.2 else data
    )
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(made) + 1))
        what = random.random()
        if what < 0.4 and at < len(made):
            made[at] = int(random.integers(256))
        elif what < 0.8:
            made[at:at] = PIECES[int(random.integers(len(PIECES)))]
        else:
            del made[at : at + int(random.integers(1, 20))]
    return bytes(made)


def mutants(count: int, random: np.random.Generator) -> list[bytes]:
    return [mutate(SYSLOG_LINES[i % len(SYSLOG_LINES)], random) for i in range(count)]


def test_each_datagram_is_a_line_or_counted(deep: bool) -> None:
    decoder, context = make_syslog(
        patterns_max=512, hosts_max=256, words_max=256, series_max=256, lines_per_second_max=0
    )
    random, total = context.random, (DEEP_MUTANTS if deep else MUTANTS)
    high, low = address_pair("192.0.2.1")
    found = sent = undecodable = 0
    values = 0.0
    for start in range(0, total, BLOCK):
        now_ns = ARRIVAL_NS + start * SECOND // BLOCK
        made = decoder.decode(
            pack([Datagram(now_ns, high, low, 1, 514, m) for m in mutants(BLOCK, random)])
        )
        made += decoder.advance(now_ns + SECOND)
        for row in rows_of(made, "log"):
            assert 0 <= row["severity"] <= 7
            assert 0 <= row["facility"] <= 23
            assert row["pattern_id"]
            assert abs(row["time_ns"] - row["arrival_ns"]) <= 300 * SECOND
            found += 1
        for batch in made:  # text is UTF-8, whatever came
            for name, blob in batch.blobs.items():
                blob[: batch.columns[name][-1]].tobytes().decode("utf-8")
        for row in rows_of(made, "ledger"):
            sent += row["sent"]
            undecodable += row["undecodable"]
        values += sum(row["value"] for row in rows_of(made, "sample"))
    assert sent == total == found + undecodable
    assert values == 2 * found
    empty = context.metrics.value("collector_syslog_frames_total", frame="empty")
    assert empty == undecodable


@pytest.mark.parametrize("multi_line", [False, True])
def test_streams_of_mutants_lose_no_octet_uncounted(deep: bool, multi_line: bool) -> None:
    """Whatever the cuts, the same lines; nothing waits when the connection has ended."""
    total = DEEP_MUTANTS if deep else MUTANTS // 2
    random = np.random.default_rng(4)
    high, low = address_pair("192.0.2.1")
    for _start in range(0, total, BLOCK):
        parts = [
            m + b"\n" if random.random() < 0.5 else str(len(m)).encode() + b" " + m
            for m in mutants(BLOCK, random)
        ]
        data = b"".join(parts)
        seen = []
        for cuts in (0, 40):
            decoder, context = make_syslog(
                "tcp://[::]:1", multi_line=multi_line, message_bytes_max=512, patterns_max=256,
                hosts_max=64, words_max=64, series_max=64, connections_max=2,
            )  # fmt: skip
            edges = [0, *sorted(random.integers(0, len(data), cuts).tolist()), len(data)]
            chunks = [data[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]
            made = decoder.decode(
                pack([Datagram(ARRIVAL_NS, high, low, 1, 514, c) for c in [*chunks, b""]])
            )
            seen.append([(row["message"], row["host"]) for row in rows_of(made, "log")])
            tally = {
                frame: context.metrics.value(
                    "collector_syslog_frames_total", frame=frame.name.lower()
                )
                for frame in Frame
            }
            framed = tally[Frame.OCTET_COUNTED] + tally[Frame.LINE]
            assert framed == len(seen[-1]) + tally[Frame.EMPTY]
        assert seen[0] == seen[1]
