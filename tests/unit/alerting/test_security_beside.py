"""What several findings at one time are: two attacks, parts of one, and which of them the alarm names first."""

from typing import Any

import pytest

from tests.unit.alerting.test_security_claims import HOST, OUT, ScanWorld, probes, to_one
from tocsin.testing.alarms import AlarmWorld, flood, talker

PREFIX = "198.51.100.0/24"


def told(
    world: AlarmWorld, *found: tuple[str, str, dict[str, str], Any], ticks: int = 3, **fields: Any
) -> list[Any]:
    """Return the alerts of some ticks in which all of these are found: (view, detector, key, sample)."""
    made, since = [], world.now_ns
    for _ in range(ticks):
        rows = []
        for view, detector, key, sample in found:
            series = world.series(view, **key)
            world.samples[series] = sample
            rows.append(world.anomaly(series, detector, since_ns=since, **fields))
        made += world.tick(rows)
    return made


def test_an_upload_and_a_call_back_are_told_while_their_host_scans() -> None:
    """Records of a scan are none of the others': an infected host scans, calls its master and sends out."""
    by = {"source_address": HOST}
    sent = to_one(destination_port=443, octets=40_000, packets=30)
    called = probes(3, destination="203.0.113.77", destination_port=443)
    alerts = told(
        AlarmWorld(),
        ("probe", "host_scan", by, probes()),
        ("upload", "upload", by, sent),
        ("contact", "beacon", by | {"destination_peer": "203.0.113.77"}, called),
    )
    assert {(a.kind, a.entity) for a in alerts} == {
        ("port-scan", PREFIX), ("unusual-upload", HOST), ("beacon", "203.0.113.77"),
    }  # fmt: skip


def test_a_beacon_to_the_place_that_gets_an_upload_is_no_second_alarm() -> None:
    by = {"source_address": HOST}
    sent = to_one(destination_port=443, octets=40_000, packets=30)
    alerts = told(
        AlarmWorld(),
        ("upload", "upload", by, sent),
        ("contact", "beacon", by | {"destination_peer": OUT}, to_one(3)),
    )
    assert [a.kind for a in alerts] == ["unusual-upload"]


def test_beacons_of_which_nothing_was_sampled_do_not_hide_one_another() -> None:
    peers = ("203.0.113.77", "203.0.113.78")
    by = [{"source_address": HOST, "destination_peer": peer} for peer in peers]
    alerts = told(AlarmWorld(), *(("contact", "beacon", key, ()) for key in by))
    assert {(a.kind, a.entity) for a in alerts} == {("beacon", peer) for peer in peers}


def test_what_goes_to_all_of_a_prefix_under_attack_is_part_of_the_attack() -> None:
    spread = [f"198.51.100.{n}" for n in range(1, 60)]
    flood = tuple(
        talker(source=f"203.0.113.{n}", destination=one, tcp_flags=2, octets=52, packets=1)
        for n, one in enumerate(spread)
    )
    forged = tuple(talker(source=f"9.0.0.{n}", destination=one) for n, one in enumerate(spread))
    alerts = told(
        AlarmWorld(),
        ("vector", "flood", {"destination_prefix": PREFIX, "vector": "syn"}, flood),
        ("lone", "lone_sources", {"exporter": "127.1.0.1", "ingress_interface": "9"}, forged),
        (
            "probe",
            "host_scan",
            {"source_address": OUT},
            tuple(
                talker(source=OUT, destination=one, tcp_flags=2, octets=44, packets=1)
                for one in spread
            ),
        ),
    )
    (alert,) = alerts
    assert (alert.kind, alert.entity) == ("volumetric-attack", PREFIX)
    assert {"sources seen once: 900", f"{OUT} takes part"} <= set(alert.explain["why"])


def test_of_several_sources_the_title_names_the_one_that_does_most() -> None:
    world = AlarmWorld()
    alerts, since = [], world.now_ns
    for _ in range(3):
        rows = []
        for source, targets in (("198.51.100.10", 60.0), ("198.51.100.9", 5000.0)):
            series = world.series("probe", source_address=source)
            world.samples[series] = probes(source=source)
            rows.append(world.anomaly(series, "host_scan", since_ns=since, actual=targets))
        alerts += world.tick(rows)
    (alert,) = alerts
    assert alert.title.startswith("horizontal scan from 198.51.100.9: 5000 targets")
    assert any(why.startswith("horizontal scan from 198.51.100.10") for why in alert.explain["why"])


