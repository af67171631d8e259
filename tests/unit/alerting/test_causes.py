"""Cause rules: one alarm for each fault, and the right one."""

from typing import Any

import pytest

from alerting.causes.attacks import vector_of
from alerting.causes.rules import scanner_of
from runtime.ports import Talker
from telemetry.batch import batch_from_rows
from telemetry.identity import V4_MAPPED
from telemetry.schemas import ROUTE
from tocsin.testing.alarms import LINKS, ROUTERS, AlarmWorld, flood, talker


def idle_and_busy(world: AlarmWorld, idle: set[str]) -> dict[int, int]:
    return {s: 0 if link in idle else 50 for link in LINKS for s in world.ends(link)}


def cut(world: AlarmWorld, link: str = "ams1-fra2") -> list[dict[str, Any]]:
    rows = [world.silence(s) for s in world.ends(link)]
    others = [s for name in LINKS if name != link for s in world.ends(name)]
    return rows + [world.anomaly(s, "level", actual=160.0) for s in others]


def test_a_cut_link_is_one_alarm_that_names_it_and_who_carries_its_traffic() -> None:
    world = AlarmWorld()
    (alert,) = world.tick(cut(world))
    assert (alert.kind, alert.entity, alert.severity) == ("link-cut", "ams1-fra2", "major")
    assert alert.title == "link ams1-fra2 is down: 2 links carry its traffic"
    assert alert.explain["causes"][0]["kind"] == "link-cut"
    assert alert.explain["causes"][0]["entity"] == "ams1-fra2"
    assert alert.explain["touches"] == ["ams1:et-0/0/1", "fra2:et-0/0/1"]


def weak(world: AlarmWorld, link: str, *, ticks: int) -> list[dict[str, Any]]:
    """Return the silence of a link that carries a tenth of what others do."""
    return [world.silence(s, ticks=ticks) | {"expected": 4.0} for s in world.ends(link)]


def test_a_neighbour_that_still_carries_a_little_is_not_called_cut() -> None:
    """What it carried has another way since the cut; one way alone fell silent."""
    world = AlarmWorld()
    victim = [world.interface(r, i, "out") for r, i in (("ams1", 2), ("lon1", 1))]
    rows = cut(world)[:4] + [world.silence(s) for s in victim]
    frame = world.frame(idle_and_busy(world, {"ams1-fra2"}) | dict.fromkeys(victim, 0))
    alerts = world.tick(rows, frames=[frame])
    assert [(a.kind, a.entity) for a in alerts] == [("link-cut", "ams1-fra2")]


def test_a_neighbour_that_falls_silent_beside_a_cut_must_miss_more_before_it_is_called_cut() -> (
    None
):
    world = AlarmWorld()
    since = world.now_ns
    told = []
    for ticks in range(2, 16):
        rows = [world.silence(s, ticks=ticks) for s in world.ends("ams1-fra2")]
        rows += weak(world, "ams1-lon1", ticks=ticks)
        alerts = world.tick([row | {"since_ns": since} for row in rows])
        told += [(a.entity, ticks) for a in alerts if a.state == "raised"]
    assert told == [("ams1-fra2", 2), ("ams1-lon1", 12)]  # 12 ticks of 5 s, 4 records/s: 240


@pytest.mark.parametrize(("age_s", "later_ticks", "cut_too"), [(600, 1, False), (600, 30, True),
                                                              (2e5, 1, True)])  # fmt: skip
def test_a_link_that_stood_in_falls_silent_when_the_cut_one_carries_again(
    age_s: float, later_ticks: int, cut_too: bool
) -> None:
    """Its baseline knows nothing but the detour; one that knows more, or falls silent later, is cut."""
    world = AlarmWorld()
    since = world.now_ns
    for ticks in range(2, 8):
        world.tick([world.silence(s, ticks=ticks) | {"since_ns": since}
                    for s in world.ends("ams1-fra2")])  # fmt: skip
    for _ in range(later_ticks):
        world.tick([])
    since, told = world.now_ns, []
    for ticks in range(2, 8):
        rows = [
            world.anomaly(s, "silence", measure="flows", disposition="hard", actual=0.0, expected=40.0,
                          since_ns=since, detail={"ticks": ticks, "baseline_s": age_s})
            for s in world.ends("ams1-lon1")
        ]  # fmt: skip
        frame = world.frame(idle_and_busy(world, {"ams1-lon1"}))
        told += [a.entity for a in world.tick(rows, frames=[frame]) if a.state == "raised"]
    assert told == ["ams1-lon1"] * cut_too


