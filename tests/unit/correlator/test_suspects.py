"""Views of security: which records they look at, keys that come back, and frames without the silent."""

import ipaddress
from typing import Any

import numpy as np
import pytest

from correlator import suspects_kernels
from correlator.keys import VECTOR_ICMP, VECTOR_SYN, key_of, key_text, words_of
from correlator.merge import FrameMerger
from correlator.security_views import SecurityViewsSettings, security_views
from correlator.suspects_kernels import BITS
from correlator.tables.network_map import (
    FileNetworkMap,
    InterfaceEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
    load_network,
)
from correlator.windows import FlowWindows
from telemetry.batch import Batch
from telemetry.identity import V4_MAPPED, address_pair
from telemetry.schemas import FLOW
from tocsin.testing import make_context

TICK_NS = 60_000_000_000
START_NS = 1_790_596_800_000_000_000
VIEWS = security_views(
    SecurityViewsSettings(contact_tick_seconds=60.0), tick_seconds=60.0, lateness_seconds=5.0
)
HOST, SERVER = "100.64.0.9", "203.0.112.7"


def records(*rows: dict[str, Any]) -> Batch:
    """Return flow records: one packet of HOST to port 443 of SERVER unless told otherwise."""
    columns = {f.name: np.zeros(len(rows), f.dtype) for f in FLOW.fields}
    for i, row in enumerate(rows):
        one = {
            "source": HOST, "destination": SERVER, "source_port": 50_000, "destination_port": 443,
            "protocol": 6, "tcp_flags": 0x1B, "octets": 60_000, "packets": 60, "sampling_rate": 1,
            "ingress_interface": 7, "exporter": "127.1.0.1", "at_ns": START_NS + 10**9,
        } | row  # fmt: skip
        for side in ("source", "destination", "exporter"):
            high, low = address_pair(one.pop(side))
            columns[f"{side}_address_high"][i], columns[f"{side}_address_low"][i] = high, low
        at_ns = one.pop("at_ns")
        for name in ("flow_start_ns", "flow_end_ns", "export_ns", "arrival_ns"):
            columns[name][i] = at_ns
        for name, value in one.items():
            columns[name][i] = value
    return Batch(FLOW, columns, {}, {}, "test", 0, START_NS)


def frames(
    *batches: Batch, until_ns: int = START_NS + TICK_NS, customers: Any = ()
) -> dict[str, Batch]:
    """Return the frames of the first tick by view, and series batches as `series.VIEW`."""
    windows = FlowWindows(VIEWS, make_context(), customers=customers)
    windows.open(START_NS)
    merger = FrameMerger(VIEWS, make_context("merger"), network=load_network(None))
    for batch in batches:
        windows.process(batch)
    closing_ns = until_ns + 5_000_000_000
    for partial in windows.advance(closing_ns):
        merger.process(partial)
    made: dict[str, Batch] = {}
    for batch in merger.advance(closing_ns):
        if batch.schema.name == "frame":
            made.setdefault(batch.texts("view")[0], batch)
        elif batch.schema.name == "series":
            made.setdefault(f"series.{batch.texts('view')[0]}", batch)
    return made


SYN = {"tcp_flags": 2, "octets": 44, "packets": 1}
# As sFlow and PSAMP tell of a packet.
SAMPLED = {
    "packets": 1,
    "flow_start_ns": 0,
    "flow_end_ns": 0,
}