def test_a_slow_scan_goes_on_while_a_fast_one_beside_it_ends() -> None:
    """One alarm of a prefix: it ends with the slower of the two, and is not raised anew each hour."""
    scan = ScanWorld()
    for hour in (0, 1):
        scan.hour(hour, 60, since=0)
    assert len(scan.told) == 1
    neighbour = scan.world.series("probe", source_address="198.51.100.8")
    scan.world.samples[neighbour] = probes(source="198.51.100.8")
    scan._fast = neighbour
    scan.fast(125, 4)
    frame = {scan.world.interface("ams1", 1): 50}
    for _ in range(600):  # what the minutes after it bring
        assert scan.world.tick(frames=[scan.world.frame(frame)]) == []
    for hour in (2, 3):
        scan.hour(hour, 60, since=0)
    assert len(scan.told) == 1
    (alarm,) = scan.world.stage._own.alarms.values()
    assert alarm.up


def test_a_fast_scan_that_begins_after_a_slow_one_is_over_ends_at_its_own_pace() -> None:
    scan = ScanWorld()
    scan.hour(0, 60)
    scan.fast(60 + 3 * 60 + 10, 4)
    scan.calm(60 + 3 * 60 + 14, 5)
    assert [alarm.state for alarm in scan.world.stage._own.alarms.values()] == ["cleared"]


def test_sources_that_join_later_are_told_with_their_rules_the_more_the_rarer() -> None:
    world, counts = AlarmWorld(), []
    for bots in range(1, 20):
        for _ in range(15):  # more than alerting.update_seconds
            rows = []
            for n in range(bots):
                series = world.series("probe", source_address=f"198.51.100.{n + 1}")
                world.samples[series] = probes(source=f"198.51.100.{n + 1}")
                rows.append(world.anomaly(series, "host_scan", actual=400.0 - n))
            counts += [(alert.state, bots) for alert in world.tick(rows)]
    assert counts == [
        ("raised", 1), ("updated", 2), ("updated", 3), ("updated", 4), ("updated", 8), ("updated", 16),
    ]  # fmt: skip


def test_a_scan_for_a_few_udp_services_by_turns_is_one() -> None:
    """Who looks for amplifiers tries some ports of each host; peers have as many ports as hosts."""
    sample = tuple(
        t for n in range(30)
        for t in probes(1, destination=f"192.0.2.{n}", protocol=17, tcp_flags=0,
                        destination_port=(161, 123, 1900)[n % 3])
    )  # fmt: skip
    (alert,) = told(AlarmWorld(), ("probe", "host_scan", {"source_address": HOST}, sample))
    assert alert.title.startswith(f"horizontal scan from {HOST}: 900 targets in 5 s, 3 ports")
    assert "protocol udp; destination-port [ =123 =161 =1900 ]" in alert.explain["do"]


def test_ticks_whose_sample_missed_the_vector_do_not_look_like_a_flood_that_shrinks() -> None:
    world, told_of, since = AlarmWorld(), [], AlarmWorld().now_ns
    series = world.series("destination_prefix", destination_prefix=PREFIX)
    rate = {"octets_per_second": 1e8, "expected_octets_per_second": 1e6}
    for tick in range(40):
        world.samples[series] = () if tick % 2 else flood()
        row = world.anomaly(series, "attack", since_ns=since, measure="flows", actual=300.0,
                            expected=3.0, score=4.0 if tick < 30 else 40.0, detail=rate)  # fmt: skip
        told_of += world.tick([row])
    assert [(a.state, a.explain["trend"]) for a in told_of] == [
        ("raised", "new"),
        ("updated", "steady"),
    ]


def test_a_beacon_to_an_ipv6_peer_is_one_alarm_before_and_after_its_address_is_sampled() -> None:
    """The key has a hash of the peer, and the sample of a tick seldom holds a record of one pair."""
    world, source, peer = AlarmWorld(), "2001:db8:7::5", "2001:db8:9::9"
    series = world.series("contact", source_address=source, destination_peer="#00c0ffee")
    states = []
    for tick in range(40):
        meets = talker(source=source, destination=peer, destination_port=443, octets=900, packets=9)
        world.samples[series] = (meets,) if tick % 7 == 5 else ()
        for alert in world.tick([world.anomaly(series, "beacon")]):
            states.append((alert.state, alert.entity, peer in alert.title))
            assert ("flow route" in alert.explain["do"]) == (peer in alert.title)
    assert states == [("raised", "#00c0ffee", False), ("updated", "#00c0ffee", True)]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_how_a_scan_goes_is_not_said_by_a_few_records(count: int) -> None:
    """One record of a scan of all ports of a host looks like a scan of one port of all hosts."""
    sample = probes(count, destination=OUT)
    (alert,) = told(AlarmWorld(), ("probe", "host_scan", {"source_address": HOST}, sample))
    assert alert.title == f"scan from {HOST}: 900 targets in 5 s"
    (alert,) = told(AlarmWorld(), ("slow_probe", "slow_scan", {"source_address": HOST}, sample))
    assert alert.title.startswith(f"slow scan from {HOST}: ")
