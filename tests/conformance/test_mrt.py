"""MRT built from RFC 6396 and 8050: messages, changes of state and tables, of all families, packed, cut and wrong.

What FRR and GoBGP write is read in `tests/live`.
"""

import bz2
import contextlib
import gzip
import io
import ipaddress
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from collectors.bmp.frames import RIBS
from collectors.capture import reader
from collectors.capture.mrt import looks_like_mrt, read_mrt
from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from telemetry.errors import DecodeError
from tests.support.bmp_messages import (
    as_path,
    attribute,
    chunks,
    make_decoder,
    prefix,
    reach,
    update,
    usual,
)
from tests.support.link_state_messages import node_nlri, stated
from tocsin.cli.decode import decode
from tocsin.testing.rows import rows_of

WHEN = 1_790_000_000
PEER, LOCAL = "192.0.2.1", "203.0.113.9"
PEER6, LOCAL6 = "2001:db8::1", "2001:db8::9"
ROUTE = update(usual(), prefix("198.51.100.0/24"))
RULE = b"\x03\x03\x81\x06"
RD = struct.pack("!HHI", 0, 64500, 94)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def record(kind: int, subtype: int, body: bytes, micros: int | None = None) -> bytes:
    fine = b"" if micros is None else struct.pack("!I", micros)
    return struct.pack("!IHHI", WHEN, kind, subtype, len(fine) + len(body)) + fine + body


def session(rest: bytes, *, width: int = 4, peer: str = PEER, local: str = LOCAL) -> bytes:
    numbers = struct.pack("!II" if width == 4 else "!HH", 64500, 64999)
    family = struct.pack("!HH", 0, 1 if "." in peer else 2)
    return numbers + family + packed(peer) + packed(local) + rest


def message(update: bytes, subtype: int = 4, **more: Any) -> bytes:
    width = 2 if subtype in (1, 6, 8, 10) else 4
    return record(16, subtype, session(update, width=width, **more))


def change(before: int, after: int, **more: Any) -> bytes:
    return record(16, 5, session(struct.pack("!HH", before, after), **more))


def index(*peers: tuple[str, int]) -> bytes:
    body = packed("203.0.113.7") + struct.pack("!H", 4) + b"view" + struct.pack("!H", len(peers))
    for address, number in peers:
        body += (
            bytes([2 | (":" in address)]) + bytes(4) + packed(address) + struct.pack("!I", number)
        )
    return record(13, 1, body)


def table(subtype: int, route: bytes, *entries: tuple[int, bytes], family: bytes = b"") -> bytes:
    body = bytes(4) + family + route + struct.pack("!H", len(entries))
    for peer, attributes in entries:
        path_id = struct.pack("!I", 7) if subtype >= 8 else b""
        body += struct.pack("!HI", peer, WHEN) + path_id
        body += struct.pack("!H", len(attributes)) + attributes
    return record(13, subtype, body)


def read(
    tmp_path: Path, data: bytes, name: str = "dump"
) -> tuple[list[dict[str, Any]], CaptureReport, Any]:
    """Return the rows of route and option, what is told of the file, and the decoder's counts."""
    path, report, decoder = tmp_path / name, CaptureReport(), make_decoder()
    path.write_bytes(data)
    rows = []
    for one in read_capture(path, report):
        assert (one.stream, one.destination_port) == (True, 11019)
        block = chunks([one.payload], router="203.0.113.9", start_ns=one.arrival_ns)
        made = decoder.decode(block)
        rows += [*rows_of(made, "route"), *rows_of(made, "option")]
    return rows, report, decoder.metrics.value  # type: ignore[attr-defined]


def said(row: dict[str, Any]) -> str:
    address = ipaddress.ip_address(
        (row["prefix_high"] << 64 | row["prefix_low"]).to_bytes(16, "big")
    )
    shown = (
        address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
    )
    return f"{shown}/{row['prefix_length']}"


ADD_PATH = update(usual(), prefix("198.51.100.0/24", 9))
OLD = update(attribute(1, b"\0") + attribute(2, as_path(64500, 64501, width=2)) + attribute(3, bytes(4)),
             prefix("198.51.100.0/24"))  # fmt: skip


