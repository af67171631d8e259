"""BMP sessions: framing, peers that come and go, what changed, samples, alarms, limits, ledger."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from collectors.block import DatagramBlock
from collectors.bmp.decoder import BmpDecoder
from collectors.bmp.frames import RIBS
from collectors.bmp.rib import Change
from collectors.bmp.series import PeerSeries
from collectors.bmp.words import Statistic
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import address_text
from tests.support.bmp_messages import (
    PEER,
    START_NS,
    bgp,
    bmp,
    chunks,
    header,
    initiation,
    make_decoder,
    monitoring,
    open_message,
    peer_down,
    peer_up,
    prefix,
    statistics,
    termination,
    update,
    usual,
)
from tocsin.testing.rows import rows_of

SECOND = 10**9
A, B = prefix("192.0.2.0/24"), prefix("198.51.100.0/24")
HELLO = initiation() + peer_up()


def announce(*path: int, routes: bytes = A, **more: Any) -> bytes:
    return monitoring(update(usual(path or (64500, 64501)), routes), **more)


def withdraw(routes: bytes = A, **more: Any) -> bytes:
    return monitoring(update(withdrawn=routes), **more)


def changes(batches: list[Batch]) -> list[str]:
    return [Change(row["change"]).name.lower() for row in rows_of(batches, "route")]


def feed(decoder: BmpDecoder, *parts: bytes, **more: Any) -> list[Batch]:
    return decoder.decode(chunks(parts, **more))


def value(decoder: BmpDecoder, name: str, **labels: str) -> float:
    found: float = decoder.metrics.value(f"collector_bmp_{name}", **labels)  # type: ignore[attr-defined]
    return found


def samples(batches: list[Batch]) -> dict[str, float]:
    """Return the values of samples by the key of their series, added up."""
    keys = {r["series_id"]: r["key"] for r in rows_of(batches, "series")}
    found: dict[str, float] = {}
    for row in rows_of(batches, "sample"):
        key = keys[row["series_id"]]
        found[key] = found.get(key, 0) + row["value"]
    return found


def test_what_each_row_changed() -> None:
    """New, the same, another path, another origin, gone, was not there, and new again."""
    made = feed(
        make_decoder(),
        HELLO,
        announce(64500, 64501),
        announce(64500, 64501),
        announce(64500, 64502, 64501),
        monitoring(update(usual((64500, 64502, 64501), next_hop="10.0.0.2"), A)),
        announce(64500, 64666),
        withdraw(),
        withdraw(),
        announce(64500, 64501),
    )
    assert changes(made) == [
        "new", "same_path", "path", "path", "origin", "withdrawn", "withdrawn_unknown", "new",
    ]  # fmt: skip


def test_peers_tables_and_path_ids_are_apart() -> None:
    """The same prefix of another peer, distinguisher, instance or table is another route."""
    ways = open_message(1, b"\x45\x04\0\1\1\3")
    parts = [announce(peer="192.0.2.2"), announce(distinguisher=5, kind=1), announce(kind=2)]
    parts += [announce(flags=0x40), announce(flags=0x10), announce(kind=3)]
    parts += [peer_up("192.0.2.3", ways, ways)]
    parts += [announce(peer="192.0.2.3", routes=prefix("192.0.2.0/24", i)) for i in (1, 2)]
    made = feed(make_decoder(), HELLO, announce(), *parts)
    assert set(changes(made)) == {"new"}
    assert [r["rib"] for r in rows_of(made, "route")] == [0, 0, 0, 0, 1, 2, 4, 0, 0]


def test_a_peer_that_falls_ends_all_its_routes() -> None:
    """One row says so; what it announces later is new; others keep theirs."""
    other = "192.0.2.2"
    decoder = make_decoder()
    feed(decoder, HELLO, peer_up(other), announce(routes=A + B), announce(peer=other))
    decoder.advance(START_NS)
    assert value(decoder, "state", what="routes") == 3
    made = feed(decoder, peer_down(), peer_up(), announce(), announce(peer=other))
    first = rows_of(made, "route")[0]
    assert (first["withdrawn"], first["rib"], first["prefix_length"]) == (2, 255, 0)
    assert address_text(first["peer_address_high"], first["peer_address_low"]) == PEER
    assert changes(made)[1:] == ["new", "same_path"]
    decoder.advance(START_NS)
    assert value(decoder, "state", what="routes") == 2


CEASE = bgp(3, b"\x06\x02\x07rebuild")
REASONS = [
    pytest.param(b"\x04", "major", "connection to the peer was lost", id="remote-no-notification"),
    pytest.param(b"\x02\0\x12", "major", "router closed the session: FSM event 18", id="fsm-event"),
    pytest.param(b"\x03" + bgp(3, b"\x04\x00"), "major", "peer closed the session: hold timer expired",
                 id="hold-timer"),
    pytest.param(b"\x01" + CEASE, "minor",
                 'router closed the session: cease: administrative shutdown ("rebuild")',
                 id="shutdown-communication"),
    pytest.param(b"\x06\0\3\0\3red", "major", "table of routes is gone: red", id="loc-rib"),
    pytest.param(b"\x01" + b"junk", "major", "router closed the session", id="notification-unreadable"),
    pytest.param(b"\x63", "major", "reason 99", id="unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "severity", "text"), REASONS)
def test_the_alarm_of_a_peer(reason: bytes, severity: str, text: str) -> None:
    """Raised once with the reason in words, cleared when the peer is back."""
    decoder = make_decoder()
    feed(decoder, HELLO, announce())
    made = feed(decoder, peer_down(reason=reason), peer_down(reason=reason, flags=0x40))
    (raised,) = rows_of(made, "alarm")
    assert (raised["severity"], raised["state"], raised["source"]) == (
        severity,
        "raised",
        "edge-bmp",
    )
    assert raised["entity"] == "ams1:192.0.2.1"
    assert text in raised["specific_problem"]
    assert raised["event_type"] == "communicationsAlarm"
    assert json.loads(raised["explain"])["detail"]["routes_ended"] == 1
    (cleared,) = rows_of(feed(decoder, peer_up()), "alarm")
    assert (cleared["state"], cleared["alarm_id"]) == ("cleared", raised["alarm_id"])
    assert rows_of(feed(decoder, peer_up(flags=0x40)), "alarm") == []


def test_a_peer_that_is_no_longer_reported_raises_nothing() -> None:
    """RFC 7854 reason 5: the router was told not to; what was raised about the peer is over."""
    decoder = make_decoder()
    assert rows_of(feed(decoder, HELLO, peer_down(reason=b"\x05")), "alarm") == []
    assert len(rows_of(feed(decoder, peer_up(), peer_down()), "alarm")) == 1
    (cleared,) = rows_of(feed(decoder, peer_down(reason=b"\x05")), "alarm")
    assert cleared["state"] == "cleared"


def test_a_session_that_ends() -> None:
    """Its peers' routes are unknown from then on; an alarm says so until the router is back."""
    decoder = make_decoder()
    feed(decoder, HELLO, peer_up("192.0.2.2"), announce(), announce(peer="192.0.2.2"))
    made = feed(decoder, b"")
    assert [r["withdrawn"] for r in rows_of(made, "route")] == [2, 2]
    (lost,) = rows_of(made, "alarm")
    assert (lost["entity"], lost["kind"], lost["severity"]) == ("ams1", "bmpSessionDown", "minor")
    assert "2 peers" in lost["specific_problem"]
    decoder.advance(START_NS)
    assert [value(decoder, "state", what=w) for w in ("connections", "peers", "routes")] == [
        0,
        0,
        0,
    ]
    made = feed(decoder, HELLO, announce(), port=4001)
    (back,) = rows_of(made, "alarm")
    assert (back["state"], back["alarm_id"]) == ("cleared", lost["alarm_id"])
    assert changes(made) == ["new"]
    (told,) = rows_of(feed(decoder, termination(), b"", port=4001), "alarm")
    assert (told["severity"], told["additional_text"]) == ("warning", "administratively closed")


