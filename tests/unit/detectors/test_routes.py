"""Hijacks, takeovers and leaks are told and cleared; what the internet does all day is not."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.config import RouteSettings
from detectors.routes import CLAIMS_MAX, RouteWatch
from runtime.checkpoint import Snapshot, read_array, write_array
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import ROUTE
from tests.support.bmp_messages import START_NS
from tests.support.route_world import RouteWorld
from tests.unit.correlator.test_routing import ended, gone, route
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

HOUR_NS = 3600 * 10**9
OURS = {"198.51.100.0/24": "shop", "2001:db8::/32": "shop"}
KINDS = ("prefix-hijack", "subprefix-hijack", "origin-takeover", "route-leak")


def make_watch(**settings: Any) -> RouteWatch:
    return RouteWatch(RouteSettings(**settings), make_context("routes"), own=OURS)


class Told:
    """A watch that has learned that AS64500 originates what is ours, and what it says next."""

    def __init__(self, **settings: Any) -> None:
        self.watch = make_watch(**settings)
        self.now_ns = START_NS
        self.say(route("198.51.100.0/24", 64500), route("2001:db8::/32", 64500))
        self.now_ns += 2 * HOUR_NS

    def say(self, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        self.now_ns += 10**9
        return rows_of(self.watch.process(batch(*rows, time_ns=self.now_ns), self.now_ns), "alarm")


def batch(*rows: dict[str, Any], time_ns: int) -> Batch:
    return batch_from_rows(ROUTE, [{"time_ns": time_ns, **row} for row in rows])


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        ("198.51.100.0/24", "prefix-hijack"), ("198.51.100.128/25", "subprefix-hijack"),
        ("2001:db8::/32", "prefix-hijack"), ("2001:db8:7::/48", "subprefix-hijack"),
    ],
)  # fmt: skip
def test_a_prefix_of_ours_from_elsewhere_is_told_until_all_have_withdrawn_it(
    prefix: str, kind: str
) -> None:
    told = Told()
    (alarm,) = told.say(route(prefix, 64666))
    assert (alarm["kind"], alarm["severity"]) == (kind, "critical")
    assert alarm["entity"] in OURS
    assert f"AS64666 announces {prefix}" in alarm["specific_problem"]
    assert "AS64500" in alarm["specific_problem"]
    # Who reads the alert is told.
    assert "announce the parts of" in json.loads(alarm["explain"])["do"]
    assert told.say(route(prefix, 64666, peer="192.0.2.2")) == []  # a second peer: the same alarm
    assert told.say(gone(prefix)) == []
    (clear,) = told.say(gone(prefix, peer="192.0.2.2"))
    assert (clear["state"], clear["alarm_id"]) == ("cleared", alarm["alarm_id"])


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(route("198.51.100.0/25", 64500), id="a part, by its owner"),
        pytest.param(route("198.51.0.0/16", 64666), id="a wider block"),
        pytest.param(route("203.0.113.0/24", 64666), id="not ours"),
        pytest.param(route("198.51.100.0/24", 0), id="a set of origins"),
        pytest.param(route("198.51.100.0/24", 64666, rib=2), id="what a router sends"),
        pytest.param(route("198.51.100.0/24", 64666, safi=128), id="a VPN's"),
        pytest.param(route("198.51.100.0/24", 64666, peer_distinguisher=7), id="of a VRF"),
        pytest.param(gone("198.51.100.0/24"), id="withdrawn"),
        pytest.param(route("0.0.0.0/0", 64666), id="default route"),
    ],
)
def test_what_is_no_hijack(row: dict[str, Any]) -> None:
    assert Told().say(row) == []


def test_who_may_is_configured_or_learned_in_the_first_hour() -> None:
    told = Told(own_as=(64501,), own_prefixes={"203.0.113.0/24": (64502,), "192.0.2.0/24": ()})
    assert told.say(route("198.51.100.0/24", 64501)) == []
    assert told.say(route("203.0.113.0/24", 64502)) == []
    assert len(told.say(route("203.0.113.0/24", 64500))) == 1
    assert told.say(route("192.0.2.0/24", 7)) == []  # the first hour of this prefix begins
    assert told.say(route("192.0.2.0/24", 8)) == []
    told.now_ns += 2 * HOUR_NS
    assert told.say(route("192.0.2.0/24", 8)) == []
    assert len(told.say(route("192.0.2.0/24", 9))) == 1


def test_another_origin_from_the_same_peer_ends_it_and_so_does_its_going_down() -> None:
    told = Told()
    told.say(route("198.51.100.0/24", 64666))
    (clear,) = told.say(route("198.51.100.0/24", 64500, change=4))
    assert clear["state"] == "cleared"
    told.say(route("198.51.100.0/24", 64666))
    (clear,) = told.say(ended())
    assert clear["state"] == "cleared"


def test_what_stands_for_a_week_is_taken_as_right() -> None:
    told = Told()
    told.say(route("198.51.100.0/24", 64666))
    told.now_ns += 8 * 24 * HOUR_NS
    (clear,) = told.say(route("203.0.113.0/24", 1))
    assert (clear["state"], "taken as right" in clear["additional_text"]) == ("cleared", True)
    assert told.say(route("198.51.100.0/24", 64666, peer="192.0.2.9")) == []


def test_a_checkpoint_keeps_claims_origins_and_growth(tmp_path: Any) -> None:
    del tmp_path
    told, other = Told(), Told()
    told.say(route("198.51.100.0/24", 64666))
    kept = Snapshot()
    told.watch.snapshot(kept)
    other.watch = make_watch()
    other.watch.restore(kept)
    other.now_ns = told.now_ns
    for row in (
        gone("198.51.100.0/24"), route("198.51.100.0/24", 64500), route("198.51.100.0/24", 7),
    ):  # fmt: skip
        assert told.say(row) == other.say(row)


def test_a_checkpoint_of_before_is_taken() -> None:
    told, kept, older = Told(), Snapshot(), Snapshot()
    told.say(route("198.51.100.0/24", 64666))
    told.watch.snapshot(kept)
    data = read_array(kept, "routes")
    assert data is not None
    fields = msgspec.msgpack.decode(data.tobytes())
    del fields["expire_due_ns"]
    write_array(older, "routes", np.frombuffer(msgspec.msgpack.encode(fields), np.uint8))
    told.watch = make_watch()
    told.watch.restore(older)
    (clear,) = told.say(gone("198.51.100.0/24"))
    assert clear["state"] == "cleared"


def test_many_parts_of_one_prefix_are_one_alarm_and_claims_are_bounded() -> None:
    told = Told()
    parts = [route(f"198.51.100.{i}/32", 64666) for i in range(256)]
    (alarm,) = told.say(*parts)
    assert "and 255 more" in alarm["specific_problem"]
    rows = [route(f"2001:db8:0:{i:x}::/64", 64666) for i in range(CLAIMS_MAX)]
    told.say(*rows)
    assert told.watch.claims == CLAIMS_MAX
    assert {alarm["state"] for alarm in told.say(ended())} == {"cleared"}
    assert told.watch.claims == 0


def test_a_wrong_own_prefix_is_said() -> None:
    with pytest.raises(ConfigError, match=r"own_prefixes: .*has host bits set"):
        make_watch(own_prefixes={"198.51.100.7/24": ()})


def test_faults_drawn_at_random_are_found_and_churn_raises_nothing(deep: bool) -> None:
    """Recall >= .9 within two minutes, at most one false alarm a day."""
    days, worlds = (2, 10) if deep else (0.3, 2)
    found, faults, false = 0, 0, []
    for seed in range(worlds):
        world = RouteWorld(seed, prefixes=3000 if deep else 1500)
        minutes = round(days * 1440)
        for number, start in enumerate(range(75, minutes - 125, 60)):
            world.plan(KINDS[(number + seed) % len(KINDS)], start)
        for _ in range(minutes):
            world.step()
        done, wrong = world.judge()
        found, faults, false = found + done, faults + len(world.faults), [*false, *wrong]
    assert faults >= 2 * len(KINDS)
    assert found >= 0.9 * faults
    assert len(false) <= days * worlds
