"""Security detectors: what shows each class, and what looks like it and is not one."""

from typing import Any

import numpy as np
import pytest

from correlator.security_views import SecurityViewsSettings, security_views
from detectors.config import DetectionSettings
from detectors.detector import Finding
from detectors.security.detector import SECURITY
from detectors.security.stage import SecurityDetectors
from detectors.security.usual import P_LEAST
from detectors.stage import DetectionStage
from tocsin.testing import make_context
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEWS = {
    view.name: view
    for view in security_views(SecurityViewsSettings(), tick_seconds=60.0, lateness_seconds=1.0)
}


class Watched:
    """A detector and the time of its view: 60 hosts of its like, and one that a test moves."""

    def __init__(self, kind: str, *, crowd: int = 60, **usual: float) -> None:
        self.one = SECURITY.get(kind).make()
        self.view = VIEWS[self.one.view]
        self._usual, self._crowd, self._tick = usual, crowd, 0
        self._random = np.random.default_rng(5)

    def tick(self, *, learn: bool = False, **values: float) -> list[Finding]:
        """Return what is found of row 0 with these values; no values: it does not speak."""
        flows = 1.0 + self._random.poisson(1.0, self._crowd + 1)
        columns = {
            name: np.full(self._crowd + 1, each) * flows for name, each in self._usual.items()
        } | {"flows": flows}
        rows = list(range(self._crowd + 1))
        if values:
            for name, value in values.items():
                columns[name][0] = value
        else:
            rows = rows[1:]
            columns = {name: column[1:] for name, column in columns.items()}
        start_s = MONDAY_S + self._tick * self.view.tick_seconds
        self._tick += 1
        batch = frame(self.view, round(start_s) * SECOND, columns, rows=rows,
                      tick_seconds=self.view.tick_seconds)  # fmt: skip
        found = self.one.find(batch)
        calm = np.ones(batch.rows - 1, bool)
        calm[[f.row for f in found]] = False
        self.one.learn(batch, calm, every=learn)
        return found

    def calm(self, ticks: int, **values: float) -> "Watched":
        for _ in range(ticks):
            assert self.tick(**values) == []
        return self


def test_many_targets_with_a_probe_each_are_a_scan_from_the_first_tick_on() -> None:
    watched = Watched("host_scan", distinct_destination=1.0, octets=44.0)
    (found,) = watched.tick(flows=300.0, distinct_destination=290.0, octets=13_000.0)
    assert (found.row, found.detector, found.hard) == (0, "host_scan", False)
    assert found.p_value < P_LEAST
    assert watched.tick(flows=300.0, distinct_destination=20.0, octets=13_000.0) == []  # retries


def test_the_first_tick_of_an_attack_does_not_make_the_second_usual() -> None:
    watched = Watched("host_scan", distinct_destination=1.0, octets=44.0)
    assert watched.tick(flows=40.0, distinct_destination=40.0, octets=1_800.0) == []
    assert watched.tick(flows=90.0, distinct_destination=90.0, octets=4_000.0)


def test_a_scanner_of_ones_own_becomes_usual_after_hours_and_not_before() -> None:
    watched = Watched("host_scan", distinct_destination=1.0, octets=44.0)
    own = {"flows": 300.0, "distinct_destination": 290.0, "octets": 1.0}
    for _ in range(230):
        assert watched.tick(**own, learn=True)
    for _ in range(20):
        watched.tick(**own, learn=True)
    watched.calm(5, **own)
    assert watched.tick(**own | {"distinct_destination": 2000.0, "flows": 2000.0})


def test_a_probe_a_minute_is_a_slow_scan_after_an_hour() -> None:
    pings = {"flows": 80.0, "distinct_destination": 75.0, "octets": 3_000.0}
    at_first = Watched("slow_scan", distinct_destination=1.0, octets=44.0)
    assert at_first.tick(**pings) == []  # it may be a host that watches others
    watched = Watched("slow_scan", distinct_destination=1.0, octets=44.0).calm(25)
    assert watched.tick(flows=8.0, distinct_destination=8.0, octets=400.0) == []
    (found,) = watched.tick(flows=60.0, distinct_destination=55.0, octets=2_600.0)
    assert found.detector == "slow_scan"


