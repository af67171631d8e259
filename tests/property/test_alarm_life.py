"""Whatever comes in whatever order: the life of every alarm stays a life."""

from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from alerting.config import AlertingSettings
from alerting.records.alarm import KINDS, SEVERITIES
from alerting.words.alert import Alert, canonical
from runtime.checkpoint import Snapshot
from tocsin.testing.alarms import LINKS, AlarmWorld, flood

CLEAR = 3
FLAPS = 4


class AlarmLife(RuleBasedStateMachine):
    """Plays ticks of any faults to two stages; one of them is restarted whenever hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        chosen = AlertingSettings(
            clear_ticks=CLEAR, flap_changes=FLAPS, flap_seconds=120.0, reopen_seconds=60.0,
            deviation_ticks=2, alarms_max=6,
        )  # fmt: skip
        self.world, self.other = AlarmWorld(chosen), AlarmWorld(chosen)
        self.state: dict[str, str] = {}
        self.last: dict[str, Alert] = {}
        self.shown: dict[str, int] = {}  # entity: end of the last tick whose rows named it

    def rows(self, world: AlarmWorld, faults: set[str]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for fault in sorted(faults):
            kind, _, entity = fault.partition(" ")
            if kind == "link":
                made += [world.silence(s) for s in world.ends(entity)]
            elif kind == "exporter":
                made.append(world.silence(world.series("exporter", exporter=entity)))
            elif kind == "attack":
                series = world.series("destination_prefix", destination_prefix=entity)
                world.samples[series] = flood()
                made.append(world.anomaly(series, "attack", detail={"octets_per_second": 1e8}))
            elif kind == "scan":
                series = world.series("source_prefix", source_prefix=entity)
                made.append(world.anomaly(series, "scan"))
            else:
                made.append(world.anomaly(world.interface("lon1", int(entity)), "level"))
        return made

    @rule(
        faults=st.sets(
            st.sampled_from(
                [
                    *[f"link {name}" for name in LINKS],
                    "exporter 127.1.0.1",
                    "exporter 127.1.0.9",
                    "attack 198.51.100.0/24",
                    "scan 192.0.2.0/24",
                    "level 7",
                    "level 8",
                ]
            ),
            max_size=4,
        ),
        ticks=st.integers(1, 5),
    )
    def play(self, faults: set[str], ticks: int) -> None:  # fmt: skip
        for _ in range(ticks):
            said = self.world.tick(self.rows(self.world, faults))
            again = self.other.tick(self.rows(self.other, faults))
            assert [canonical(a) for a in said] == [canonical(a) for a in again]
            assert len({a.id for a in said}) == len(said)  # one change of an alarm a tick
            for alert in said:
                self.check(alert)

    @rule(ticks=st.integers(1, 40))
    def rest(self, ticks: int) -> None:
        self.play(set(), ticks)

    @rule()
    def restart(self) -> None:
        kept = Snapshot()
        self.other.stage.snapshot(kept)
        self.other.stage = self.other.make_stage()
        self.other.stage.restore(kept)

    def check(self, alert: Alert) -> None:
        before = self.state.get(alert.id, "cleared")
        allowed = {
            "cleared": {"raised"}, "raised": {"updated", "cleared"}, "updated": {"updated", "cleared"},
        }  # fmt: skip
        assert alert.state in allowed[before], f"{before} then {alert.state}"
        assert alert.kind in KINDS
        assert alert.severity in SEVERITIES
        assert alert.changed_ns == self.world.now_ns
        assert alert.raised_ns <= alert.changed_ns
        assert (alert.cleared_ns != 0) == (alert.state == "cleared")
        last = self.last.get(alert.id)
        if last is not None:
            assert (alert.kind, alert.entity) == (last.kind, last.entity)
            assert alert.changed_ns > last.changed_ns
            if alert.state != "raised":
                assert alert.raised_ns == last.raised_ns
                assert alert.occurrence == last.occurrence
            elif alert.raised_ns == last.raised_ns:  # re-opened
                assert alert.occurrence == last.occurrence
                assert alert.changed_ns - last.cleared_ns <= 60_000_000_000
        self.state[alert.id] = alert.state
        self.last[alert.id] = alert

    @invariant()
    def what_is_up_was_told(self) -> None:
        up = sum(state != "cleared" for state in self.state.values())
        assert self.world.stage.raised == up
        assert self.world.stage.raised <= 6

    def teardown(self) -> None:
        """In the end everything clears, flapping or not."""
        self.play(set(), 30)
        assert set(self.state.values()) <= {"cleared"}
        assert self.world.stage.raised == 0


# No shrinking: a failing life of 25 rules is readable, and shrinking one takes minutes.
AlarmLife.TestCase.settings = settings(
    stateful_step_count=25, deadline=None, phases=[Phase.reuse, Phase.generate]
)
TestAlarmLife = AlarmLife.TestCase
