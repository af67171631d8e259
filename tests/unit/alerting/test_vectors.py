"""Attacks of several vectors: one alarm that names each, with the filter against each, also where one joins later."""

from typing import Any

from alerting.words.alert import Alert
from tests.support.flow_filter import read_filters
from tocsin.testing.alarms import AlarmWorld, talker

HOST, PREFIX = "198.51.100.7", "198.51.100.0/24"
SAMPLES: dict[str, dict[str, Any]] = {
    "123": {"protocol": 17, "source_port": 123, "octets": 468_000, "packets": 1000, "tcp_flags": 0},
    "389": {"protocol": 17, "source_port": 389, "octets": 1_400_000, "packets": 1000, "tcp_flags": 0},
    "syn": {"protocol": 6, "destination_port": 443, "tcp_flags": 2, "octets": 5200, "packets": 100},
}  # fmt: skip


class Attacked:
    """A prefix whose vectors are played tick by tick."""

    def __init__(self) -> None:
        self.world = AlarmWorld()
        self.series = {}
        for name, fields in SAMPLES.items():
            one = self.world.series("vector", destination_prefix=PREFIX, vector=name)
            self.series[name] = one
            self.world.samples[one] = tuple(
                talker(source=f"203.0.113.{i}", destination=HOST, **fields) for i in range(40)
            )

    def play(self, *vectors: str, ticks: int = 3, more: Any = ()) -> list[Alert]:
        """Return what is told of some ticks of these vectors, the first the strongest."""
        told = []
        for _ in range(ticks):
            rows = [
                self.world.anomaly(self.series[name], "flood", score=9.0 - n)
                for n, name in enumerate(vectors)
            ]
            told += self.world.tick([*rows, *more])
        return told


def rules(alert: Alert) -> list[list[str]]:
    """Return the source port or the flags of each rule."""
    found = read_filters(alert.explain["do"])
    return [one.parts.get("source-port") or one.parts["tcp-flags"] for one in found]


def test_two_vectors_are_one_alarm_with_a_filter_against_each() -> None:
    (alert,) = Attacked().play("syn", "123")
    assert (alert.state, alert.kind, alert.entity) == ("raised", "volumetric-attack", PREFIX)
    assert alert.title.startswith(f"SYN flood on {HOST}")
    assert any(why.startswith(f"and NTP amplification on {HOST}") for why in alert.explain["why"])
    assert rules(alert) == [["syn&!ack"], ["=123"]]


def test_a_vector_beside_what_the_whole_prefix_shows_is_named_too() -> None:
    attacked = Attacked()
    whole = attacked.world.series("destination_prefix", destination_prefix=PREFIX)
    attacked.world.samples[whole] = attacked.world.samples[attacked.series["123"]]
    told = attacked.play("123", "syn", more=[attacked.world.anomaly(whole, "attack")])
    (alert,) = told
    assert alert.title.startswith(f"NTP amplification on {HOST}")
    assert rules(alert) == [["=123"], ["syn&!ack"]]
    assert len(alert.explain["series"]) == 3


def test_a_vector_that_joins_later_is_told_once() -> None:
    attacked = Attacked()
    (raised,) = attacked.play("123")
    assert attacked.play("123", ticks=20) == []
    (joined,) = attacked.play("123", "389", ticks=30)
    assert (joined.state, raised.id) == ("updated", joined.id)
    assert rules(joined) == [["=123"], ["=389"]]
    assert attacked.play("389", "123", ticks=30) == []  # the stronger one changes: no news
    (turned,) = attacked.play("syn", ticks=30)
    assert turned.title.startswith(f"SYN flood on {HOST}")
    assert rules(turned) == [["syn&!ack"]]


def test_vectors_of_an_attack_are_forgotten_with_its_end() -> None:
    attacked = Attacked()
    attacked.play("123", "389")
    assert [alert.state for alert in attacked.play(ticks=6)] == ["cleared"]
    assert [alert.state for alert in attacked.play("123")] == ["raised"]
    assert [alert.state for alert in attacked.play("123", "389", ticks=30)] == ["updated"]


def test_an_alarm_of_a_checkpoint_without_vectors_is_not_told_again() -> None:
    attacked = Attacked()
    attacked.play("123")
    (alarm,) = attacked.world.stage._own.alarms.values()
    alarm.parts = []
    assert attacked.play("123", ticks=20) == []
    assert [a.state for a in attacked.play("123", "syn", ticks=20)] == ["updated"]
