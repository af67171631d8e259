"""Claims of security: each class by name, with who, whom and the filter; one alarm for one attack."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from alerting.causes.fast_scans import TICKS_MAX
from alerting.causes.rows import rows_of
from alerting.life.explain import FILTERS_SHOWN
from runtime.checkpoint import Snapshot
from runtime.ports import Talker
from telemetry.batch import batch_from_rows
from telemetry.schemas import ANOMALY
from tests.support.flow_filter import read_filters
from tocsin.testing.alarms import START_NS, AlarmWorld, talker

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


MINUTE_NS, HOUR_NS = 60 * 10**9, 3_600 * 10**9
FULL_HOUR_NS = (START_NS // HOUR_NS + 2) * HOUR_NS


class ScanWorld:
    """A host that scans, by minutes and by hours; `told` are the alarms raised."""

    def __init__(self) -> None:
        self.world = AlarmWorld()
        self.told: list[str] = []
        self._fast = self.world.series("probe", source_address=HOST)
        self._slow = self.world.series("slow_probe", source_address=HOST)
        self.world.samples |= {self._fast: probes(), self._slow: probes()}

    def fast(self, minute: int, minutes: int, **row: Any) -> None:
        """Scan at 120 probes a minute; minutes count from a full hour."""
        for k in range(minute, minute + minutes):
            self._play(self._fast, "host_scan", k * MINUTE_NS, 60, 120, 50, k * MINUTE_NS, row)

    def hour(self, hour: int, count: int, *, since: int | None = None) -> None:
        """Let an hour with so many probes end."""
        since_ns = (hour if since is None else since) * HOUR_NS
        self._play(self._slow, "slow_scan", hour * HOUR_NS, 3600, count, 24, since_ns, {})

    def calm(self, minute: int, minutes: int) -> None:
        for k in range(minute, minute + minutes):
            self._tick((k + 1) * MINUTE_NS, [])

    def _play(
        self, series: int, detector: str, at: int, seconds: int, count: int, limit: int, since: int,
        fields: dict[str, Any],
    ) -> None:  # fmt: skip
        row = self.world.anomaly(
            series, detector, actual=float(count), upper=float(limit), since_ns=FULL_HOUR_NS + since,
            tick_start_ns=FULL_HOUR_NS + at, tick_seconds=float(seconds),
            detail={"probes": float(count), "targets": float(count)}, **fields,
        )  # fmt: skip
        self._tick(at + seconds * 10**9, [row])

    def _tick(self, end: int, rows: list[dict[str, Any]]) -> None:
        view = (
            "slow_probe"
            if end % HOUR_NS == 0 and rows and rows[0]["tick_seconds"] > 60
            else "exporter"
        )
        self.world.now_ns = FULL_HOUR_NS + end - 5 * 10**9
        alerts = self.world.tick(
            rows, frames=[] if view == "slow_probe" else [self.world.frame({})]
        )
        self.told += [alert.title for alert in alerts if alert.state == "raised"]


def test_a_fast_scan_is_not_told_again_as_a_slow_one() -> None:
    scan = ScanWorld()
    scan.fast(20, 6)
    scan.calm(26, 30)
    scan.hour(0, 790)  # of them 70 in the minutes that it filled in part
    assert len(scan.told) == 1


@pytest.mark.parametrize(("minute", "minutes"), [(55, 9), (50, 10), (59, 4)])
def test_a_fast_scan_beyond_a_full_hour_is_not_told_again_by_either_hour(
    minute: int, minutes: int
) -> None:
    scan = ScanWorld()
    scan.fast(minute, minutes)
    scan.calm(minute + minutes, 40)
    after = max(minute + minutes - 60, 0)
    scan.hour(1, 120 * after + 40, since=0)  # its last minute, in part
    assert len(scan.told) == 1
    assert "slow" not in scan.told[0]


def test_two_fast_scans_of_one_hour_are_not_a_slow_one() -> None:
    scan = ScanWorld()
    scan.fast(5, 4)
    scan.calm(9, 20)
    scan.fast(29, 4)
    scan.calm(33, 20)
    scan.hour(0, 8 * 120 + 150, since=-3)  # the run of hours began with another
    assert [title for title in scan.told if "slow" in title] == []


def test_a_slow_scan_beside_a_fast_one_or_after_it_is_told() -> None:
    scan = ScanWorld()
    scan.fast(5, 4)
    scan.calm(9, 45)
    scan.hour(0, 4 * 120 + 60)  # it may have begun, and as well be the edges of the fast one
    assert len(scan.told) == 1
    scan.hour(1, 60, since=0)
    assert [title.split(" from")[0] for title in scan.told[1:]] == ["slow horizontal scan"]
    beside = ScanWorld()
    beside.fast(5, 4)
    beside.calm(9, 45)
    beside.hour(0, 4 * 120 + 180)
    assert "slow" in beside.told[-1]


def test_a_slow_scan_is_told_whose_neighbour_or_own_past_had_a_fast_one() -> None:
    scan = ScanWorld()
    scan.fast(0, 6)
    scan.calm(6, 40)
    scan.hour(22, 120)
    assert "slow" in scan.told[-1]
    other = ScanWorld()
    neighbour = other.world.series("probe", source_address="198.51.100.8")
    other.world.samples[neighbour] = probes(source="198.51.100.8")
    other._fast = neighbour
    other.fast(20, 6)
    other.calm(26, 30)
    other.hour(0, 120)
    assert f"slow horizontal scan from {HOST}" in other.told[-1]


def test_a_fast_scan_that_nobody_was_told_of_is_told_as_a_slow_one() -> None:
    scan = ScanWorld()
    scan.fast(20, 6, disposition="digest")
    assert scan.told == []
    scan.calm(26, 30)
    scan.hour(0, 740)
    assert "slow" in scan.told[-1]


def test_what_fast_scans_explain_outlives_a_restart() -> None:
    scan = ScanWorld()
    scan.fast(58, 6)
    scan.calm(64, 30)
    kept = Snapshot()
    scan.world.stage.snapshot(kept)
    scan.world.stage = scan.world.make_stage()
    scan.world.stage.restore(kept)
    scan.hour(1, 4 * 120 + 30, since=0)
    assert len(scan.told) == 1


def test_what_is_kept_of_fast_scans_is_bounded() -> None:
    world = AlarmWorld()
    scans = world.stage._rules.fast_scans
    made = rows_of(
        batch_from_rows(ANOMALY, [world.anomaly(world.series("probe", source_address=HOST), "host_scan")]),
        world,
    )[0]  # fmt: skip
    for k in range(TICKS_MAX):
        host = f"192.0.{k % 8000 // 250}.{k % 250}"
        scans.note(
            msgspec.structs.replace(
                made,
                key=replace(made.key, key={"source_address": host}),
                tick_start_ns=k * 9 * MINUTE_NS,
            )
        )
    kept = scans.snapshot()
    held = sum(len(ticks) for _, ticks in kept)
    assert TICKS_MAX - 3 <= held <= TICKS_MAX
    value = world.context.metrics.value
    assert value("alerting_left_out_total", what="fast_scan_ticks") == 3 * TICKS_MAX - held
    again = AlarmWorld().stage._rules.fast_scans
    again.restore(kept)
    assert again.snapshot() == kept


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


def test_every_source_of_one_alarm_has_its_rule() -> None:
    """A second bot of a prefix, a second port of a source: the rule of the first does not stop it."""
    world = AlarmWorld()
    other = world.series("probe", source_address="198.51.100.8")
    world.samples[other] = probes(source="198.51.100.8", destination_port=445)
    (alert,) = play(world, "probe", "host_scan", probes(), source_address=HOST,
                    more=[world.anomaly(other, "host_scan")])  # fmt: skip
    rules = read_filters(alert.explain["do"])
    assert [(rule.parts["source"], rule.parts["destination-port"]) for rule in rules] == [
        (["198.51.100.8/32"], ["=445"]), ([f"{HOST}/32"], ["=22"]),
    ]  # fmt: skip


def test_of_many_sources_some_rules_are_shown_and_the_others_counted() -> None:
    world = AlarmWorld()
    more = []
    for n in range(20):
        series = world.series("probe", source_address=f"198.51.100.{100 + n}")
        world.samples[series] = probes(source=f"198.51.100.{100 + n}")
        more.append(world.anomaly(series, "host_scan"))
    (alert,) = play(world, "probe", "host_scan", probes(), source_address=HOST, more=more)
    assert len(read_filters(alert.explain["do"])) == FILTERS_SHOWN
    assert alert.explain["do"].endswith(f"and {21 - FILTERS_SHOWN} more of the like")


def test_a_scan_without_a_sample_and_sources_that_are_forged_get_no_rule() -> None:
    (alert,) = play(AlarmWorld(), "probe", "host_scan", (), source_address=HOST)
    assert f"no FlowSpec rule for {HOST}: too few of its records" in alert.explain["do"]
    key = {"exporter": "127.1.0.1", "ingress_interface": "9"}
    (alert,) = play(AlarmWorld(), "lone", "lone_sources", probes(), **key)
    assert "no FlowSpec rule: these sources are forged" in alert.explain["do"]
    assert read_filters(alert.explain["do"]) == []


def test_a_tunnel_over_several_resolvers_names_them() -> None:
    sample = tuple(
        t for n in range(10)
        for t in probes(1, destination=f"192.0.2.{n % 2}", destination_port=53, protocol=17, octets=180)
    )  # fmt: skip
    (alert,) = play(AlarmWorld(), "query", "dns_tunnel", sample, source_address=HOST)
    assert f"DNS tunnel from {HOST} over 192.0.2.0, 192.0.2.1: " in alert.title
    assert len(read_filters(alert.explain["do"])) == 2


def test_a_flood_over_a_whole_prefix_or_without_a_sample_names_no_host() -> None:
    spread = tuple(
        talker(source=f"203.0.113.{i}", destination=f"198.51.100.{i}", protocol=17, source_port=123,
               octets=468, packets=1)
        for i in range(60)
    )  # fmt: skip
    key = {"destination_prefix": "198.51.100.0/24", "vector": "123"}
    (alert,) = play(AlarmWorld(), "vector", "flood", spread, **key)
    assert alert.title.startswith("NTP amplification on 198.51.100.0/24: ")
    (rule,) = read_filters(alert.explain["do"])
    assert rule.parts["destination"] == ["198.51.100.0/24"]
    assert "blackhole" not in alert.explain["do"]
    (alert,) = play(AlarmWorld(), "vector", "flood", (), **key)
    assert "198.51.100.0 " not in alert.title
    assert "no FlowSpec rule: the sample names no host" in alert.explain["do"]