def test_a_second_session_of_a_router_keeps_it_alive() -> None:
    """A redundant connection that ends is no loss; streams of connections do not mix."""
    decoder = make_decoder()
    feed(decoder, HELLO[:40], port=1)
    feed(decoder, HELLO, announce(), port=2)
    assert changes(feed(decoder, HELLO[40:], announce(), port=1)) == ["new"]
    assert rows_of(feed(decoder, b"", port=2), "alarm") == []
    assert changes(feed(decoder, announce(), port=1)) == ["same_path"]


@pytest.mark.parametrize(
    "before", [b"", b"\x03\0\0", b"\x03\0\0\0\x30\0" + bytes(20), b"\xff" * 70]
)
def test_a_stream_picked_up_in_the_middle(before: bytes) -> None:
    """The next whole message is found, and every one after it."""
    decoder = make_decoder()
    made = feed(decoder, before + announce() + HELLO + announce(), announce(routes=B))
    assert changes(made) == ["new", "same_path", "new"]
    assert value(decoder, "skipped_bytes_total") == len(before)


@pytest.mark.parametrize("junk", [bytes(7), b"\x09" * 40, bmp(0, b"x" * 43)[:30]])
def test_broken_framing_costs_what_is_broken(junk: bytes) -> None:
    """FRRouting issue 6568: bytes too many between messages."""
    decoder = make_decoder()
    made = feed(decoder, HELLO + announce(), junk + announce(routes=B) + statistics((7, bytes(8))))
    assert changes(made) == ["new", "new"]