@pytest.mark.parametrize(
    ("data", "path_id"),
    [
        pytest.param(message(ROUTE), 0, id="four octets"),
        pytest.param(message(OLD, 1), 0, id="two octets"),
        pytest.param(message(ADD_PATH, 9), 9, id="with path ids"),
        pytest.param(record(17, 4, session(ROUTE), 250_000), 0, id="with microseconds"),
        pytest.param(message(ROUTE, peer=PEER6, local=LOCAL6), 0, id="over IPv6"),
    ],
)
def test_messages(tmp_path: Path, data: bytes, path_id: int) -> None:
    rows, report, value = read(tmp_path, data)
    (row,) = (row for row in rows if "prefix_high" in row)
    assert (said(row), row["origin_as"], row["path_id"]) == ("198.51.100.0/24", 64501, path_id)
    assert row["peer_as"] == 64500
    assert row["time_ns"] == WHEN * 10**9 + (250_000_000 if data[5] == 17 else 0)
    assert report == CaptureReport(packets=1)
    assert value("collector_bmp_updates_total", verdict="ok") == 1


@pytest.mark.parametrize(
    ("subtype", "route"),
    [
        pytest.param(6, OLD, id="two octets"),
        pytest.param(7, ROUTE, id="four octets"),
        pytest.param(11, ADD_PATH, id="with path ids"),
    ],
)
def test_what_the_router_itself_sent_is_a_table_of_its_own(
    tmp_path: Path, subtype: int, route: bytes
) -> None:
    rows, report, _ = read(tmp_path, message(ROUTE) + message(route, subtype) + message(ROUTE))
    routes = [row for row in rows if "prefix_high" in row]
    assert [(RIBS[row["rib"]], row["change"]) for row in routes] == [
        ("adj-in-pre", 1), ("adj-out-pre", 1), ("adj-in-pre", 2),
    ]  # fmt: skip
    assert [row["path_id"] for row in routes] == [0, 9 * (subtype == 11), 0]
    assert report == CaptureReport(packets=3)


def test_a_session_that_ends_ends_its_routes_and_its_open_messages_are_passed_over(
    tmp_path: Path,
) -> None:
    keepalive = b"\xff" * 16 + b"\0\x13\4"
    rows, report, _ = read(
        tmp_path, change(5, 6) + message(keepalive) + message(ROUTE) + change(6, 1) + change(1, 2)
    )
    assert [row["withdrawn"] for row in rows if "prefix_high" in row] == [0, 2]
    told = [json.loads(row["name"]) for row in rows if "prefix_high" not in row]
    assert [(one["peer"], one["local"], one["state"]) for one in told] == [
        (PEER, LOCAL, "up"), (PEER, LOCAL, "down"),
    ]  # fmt: skip
    assert report.packets == 5


def hop(address: str) -> bytes:
    """MP_REACH as tables have it: the next hop alone."""
    return attribute(14, bytes([len(packed(address))]) + packed(address))


BASE = attribute(1, b"\0") + attribute(2, as_path(64500, 64501))


def test_tables_of_all_families(tmp_path: Path) -> None:
    whole = attribute(
        14,
        struct.pack("!HBB", 2, 1, 16) + packed("2001:db8::2") + b"\0" + prefix("2001:db8:8::/48"),
    )
    data = index((PEER, 64500), (PEER6, 64501))
    data += table(2, prefix("198.51.100.0/24"), (0, usual()), (1, usual((64501,))))
    data += table(4, prefix("2001:db8:7::/48"), (1, BASE + hop("2001:db8::2")))
    data += table(4, prefix("2001:db8:8::/48"), (1, BASE + whole))
    data += table(3, prefix("198.51.100.0/25"), (0, usual()))
    data += table(8, prefix("198.51.100.0/26"), (0, usual()))
    vpn = prefix("10.0.0.0/8", before=b"\0\x10\1" + RD)
    data += table(6, vpn, (0, BASE + hop("192.0.2.2")), family=b"\0\1\x80")
    data += table(6, RULE, (0, BASE + attribute(14, b"\0")), family=b"\0\1\x85")
    data += table(12, RULE, (0, BASE + attribute(14, b"\0")), family=b"\0\1\x85")
    rows, report, _ = read(tmp_path, data)
    routes = [row for row in rows if "prefix_high" in row]
    assert [(said(r), r["afi"], r["safi"], r["path_id"], r["peer_as"]) for r in routes] == [
        ("198.51.100.0/24", 1, 1, 0, 64500), ("198.51.100.0/24", 1, 1, 0, 64501),
        ("2001:db8:7::/48", 2, 1, 0, 64501), ("2001:db8:8::/48", 2, 1, 0, 64501),
        ("198.51.100.0/25", 1, 2, 0, 64500), ("198.51.100.0/26", 1, 1, 7, 64500),
        ("10.0.0.0/8", 1, 128, 0, 64500), ("0.0.0.0/0", 1, 133, 0, 64500),
        ("0.0.0.0/0", 1, 133, 7, 64500),
    ]  # fmt: skip
    assert {row["next_hop_address_low"] & 255 for row in routes[2:4]} == {2}
    assert routes[7]["flow_rule"] == "protocol tcp"
    assert report == CaptureReport(packets=9)


