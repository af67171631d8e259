"""Stories that a network engineer writes in YAML, played to the alerting stage on a manual clock.

A story (`tocsin/stories/story.py`) is a network, what happens in it at which second (alarms, log lines as routers
send them, own findings, what operators do), and what people should have been told. Log lines go through
the syslog decoder, findings enter as rows of schema `anomaly`, alarms as rows of schema `alarm`; the
stage is the node's.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from alerting.asked import KINDS, check
from alerting.config import AlertingSettings
from alerting.words.alert import Alert
from alerting.words.alerts import alerts_of, notices_of
from collectors.config import ListenerSettings
from collectors.datagram import Datagram, pack
from collectors.syslog.decoder import COLLECTOR as SYSLOG
from collectors.syslog.options import SyslogOptions
from correlator.named_alarms import name_alarms
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import address_pair
from telemetry.schemas import ALARM, LOG
from tocsin.stories.expectations import Played, Ticket, failures
from tocsin.stories.story import (
    Flap,
    Step,
    Story,
    StoryError,
    alarms_of,
    expanded,
    network_of,
    seconds_of,
)
from tocsin.testing.alarms import TICK_NS, AlarmWorld, flood

SECOND_NS = 1_000_000_000


def play(story: Story) -> Played:
    """Play a story to its end and hold what came of it against what it expects."""
    return _Player(story).play()


class _Player:
    def __init__(self, story: Story) -> None:
        self._story = story
        try:
            settings = msgspec.convert(story.settings, AlertingSettings)
        except msgspec.ValidationError as error:
            raise ConfigError(f"settings: {error}") from error
        self._world = AlarmWorld(settings, network=network_of(story.network))
        self._syslog = SYSLOG.make(
            ListenerSettings(kind="syslog", listen="udp://127.0.0.1:0"),
            SyslogOptions(),
            self._world.context,
        )
        self._start_ns = self._world.now_ns
        self._faults: dict[str, None] = {}
        self._quiet_until_ns = 0  # view ticks go on so long after the last fault
        self._played = Played(story.story)

    def play(self) -> Played:
        order = {}
        for number, step in enumerate(self._story.steps):
            with _at_step(number):
                order[number] = seconds_of(step.at)
        for number in sorted(order, key=lambda number: order[number]):
            with _at_step(number):
                self._move_on(self._start_ns + round(order[number] * SECOND_NS))
                self._do(self._story.steps[number])
        self._move_on(self._world.now_ns + 30 * SECOND_NS)
        self._check(self._story.expect, "at the end")
        return self._played

    # ---- time

    def _move_on(self, until_ns: int) -> None:
        """Let time pass: view ticks while findings go on, timers when they are due."""
        while True:
            tick_ns = self._world.now_ns // TICK_NS * TICK_NS + TICK_NS
            viewed = bool(self._faults) or tick_ns <= self._quiet_until_ns
            due_ns = max(self._world.stage.due_ns, self._world.now_ns + 1)
            due_ns += -due_ns % SECOND_NS
            if viewed and tick_ns <= min(due_ns, until_ns):
                self._view_tick(tick_ns)
            elif due_ns <= until_ns:
                self._world.now_ns = due_ns
                self._take(self._world.stage.event(due_ns))
            else:
                self._world.now_ns = max(self._world.now_ns, until_ns)
                return

    def _view_tick(self, end_ns: int) -> None:
        self._world.now_ns = end_ns - TICK_NS
        rows = [row for fault in self._faults for row in self._findings(fault)]
        if self._faults:
            self._quiet_until_ns = end_ns + 2000 * SECOND_NS
        self._take(self._world.batches(rows))

    def _findings(self, fault: str) -> list[dict[str, Any]]:
        kind, _, where = fault.partition(" ")
        world = self._world
        if kind == "cut":
            if world.network.link(where) is None:
                raise ConfigError(f"fault {fault!r}: the story's network has no link {where!r}")
            return [world.silence(series) for series in world.ends(where)]
        if kind == "silent":
            exporter = world.network.address_of(where)
            return [world.silence(world.series("exporter", exporter=exporter))]
        if kind == "attack":
            series = world.series("destination_prefix", destination_prefix=where)
            host = where.partition("/")[0].rpartition(".")[0] + ".7"
            world.samples[series] = flood(destination=host)
            return [world.anomaly(series, "attack", detail={"octets_per_second": 1e8})]
        if kind == "deviation":
            router, _, index = where.partition(":")
            if not index.isdigit():
                raise ConfigError(f"fault {fault!r}: write deviation ROUTER:INDEX")
            return [world.anomaly(world.interface(router, int(index)), "level")]
        raise ConfigError(
            f"fault {fault!r}: write cut LINK, silent ROUTER, attack PREFIX, deviation ROUTER:INDEX"
        )

    # ---- a step

    def _do(self, step: Step) -> None:
        for fault in step.end:
            for one in expanded(fault):
                self._faults.pop(one, None)
        for fault in (one for text in step.faults for one in expanded(text)):
            self._findings(fault)  # a mistake in it is told here, where its line is known
            self._faults[fault] = None
        for line in step.lines:
            for one in expanded(line):
                self._hear(one)
        rows = [self._report(one) for item in step.alarms for one in alarms_of(item)]
        rows += [
            self._report(one | {"severity": "cleared"})
            for item in step.clear
            for one in alarms_of(item)
        ]
        acts = [
            self._world.act(kind, **self._payload(kind, payload))
            for action in step.operator
            for kind, payload in action.items()
        ]
        if rows or acts or step.lines:
            self._take(self._world.second(*rows, *acts))
        for flap in step.flap:
            self._flap(flap)
        if step.expect:
            self._move_on(self._world.now_ns + SECOND_NS)
            self._check(step.expect, f"at {step.at}")

    def _flap(self, flap: Flap) -> None:
        every_ns = round(seconds_of(flap.every) * SECOND_NS)
        for _ in range(flap.times):
            for severity in ("", "cleared"):
                rows = [
                    self._report(one | ({"severity": severity} if severity else {}))
                    for one in alarms_of(flap.alarm)
                ]
                self._take(self._world.second(*rows))
                self._move_on(self._world.now_ns + every_ns // 2)

    def _report(self, alarm: Mapping[str, Any]) -> dict[str, Any]:
        fields = dict(alarm)
        names = {"cause": "probable_cause"}
        kind, entity = fields.pop("kind"), fields.pop("entity")
        severity = fields.pop("severity", "major")
        return self._world.report(
            kind,
            entity,
            severity,
            **{names.get(name, name): value for name, value in fields.items()},
        )

    def _hear(self, line: str) -> None:
        """Give a line, `ROUTER <34>...`, to the syslog decoder, and what it makes of it to the stage.

        Its alarms have names of the network map, as in a node.
        """
        router, _, text = line.partition(" ")
        high, low = address_pair(self._world.network.address_of(router) or "192.0.2.99")
        datagram = Datagram(self._world.now_ns, high, low, 514, 514, text.encode())
        for batch in self._syslog.decode(pack([datagram])):
            if batch.schema.name == ALARM.name:
                self._world.stage.process(name_alarms(batch, self._world.network))
            elif batch.schema.name == LOG.name:
                self._world.stage.process(batch)

    def _payload(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return an action's payload: incidents and alarms that it names by title become ids."""
        if kind not in KINDS:
            raise ConfigError(f"operator {kind!r} is not known; known: {', '.join(KINDS)}")
        made = dict(payload)
        for name in ("start", "end", "for"):
            if name in made:
                seconds = seconds_of(made.pop(name))
                if name == "for":
                    made["seconds"] = seconds
                else:
                    made[f"{name}_ns"] = self._start_ns + round(seconds * SECOND_NS)
        if "incident" in made:
            made["incident"] = self._incident(str(made["incident"]))
        if "incidents" in made:
            made["incidents"] = [self._incident(str(one)) for one in made["incidents"]]
        for name in ("alarm", "alarms"):
            if name in made:
                given = made[name]
                found = [self._alarm(str(one)) for one in ([given] if name == "alarm" else given)]
                made[name] = found[0] if name == "alarm" else found
        made.setdefault("by", "operator")
        check(kind, made, self._world.now_ns)
        return made

    def _incident(self, title: str) -> str:
        for number, ticket in self._played.tickets.items():
            if ticket.newest is not None and fnmatch.fnmatch(ticket.newest.title, title):
                return number
        raise ConfigError(f"no incident was told whose title is like {title!r}")

    def _alarm(self, words: str) -> str:
        kind, _, entity = words.partition(" ")
        for alarm in self._played.alarms.values():
            if fnmatch.fnmatch(alarm.kind, kind) and fnmatch.fnmatch(alarm.entity, entity or "*"):
                return alarm.id
        raise ConfigError(f"there was no alarm {words!r}")

    # ---- what came of it

    def _take(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if batch.schema.name == "alarm":
                self._played.alarms.update((alert.id, alert) for alert in alerts_of(batch))
            elif batch.schema.name == "incident":
                for notice in notices_of(batch):
                    self._played.notices.append(notice)
                    self._file(notice)

    def _file(self, notice: Alert) -> None:
        ticket = self._played.tickets.setdefault(notice.incident, Ticket())
        if notice.state == "cleared":
            ticket.state = "closed"
        elif ticket.state == "closed":
            ticket.state, ticket.reopened = "open", ticket.reopened + 1
        ticket.newest = notice
        if not ticket.titles or ticket.titles[-1] != notice.title:
            ticket.titles.append(notice.title)

    # ---- expectations

    def _check(self, expect: Mapping[str, Any], when: str) -> None:
        self._played.failures += [f"{when}: {one}" for one in failures(self._played, expect)]


@contextmanager
def _at_step(number: int) -> Iterator[None]:
    """Say of a mistake in which step it is."""
    try:
        yield
    except (ConfigError, msgspec.ValidationError, KeyError, TypeError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise StoryError(number, words) from error