def test_churn_is_counted_apart_from_a_peers_first_table() -> None:
    """Until End-of-RIB, at most 300 s, what a new peer announces is its table."""
    end = monitoring(update())
    decoder = make_decoder(sample_seconds=10)
    made = feed(decoder, HELLO, announce(routes=A + B), end, announce(64500, 1), withdraw(B))
    made += decoder.advance(START_NS + 10 * SECOND)
    entity = "entity=ams1:192.0.2.1"
    of = "table=adj-in-pre,family=ipv4"
    assert samples(made) == {
        f"{entity},metric=bgp_table_routes,{of}": 2,
        f"{entity},metric=bgp_announcements,{of}": 1,
        f"{entity},metric=bgp_withdrawals,{of}": 1,
        f"{entity},metric=bgp_path_changes,{of}": 1,
        f"{entity},metric=bgp_origin_changes,{of}": 1,
        f"{entity},metric=bgp_prefixes,{of}": 1,
    }
    late = make_decoder()
    made = feed(late, HELLO)
    made += feed(late, announce(), start_ns=START_NS + 301 * SECOND)
    made += late.advance(START_NS + 320 * SECOND)
    assert samples(made)[f"{entity},metric=bgp_announcements,{of}"] == 1


def test_samples_of_a_period_are_told_when_it_is_over() -> None:
    """By the next chunk or by the frontier; a gauge goes on while nothing happens."""
    decoder = make_decoder(sample_seconds=10)
    start = START_NS // (10 * SECOND) * 10 * SECOND
    assert rows_of(feed(decoder, HELLO, announce(), start_ns=start), "sample") == []
    made = feed(decoder, announce(routes=B), start_ns=start + 10 * SECOND)
    assert {r["time_ns"] for r in rows_of(made, "sample")} == {start + 10 * SECOND - 1}
    made += decoder.advance(start + 40 * SECOND)
    prefixes = [
        (r["time_ns"], r["value"])
        for r in rows_of(made, "sample")
        if r["kind"] == 0
    ]  # fmt: skip
    assert prefixes == [(start + (n + 1) * 10 * SECOND - 1, v) for n, v in enumerate((1, 2, 2, 2))]