def test_what_an_igp_states_in_messages_and_tables(tmp_path: Path) -> None:
    node = node_nlri("10.0.0.1")
    in_table = index((PEER, 64500)) + table(
        6, node, (0, BASE + attribute(29, struct.pack("!HH", 1026, 4) + b"ams1", 0x80) + hop("192.0.2.2")),
        family=struct.pack("!HB", 16388, 71),
    )  # fmt: skip
    in_message = message(stated(node, struct.pack("!HH", 1026, 4) + b"ams1"))
    for data in (in_table, in_message):
        rows, _, value = read(tmp_path, data)
        (row,) = (row for row in rows if row.get("table") == "link-state")
        assert json.loads(row["name"])["name"] == "ams1"
        assert value("collector_bmp_updates_total", verdict="link_state") == 1


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_as_archives_have_them(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "updates.20261128.2100"
    path.write_bytes(pack(message(ROUTE) + message(reached())))
    done = CliRunner().invoke(decode, [str(path), "-o", "jsonl"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["prefix"] for row in rows if row["schema"] == "route"] == [
        "198.51.100.0", "2001:db8:7::",
    ]  # fmt: skip


def test_a_packed_dump_that_is_cut_gives_what_is_before_the_cut(tmp_path: Path) -> None:
    whole = gzip.compress(message(ROUTE) * 4000, mtime=0)
    rows, report, _ = read(tmp_path, whole[:-20])
    assert 0 < len(rows) <= 4001
    assert "packed is damaged behind record" in report.damage


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_packed_dump_that_grows_beyond_measure_is_read_no_further(
    tmp_path: Path, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UNPACKED_BYTES_FREE", 1 << 16)
    others = record(11, 0, bytes(500)) * 4000  # 2 MB
    rows, report, _ = read(tmp_path, pack(message(ROUTE) + others))
    assert [said(row) for row in rows if "prefix_high" in row] == ["198.51.100.0/24"]
    assert "what is packed becomes more than" in report.damage
    assert report.left_out["MRT records of type 11"] < 4000
    monkeypatch.setattr(reader, "UNPACKED_BYTES_FREE", 4 << 20)
    _, report, _ = read(tmp_path, pack(message(ROUTE) + others))
    assert report.damage == ""
    assert report.left_out["MRT records of type 11"] == 4000


def reached() -> bytes:
    return update(BASE + reach(2, 1, packed("2001:db8::2"), prefix("2001:db8:7::/48")))


def test_what_is_cut_wrong_or_no_bgp_is_told_and_what_is_beside_it_is_read(tmp_path: Path) -> None:
    wrong = record(13, 2, bytes(4) + prefix("198.51.100.0/24") + b"\0\1" + bytes(8))  # no index yet
    short = record(16, 4, session(b"")[:11])
    other = record(11, 0, bytes(20))
    rows, report, _ = read(tmp_path, message(ROUTE) + wrong + short + other + message(ROUTE))
    assert [said(row) for row in rows if "prefix_high" in row] == ["198.51.100.0/24"] * 2
    assert report.undecoded == {"MRT records that contradict themselves": 2}
    assert report.left_out == {"MRT records of type 11": 1}
    for end in (5, 40):
        _, report, _ = read(tmp_path, message(ROUTE) + message(ROUTE)[:end])
        assert "cut" in report.damage
    _, report, _ = read(tmp_path, message(ROUTE) + struct.pack("!IHHI", WHEN, 16, 4, 1 << 30))
    assert "damaged" in report.damage


def test_kinds_that_are_not_read_are_counted_wherever_they_stand(tmp_path: Path) -> None:
    others = [(kind, record(kind, 0, bytes(30))) for kind in (11, 12, 32, 33, 48, 49)]
    for kind, first in others:
        rows, report, _ = read(tmp_path, first + message(ROUTE))
        assert [said(row) for row in rows if "prefix_high" in row] == ["198.51.100.0/24"]
        assert report.left_out == {f"MRT records of type {kind}": 1}
    strange = [(13, 0), (13, 7), (13, 13), (13, 99), (16, 2), (16, 12), (17, 40)]
    data = b"".join(record(kind, subtype, bytes(20)) for kind, subtype in strange)
    _, report, _ = read(tmp_path, index((PEER, 64500)) + data)
    assert report.left_out == {
        f"MRT records of type {kind}, subtype {subtype}": 1 for kind, subtype in strange
    }
    _, report, _ = read(tmp_path, record(13, 7, bytes(20)))  # and where it is the first
    assert report.left_out == {"MRT records of type 13, subtype 7": 1}


def test_a_record_that_contradicts_itself_changes_nothing(tmp_path: Path) -> None:
    route = prefix("198.51.100.0/24")
    wrong = table(2, route, (0, usual()), (5, usual()))  # there is no peer 5
    rows, report, _ = read(tmp_path, index((PEER, 64500)) + wrong + table(2, route, (0, usual())))
    assert [json.loads(row["name"])["state"] for row in rows if "prefix_high" not in row] == ["up"]
    assert [said(row) for row in rows if "prefix_high" in row] == ["198.51.100.0/24"]
    assert report.undecoded == {"MRT records that contradict themselves": 1}
    cut = index((PEER, 64501), (PEER6, 64502))
    shorter = cut[:8] + struct.pack("!I", len(cut) - 13) + cut[12:-1]
    rows, report, _ = read(tmp_path, index((PEER, 64500)) + shorter + table(2, route, (0, usual())))
    assert [row["peer_as"] for row in rows if "prefix_high" in row] == [64500]
    assert report.undecoded == {"MRT records that contradict themselves": 1}
    long = message(ROUTE + bytes(65536 - len(ROUTE)), 9)
    assert read(tmp_path, long)[1].undecoded == {"MRT records that contradict themselves": 1}


def test_a_table_that_repeats_a_long_route_beyond_measure_is_left_out(tmp_path: Path) -> None:
    """Of 0.6 MB, 65535 entries of 8 bytes behind a route of 60 kB, 4 GB of UPDATEs were made."""
    link_state = struct.pack("!HH", 1, 60_000) + bytes(60_000)
    hostile = table(6, link_state, *[(0, b"")] * 1000, family=struct.pack("!HB", 16388, 71))
    route = prefix("198.51.100.0/24")
    rows, report, _ = read(tmp_path, index((PEER, 64500)) + hostile + table(2, route, (0, usual())))
    assert [said(row) for row in rows if "prefix_high" in row] == ["198.51.100.0/24"]
    assert report.undecoded == {"MRT tables that repeat a long route beyond measure": 1}
    rule = b"\xff\xa0" + RULE[1:] * 1333 + b"\x81"  # 4000 bytes, as long as they come, of 60 peers
    peers = index(*[(f"192.0.2.{n}", 64500 + n) for n in range(60)])
    many = table(6, rule, *[(n, b"") for n in range(60)], family=struct.pack("!HB", 1, 133))
    assert read(tmp_path, peers + many)[1].undecoded == {}


def test_an_entry_is_no_longer_than_a_message_of_bgp_may_be(tmp_path: Path) -> None:
    route = prefix("2001:db8::/32")
    room = 0xFFFF - 52 - len(route) - len(BASE) - 4
    for more, undecoded in ((0, {}), (1, {"MRT records that contradict themselves": 1})):
        large = attribute(99, bytes(room + more), 0xC0)
        rows, report, _ = read(tmp_path, index((PEER, 64500)) + table(10, route, (0, BASE + large)))
        assert report.undecoded == undecoded
        assert [said(row) for row in rows if "prefix_high" in row] == ["2001:db8::/32"][more:]


def test_a_long_route_of_many_entries_is_never_there_many_times() -> None:
    """UPDATEs are made one by one: all 60 would be 3.6 MB."""
    node = struct.pack("!HH", 1, 60_000) + bytes(60_000)
    entries = [(0, b"")] * 60  # more are left out
    data = index((PEER, 64500)) + table(6, node, *entries, family=struct.pack("!HB", 16388, 71))
    tracemalloc.start()
    made = sum(len(one.payload) for one in read_mrt(io.BytesIO(data), CaptureReport()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made > 60 * 60_000
    assert peak < 20 * 60_000


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_packed_file_that_is_damaged_says_so(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    whole = bytearray(pack(message(ROUTE) * 50))
    for at in range(4 if pack is bz2.compress else 10, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "dump").write_bytes(damaged)
        with contextlib.suppress(DecodeError):
            list(read_capture(tmp_path / "dump", CaptureReport()))
    (tmp_path / "dump").write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\xff" * 60)
    done = CliRunner().invoke(decode, [str(tmp_path / "dump")])
    assert "what is packed" in done.output
    assert isinstance(done.exception, SystemExit)


def test_other_files_are_not_taken_for_dumps() -> None:
    for head in (
        b"\0\5" + bytes(40),
        b"\0\x0a" + bytes(40),
        b"<34>Oct 11 22:14:15 host",
        b"\3\0\0\0\x20\4" * 8,
        b"",
    ):
        assert not looks_like_mrt(head)