@pytest.mark.parametrize(
    ("row", "views"),
    [
        pytest.param({}, {"upload"}, id="large-packets-to-a-service"),
        pytest.param(SYN, {"probe", "vector", "lone"}, id="syn"),
        pytest.param(SYN | {"packets": 60, "octets": 3000}, {"vector"}, id="many-syns"),
        pytest.param(SYN | {"tcp_flags": 0x12}, {"contact", "lone"}, id="syn-ack"),
        pytest.param(SYN | {"tcp_flags": 0x29}, {"probe", "lone"}, id="xmas"),
        pytest.param({"destination_port": 22, "octets": 2000, "packets": 20}, {"login"}, id="a-try"),
        pytest.param({"destination_port": 22, "octets": 90_000, "packets": 90}, {"upload"}, id="scp"),
        pytest.param({"protocol": 17, "destination_port": 53, "octets": 80, "packets": 1, "tcp_flags": 0},
                     {"lone"}, id="dns-question"),
        pytest.param({"protocol": 17, "destination_port": 53, "octets": 180, "packets": 1, "tcp_flags": 0},
                     {"query", "lone"}, id="long-dns-question"),
        pytest.param(SAMPLED | {"octets": 120}, set(), id="sampled-packet"),
        pytest.param(SAMPLED | {"octets": 1500}, {"upload"}, id="large-sampled-packet"),
        pytest.param(SAMPLED | {"destination_port": 22, "octets": 90}, set(), id="sampled-packet-of-ssh"),
        pytest.param(SAMPLED | SYN | {"destination_port": 22}, {"probe", "vector", "login"}, id="sampled-syn"),
        pytest.param({"protocol": 17, "source_port": 123, "octets": 4680, "packets": 10,
                      "destination_port": 4444}, {"vector"}, id="ntp-answer"),
        pytest.param({"protocol": 17, "source_port": 123, "octets": 760, "packets": 10,
                      "destination_port": 4444}, set(), id="ordinary-time"),
        pytest.param({"protocol": 1, "source_port": 0, "destination_port": 2048, "octets": 84,
                      "packets": 1}, {"probe", "vector", "lone"}, id="ping"),
        pytest.param({"octets": 900, "packets": 9}, {"contact"}, id="a-small-flow-to-a-service"),
        pytest.param({"octets": 900, "packets": 9, "destination_port": 179}, set(), id="bgp-keepalive"),
        pytest.param({"source_port": 443, "destination_port": 50_000}, set(), id="a-download"),
        pytest.param({"source": "192.168.1.1"}, {"upload", "bogon"}, id="private-source"),
        pytest.param({"source": "2001:db8::1", "destination": "2a00::1"}, {"upload", "bogon"}, id="v6-doc"),
        pytest.param({"source": "2a00::2", "destination": "2a00::1"}, {"upload"}, id="v6"),
    ],
)  # fmt: skip
def test_a_record_is_seen_by_the_views_it_may_be_news_to(
    row: dict[str, Any], views: set[str]
) -> None:
    made = frames(records(row))
    seen = {name for name in BITS if int(made[name]["flows"].sum())}
    assert seen == views


# IANA's registries of special addresses (2025-10) with what is globally reachable, and the space that is not
# global unicast at all. Not applicable (Teredo, 6to4, ORCHID) is no mark of a forged source; nor are shared address
# space (RFC 6598), which is many carriers' own, and link-local, which is no route's business.
REACHABLE = {
    "0.0.0.0/0": True, "0.0.0.0/8": False, "10.0.0.0/8": False, "127.0.0.0/8": False, "169.254.0.0/16": False,
    "172.16.0.0/12": False, "192.0.0.0/24": False, "192.0.0.9/32": True, "192.0.0.10/32": True,
    "192.0.2.0/24": False, "192.31.196.0/24": True, "192.52.193.0/24": True, "192.88.99.2/32": False,
    "192.168.0.0/16": False, "192.175.48.0/24": True, "198.18.0.0/15": False, "198.51.100.0/24": False,
    "203.0.113.0/24": False, "224.0.0.0/4": False, "240.0.0.0/4": False,
    "::/0": False, "2000::/3": True, "::1/128": False, "64:ff9b::/96": True, "64:ff9b:1::/48": False,
    "100::/64": False, "100:0:0:1::/64": False, "2001::/23": False, "2001::/32": True, "2001:1::1/128": True,
    "2001:1::2/128": True, "2001:1::3/128": True, "2001:2::/48": False, "2001:3::/32": True,
    "2001:4:112::/48": True, "2001:20::/28": True, "2001:30::/28": True, "2001:db8::/32": False, "2002::/16": True,
    "2620:4f:8000::/48": True, "3fff::/20": False, "5f00::/16": False, "fc00::/7": False, "fe80::/10": True,
    "ff00::/8": False,
}  # fmt: skip
TABLE = {ipaddress.ip_network(block): reachable for block, reachable in REACHABLE.items()}
EMBEDDED = (("64:ff9b::/96", 0), ("2002::/16", 80))  # IPv4 addresses inside (RFC 6052, RFC 3056)