def test_tries_at_a_login_add_up_over_minutes_and_many_hosts_are_no_brute_force() -> None:
    watched = Watched("login_tries", crowd=10, distinct_destination=1.0, octets=2_000.0).calm(5)
    watched.calm(2, flows=14.0, distinct_destination=1.0, octets=28_000.0)
    (found,) = watched.tick(flows=14.0, distinct_destination=1.0, octets=28_000.0)
    assert found.detail["tries"] == 14.0
    fleet = Watched("login_tries", crowd=10, distinct_destination=1.0, octets=2_000.0).calm(5)
    assert fleet.tick(flows=400.0, distinct_destination=350.0, octets=9e5) == []


def test_long_questions_for_one_resolver_are_a_tunnel_and_a_resolver_is_none() -> None:
    usual = {"distinct_destination": 1.0, "octets": 78.0, "packets": 1.0}
    watched = Watched("dns_tunnel", **usual).calm(5)
    (found,) = watched.tick(flows=200.0, packets=200.0, octets=36_000.0, distinct_destination=1.0)
    assert found.detail["octets_per_question"] == 180.0
    for others in (
        {"flows": 200.0, "packets": 200.0, "octets": 15_600.0, "distinct_destination": 1.0},
        {"flows": 200.0, "packets": 200.0, "octets": 36_000.0, "distinct_destination": 90.0},
        {"flows": 5.0, "packets": 5.0, "octets": 900.0, "distinct_destination": 1.0},
    ):
        assert Watched("dns_tunnel", **usual).calm(5).tick(**others) == []


def test_one_sampled_packet_is_no_tunnel_where_nobody_asks_long_questions() -> None:
    watched = Watched("dns_tunnel", crowd=3, distinct_destination=1.0, octets=180.0, packets=1.0)
    watched.calm(40).calm(1, flows=1.0, packets=200.0, octets=25_000.0, distinct_destination=1.0)


def test_an_upload_is_new_large_and_to_one_place() -> None:
    usual = {"distinct_destination": 1.0, "octets": 20_000.0}
    much = {"flows": 60.0, "octets": 3e8, "distinct_destination": 1.0}
    (found,) = Watched("upload", **usual).calm(70).tick(**much)
    assert found.actual == 3e8 / 60.0
    assert Watched("upload", **usual).calm(70).tick(**much | {"distinct_destination": 50.0}) == []
    assert Watched("upload", **usual).calm(30).tick(**much) == []  # nothing is known of its like
    regular = Watched("upload", **usual).calm(20, **much)  # a backup that is always there
    assert regular.calm(60, **much).tick(**much) == []


@pytest.mark.parametrize(
    ("flows", "packets", "octets", "sources", "found"),
    [
        pytest.param(2000.0, 6e4, 8.4e7, 900.0, 1, id="amplification"),
        pytest.param(2000.0, 6e4, 8.4e7, 2.0, 0, id="two-sources"),
        pytest.param(9000.0, 4e5, 2e7, 900.0, 1, id="syn-flood"),
        pytest.param(100.0, 3e3, 1.5e5, 90.0, 0, id="small-packets-but-few"),
        pytest.param(20.0, 6e2, 8.4e5, 20.0, 0, id="a-small-answer"),
    ],
)
def test_a_flood_of_one_vector(
    flows: float, packets: float, octets: float, sources: float, found: int
) -> None:
    watched = Watched("flood", packets=3.0, octets=900.0, distinct_source=1.0).calm(40)
    hits = watched.tick(flows=flows, packets=packets, octets=octets, distinct_source=sources)
    assert len(hits) == found


