"""Security detectors behind a history of other ticks than those that follow: nothing false, attacks found."""

from typing import Any

import numpy as np
import pytest

from correlator.security_views import SecurityViewsSettings, security_views
from detectors.detector import Finding
from detectors.security.detector import SECURITY, SecurityDetector
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEWS = {
    view.name: view
    for view in security_views(SecurityViewsSettings(), tick_seconds=5.0, lateness_seconds=1.0)
}
CROWD = 40
# Of each detector: flows a second of a host or interface in peace, its other measures a flow; what the
# attacker shows in a tick of 5 s; seconds of the live ticks that are watched before it.
CASES: dict[str, tuple[float, dict[str, float], dict[str, float], int]] = {
    "host_scan": (0.4, {"distinct_destination": 0.5, "octets": 44},
                  {"flows": 90, "distinct_destination": 85, "octets": 4e3}, 2_000),
    "slow_scan": (0.002, {"distinct_destination": 0.5, "octets": 44},
                  {"flows": 60, "distinct_destination": 55, "octets": 3e3}, 30 * 3_600),
    "login_tries": (0.02, {"distinct_destination": 0.3, "octets": 3e3},
                    {"flows": 40, "distinct_destination": 1, "octets": 1e5}, 2_500),
    "dns_tunnel": (0.1, {"distinct_destination": 0.5, "octets": 120, "packets": 1},
                   {"flows": 60, "packets": 60, "octets": 12e3, "distinct_destination": 1}, 2_000),
    "upload": (0.8, {"distinct_destination": 0.2, "octets": 1e6},
               {"flows": 60, "octets": 6e8, "distinct_destination": 1}, 3_700),
    "flood": (0.2, {"packets": 3, "octets": 300, "distinct_source": 1},
              {"flows": 900, "packets": 6e4, "octets": 5e6, "distinct_source": 500}, 2_000),
    "bogon": (0.05, {"octets": 60, "distinct_source": 0.8},
              {"flows": 90, "octets": 5e3, "distinct_source": 85}, 2_000),
    "lone_sources": (0.5, {"octets": 60, "distinct_source": 0.8},
                     {"flows": 250, "octets": 5e4, "distinct_source": 240}, 2_000),
    "beacon": (0.004, {"octets": 500, "octets_m2": 2e4},
               {"flows": 5, "octets": 2_500, "octets_m2": 0}, 12 * 3_600),
}  # fmt: skip
# (length of a tick of history, from one to the next) in ticks of what follows.
HISTORIES = {
    "none": (1, 1, 0),
    "far-apart": (1, 180, 150),
    "long": (180, 180, 60),
    "short": (0.2, 0.2, 900),
}


class Network:
    """Hosts that go on as ever, and one that is not heard of before it attacks."""

    def __init__(self, kind: str) -> None:
        self.kind, self.one = kind, SECURITY.get(kind).make()
        self.view = VIEWS[self.one.view]
        self._rate, self._each, self._attack, _ = CASES[kind]
        self._random = np.random.default_rng(11)
        self.at_s = float(MONDAY_S)

    def tick(self, length_s: float, step_s: float, *, struck: bool = False) -> list[Finding]:
        flows = np.append(self._random.poisson(self._rate * length_s, CROWD), 0.0)
        columns = {name: each * flows for name, each in self._each.items()} | {"flows": flows}
        if struck:
            for name, value in self._attack.items():
                columns[name][CROWD] = value
        spoke = np.flatnonzero(flows >= self.view.flows_min)
        batch = frame(
            self.view, round(self.at_s) * SECOND, {n: c[spoke] for n, c in columns.items()},
            rows=spoke.tolist(), tick_seconds=length_s,
        )  # fmt: skip
        self.at_s += step_s
        found = learned(self.one, batch)
        assert all(struck and spoke[one.row] == CROWD for one in found), "nobody but the attacker"
        return found


def learned(one: SecurityDetector, batch: Any) -> list[Finding]:
    """Return what a detector finds in a frame, which it then learns as the stage does."""
    found = one.find(batch)
    calm = np.ones(batch.rows - 1, bool)
    calm[[f.row for f in found]] = False
    one.learn(batch, calm)
    return found


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("kind", SECURITY.kinds())
def test_no_history_makes_peace_an_attack_or_hides_one(kind: str, history: str) -> None:
    network = Network(kind)
    tick_s, (length, step, ticks) = network.view.tick_seconds, HISTORIES[history]
    for _ in range(ticks):
        network.tick(length * tick_s, step * tick_s)
    for _ in range(round(CASES[kind][3] / tick_s)):
        network.tick(tick_s, tick_s)
    assert network.one.warm, "it knows what is usual by now"
    hits: list[Finding] = []
    for _ in range(30 if kind == "beacon" else 2):
        hits += network.tick(tick_s, tick_s, struck=True)
    assert len(hits) >= 1


@pytest.mark.parametrize("kind", [kind for kind in SECURITY.kinds() if kind != "beacon"])
def test_ticks_of_another_length_teach_nothing_of_these(kind: str) -> None:
    network = Network(kind)
    tick_s = network.view.tick_seconds
    while not network.one.warm:
        network.tick(tick_s, tick_s)
    network.tick(12 * tick_s, 12 * tick_s)
    assert not network.one.warm, "only hard evidence counts until these are known"


def test_ticks_far_apart_teach_nothing_of_what_adds_up() -> None:
    network = Network("login_tries")
    for _ in range(400):
        network.tick(5.0, 900.0)
    assert not network.one.warm
