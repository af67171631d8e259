"""Claims of security: each class by name, with who, whom and the filter; one alarm for one attack."""

from typing import Any

import pytest

from alerting.causes import flowspec
from runtime.ports import Talker
from tocsin.testing.alarms import AlarmWorld, talker

HOST, OUT = "198.51.100.7", "203.0.113.9"


def probes(count: int = 30, **fields: Any) -> tuple[Talker, ...]:
    """Return SYNs of HOST to port 22 of many hosts unless told otherwise."""
    return tuple(
        talker(
            **{"source": HOST, "destination": f"192.0.2.{i + 1}", "source_port": 40_000 + i,
               "destination_port": 22, "tcp_flags": 2, "octets": 44, "packets": 1} | fields
        )
        for i in range(count)
    )  # fmt: skip


def to_one(count: int = 30, **fields: Any) -> tuple[Talker, ...]:
    return probes(count, destination=OUT, **fields)


def vertical(count: int = 30, **fields: Any) -> tuple[Talker, ...]:
    return tuple(t for i in range(count) for t in to_one(1, destination_port=1000 + i, **fields))


def play(
    world: AlarmWorld, view: str, detector: str, sample: tuple[Talker, ...], ticks: int = 3,
    *, detail: dict[str, Any] | None = None, more: Any = (), **key: str,
) -> list[Any]:  # fmt: skip
    """Return the alerts of some ticks with this finding."""
    series = world.series(view, **key)
    world.samples[series] = sample
    told = []
    since = world.now_ns
    for _ in range(ticks):
        row = world.anomaly(
            series, detector, actual=400.0, expected=2.0, since_ns=since, detail=detail or {}
        )
        told += world.tick([row, *more])
    return told


@pytest.mark.parametrize(
    ("detector", "sample", "title"),
    [
        ("host_scan", probes(), f"horizontal scan from {HOST}: 400 targets in 5 s, port 22"),
        ("host_scan", vertical(), f"vertical scan from {HOST}: 400 targets in 5 s, ports of {OUT}"),
        ("host_scan", probes(protocol=1, destination_port=2048),
         f"horizontal scan from {HOST}: 400 targets in 5 s, ping"),
        ("slow_scan", probes(), f"slow horizontal scan from {HOST}: 400 targets in 5 s, port 22"),
    ],
)  # fmt: skip
def test_a_scan_is_named_by_its_way_its_source_and_what_it_aims_at(
    detector: str, sample: tuple[Talker, ...], title: str
) -> None:
    world = AlarmWorld()
    view = "slow_probe" if detector == "slow_scan" else "probe"
    (alert,) = play(world, view, detector, sample, source_address=HOST)
    assert (alert.kind, alert.entity, alert.title) == ("port-scan", "198.51.100.0/24", title)
    assert f"source {HOST}/32" in alert.explain["do"]
    assert "acme" in alert.explain["touches"]
    assert alert.explain["top_talkers"][0]["source"] == HOST


def test_peers_that_look_for_each_other_over_udp_are_no_scan() -> None:
    sample = tuple(
        t for i in range(30)
        for t in probes(1, protocol=17, destination=f"192.0.2.{i}", destination_port=1000 + 7 * i)
    )  # fmt: skip
    assert play(AlarmWorld(), "probe", "host_scan", sample, source_address=HOST) == []


def test_a_fast_scan_is_not_told_again_as_a_slow_one() -> None:
    world = AlarmWorld()
    (alert,) = play(world, "probe", "host_scan", probes(), source_address=HOST)
    assert alert.kind == "port-scan"
    for _ in range(12):
        world.tick()
    world.now_ns -= 10 * 5_000_000_000  # the hour's tick began before it
    start = world.now_ns - 3_600 * 10**9
    series = world.series("slow_probe", source_address=HOST)
    world.samples[series] = probes()
    row = world.anomaly(series, "slow_scan", actual=400.0, since_ns=start) | {
        "tick_start_ns": start, "tick_seconds": 3600.0,
    }  # fmt: skip
    world.now_ns += 10 * 5_000_000_000
    assert [a for a in world.tick([row]) if a.state == "raised"] == []


@pytest.mark.parametrize(
    ("view", "detector", "key", "kind", "entity", "words"),
    [
        ("login", "login_tries", {"source_address": HOST, "destination_port": "23"}, "brute-force",
         HOST, ["Telnet brute force", "destination-port =23"]),
        ("query", "dns_tunnel", {"source_address": HOST}, "dns-tunnel", HOST,
         [f"over {OUT}", "destination-port =53"]),
        ("upload", "upload", {"source_address": HOST}, "unusual-upload", HOST, [f"to {OUT}", "rate-limit"]),
        ("contact", "beacon", {"source_address": HOST, "destination_peer": OUT}, "beacon", OUT,
         [f"from {HOST} to {OUT}", "every 5.0 minutes", "for 4.0 hours"]),
        ("bogon", "bogon", {"exporter": "127.1.0.1", "ingress_interface": "9"}, "spoofed-sources", "ams1:9",
         ["sources that nobody can have", "uRPF"]),
        ("lone", "lone_sources", {"exporter": "127.1.0.1", "ingress_interface": "9"}, "spoofed-sources", "ams1:9",
         ["sources seen once", "BCP 38"]),
    ],
)  # fmt: skip
def test_each_class_names_itself_its_place_and_what_to_do(
    view: str, detector: str, key: dict[str, str], kind: str, entity: str, words: list[str]
) -> None:
    world = AlarmWorld()
    detail = {"period_seconds": 300.0, "hours": 4.0, "targets": 1.0, "tries": 60.0}
    (alert,) = play(world, view, detector, to_one(), detail=detail, **key)
    assert (alert.kind, alert.entity) == (kind, entity)
    for word in words:
        assert word in alert.title + alert.explain["do"]
    assert alert.explain["causes"][0]["kind"] == kind
    assert any(OUT in why for why in alert.explain["why"])