def test_two_links_cut_at_once_are_both_named() -> None:
    world = AlarmWorld()
    alerts = world.tick([world.silence(s) for name in LINKS[:2] for s in world.ends(name)])
    assert [a.entity for a in alerts] == list(LINKS[:2])


def test_what_a_cut_link_moves_is_attached_and_raises_nothing_however_long_it_lasts() -> None:
    world = AlarmWorld()
    since = world.now_ns
    others = [s for name in LINKS[1:] for s in world.ends(name)]
    alerts = world.tick(cut(world))
    for _ in range(40):
        rows = [world.silence(s) for s in world.ends("ams1-fra2")]
        rows += [world.anomaly(s, "level", actual=900.0, since_ns=since) for s in others]
        alerts += world.tick(rows)
    assert [a.kind for a in alerts] == ["link-cut"]
    assert alerts[0].explain["explains_count"] == 4
    assert "interface ams1:et-0/0/2" in alerts[0].explain["explains"]


def test_a_deviation_that_begins_long_after_a_fault_is_not_its_doing() -> None:
    world = AlarmWorld()
    alerts = world.tick(cut(world))
    for _ in range(70):  # 350 s: the aftermath of 300 s is over, the link is still down
        alerts += world.tick([world.silence(s) for s in world.ends("ams1-fra2")])
    since = world.now_ns
    other = world.interface("lon1", 7)
    for _ in range(8):
        rows = [world.silence(s) for s in world.ends("ams1-fra2")]
        alerts += world.tick([*rows, world.anomaly(other, "level", since_ns=since)])
    assert [(a.kind, a.entity) for a in alerts] == [
        ("link-cut", "ams1-fra2"), ("deviation", "lon1:7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("later", "told"),
    [
        pytest.param([900.0] * 60, False, id="as-before"),
        pytest.param([900.0 * 1.02**n for n in range(60)], False, id="grows-with-the-day"),
        pytest.param([100.0] * 60, False, id="back-to-usual"),
        pytest.param([900.0, 60.0] * 30, False, id="comes-and-goes"),
        pytest.param([10.0] * 60, True, id="falls-to-a-tenth"),
        pytest.param([9000.0] * 60, True, id="ten-times-as-much-again"),
    ],
)
def test_a_second_fault_of_what_a_cut_link_moved_is_told(later: list[float], told: bool) -> None:
    """A detour carries nine times as much for six minutes; the cut lasts."""
    world = AlarmWorld()
    since, detour = world.now_ns, world.interface("ams1", 2)
    alerts: list[Any] = []
    for actual in [900.0] * 72 + later:
        rows = [world.silence(s) for s in world.ends("ams1-fra2")]
        rows.append(world.anomaly(detour, "level", actual=actual, since_ns=since))
        alerts += world.tick(rows)
    raised = [(a.kind, a.entity) for a in alerts if a.state == "raised"]
    assert raised == [("link-cut", "ams1-fra2"), ("deviation", "ams1:et-0/0/2")][: 1 + told]


@pytest.mark.parametrize(("factor", "told"), [(30.0, False), (0.02, True)])
def test_an_attack_explains_more_and_no_loss(factor: float, told: bool) -> None:
    world = AlarmWorld()
    prefix = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[prefix] = flood()
    since, passed = world.now_ns, world.interface("ams1", 1, "in")
    alerts: list[Any] = []
    for actual in [900.0] * 72 + [900.0 * factor] * 20:
        row = world.anomaly(passed, "level", actual=actual, since_ns=since)
        alerts += world.tick([attack(world, prefix), row])
    raised = [a.kind for a in alerts if a.state == "raised"]
    assert raised == ["volumetric-attack", "deviation"][: 1 + told]


def test_one_silent_end_is_no_cut_while_the_other_end_carries_traffic() -> None:
    world = AlarmWorld()
    rows = [world.silence(world.interface("ams1", 1, way)) for way in ("in", "out")]
    flows = idle_and_busy(world, set())
    assert [a.kind for a in world.tick(rows, frames=[world.frame(flows)])] == []


def test_an_end_that_is_too_quiet_for_a_finding_is_looked_at_in_the_frame() -> None:
    world = AlarmWorld()
    rows = [world.silence(world.interface("ams1", 1, way)) for way in ("in", "out")]
    flows = idle_and_busy(world, {"ams1-fra2"})
    (alert,) = world.tick(rows, frames=[world.frame(flows)])
    assert (alert.kind, alert.entity) == ("link-cut", "ams1-fra2")
    assert alert.severity == "critical"  # nothing rose: nobody carries its traffic


def test_a_silent_exporter_explains_its_interfaces_and_its_neighbours_vouch_for_it() -> None:
    world = AlarmWorld()
    exporter = world.series("exporter", exporter="127.1.0.1")
    own = [world.interface("ams1", i, way) for i in (1, 2) for way in ("in", "out")]
    flows = idle_and_busy(world, set())
    (alert,) = world.tick(
        [world.silence(exporter), *[world.silence(s) for s in own]], frames=[world.frame(flows)]
    )
    assert (alert.kind, alert.entity, alert.severity) == ("exporter-down", "ams1", "major")
    assert "still carry traffic: ams1-fra2, ams1-lon1" in " ".join(alert.explain["why"])


def test_a_router_whose_neighbours_see_nothing_is_down_itself_and_its_links_are_not_alarmed() -> (
    None
):
    world = AlarmWorld()
    exporter = world.series("exporter", exporter="127.1.0.1")
    ends = world.ends("ams1-fra2") + world.ends("ams1-lon1")
    flows = idle_and_busy(world, {"ams1-fra2", "ams1-lon1"})
    (alert,) = world.tick(
        [world.silence(exporter), *[world.silence(s) for s in ends]], frames=[world.frame(flows)]
    )
    assert (alert.kind, alert.entity, alert.severity) == ("exporter-down", "ams1", "critical")
    assert alert.title.startswith("exporter ams1 is down")


@pytest.mark.parametrize(("mute", "alarms"), [(set(), 1), ({"ams1"}, 1), ({"ams1", "fra2"}, 0)])
def test_interfaces_of_an_exporter_that_sends_nothing_at_all_prove_no_cut(
    mute: set[str], alarms: int
) -> None:
    world = AlarmWorld()
    records = {
        world.series("exporter", exporter=world.network.address_of(r)): 0 if r in mute else 900
        for r in ("ams1", "fra2", "lon1")
    }
    rows = [world.silence(s) for s in world.ends("ams1-fra2")]
    said = world.tick(rows, frames=[world.frame(records, view="exporter")])
    assert [a.kind for a in said] == ["link-cut"] * alarms
    if mute and said:
        # What is known comes from the end that speaks.
        assert not any("ams1:" in why for why in said[0].explain["why"])


def attack(world: AlarmWorld, series: int) -> dict[str, Any]:
    detail = {
        "octets_per_second": 1.5e8, "expected_octets_per_second": 1e6, "distinct_sources": 900.0,
    }  # fmt: skip
    return world.anomaly(series, "attack", detail=detail)


def test_an_attack_names_vector_host_prefix_and_entry_after_two_ticks() -> None:
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = flood()
    assert world.tick([attack(world, series)]) == []
    (alert,) = world.tick([attack(world, series)])
    assert (alert.kind, alert.entity) == ("volumetric-attack", "198.51.100.0/24")
    assert alert.title == (
        "DNS amplification on 198.51.100.7 in 198.51.100.0/24: 1.2 Gbit/s, 8 Mbit/s expected"
    )
    assert alert.explain["touches"] == ["acme", "198.51.100.0/24"]
    assert "it enters at ams1:et-0/0/1" in alert.explain["why"]
    assert len(alert.explain["top_talkers"]) == 10


def test_an_attack_says_how_host_and_sources_are_routed() -> None:
    """By what BMP told; see tests/unit/correlator/test_routing.py for the table."""
    world = AlarmWorld()
    rows = [
        {
            "prefix_low": V4_MAPPED | first << 24,
            "prefix_length": 8,
            "afi": 1,
            "safi": 1,
            "origin_as": number,
        }
        for first, number in ((198, 64500), (203, 64600))
    ]
    world.network.learn(batch_from_rows(ROUTE, rows))
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = flood()
    world.tick([attack(world, series)])
    (alert,) = world.tick([attack(world, series)])
    assert "198.51.100.7 is routed as AS64500 (198.0.0.0/8)" in alert.explain["why"]
    assert "its sources are of AS64600" in alert.explain["why"]


def test_a_flood_that_hides_in_a_busy_prefix_is_seen_in_its_service() -> None:
    world = AlarmWorld()
    series = world.series("service", protocol="udp", port_class="53")
    world.samples[series] = flood()

    def tick(**fields: Any) -> list[Any]:
        return world.tick([world.anomaly(series, "point", **fields)])

    assert tick() == []
    (alert,) = tick()
    assert (alert.kind, alert.entity) == ("volumetric-attack", "198.51.100.0/24")
    assert "of udp/53" in alert.title
    other = AlarmWorld()
    number = other.series("service", protocol="udp", port_class="53")
    other.samples[number] = flood()
    small = [other.anomaly(number, "point", actual=250.0, expected=100.0)]
    assert [other.tick(small) for _ in range(5)] == [[]] * 5
    other.samples[number] = tuple(talker(destination=f"198.51.{i}.7") for i in range(40))
    assert [other.tick([other.anomaly(number, "point")]) for _ in range(5)] == [[]] * 5


def test_an_attack_that_a_tick_of_the_sample_misses_goes_on() -> None:
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = flood()
    alerts = [a for _ in range(2) for a in world.tick([attack(world, series)])]
    world.samples[series] = (talker(),)
    alerts += [a for _ in range(30) for a in world.tick([attack(world, series)])]
    assert [a.state for a in alerts] == ["raised"]
    assert [a.state for _ in range(3) for a in world.tick()] == ["cleared"]


def test_the_talkers_of_an_attack_are_those_who_attack() -> None:
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    loud = [talker(source=f"192.0.2.{i}", destination="198.51.100.9") for i in range(30)]
    syn = flood(60, protocol=6, tcp_flags=2, source_port=4000, octets=3000, packets=60)
    world.samples[series] = (*loud, *syn)
    (alert,) = [a for _ in range(2) for a in world.tick([attack(world, series)])]
    assert alert.title.startswith("SYN flood on 198.51.100.7 ")
    assert {t["destination"] for t in alert.explain["top_talkers"]} == {"198.51.100.7"}


def test_a_handful_of_records_is_no_deviation() -> None:
    world = AlarmWorld()
    series = world.series("service", protocol="tcp", port_class="53")
    since = world.now_ns
    few = {"measure": "flows", "actual": 0.0, "expected": 1.1, "since_ns": since}
    many = {"measure": "flows", "actual": 0.0, "expected": 11.0, "since_ns": since}
    assert [world.tick([world.anomaly(series, "level", **few)]) for _ in range(9)] == [[]] * 9
    said = [a for _ in range(9) for a in world.tick([world.anomaly(series, "level", **many)])]
    assert [(a.kind, a.entity) for a in said] == [("deviation", "tcp/53")]


def test_a_flash_crowd_is_no_attack() -> None:
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = tuple(talker(source=f"203.0.113.{i}") for i in range(1, 60))
    assert [world.tick([attack(world, series)]) for _ in range(20)] == [[]] * 20


@pytest.mark.parametrize(
    ("fields", "vector"),
    [
        ({"source_port": 123}, "NTP amplification"),
        ({"source_port": 389}, "CLDAP amplification"),
        ({"source_port": 11211}, "memcached amplification"),
        ({"source_port": 1900}, "SSDP amplification"),
        ({"source_port": 40000}, "UDP flood"),
        ({"source_port": 443}, ""),  # QUIC
        ({"protocol": 6, "source_port": 40000, "tcp_flags": 0x02}, "SYN flood"),
        ({"protocol": 6, "tcp_flags": 0x1B}, ""),
        ({"protocol": 1, "source_port": 0}, "ICMP flood"),
        ({"protocol": 17, "source": "203.0.113.1"}, ""),  # one source is a big transfer
    ],
)
def test_vectors(fields: dict[str, Any], vector: str) -> None:
    assert vector_of(flood(**fields))[0] == vector


def test_a_syn_flood_is_seen_beside_downloads_with_far_more_octets() -> None:
    sample = [talker(source=f"203.0.113.{i}", destination="198.51.100.9") for i in range(30)]
    sample += flood(60, protocol=6, tcp_flags=2, source_port=4000, octets=3000, packets=60)
    name, share, host = vector_of(sample)
    assert (name, host) == ("SYN flood", "198.51.100.7")
    assert share > 0.5


def test_one_sampled_syn_is_enough_where_the_frame_says_small_packets_from_many_sources() -> None:
    sample = flood(1, protocol=6, tcp_flags=2, source_port=4000, octets=350_000, packets=6700)
    assert vector_of((*sample, talker()))[0] == ""
    assert vector_of((*sample, talker()), small_and_many=True)[0] == "SYN flood"
    # A crowd of ordinary clients is many as well, but its vector is none.
    crowd = tuple(talker(source=f"203.0.113.{i}") for i in range(1, 60))
    assert vector_of(crowd, small_and_many=True)[0] == ""
    big = flood(1, source_port=40000)
    assert vector_of(big, small_and_many=True)[0] == ""  # one source of large packets


def probe(**fields: Any) -> Talker:
    """Return a SYN of 192.0.2.66."""
    return talker(
        **{"source": "192.0.2.66", "tcp_flags": 2, "octets": 44_000, "packets": 1000} | fields
    )


def test_a_busy_server_of_a_prefix_is_not_named_for_the_scanner_beside_it() -> None:
    """It answers many clients, so it reaches more ports than the few probes of a sample by octets."""
    world = AlarmWorld()
    prefix = world.series("source_prefix", source_prefix="192.0.2.0/24")
    answers = [
        talker(source="192.0.2.1", destination=f"203.0.113.{n}", destination_port=40_000 + n, source_port=443)
        for n in range(100)
    ]  # fmt: skip
    asked = [
        talker(source="192.0.2.53", destination=f"203.0.113.{n}", destination_port=53, protocol=17,
               tcp_flags=0, octets=70, packets=1)
        for n in range(60)
    ]  # fmt: skip
    probes = [probe(destination=f"198.51.100.{n}", destination_port=23) for n in range(12)]
    world.samples[prefix] = (*answers, *asked, *probes)
    told = [a for _ in range(3) for a in world.tick([world.anomaly(prefix, "scan")])]
    (alert,) = told
    assert alert.title.startswith("horizontal scan from 192.0.2.66: ")
    assert "source 192.0.2.66/32; protocol tcp; destination-port =23;" in alert.explain["do"]
    assert scanner_of(answers + asked) == ("", "horizontal")


@pytest.mark.parametrize(("ports", "hosts", "way"), [(1, 50, "horizontal"), (200, 1, "vertical")])
def test_scans_name_their_source_and_way(ports: int, hosts: int, way: str) -> None:
    sample = [
        probe(destination=f"198.51.100.{h}", destination_port=p)
        for h in range(1, hosts + 1)
        for p in range(20, 20 + ports)
    ]
    assert scanner_of([talker(source="192.0.2.1"), *sample]) == ("192.0.2.66", way)


def test_a_scan_and_a_leak_are_claimed_on_their_prefix() -> None:
    world = AlarmWorld()
    scanner = world.series("source_prefix", source_prefix="192.0.2.0/24")
    leaking = world.series("source_prefix", source_prefix="198.51.100.0/24")
    world.samples[scanner] = tuple(
        probe(destination=f"198.51.100.{i}", destination_port=22) for i in range(1, 90)
    )
    alerts = []
    for _ in range(2):
        trend = world.anomaly(leaking, "trend", detail={"ratio": 1.6, "since_seconds": 1500.0})
        alerts += world.tick([world.anomaly(scanner, "scan"), trend])
    found = {(a.kind, a.entity, a.severity) for a in alerts}
    assert found == {
        ("port-scan", "192.0.2.0/24", "minor"), ("slow-leak", "198.51.100.0/24", "minor"),
    }  # fmt: skip
    assert any("horizontal scan from 192.0.2.66" in a.title for a in alerts)


@pytest.mark.parametrize(("usual", "told"), [(1e-9, []), (800.0, [("deviation", "tcp/53")])])
def test_a_scan_explains_a_service_that_nobody_used_before(
    usual: float, told: list[tuple[str, str]]
) -> None:
    world = AlarmWorld()
    since = world.now_ns
    scanner = world.series("source_prefix", source_prefix="192.0.2.0/24")
    service = world.series("service", protocol="tcp", port_class="53")
    world.samples[scanner] = tuple(
        probe(destination="198.51.100.7", destination_port=port) for port in range(20, 110)
    )
    alerts = []
    for _ in range(9):
        octets = {"measure": "octets", "actual": 3e4, "expected": usual, "since_ns": since}
        rows = [world.anomaly(scanner, "scan"), world.anomaly(service, "level", **octets)]
        alerts += world.tick(rows)
    assert [(a.kind, a.entity) for a in alerts] == [("port-scan", "192.0.2.0/24"), *told]


def test_deviations_that_begin_together_are_one_alarm() -> None:
    world = AlarmWorld()
    since = world.now_ns
    series = [s for link in LINKS for s in world.ends(link)]
    alerts = []
    for _ in range(30):
        alerts += world.tick(
            [world.anomaly(s, "level", since_ns=since, score=4.0 + i) for i, s in enumerate(series)]
        )
    (alert,) = alerts
    assert alert.kind == "deviation"
    assert alert.severity == "warning"
    assert alert.explain["explains_count"] == 5  # six interfaces of three links
    assert alert.explain["unit"] == "By/s"


def test_what_is_over_budget_or_too_small_or_too_short_raises_nothing() -> None:
    world = AlarmWorld()
    over, small, short = (world.interface("ams1", i) for i in (1, 2, 3))
    since = world.now_ns
    for tick in range(20):
        rows = [
            world.anomaly(over, "level", disposition="digest", since_ns=since),
            world.anomaly(small, "level", actual=200.0, since_ns=since),
        ]
        if tick % 4 == 0:
            rows.append(world.anomaly(short, "level"))
        assert world.tick(rows) == []


@pytest.mark.parametrize(
    ("mute", "idle", "title", "why"),
    [
        (("ams1",), (), "is silent", "the far ends of 2 of its links still carry traffic"),
        (("ams1",), ("fra2", "lon1"), "is down", "no far end of its links that is seen carries traffic: ams1-fra2, "),
        (("ams1", "fra2"), ("lon1",), "is down", "no far end of its links that is seen carries traffic: ams1-lon1"),
        (("ams1", "fra2", "lon1"), (), "is silent", "the routers at the far ends of its links export nothing either"),
    ],
)  # fmt: skip
def test_a_router_is_down_only_by_neighbours_that_see_something(
    mute: tuple[str, ...], idle: tuple[str, ...], title: str, why: str
) -> None:
    """Where the path of all exporters to us is broken, none of them proves anything of another."""
    world = AlarmWorld()
    exporters = {
        name: world.series("exporter", exporter=world.network.address_of(name)) for name in ROUTERS
    }
    ends = {
        world.interface(router, index, way): 40 * (router not in (*mute, *idle))
        for router in ROUTERS for index in (1, 2) for way in ("in", "out")
    }  # fmt: skip
    frames = [
        world.frame(ends),
        world.frame(
            {one: 50 * (name not in mute) for name, one in exporters.items()}, view="exporter"
        ),
    ]
    told = world.tick([world.silence(exporters[name]) for name in mute], frames=frames)
    alert = next(a for a in told if a.entity == "ams1")
    assert title in alert.title
    assert any(words.startswith(why) for words in alert.explain["why"])