def test_sources_seen_once_and_bogons() -> None:
    lone = Watched("lone_sources", distinct_source=1.0, octets=60.0).calm(40)
    assert lone.tick(flows=900.0, distinct_source=880.0, octets=5e4)
    crowd = Watched("lone_sources", distinct_source=1.0, octets=60.0).calm(40)
    assert crowd.tick(flows=900.0, distinct_source=100.0, octets=5e4) == []  # each comes often
    bogon = Watched("bogon", crowd=1, distinct_source=1.0, octets=60.0).calm(40)
    assert bogon.tick(flows=80.0, distinct_source=70.0, octets=4e3)
    young = Watched("bogon", crowd=1, distinct_source=1.0, octets=60.0)
    assert young.tick(flows=80.0, distinct_source=70.0, octets=4e3) == []  # may be at home here
    at_home = Watched("bogon", crowd=1, distinct_source=1.0, octets=60.0).calm(40)
    # Private hosts at work.
    assert at_home.tick(flows=900.0, distinct_source=70.0, octets=4e3) == []


def contacts(period_s: float, jitter: float, hours: float, seed: int) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    count = int(hours * 3600 / period_s)
    times = (np.arange(count) + random.uniform(-jitter / 2, jitter / 2, count)) * period_s + 100.0
    return np.bincount((times / 300.0).astype(int))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("period_s", "jitter"), [(60.0, 0.0), (60.0, 0.2), (290.0, 0.2), (700.0, 0.2), (1200.0, 0.2)]
)
def test_a_clock_shows_in_hours(period_s: float, jitter: float, seed: int) -> None:
    watched = Watched("beacon", crowd=0, octets=500.0, octets_m2=0.0)
    found = []
    for flows in contacts(period_s, jitter, 11.0, seed):
        flows_now = {"flows": float(flows), "octets": 500.0 * flows, "octets_m2": 0.0}
        found += watched.tick(**(flows_now if flows else {}))
    mine = [f for f in found if f.row == 0]
    assert mine, "the beacon is found"
    assert mine[0].detail["period_seconds"] == pytest.approx(period_s, rel=0.15)
    assert mine[0].detail["since_ns"] == MONDAY_S * SECOND
    assert len(mine) == len(found)


def test_without_a_clock_there_is_no_beacon() -> None:
    random = np.random.default_rng(8)
    for rate in (0.3, 1.0, 5.0):
        watched = Watched("beacon", crowd=0, octets=500.0, octets_m2=0.0)
        for flows in random.poisson(rate, 140):
            now = {"flows": float(flows), "octets": 500.0 * flows, "octets_m2": 0.0}
            assert watched.tick(**(now if flows else {})) == []


def test_a_rule_that_fires_every_day_loses_its_credit() -> None:
    detectors = SecurityDetectors(VIEWS.values())
    scan = Watched("host_scan", distinct_destination=1.0, octets=44.0)
    (found,) = scan.tick(flows=52.0, distinct_destination=52.0, octets=1.0)
    before = detectors.calibrated(found).p_value
    batch = frame(VIEWS["probe"], 0, {"flows": [1.0] * 100})
    for _ in range(400):
        detectors.count(["host_scan"], [("probe", batch)])
    assert detectors.calibrated(found).p_value > 100 * before
    assert detectors.calibrated(found).p_value <= 1.0


def test_the_stage_reports_and_learns_what_the_views_of_security_show() -> None:
    settings = DetectionSettings(false_alerts_per_day=10.0)
    stage = DetectionStage(tuple(VIEWS.values()), settings, make_context())
    view = VIEWS["probe"]
    for k in range(3):
        values = {"flows": [300.0] + [1.0] * 30, "distinct_destination": [290.0] + [1.0] * 30,
                  "octets": [44.0] * 31}  # fmt: skip
        start_ns = (MONDAY_S + 60 * k) * SECOND
        stage.process(frame(view, start_ns, values, tick_seconds=60.0))
        (rows,) = stage.advance(start_ns + 61 * SECOND)
        assert rows.texts("detector") == ["host_scan"]
        assert rows.texts("disposition") == ["alert"]
        assert int(rows["since_ns"][0]) == MONDAY_S * SECOND