@pytest.mark.parametrize(
    ("vector", "sample", "words"),
    [
        ("123", {"protocol": 17, "source_port": 123}, ["NTP amplification", "source-port =123", "discard"]),
        ("11211", {"protocol": 17, "source_port": 11211}, ["memcached amplification"]),
        ("syn", {"protocol": 6, "tcp_flags": 2, "octets": 52, "packets": 1}, ["SYN flood", "tcp-flags"]),
        ("icmp", {"protocol": 1, "octets": 84, "packets": 1, "source_port": 0}, ["ICMP flood"]),
    ],
)  # fmt: skip
def test_a_flood_is_named_by_its_vector(
    vector: str, sample: dict[str, Any], words: list[str]
) -> None:
    world = AlarmWorld()
    talkers = tuple(talker(source=f"203.0.113.{i}", destination=HOST, **sample) for i in range(40))
    (alert,) = play(
        world, "vector", "flood", talkers, destination_prefix="198.51.100.0/24", vector=vector
    )
    assert (alert.kind, alert.entity) == ("volumetric-attack", "198.51.100.0/24")
    for word in words:
        assert word in alert.title + alert.explain["do"]


def test_a_flood_that_only_its_vector_makes_certain_is_told() -> None:
    """The prefix's volume shows it as well, and that is over the budget."""
    world = AlarmWorld()
    talkers = tuple(
        talker(
            source=f"203.0.113.{i}", destination=HOST, protocol=17, source_port=389, octets=30_000
        )
        for i in range(40)
    )
    prefix = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[prefix] = talkers
    told, since = [], world.now_ns
    vector = world.series("vector", destination_prefix="198.51.100.0/24", vector="389")
    world.samples[vector] = talkers
    for _ in range(3):
        rows = [
            world.anomaly(prefix, "attack", since_ns=since, disposition="digest"),
            world.anomaly(vector, "flood", since_ns=since),
        ]
        told += world.tick(rows)
    assert [(a.kind, a.entity) for a in told] == [("volumetric-attack", "198.51.100.0/24")]
    assert "CLDAP amplification" in told[0].title
    assert any("top sources: 203.0.113." in why for why in told[0].explain["why"])


def test_the_spoofed_sources_of_a_flood_are_its_evidence_and_no_second_alarm() -> None:
    world = AlarmWorld()
    lone = world.series("lone", exporter="127.1.0.1", ingress_interface="9")
    world.samples[lone] = tuple(
        talker(destination=HOST, source=f"203.0.113.{i}") for i in range(30)
    )
    rows = [world.anomaly(lone, "lone_sources", actual=900.0)]
    talkers = tuple(
        talker(source=f"203.0.113.{i}", destination=HOST, tcp_flags=2, octets=52, packets=1)
        for i in range(40)
    )
    told = play(world, "vector", "flood", talkers, destination_prefix="198.51.100.0/24",
                vector="syn", more=rows)  # fmt: skip
    assert [a.kind for a in told] == ["volumetric-attack"]
    assert "sources seen once: 900" in told[0].explain["why"]


def test_a_tunnel_is_no_upload_as_well() -> None:
    world = AlarmWorld()
    upload = world.series("upload", source_address=HOST)
    world.samples[upload] = to_one()
    told = play(world, "query", "dns_tunnel", to_one(), source_address=HOST,
                more=[world.anomaly(upload, "upload")])  # fmt: skip
    assert [a.kind for a in told] == ["dns-tunnel"]


def test_what_stays_in_the_house_or_goes_everywhere_is_no_unusual_upload() -> None:
    inside = tuple(talker(source=HOST, destination="198.51.100.99") for _ in range(20))
    assert play(AlarmWorld(), "upload", "upload", inside, source_address=HOST) == []
    assert play(AlarmWorld(), "upload", "upload", probes(), source_address=HOST) == []


def test_several_callers_of_one_host_are_one_beacon_alarm() -> None:
    world = AlarmWorld()
    other = world.series("contact", source_address="198.51.100.8", destination_peer=OUT)
    told = play(world, "contact", "beacon", (), source_address=HOST, destination_peer=OUT,
                more=[world.anomaly(other, "beacon")], detail={"since_ns": 10**18})  # fmt: skip
    assert [(a.kind, a.entity) for a in told] == [("beacon", OUT)]
    assert {HOST, "198.51.100.8"} <= set(told[0].explain["touches"])
    assert told[0].explain["since_ns"] == 10**18


def test_flowspec_rules_of_hosts() -> None:
    assert flowspec.block("2001:db8::1", destination="2001:db8::2", protocol="tcp") == (
        "flow route { match { source 2001:db8::1/128; destination 2001:db8::2/128; next-header tcp; } "
        "then { discard; } }"
    )
    assert flowspec.block(HOST, destination="#00c0ffee", limit=125_000) == (
        f"flow route {{ match {{ source {HOST}/32; }} then {{ rate-limit 125000; }} }}"
    )
    assert "240.0.0.0/4" in flowspec.bogons()