def test_counters_of_statistics_reports_are_bounded() -> None:
    """A router may invent kinds: the counter told the longest ago starts anew."""
    series = PeerSeries(series_max=3)

    def told(*values: tuple[str, int]) -> list[float]:
        found = [Statistic(metric, "", False, value) for metric, value in values]
        made = series.statistics(1, "ams1:192.0.2.1", found, 1, 1)
        return [v for b in made if b.schema.name == "sample" for v in b["value"].tolist()]

    assert told(("a", 1), ("b", 1), ("c", 1)) == []
    assert told(("a", 5), ("d", 1)) == [4.0]
    assert told(("b", 9), ("a", 6), ("d", 3)) == [1.0, 2.0]


def test_statistics() -> None:
    """Counters of 32 bits as what they grew by, also over their wrap; gauges as they are."""

    def report(rejected: int, routes: int) -> bytes:
        family = struct.pack("!HBQ", 2, 1, 9)
        return statistics(
            (0, struct.pack("!I", rejected)), (7, struct.pack("!Q", routes)), (9, family),
            (4711, struct.pack("!I", 1)), (8, b"\0\0"),
        )  # fmt: skip

    decoder = make_decoder()
    made = feed(decoder, HELLO, report(2**32 - 2, 5), report(3, 6), report(1, 7))
    assert samples(made) == {
        "entity=ams1:192.0.2.1,metric=bgp_prefixes_rejected": 5 + 1,
        "entity=ams1:192.0.2.1,metric=bgp_adj_rib_in_routes": 5 + 6 + 7,
        "entity=ams1:192.0.2.1,metric=bgp_adj_rib_in_family_routes,family=ipv6": 27,
    }


def test_times_are_the_routers_unless_they_cannot_be() -> None:
    """A route may have been learned long ago; it cannot have been in the future."""
    late = START_NS // SECOND + 3600
    made = feed(
        make_decoder(),
        HELLO,
        announce(time_s=1_700_000_000),
        announce(time_s=0),
        announce(time_s=late),
    )
    times = [(r["time_ns"], r["arrival_ns"]) for r in rows_of(made, "route")]
    assert times[0][0] == 1_700_000_000 * SECOND
    assert times[1][0] == times[1][1]
    assert times[2][0] == times[2][1]


def test_every_limit_is_counted() -> None:
    """Connections, peers and routes over the limit; what is within it goes on."""
    decoder = make_decoder(connections_max=1, peers_max=1, routes_max=1)
    made = feed(decoder, HELLO, peer_up("192.0.2.2"), announce(peer="192.0.2.2"), announce())
    made += feed(decoder, announce(routes=B), withdraw(A), announce(routes=B))
    assert changes(made) == ["new", "not_known", "withdrawn", "new"]
    assert value(decoder, "refused_total", what="peer_messages") == 2
    feed(decoder, HELLO, port=9)
    assert value(decoder, "refused_total", what="connection_bytes") == len(HELLO)
    feed(decoder, b"", port=9)
    big = make_decoder(message_bytes_max=100)
    assert changes(feed(big, announce(routes=A * 20) + announce())) == ["new"]


def test_the_ledger_adds_up() -> None:
    """sent = decoded + undecodable, in messages; each report is what came since the last."""
    decoder = make_decoder()
    bad = monitoring(update(usual(), b"\x21" + bytes(5)))
    feed(decoder, HELLO, announce(), bad, bmp(200, b""), bmp(3, header() + b"short"), termination())
    (row,) = rows_of(decoder.advance(START_NS + SECOND), "ledger")
    assert (row["protocol"], row["sent"], row["decoded"], row["undecodable"]) == ("bmp", 7, 4, 3)
    assert address_text(row["exporter_address_high"], row["exporter_address_low"]) == "203.0.113.1"
    assert decoder.advance(START_NS + 2 * SECOND) == []


