"""Forecasts of groups that the network map knows: who belongs, what they carry, when it is too much."""

import numpy as np
import pytest

from correlator.tables.network_map import (
    InterfaceEntry,
    LinkEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
)
from tocsin.cli.forecast import _one
from tocsin.reports.map_groups import groups, sums

FILE = NetworkFile(
    router=[
        RouterEntry(name="ams1", address="192.0.2.1", site="AMS"),
        RouterEntry(name="ams2", address="192.0.2.2", site="AMS", services=["voice"]),
        RouterEntry(name="fra1", address="192.0.2.3", site="FRA"),
    ],
    interface=[
        InterfaceEntry(router="ams1", index=1, name="et-1", link="a", speed=8000),
        InterfaceEntry(router="ams1", index=2, name="et-2", link="b", speed=8000),
        InterfaceEntry(router="ams1", index=100, name="xe-1", customer="bakery"),
        InterfaceEntry(router="ams2", index=1, name="et-1", speed=800),
        InterfaceEntry(router="fra1", index=1, name="et-1", link="a", speed=8000),
        InterfaceEntry(router="fra1", index=2, link="b", speed=8000),
    ],
    link=[
        LinkEntry(name="a", a="ams1", a_index=1, b="fra1", b_index=1, services=["voice"]),
        LinkEntry(name="b", a="ams1", a_index=2, b="fra1", b_index=2),
    ],
    prefix=[
        PrefixEntry(prefix="198.51.100.0/24", router="ams1", customer="bakery", services=["vpn"])
    ],
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("site", {"AMS": {"ams1:et-1", "ams1:et-2", "ams1:xe-1", "ams2:et-1"},
                  "FRA": {"fra1:et-1", "fra1:2"}}),
        ("bundle", {"ams1-fra1": {"ams1:et-1", "ams1:et-2"}}),
        ("service", {"voice": {"ams1:et-1", "ams2:et-1"}, "vpn": {"ams1:xe-1"}}),
        ("customer", {"bakery": {"ams1:xe-1"}}),
    ],
)  # fmt: skip
def test_who_belongs_to_a_group(kind: str, expected: dict[str, set[str]]) -> None:
    assert {one.name: set(one.members) for one in groups(FILE, kind)} == expected


def test_capacity_is_that_of_all_members_or_not_known() -> None:
    speeds = {
        one.name: one.octets_per_second for kind in ("site", "bundle") for one in groups(FILE, kind)
    }
    assert speeds == {"AMS": 0.0, "FRA": 2000.0, "ams1-fra1": 2000.0}


def row(entity: str, direction: str, time_s: int, value: float | None) -> dict[str, object]:
    key = f"exporter=192.0.2.1,interface=1,direction={direction}"
    return {"entity": entity, "key": key, "measure": "octets", "time_s": time_s, "avg": value}


def test_members_are_summed_by_direction_and_silence_is_nothing() -> None:
    rows = [
        row("ams1:et-1", "out", 0, 1.0), row("ams1:et-2", "out", 0, 2.0), row("ams1:et-1", "in", 0, 5.0),
        row("ams1:et-1", "out", 60, 3.0), row("ams1:et-2", "out", 60, None), row("fra1:et-1", "out", 0, 9.0),
    ]  # fmt: skip
    assert sums(rows, groups(FILE, "bundle")) == {
        ("ams1-fra1", "octets", "in"): [(0, 5.0)],
        ("ams1-fra1", "octets", "out"): [(0, 3.0), (60, 3.0)],
    }


def test_a_bundle_is_forecast_against_the_speed_of_all_members() -> None:
    """Two members of 420 octets a second; their sum is held against a share of both speeds."""
    random = np.random.default_rng(3)
    rows = [
        row(f"ams1:et-{k}", "out", 300 * n, 300.0 + 0.2 * n + float(random.normal(0.0, 2.0)))
        for n in range(600) for k in (1, 2)
    ]  # fmt: skip
    (bundle,) = groups(FILE, "bundle")
    (points,) = sums(rows, [bundle]).values()
    made = _one("bundle", points, 300, 24, 0.45 * bundle.octets_per_second, None)
    assert made["shown"]
    assert made["breach"]["probability"] < 0.1, "840 to 850 of 900 by then"
    made = _one("bundle", points, 300, 24, 0.4225 * bundle.octets_per_second, None)
    assert made["breach"]["probability"] > 0.6
    assert 0 < made["breach"]["seconds_until_likely"] < 7200
