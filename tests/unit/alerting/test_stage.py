"""The alarm's life: confirm, raise, update, clear, re-open, flap; digest; checkpoints."""

import json
from typing import Any

import msgspec
import pytest

from alerting.config import AlertingSettings
from alerting.words.alert import Alert, canonical
from alerting.words.wording import human
from runtime.checkpoint import Snapshot
from telemetry.batch import batch_from_rows
from telemetry.schemas import ALARM, FrameFlag
from tocsin.testing.alarms import START_NS, TICK_NS, AlarmWorld, flood


def down(world: AlarmWorld) -> dict[str, Any]:
    return world.silence(world.series("exporter", exporter="127.1.0.1"))


def bytes_of(kept: Snapshot) -> dict[str, bytes]:
    return {name: b"".join(rows.tobytes() for _, rows in kept.read(name)) for name in kept.names()}


def test_an_alarm_is_raised_once_and_cleared_after_quiet_ticks() -> None:
    world = AlarmWorld()
    raised = world.tick([down(world)])
    assert [a.state for a in raised] == ["raised"]
    assert [world.tick([down(world)]) for _ in range(10)] == [[]] * 10
    assert [len(world.tick()) for _ in range(3)] == [0, 0, 1]
    assert world.stage.raised == 0


def test_one_quiet_tick_clears_nothing() -> None:
    world = AlarmWorld()
    world.tick([down(world)])
    for _ in range(10):
        assert world.tick() == []
        assert world.tick() == []
        assert world.tick([down(world)]) == []
    assert world.stage.raised == 1


def test_the_cleared_alarm_keeps_id_and_times() -> None:
    world = AlarmWorld()
    (raised,) = world.tick([down(world)])
    cleared = next(a for _ in range(3) for a in world.tick())
    assert (cleared.id, cleared.raised_ns, cleared.occurrence) == (
        raised.id, raised.raised_ns, raised.occurrence,
    )  # fmt: skip
    assert cleared.state == "cleared"
    assert cleared.severity == raised.severity  # cleared is a state, not a severity
    assert cleared.cleared_ns == cleared.changed_ns == START_NS + 4 * TICK_NS
    assert raised.cleared_ns == 0
    assert raised.change != cleared.change


@pytest.mark.parametrize(("quiet_ticks", "occurrence"), [(10, 1), (400, 2)])
def test_a_raise_soon_after_is_the_same_occurrence(quiet_ticks: int, occurrence: int) -> None:
    world = AlarmWorld()
    (first,) = world.tick([down(world)])
    for _ in range(quiet_ticks):
        world.tick()
    (second,) = world.tick([down(world)])
    assert second.id == first.id
    assert second.occurrence == occurrence
    assert (second.raised_ns == first.raised_ns) is (occurrence == 1)


def test_a_flapping_alarm_is_said_once_and_cleared_when_it_has_been_calm() -> None:
    world = AlarmWorld()
    alerts: list[Alert] = []
    for _ in range(30):
        alerts += world.tick([down(world)])
        for _ in range(5):
            alerts += world.tick()
    assert [a.state for a in alerts] == ["raised", "cleared"] * 5 + ["raised"]
    assert alerts[-1].title.endswith("(flapping)")
    calm = [a for _ in range(200) for a in world.tick()]
    assert [a.state for a in calm] == ["cleared"]
    assert not calm[0].title.endswith("(flapping)")
    assert world.stage.raised == 0


def test_an_attack_that_grows_is_updated() -> None:
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = flood()
    states: list[str] = []
    when: list[int] = []
    for score in (4.0, 4.0, 5.0, 9.0, *[9.0] * 30):
        row = world.anomaly(series, "attack", score=score, detail={"octets_per_second": 1e8})
        states += [a.state for a in world.tick([row])]
        when += [world.now_ns] * (len(states) - len(when))
    assert states == ["raised", "updated"]
    assert when[1] - when[0] == 60_000_000_000  # growth is told once a minute at most


def test_an_incomplete_tick_neither_raises_nor_counts_as_quiet() -> None:
    world = AlarmWorld()
    world.tick([down(world)])
    short = [world.frame({world.interface("ams1", 1): 3}, incomplete=True)]
    assert [world.tick(frames=short) for _ in range(20)] == [[]] * 20
    assert world.stage.raised == 1
    assert FrameFlag.INCOMPLETE  # what marks them


def test_a_frontier_that_stands_still_ends_no_tick() -> None:
    world = AlarmWorld()
    world.tick([down(world)])
    for _ in range(10):
        assert list(world.stage.advance(world.now_ns)) == []
    assert world.stage.raised == 1


def test_alarms_are_bounded_and_what_does_not_fit_is_counted() -> None:
    world = AlarmWorld(AlertingSettings(alarms_max=2))
    rows = [world.silence(world.series("exporter", exporter=f"192.0.2.{i}")) for i in range(5)]
    assert len(world.tick(rows)) == 2
    assert world.context.metrics.value("alarms_held_total", reason="too_many") == 3


