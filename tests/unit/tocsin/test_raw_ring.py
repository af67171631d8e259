"""The raw ring gives back what was received, within its budget, also after a torn write."""

from pathlib import Path

import numpy as np

from collectors.block import DatagramBlock
from tocsin.chain.raw_ring import SEGMENT_BYTES, RawRing, read_ring, ring_files
from tocsin.testing import make_context


def block(first_ns: int, *payloads: bytes) -> DatagramBlock:
    slots = np.zeros((len(payloads), 2048), np.uint8)
    for slot, data in zip(slots, payloads, strict=True):
        slot[: len(data)] = np.frombuffer(data, np.uint8)
    count = len(payloads)
    return DatagramBlock(
        slots.reshape(-1),
        np.arange(count, dtype=np.int64) * 2048,
        np.array([len(data) for data in payloads], np.int32),
        np.zeros(count, np.uint64),
        np.full(count, 0xFFFF_7F000001, np.uint64),
        np.full(count, 9000, np.uint16),
        first_ns + np.arange(count, dtype=np.int64),
    )


def payloads(found: DatagramBlock) -> list[bytes]:
    return [
        found.payload[start : start + size].tobytes()
        for start, size in zip(found.offset.tolist(), found.length.tolist(), strict=True)
    ]


def test_datagrams_come_back_by_time(tmp_path: Path) -> None:
    ring = RawRing(tmp_path, make_context(), budget_bytes=1 << 22)
    ring.start()
    ring.write("flow", block(100, b"one", b"", b"three"))
    ring.write("sflow", block(200, b"four"))
    ring.stop()
    found = list(read_ring(tmp_path, since_ns=101, until_ns=201))
    assert [(name, payloads(part)) for name, part in found] == [
        ("flow", [b"", b"three"]),
        ("sflow", [b"four"]),
    ]


def test_the_oldest_goes_when_the_budget_is_reached(tmp_path: Path) -> None:
    ring = RawRing(tmp_path, make_context(), budget_bytes=2 * SEGMENT_BYTES)
    ring.start()
    big = block(0, *[bytes(2000)] * 500)
    for _ in range(16):
        ring.write("flow", big)
    ring.stop()
    sizes = [file.stat().st_size for file in ring_files(tmp_path)]
    assert 1 <= len(sizes) <= 2
    assert sum(sizes) <= 2 * SEGMENT_BYTES + 1_200_000  # a segment may end with a whole block


def test_a_flood_on_one_listener_does_not_push_out_another(tmp_path: Path) -> None:
    ring = RawRing(tmp_path, make_context(), budget_bytes=6 * SEGMENT_BYTES)
    ring.start()
    for turn in range(3):  # also after a restart
        ring.write("lines", block(turn, b"a line"))
        big = block(10, *[bytes(2000)] * 500)
        for _ in range(16):
            ring.write("flow", big)
        ring.stop()
        ring = RawRing(tmp_path, make_context(), budget_bytes=6 * SEGMENT_BYTES)
        ring.start()
    found = list(read_ring(tmp_path, since_ns=0, until_ns=99))
    assert [payloads(part) for name, part in found if name == "lines"] == [[b"a line"]] * 3
    assert 1 < sum(name == "flow" for name, _ in found) < 10
    assert sum(file.stat().st_size for file in ring_files(tmp_path)) < 8 * SEGMENT_BYTES


def test_a_torn_end_is_left_out(tmp_path: Path) -> None:
    ring = RawRing(tmp_path, make_context(), budget_bytes=1 << 22)
    ring.start()
    ring.write("flow", block(1, b"whole"))
    ring.write("flow", block(2, b"torn"))
    ring.stop()
    (file,) = ring_files(tmp_path)
    file.write_bytes(file.read_bytes()[:-2])
    assert [payloads(part) for _, part in read_ring(tmp_path, since_ns=0, until_ns=99)] == [
        [b"whole"]
    ]


def test_a_disk_that_refuses_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    context = make_context()
    ring = RawRing(tmp_path / "file", context, budget_bytes=1 << 22)
    ring.write("flow", block(1, b"x"))
    assert context.metrics.value("raw_ring_failed_total") == 1