def test_the_table_grows_and_forgets() -> None:
    """50,000 routes, a peer that falls, and as many again: live routes stay right, memory bounded."""
    decoder = make_decoder()

    def table(first: int) -> bytes:
        return b"".join(
            announce(routes=b"".join(
                b"\x20" + struct.pack("!I", first + i * 500 + k) for k in range(500)
            ))
            for i in range(100)
        )  # fmt: skip

    assert set(changes(feed(decoder, HELLO, table(0)))) == {"new"}
    assert set(changes(feed(decoder, table(0)))) == {"same_path"}
    for _ in range(4):
        feed(decoder, peer_down(), peer_up())
        assert set(changes(feed(decoder, table(0)))) == {"new"}
    decoder.advance(START_NS)
    assert value(decoder, "state", what="routes") == 50_000
    assert value(decoder, "state", what="table_bytes") <= 53 * 50_000


def test_a_restart_goes_on_and_drops_connections_that_are_gone() -> None:
    """Half a message survives; a router's new connection after the restart ends its old one."""
    decoder = make_decoder()
    stream = announce(routes=B)
    feed(decoder, HELLO, announce(), stream[:50])
    kept = Snapshot()
    decoder.snapshot(kept)
    again, third = make_decoder(), make_decoder()
    again.restore(kept)
    third.restore(kept)
    assert changes(feed(again, stream[50:], announce())) == ["new", "same_path"]
    made = feed(third, HELLO, announce(), port=4001)
    assert [r["withdrawn"] for r in rows_of(made, "route")] == [2, 0]
    assert rows_of(made, "alarm") == []
    third.advance(START_NS)
    assert value(third, "state", what="connections") == 1


def test_a_checkpoint_of_before_flow_rules_has_its_families_in_their_places() -> None:
    decoder, kept, older = make_decoder(), Snapshot(), Snapshot()
    feed(decoder, HELLO, announce(), announce(kind=3))
    decoder.snapshot(kept)
    for name in kept.names():
        for first, block in kept.read(name):
            if name in ("peers.slot_count", "peers.dump_until_ns"):
                block = block.reshape(len(block), len(RIBS), -1)[:, :, :10].reshape(len(block), -1)
            older.write(name, first, block)
    again = make_decoder()
    again.restore(older)
    assert changes(feed(again, announce(), announce(kind=3))) == ["same_path", "same_path"]


def test_rows_of_several_routers_keep_the_order_of_chunks() -> None:
    """Whatever the blocks: rows come as their messages were completed."""
    parts = [(1, HELLO), (2, HELLO), (1, announce()), (2, announce(routes=B)), (1, withdraw())]
    made: list[DatagramBlock] = [
        chunks([part], port=port, start_ns=START_NS + i) for i, (port, part) in enumerate(parts)
    ]
    whole = DatagramBlock(
        np.concatenate([b.payload for b in made]),
        np.cumsum([0, *[b.payload.size for b in made[:-1]]]),
        *[
            np.concatenate([getattr(b, name) for b in made])
            for name in ("length", "exporter_high", "exporter_low", "exporter_port", "arrival_ns")
        ],
    )
    one, other = make_decoder(), make_decoder()
    assert rows_of(one.decode(whole), "route") == rows_of(
        [batch for block in made for batch in other.decode(block)], "route"
    )


def test_options_that_cannot_be_met() -> None:
    """More peers than the table has room for: said at the start."""
    from collectors.config import ListenerSettings
    from collectors.registry import make_decoder as make
    from tocsin.testing import make_context

    for options in ({"peers_max": 40_000}, {"message_bytes_max": 1 << 20}):
        settings = ListenerSettings(kind="bmp", listen="tcp://127.0.0.1:11019", options=options)
        with pytest.raises(ConfigError, match=next(iter(options))):
            make(settings, make_context())