def is_reachable(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return what the longest of the blocks says; of what stands for an IPv4 address, what that is."""
    for block, shift in EMBEDDED:
        if one in ipaddress.ip_network(block):
            return is_reachable(ipaddress.IPv4Address(int(one) >> shift & 0xFFFF_FFFF))
    return TABLE[max((net for net in TABLE if one in net), key=lambda net: net.prefixlen)]


def edges(version: int) -> list[int]:
    """Return the first and last addresses of each block, and those beside them."""
    most = 2 ** (32 if version == 4 else 128) - 1
    spans = [(int(n[0]), int(n[-1])) for n in TABLE if n.version == version]
    spans += [
        (int(ipaddress.ip_address(a)),) * 2
        for a in ("100.64.1.1", "8.8.8.8", "2a00::1")
        if (":" in a) == (version == 6)
    ]
    if version == 6:
        spans += [(base + (int(n[0]) << shift), base + (int(n[-1]) << shift)) for block, shift in EMBEDDED
                  for base in (int(ipaddress.ip_network(block)[0]),) for n in TABLE if n.version == 4]  # fmt: skip
    near = {at + by for span in spans for at in span for by in (-1, 0, 1)}
    mapped = range(0xFFFF_0000_0000, 0x1_0000_0000_0000)  # is how IPv4 is kept
    return sorted(at for at in near if 0 <= at <= most and not (version == 6 and at in mapped))


@pytest.mark.parametrize("version", [4, 6])
def test_bogons_are_what_the_registries_say(version: int) -> None:
    of = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    low = [at | V4_MAPPED for at in edges(4)] if version == 4 else edges(6)
    is_bogon = suspects_kernels._is_bogon
    said = {
        str(of(at)): is_bogon(np.uint64(word >> 64), np.uint64(word & (2**64 - 1)))
        for at, word in zip(edges(version), low, strict=True)
    }
    assert len(said) > 40
    assert {name for name, bogon in said.items() if bogon} == {
        name for name in said if not is_reachable(of(name))
    }


@pytest.mark.parametrize(
    ("address", "wanted"),
    [("10.1.2.3", True), ("8.8.8.8", False), ("64:ff9b::808:808", False), ("64:ff9b::a01:203", True),
     ("64:ff9b:1::808:808", True), ("3fff::1", True), ("fe80::1", False)],
)  # fmt: skip
def test_a_source_that_nobody_can_have_is_seen(address: str, wanted: bool) -> None:
    made = frames(
        records({"source": address, "destination": "2a00::1" if ":" in address else "8.8.4.4"})
    )
    assert bool(int(made["bogon"]["flows"].sum())) == wanted


@pytest.mark.parametrize(
    ("source", "port", "spoofed"),
    [
        pytest.param("198.51.100.255", 7, False, id="the-customers-last"),
        pytest.param("10.0.0.9", 7, False, id="the-customers-private"),
        pytest.param("198.51.101.0", 7, True, id="next-to-it"),
        pytest.param("8.8.8.8", 7, True, id="anybodys"),
        pytest.param("8.8.8.8", 8, False, id="at-another-port"),
        pytest.param("10.0.0.9", 8, True, id="private-at-another-port"),
        pytest.param("2a00::1", 7, False, id="of-a-family-that-the-map-does-not-know"),
    ],
)
def test_a_source_that_is_not_the_customers_is_spoofed(
    source: str, port: int, spoofed: bool
) -> None:
    file = NetworkFile(
        router=[RouterEntry(name="ams1", address="127.1.0.1")],
        interface=[InterfaceEntry(router="ams1", index=7, customer="acme")],
        prefix=[PrefixEntry(prefix=p, router="ams1", customer="acme")
                for p in ("198.51.100.0/25", "198.51.100.128/25", "10.0.0.0/24")],
    )  # fmt: skip
    customers = FileNetworkMap(file).customer_sources()
    assert [len(spans) for _, _, spans in customers] == [2], "neighbours are one span"
    row = {"source": source, "ingress_interface": port}
    if ":" in source:
        row["destination"] = "2a00::2"
    made = frames(records(row), customers=customers)
    assert bool(int(made["bogon"]["flows"].sum())) == spoofed


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("source_address",), {"source_address": HOST}),
        (("source_address", "destination_port"), {"source_address": HOST, "destination_port": "22"}),
        (("source_address", "destination_peer"), {"source_address": HOST, "destination_peer": SERVER}),
        (("source_address", "destination_peer"), {"source_address": "2a00::1", "destination_peer": "#00c0ffee"}),
        (("destination_prefix", "vector"), {"destination_prefix": "203.0.112.0/24", "vector": "syn"}),
        (("destination_prefix", "vector"), {"destination_prefix": "2a00::/48", "vector": "icmp"}),
        (("destination_prefix", "vector"), {"destination_prefix": "203.0.112.0/24", "vector": "11211"}),
        (("exporter", "ingress_interface"), {"exporter": "127.1.0.1", "ingress_interface": "7"}),
    ],
)  # fmt: skip
def test_keys_come_back(parts: tuple[str, ...], key: dict[str, str]) -> None:
    assert key_of(parts, words_of(key_text(key))) == key


def test_vectors_are_no_ports() -> None:
    assert min(VECTOR_SYN, VECTOR_ICMP) > 65_535


def traffic(rows: int) -> Batch:
    random = np.random.default_rng(4)
    made = []
    for _ in range(rows):
        made.append(
            {
                "source": f"100.64.{random.integers(3)}.{random.integers(1, 40)}",
                "destination": f"203.0.112.{random.integers(1, 40)}",
                "source_port": int(random.choice([53, 123, 443, 40_000, 50_000])),
                "destination_port": int(random.choice([22, 53, 80, 443, 40_001])),
                "protocol": int(random.choice([1, 6, 6, 17])),
                "tcp_flags": int(random.choice([2, 0x1B])),
                "packets": int(random.integers(1, 60)),
                "octets": int(random.integers(40, 9000)),
                "sampling_rate": 10,
                "at_ns": START_NS + int(random.integers(1, 59)) * 10**9,
            }
        )
    return records(*made)


def test_neither_cuts_nor_order_change_a_frame() -> None:
    batch = traffic(600)
    whole = frames(batch)
    turned = Batch(FLOW, {n: np.ascontiguousarray(c[::-1]) for n, c in batch.columns.items()},
                   {}, {}, "test", 0, START_NS)  # fmt: skip
    cut = frames(*[turned.slice(at, at + 50) for at in range(0, 600, 50)])
    for view in VIEWS:
        if view.tick_seconds == 60.0:
            for name, column in whole[view.name].columns.items():
                assert np.array_equal(column, cut[view.name].columns[name]), (view.name, name)


def test_a_silent_series_is_not_in_the_frame_and_keeps_its_row() -> None:
    windows = FlowWindows(VIEWS, make_context())
    windows.open(START_NS)
    merger = FrameMerger(VIEWS, make_context("merger"), network=load_network(None))
    rows: list[list[int]] = []
    for k, sources in enumerate([("100.64.0.1", "100.64.0.2"), ("100.64.0.2",), ("100.64.0.1",)]):
        now = START_NS + k * TICK_NS
        windows.process(
            records(
                *[SYN | {"source": s, "at_ns": now + 10**9} for s in sources for _ in range(13)]
            )
        )
        for partial in windows.advance(now + TICK_NS + 5 * 10**9):
            merger.process(partial)
        for batch in merger.advance(now + TICK_NS + 5 * 10**9):
            if batch.schema.name == "frame" and batch.texts("view")[0] == "probe":
                rows.append(batch["row"][:-1].tolist())
    assert rows[0] == [*rows[2], *rows[1]]


def test_a_host_gets_a_row_when_it_speaks_up_and_counts_beside_the_others_before() -> None:
    quiet, loud = "100.64.0.1", "100.64.0.2"
    made = frames(records(*[SYN | {"source": quiet}] * 12, *[SYN | {"source": loud}] * 13))
    assert made["probe"]["flows"].tolist() == [13, 12]  # the last row is of all others
    assert made["series.probe"].texts("entity") == [loud]


def test_the_journal_gives_back_the_rows_of_sparse_views() -> None:
    windows = FlowWindows(VIEWS, make_context())
    windows.open(START_NS)
    one, other = (
        FrameMerger(VIEWS, make_context("merger"), network=load_network(None)) for _ in range(2)
    )
    last: dict[str, dict[str, int]] = {"one": {}, "other": {}}
    for k, sources in enumerate([(1, 2, 3), (2,), (1, 4)]):
        now = START_NS + k * TICK_NS
        batch = [
            SYN | {"source": f"100.64.0.{s}", "at_ns": now + 10**9}
            for s in sources
            for _ in range(13)
        ]
        windows.process(records(*batch))
        for partial in windows.advance(now + TICK_NS + 5 * 10**9):
            one.process(partial)
        made = one.advance(now + TICK_NS + 5 * 10**9)
        other.absorb(made)
        for name, merger in (("one", one), ("other", other)):
            for made_frame in made:
                if made_frame.schema.name == "frame":
                    for series_id in made_frame["series_id"][:-1].tolist():
                        key = merger.key(series_id)
                        assert key is not None
                        last[name][f"{key.view} {key.entity}"] = series_id
    assert last["one"] == last["other"]
    assert len([key for key in last["one"] if key.startswith("probe ")]) == 4