def test_what_is_over_budget_is_in_the_hours_digest() -> None:
    world = AlarmWorld()
    face = world.interface("ams1", 1)
    made = []
    hour = 3_600_000_000_000
    world.now_ns = world.now_ns // hour * hour + hour - 50_000_000_000
    for i in range(1500):
        row = world.anomaly(face, "point", disposition="digest", score=2.0 + (i == 7))
        made += [b for b in world.batches([row]) if b.schema.name == "digest"]
    assert [int(b["findings"].sum()) for b in made] == [10, 720, 720]
    assert world.context.metrics.value("digest_findings_total") == 1500
    assert made[0].texts("entity") == ["ams1:et-0/0/1"]
    assert made[0].texts("detector") == ["point"]
    assert max(float(b["score"][0]) for b in made) == 3.0
    hours = [int(b["hour_start_ns"][0]) for b in made]
    assert all(start % hour == 0 for start in hours)


def test_the_stage_goes_on_bit_for_bit_from_a_snapshot() -> None:
    def play(world: AlarmWorld, ticks: range) -> bytes:
        said = b""
        for i in ticks:
            rows = [down(world)] if i % 7 < 4 else []
            if i % 5 < 3:
                rows += [
                    world.anomaly(world.interface("lon1", 2), "level", disposition="digest"),
                    world.anomaly(world.interface("lon1", 1), "level", since_ns=START_NS),
                ]
            # What one node has the next one feels, as a rule after another time.
            world.stage.process(batch_from_rows(ALARM, [
                world.report(kind, node, severity)
                for kind, node, after in (("los", "ams1", 0), ("bgp", "fra2", 2 + i // 40 % 2))
                for severity, at in (("major", after), ("cleared", after + 20)) if i % 40 == at
            ]))  # fmt: skip
            said += b"".join(canonical(a) for a in world.tick(rows))
        return said

    whole, cut = AlarmWorld(), AlarmWorld()
    expected = play(whole, range(900))
    said = play(cut, range(431))
    kept = Snapshot()
    cut.stage.snapshot(kept)
    cut.stage = cut.make_stage()
    cut.stage.restore(kept)
    companions = cut.stage.incidents.grouping.companions.snapshot()
    assert companions["own_delays"]
    assert said + play(cut, range(431, 900)) == expected
    assert expected.count(b'"cleared"') > 3
    ends = [Snapshot(), Snapshot()]
    for world, end in zip((whole, cut), ends, strict=True):
        world.stage.snapshot(end)
    assert bytes_of(ends[0]) == bytes_of(ends[1])


def test_the_alert_is_canonical_json_and_reads_well() -> None:
    world = AlarmWorld()
    (alert,) = world.tick([down(world)])
    data = canonical(alert)
    assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode() == data
    assert human(alert, delay_seconds=11.2) == f"FOUND major: {alert.title} (11 s)"
    for state, parent, said in (
        ("closed", "", "CLEARED"),
        ("cleared", "", "CLEARED"),
        ("cleared", "1", "MERGED"),
    ):
        over = msgspec.structs.replace(alert, state=state, parent=parent)
        assert human(over) == f"{said} major: {alert.title}"
    explain = alert.explain
    assert explain["what"] == alert.title
    assert explain["where"] == "ams1"
    assert explain["trend"] == "new"
    assert explain["sure"].startswith("certain")
    assert explain["do"]
    assert explain["unit"] == "{record}/s"


def test_incidents_name_their_root_alarm_and_are_new_for_each_occurrence() -> None:
    world = AlarmWorld()
    ids = []
    for _ in range(2):
        batches = world.batches([down(world)])
        (incident,) = [b for b in batches if b.schema.name == "incident"]
        (alarm,) = [b for b in batches if b.schema.name == "alarm"]
        assert json.loads(incident.texts("alarms")[0]) == [f"{int(alarm['alarm_id'][0]):016x}"]
        ids.append(int(incident["incident_id"][0]))
        for _ in range(1000):
            world.tick()
    assert ids[0] != ids[1]


def test_what_the_budget_has_not_let_in_is_no_alarm_until_it_does() -> None:
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = flood()

    def tick(disposition: str) -> list[str]:
        row = world.anomaly(
            series, "attack", disposition=disposition, detail={"octets_per_second": 1e8}
        )
        return [a.state for a in world.tick([row])]

    assert [tick("digest") for _ in range(5)] == [[]] * 5
    assert tick("alert") == ["raised"]  # it was confirmed while it waited


def test_a_score_that_grows_alone_is_no_news() -> None:
    """An attack of the same size is told again only where it is surer in words."""
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    world.samples[series] = flood()
    told = []
    for tick in range(60):
        score = 8.0 * (1 + tick // 12)
        told += world.tick([world.anomaly(series, "attack", since_ns=1, score=score)])
    assert [alert.state for alert in told] == ["raised"]
    larger = world.anomaly(series, "attack", since_ns=1, score=200.0, actual=2000.0)
    assert [alert.state for alert in world.tick([larger])] == ["updated"]
