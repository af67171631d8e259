"""Reports, orders, windows, time and restarts in any order: the table says what is, and people hear of it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from alerting.config import AlertingSettings, RouteSettings, SinkSettings
from alerting.life.load import load_of
from alerting.outbox.outbox import Outbox
from alerting.words.alert import Alert, canonical
from alerting.words.alerts import alerts_of, notices_of
from alerting.words.delivery import Verdict
from runtime.checkpoint import Snapshot
from runtime.clock import ManualClock
from telemetry.batch import Batch
from telemetry.foreign_alarm import foreign_alarm_id
from telemetry.identity import id_text
from telemetry.schemas import ALARM, INCIDENT
from telemetry.x733 import CLEARED, SEVERITIES
from tocsin.files.topologies import network_of
from tocsin.testing import make_context
from tocsin.testing.alarms import START_NS, AlarmWorld

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
REOPEN, WAIT, SILENT = 900 * SECOND, 15 * SECOND, 7200 * SECOND
KEPT = DAY  # so long after its end an alarm is known
# A ring with d and e behind it: what d and e say while c-d is cut is a symptom.
PAIRS = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e")]
CUT = ("linkDown", "c:3")
ALARMS = (CUT, ("fan", "a"), ("psu", "a"), ("bgpDown", "d"), ("bgpDown", "e"), ("fan", "e"))
NODES = ("a", "c", "d", "e")
alarms = st.sampled_from(ALARMS)
nodes = st.sampled_from(NODES)
severities = st.sampled_from(("critical", "major", "minor"))
spans = st.sampled_from((30, 600, 5000, 20_000, 100_000))


SINKS = AlertingSettings(
    sinks={
        "alarms": SinkSettings(kind="stdout", send="alarms"),
        "incidents": SinkSettings(kind="stdout"),
        "chief": SinkSettings(kind="stdout"),
    },
    routes={
        "all": RouteSettings(
            to=("alarms", "incidents"), escalate_minutes=5.0, escalate_to=("chief",)
        )
    },
)


@dataclass
class Life:
    """What the rules of the life of one alarm make of it."""

    severity: str = ""
    state: str = ""  # "" = not known
    cleared_ns: int = 0
    heard_ns: int = 0
    acknowledged: str = ""

    @property
    def up(self) -> bool:
        return self.state == "up"


@dataclass
class Hide:
    """A window, said as plainly as can be."""

    kind: str
    start_ns: int
    end_ns: int
    about: Callable[[tuple[str, str]], bool]
    daily: bool = False
    over_ns: int = 0  # spans that began by then are over since
    spared: set[tuple[str, str]] = field(default_factory=set)

    def until(self, now_ns: int) -> int:
        """Return when the span that is on ends, 0 where none is."""
        start_ns = self.start_ns
        if self.daily and now_ns >= start_ns:
            start_ns += (now_ns - start_ns) // DAY * DAY
        end_ns = start_ns + self.end_ns - self.start_ns
        return end_ns if start_ns <= now_ns < end_ns and start_ns > self.over_ns else 0


TEXTS = ("state", "severity", "kind", "entity", "suppressed", "operator_state")
NUMBERS = ("alarm_id", "changed_ns", "raised_ns", "incident_id")


def number(alarm: tuple[str, str]) -> int:
    return foreign_alarm_id("traps", *alarm)


class AlarmTable(RuleBasedStateMachine):
    """Plays the same to two stages, one of which is restarted at will, and to `Life` and `Hide`."""

    def __init__(self) -> None:
        super().__init__()
        chosen = AlertingSettings(flap_changes=10_000, silent_hours_max=SILENT / 3600e9)
        self.worlds = [AlarmWorld(chosen, network_of(PAIRS, [])) for _ in range(2)]
        self.life = {alarm: Life() for alarm in ALARMS}
        self.hides: dict[str, Hide] = {}
        self.names = 0
        self.now_ns = START_NS
        self.said: dict[str, Alert] = {}  # by alarm, the last of each
        self.open: dict[str, Alert] = {}  # incidents of which people were told, and not of the end
        self.rows: list[dict[str, Any]] = []
        self.came: list[int] = []  # times at which an alarm came before people
        self.seen: set[tuple[str, str]] = set()
        self.cut_ended_ns = -WAIT
        self.folder = tempfile.TemporaryDirectory()
        self.outbox = self.start_outbox()
        self.ticks = 0
        # What each thinks is up.
        self.has: dict[str, set[str]] = {name: set() for name in SINKS.sinks}

    def start_outbox(self) -> Outbox:
        context = make_context("outbox", clock=ManualClock(START_NS))
        made = Outbox(Path(self.folder.name) / "o.sqlite", SINKS, context)
        made.start()
        assert made._db is not None
        made._db.execute("pragma synchronous = off")  # no power fails here
        return made

    # ---- playing

    def play(self, *given: Callable[[AlarmWorld], Any], seconds: float = 1.0) -> None:
        """Let both stages take a step of time, and what is given, and listen."""
        made = [w.second(*(one(w) for one in given), seconds=seconds) for w in self.worlds]
        self.now_ns = self.worlds[0].now_ns
        said, again = ([canonical(one) for one in alerts(batches)] for batches in made)
        assert said == again, "a restart changes nothing of what is said"
        for alert in alerts(made[0], "alarm"):
            self.said[alert.id] = alert
        for notice in alerts(made[0], "incident"):
            if notice.state == "cleared":
                self.open.pop(notice.incident, None)
            else:
                self.open[notice.incident] = notice
        self.rows += [row for b in made[0] if b.schema.name == "alarm" for row in rows_of(b)]
        self.deliver(made[0])

    def deliver(self, made: list[Batch]) -> None:
        """Let sinks have what the outbox makes of it."""
        self.ticks += 1
        told, incidents = ([b for b in made if b.schema is one] for one in (ALARM, INCIDENT))
        self.outbox.commit(self.ticks, told, self.now_ns, incidents=incidents)
        while due := self.outbox.due(self.now_ns, 1000):
            for one in due:
                if msgspec.json.decode(one.body, type=Alert).state in ("cleared", "closed"):
                    self.has[one.sink].remove(one.alarm)  # it was told that it began
                else:
                    self.has[one.sink].add(one.alarm)
            sent = [Verdict(number=one.number, key=one.key, sent=True) for one in due]
            self.outbox.mark(sent, self.now_ns)

    # ---- what happens

    @rule(alarm=alarms, severity=severities)
    def report(self, alarm: tuple[str, str], severity: str) -> None:
        self.play(lambda w: w.report(*alarm, severity, probable_cause=cause(alarm)))
        life = self.life[alarm]
        worse = life.severity and SEVERITIES.index(severity) < SEVERITIES.index(life.severity)
        if life.up:
            anew = False
        else:
            anew = not life.cleared_ns or self.now_ns - life.cleared_ns > REOPEN
            if life.acknowledged == "until-clear" or anew:
                life.acknowledged = ""
        if worse and life.acknowledged == "until-worse":
            life.acknowledged = ""
        life.severity, life.heard_ns, life.state, life.cleared_ns = severity, self.now_ns, "up", 0
        self.settle()

    @rule(alarm=alarms)
    def clear(self, alarm: tuple[str, str]) -> None:
        self.play(lambda w: w.report(*alarm, CLEARED))
        self.end(alarm)
        self.settle()

    @rule(alarm=alarms, until=st.sampled_from(("clear", "worse")), whole=st.booleans())
    def acknowledge(self, alarm: tuple[str, str], until: str, *, whole: bool) -> None:
        about, meant = self.about(alarm, whole=whole)
        self.play(lambda w: w.act("acknowledge", **about, until=until, by="ann"))
        for one in meant:
            life = self.life[one]
            if life.up:
                life.acknowledged = f"until-{until}"
            elif life.state:
                life.state = "closed"
        self.settle()

    @rule(alarm=alarms, whole=st.booleans())
    def unacknowledge(self, alarm: tuple[str, str], *, whole: bool) -> None:
        about, meant = self.about(alarm, whole=whole)
        self.play(lambda w: w.act("unacknowledge", **about, by="bob"))
        for one in meant:
            self.life[one].acknowledged = ""
        self.settle()

    @rule(alarm=alarms)
    def close(self, alarm: tuple[str, str]) -> None:
        self.play(lambda w: w.act("close", alarm=id_text(number(alarm)), by="ann"))
        life = self.life[alarm]
        if life.up:
            self.end(alarm)
        elif life.state:
            life.state = "closed"
        self.settle()

    @rule(alarm=alarms, seconds=spans)
    def shelve(self, alarm: tuple[str, str], seconds: int) -> None:
        self.play(
            lambda w: w.act("shelve", alarm=id_text(number(alarm)), seconds=seconds, by="ann")
        )
        if self.life[alarm].state:
            self.hide(
                f"shelve-{id_text(number(alarm))}", "shelved", seconds, lambda one: one == alarm
            )
        self.settle()

    @rule(node=nodes, seconds=spans)
    def shelve_site(self, node: str, seconds: int) -> None:
        name = self.name()
        self.play(lambda w: w.act("shelve", sites=[node], seconds=seconds, name=name, by="ann"))
        self.hide(name, "shelved", seconds, lambda one: of(one) == node)
        self.settle()

    @rule(alarm=alarms)
    def unshelve(self, alarm: tuple[str, str]) -> None:
        self.play(lambda w: w.act("unshelve", alarm=id_text(number(alarm)), by="ann"))
        if self.life[alarm].state:
            for one in self.hides.values():
                if one.kind == "shelved" and one.until(self.now_ns) and one.about(alarm):
                    one.spared.add(alarm)
        self.settle()

    @rule(node=nodes, wait=st.sampled_from((0, 60, 4000)), seconds=spans, daily=st.booleans())
    def plan(self, node: str, wait: int, seconds: int, *, daily: bool) -> None:
        name, start_ns = self.name(), self.now_ns + wait * SECOND
        daily &= seconds < 86_400
        end_ns = start_ns + seconds * SECOND
        days = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]} if daily else {}
        work = {
            "nodes": [node],
            "start_ns": start_ns,
            "end_ns": end_ns,
            "name": name,
            "by": "eve",
        } | days
        self.play(lambda w: w.act("maintenance", **work))
        self.hides[name] = Hide(
            "planned-work", start_ns, end_ns, lambda one: of(one) == node, daily=daily
        )
        self.settle()

    @rule(which=st.integers(0, 99), cancelled=st.booleans())
    def end_window(self, which: int, *, cancelled: bool) -> None:
        if not self.hides:
            return
        name = list(self.hides)[which % len(self.hides)]
        if cancelled:
            self.play(lambda w: w.act("maintenance", name=name, cancelled=True))
        else:
            self.play(lambda w: w.act("expire", name=name, by="ann"))
        window = self.hides[name]
        if window.daily and window.until(self.now_ns) and not cancelled:
            window.over_ns = self.now_ns
        else:
            del self.hides[name]
        self.settle()

    @rule(node=nodes)
    def out_of_service(self, node: str) -> None:
        self.play(lambda w: w.act("out_of_service", nodes=[node], by="ann"))
        name = f"out-of-service-{node}"
        self.hide(name, "out-of-service", 10**9, lambda one: of(one) == node)
        self.settle()

    @rule(node=nodes)
    def in_service(self, node: str) -> None:
        self.play(lambda w: w.act("out_of_service", nodes=[node], over=True, by="ann"))
        self.hides.pop(f"out-of-service-{node}", None)
        self.settle()

    @rule(seconds=st.sampled_from((1, 10, 20, 100, 1000, 3000, 8000, 90_000)))
    def rest(self, seconds: int) -> None:
        self.play(seconds=seconds)
        self.settle()

    @rule()
    def restart(self) -> None:
        kept, world = Snapshot(), self.worlds[1]
        world.stage.snapshot(kept)
        world.stage = world.make_stage()
        world.stage.restore(kept)
        self.outbox.stop()
        self.outbox = self.start_outbox()

    @rule(one=st.integers(0, 99), other=st.integers(0, 99))
    def merge(self, one: int, other: int) -> None:
        told = [
            i for i in self.worlds[0].stage.incidents.all.values() if i.told_ns and not i.parent
        ]
        if told:
            both = [id_text(told[k % len(told)].number) for k in (one, other)]
            self.play(lambda w: w.act("merge", incidents=both, by="ann"))
            self.settle()

    @rule(one=st.integers(0, 99), which=st.integers(0, 99))
    def split(self, one: int, which: int) -> None:
        many = [
            i
            for i in self.worlds[0].stage.incidents.all.values()
            if len(i.members) > 1 and not i.parent
        ]
        if many:
            found = many[one % len(many)]
            alarm = id_text(list(found.members)[which % len(found.members)])
            asked = {"incident": id_text(found.number), "alarms": [alarm]}
            self.play(lambda w: w.act("split", **asked, by="ann"))
            self.settle()

    # ---- the rules

    def end(self, alarm: tuple[str, str]) -> None:
        life = self.life[alarm]
        if not life.up:
            return
        life.state, life.cleared_ns = "cleared", self.now_ns
        if alarm == CUT:
            self.cut_ended_ns = self.now_ns

    def name(self) -> str:
        self.names += 1
        return f"w{self.names}"

    def hide(
        self, name: str, kind: str, seconds: int, about: Callable[[tuple[str, str]], bool]
    ) -> None:
        self.hides[name] = Hide(kind, self.now_ns, self.now_ns + seconds * SECOND, about)

    def about(
        self, alarm: tuple[str, str], *, whole: bool
    ) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """Return whom an order is about, and which alarms it means by that."""
        known = self.worlds[0].stage.alarm(number(alarm))
        if known is None or not (whole and known.incident in self.worlds[0].stage.incidents.all):
            return {"alarm": id_text(number(alarm))}, [alarm] if self.life[alarm].state else []
        members = self.worlds[0].stage.incidents.all[known.incident].members
        return {"incident": id_text(known.incident)}, [
            one for one in ALARMS if number(one) in members
        ]

    def settle(self) -> None:
        """Let time end what it ends, and count what came before people."""
        for alarm, life in self.life.items():
            if life.up and self.now_ns >= life.heard_ns + SILENT:
                self.end(alarm)
            elif life.state and not life.up and self.now_ns >= life.cleared_ns + KEPT:
                self.life[alarm] = Life()
        shown = {
            alarm for alarm, life in self.life.items() if life.up and not self.suppressed(alarm)
        }
        self.came += [self.now_ns] * len(shown - self.seen)
        self.seen = shown

    def windows(self, alarm: tuple[str, str]) -> list[tuple[int, str, str]]:
        """Return (end, name, kind) of what hides an alarm now."""
        return [
            (end_ns, name, one.kind)
            for name, one in self.hides.items()
            if (end_ns := one.until(self.now_ns)) and one.about(alarm) and alarm not in one.spared
        ]

    def suppressed(self, alarm: tuple[str, str]) -> str:
        found = self.worlds[0].stage.alarm(number(alarm))
        return found.suppressed if found else ""

    # ---- what holds

    @invariant()
    def the_table_says_what_is(self) -> None:
        for alarm, life in self.life.items():
            for world in self.worlds:
                found = world.stage.alarm(number(alarm))
                assert (found is not None) == bool(life.state), alarm
                if found is None:
                    continue
                assert found.up == life.up
                assert found.severity == life.severity
                assert found.acknowledged == life.acknowledged
                if life.state == "closed":
                    assert found.state == "closed"

    @invariant()
    def what_is_hidden_is_so_for_a_reason_that_is_true_now(self) -> None:
        for alarm, life in self.life.items():
            if not life.up:
                continue
            hiding = self.windows(alarm)
            said = self.suppressed(alarm)
            if hiding:
                assert said == max(hiding)[2], (alarm, hiding)
            elif said:
                assert said == "parent"
                cut = self.life[CUT].up or self.now_ns - self.cut_ended_ns < WAIT
                assert of(alarm) in ("d", "e"), alarm
                assert cut, (alarm, self.now_ns, self.cut_ended_ns)

    @invariant()
    def what_was_said_last_is_so(self) -> None:
        for alarm, life in self.life.items():
            found = self.worlds[0].stage.alarm(number(alarm))
            said = self.said.get(id_text(number(alarm)))
            if found is None:
                continue
            assert said is not None
            assert said.state == found.state, alarm
            assert (said.severity, said.suppressed) == (found.severity, found.suppressed)
            if life.up:
                assert said.operator_state == found.operator_state

    @invariant()
    def people_know_of_every_incident_that_is_open_and_of_no_other(self) -> None:
        incidents = self.worlds[0].stage.incidents
        going = {
            id_text(one.number): one
            for one in incidents.all.values()
            if one.open and not one.parent
        }
        told = {name for name, one in going.items() if one.told_ns}
        assert set(self.open) == told
        for name, one in going.items():
            assert any(member.up for member in one.members.values())
            assert name in told or self.now_ns - one.opened_ns < WAIT
            if name in told:
                assert self.open[name].operator_state == one.operator_state

    @invariant()
    def sinks_hear_of_what_is_up_and_of_its_end(self) -> None:
        up = {id_text(number(alarm)) for alarm, life in self.life.items() if life.up}
        seen = {id_text(number(alarm)) for alarm in self.seen}
        assert seen <= self.has["alarms"] <= up
        told = [
            i for i in self.worlds[0].stage.incidents.all.values() if i.told_ns and not i.parent
        ]
        going = {id_text(one.number) for one in told if one.open}
        shown = {
            id_text(one.number) for one in told if one.open and one.operator_state != "shelved"
        }
        assert shown <= self.has["incidents"] <= going
        assert self.has["chief"] <= going

    @invariant()
    def what_is_up_and_was_ever_shown_is_in_an_open_incident(self) -> None:
        stage = self.worlds[0].stage
        for alarm in self.seen:
            found = stage.alarm(number(alarm))
            assert found is not None
            incident = stage.incidents.all[found.incident]
            assert incident.open
            assert incident.members[found.id].up

    def teardown(self) -> None:
        """The load that is worked out of the record is what was seen to happen."""
        self.outbox.stop()
        self.folder.cleanup()
        load = load_of(self.rows, since_ns=START_NS, until_ns=self.now_ns + 1)
        assert load.raises == len(self.came)
        since_ns = START_NS + (self.now_ns - START_NS) // 2
        half = load_of(self.rows, since_ns=since_ns, until_ns=self.now_ns + 1)
        assert half.raises == sum(at >= since_ns for at in self.came)


def alerts(batches: list[Batch], schema: str = "") -> list[Alert]:
    read = {"alarm": alerts_of, "incident": notices_of}
    return [
        one
        for batch in batches
        if batch.schema.name in ([schema] if schema else read)
        for one in read[batch.schema.name](batch)
    ]


def of(alarm: tuple[str, str]) -> str:
    return alarm[1].partition(":")[0]


def cause(alarm: tuple[str, str]) -> str:
    return "lossOfSignal" if alarm == CUT else "other"


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    texts = {name: batch.texts(name) for name in TEXTS}
    numbers = {name: batch[name].tolist() for name in NUMBERS}
    return [
        {name: column[k] for name, column in (texts | numbers).items()} for k in range(batch.rows)
    ]


# No shrinking: a failing life of 40 rules is readable, and shrinking one takes minutes.
AlarmTable.TestCase.settings = settings(
    stateful_step_count=40, deadline=None, phases=[Phase.reuse, Phase.generate]
)
TestAlarmTable = AlarmTable.TestCase
