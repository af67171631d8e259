"""Stories that a network engineer writes in YAML, played to the alerting stage on a manual clock.

A story is a network, what happens in it at which second (alarms, log lines as routers send them, own
findings, what operators do), and what people should have been told. Log lines go through the syslog
decoder, findings enter as rows of schema `anomaly`, alarms as rows of schema `alarm`; the stage is
the node's. docs/alarms.md explains the words.
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from alerting.alert import Alert
from alerting.config import AlertingSettings
from alerting.records import alerts_of, notices_of
from collectors.capture import Datagram, pack
from collectors.config import ListenerSettings
from collectors.syslog import COLLECTOR as SYSLOG
from collectors.syslog_options import SyslogOptions
from correlator.tables.network_map import (
    FileNetworkMap,
    InterfaceEntry,
    LinkEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
)
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import address_pair
from telemetry.schemas import ALARM, LOG
from tocsin.testing.alarms import TICK_NS, AlarmWorld, flood

SECOND_NS = 1_000_000_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
SEVERITY_WORDS = ("critical", "major", "minor", "warning", "indeterminate")


class Flap(msgspec.Struct, forbid_unknown_fields=True):
    """An alarm that comes and goes."""

    alarm: str
    times: int
    every: str | int | float


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """What happens at one moment, and what must be so then."""

    at: str | int | float
    alarms: list[str | dict[str, Any]] = []
    clear: list[str | dict[str, Any]] = []
    flap: list[Flap] = []
    faults: list[str] = []
    end: list[str] = []
    lines: list[str] = []
    operator: list[dict[str, dict[str, Any]]] = []
    expect: dict[str, Any] = {}


class Network(msgspec.Struct, forbid_unknown_fields=True):
    """Routers and links: rings and chains of names, links of two each."""

    ring: list[str] = []
    chains: list[list[str]] = []
    links: list[list[str]] = []
    sites: dict[str, list[str]] = {}
    customers: dict[str, list[str]] = {}  # router: who hangs on it
    prefixes: dict[str, str] = {}  # prefix: router


class Story(msgspec.Struct, forbid_unknown_fields=True):
    """One file."""

    story: str
    steps: list[Step]
    network: Network = msgspec.field(default_factory=Network)
    settings: dict[str, Any] = {}
    expect: dict[str, Any] = {}


@dataclass(slots=True)
class Ticket:
    """What a ticket system would have of one incident."""

    state: str = "open"
    reopened: int = 0
    newest: Alert | None = None
    titles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Played:
    """What a story led to."""

    name: str
    failures: list[str] = field(default_factory=list)
    notices: list[Alert] = field(default_factory=list)
    alarms: dict[str, Alert] = field(default_factory=dict)  # newest change of each
    tickets: dict[str, Ticket] = field(default_factory=dict)  # by incident


def read_story(path: Path) -> Story:
    """Return a story, or raise ConfigError with file and place."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError("stories are YAML: pip install 'tocsin[scenario]'") from error
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
        return msgspec.convert(tree, Story)
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def play(story: Story) -> Played:
    """Play a story to its end and hold what came of it against what it expects."""
    return _Player(story).play()


def seconds_of(text: str | float) -> float:
    """Return the seconds of `90`, `90s`, `2m`, `1h30m`.

    >>> seconds_of("1h30m"), seconds_of(5)
    (5400.0, 5.0)
    """
    parts = _TIME.findall(str(text).replace(" ", ""))
    if not parts or "".join(a + b for a, b in parts) != str(text).replace(" ", ""):
        raise ConfigError(f"{text!r} is no time; write 90s, 2m, 1h30m")
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)


def expanded(text: str) -> list[str]:
    """Return a text with each `{1..3}` counted out.

    >>> expanded("down r{1..2}:1")
    ['down r1:1', 'down r2:1']
    """
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = int(match[1]), int(match[2])
    return [
        one
        for number in range(first, last + 1)
        for one in expanded(text[: match.start()] + str(number) + text[match.end() :])
    ]


class _Player:
    def __init__(self, story: Story) -> None:
        self._story = story
        settings = msgspec.convert(story.settings, AlertingSettings)
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
        steps = sorted(self._story.steps, key=lambda step: seconds_of(step.at))
        for step in steps:
            self._move_on(self._start_ns + round(seconds_of(step.at) * SECOND_NS))
            self._do(step)
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
            return [world.anomaly(world.interface(router, int(index)), "level")]
        raise ConfigError(
            f"fault {fault!r}: write cut LINK, silent ROUTER, attack PREFIX, deviation ROUTER:INDEX"
        )

    # ---- a step

    def _do(self, step: Step) -> None:
        for fault in step.end:
            for one in expanded(fault):
                self._faults.pop(one, None)
        for fault in step.faults:
            self._faults.update(dict.fromkeys(expanded(fault)))
        for line in step.lines:
            for one in expanded(line):
                self._hear(one)
        rows = [self._report(one) for item in step.alarms for one in _alarms(item)]
        rows += [
            self._report(one | {"severity": "cleared"})
            for item in step.clear
            for one in _alarms(item)
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
                    for one in _alarms(flap.alarm)
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
        """Give a line, `ROUTER <34>...`, to the syslog decoder, and what it makes of it to the stage."""
        router, _, text = line.partition(" ")
        high, low = address_pair(self._world.network.address_of(router) or "192.0.2.99")
        datagram = Datagram(self._world.now_ns, high, low, 514, 514, text.encode())
        for batch in self._syslog.decode(pack([datagram])):
            if batch.schema.name in (ALARM.name, LOG.name):
                self._world.stage.process(batch)

    def _payload(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return an action's payload: incidents and alarms that it names by title become ids."""
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
        del kind
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
        for name, wanted in expect.items():
            check = _CHECKS.get(name)
            if check is None:
                raise ConfigError(f"expect: {name!r} is not known; known: {', '.join(_CHECKS)}")
            for failure in check(self._played, wanted):
                self._played.failures.append(f"{when}: {failure}")


def _alarms(item: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Return alarms as written: `KIND ENTITY [SEVERITY]`, or a table; `{1..9}` is counted out."""
    if isinstance(item, dict):
        return [{**item, "entity": entity} for entity in expanded(str(item["entity"]))]
    made = []
    for text in expanded(item):
        words = text.split()
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in SEVERITY_WORDS):
            raise ConfigError(f"alarm {text!r}: write KIND ENTITY [SEVERITY]")
        made.append(dict(zip(("kind", "entity", "severity"), words, strict=False)))
    return made


def network_of(network: Network) -> FileNetworkMap:
    """Return the network map of a story. Interface i of a router ends its i-th link."""
    pairs = [*zip(network.ring, [*network.ring[1:], *network.ring[:1]], strict=True)]
    pairs += [pair for chain in network.chains for pair in _pairs_of(chain)]
    pairs += [(one[0], one[1]) for one in network.links]
    names = dict.fromkeys(name for pair in pairs for name in pair)
    names.update(dict.fromkeys(router for site in network.sites.values() for router in site))
    free = dict.fromkeys(names, 1)
    links, faces = [], []
    for a, b in pairs:
        name = f"{a}-{b}"
        links.append(LinkEntry(name=name, a=a, a_index=free[a], b=b, b_index=free[b]))
        for router in (a, b):
            faces.append(
                InterfaceEntry(router=router, index=free[router], name=f"et-0/0/{free[router]}",
                               link=name, speed=10_000_000_000)
            )  # fmt: skip
            free[router] += 1
    for router, customers in network.customers.items():
        for i, customer in enumerate(customers):
            faces.append(InterfaceEntry(router=router, index=1000 + i, customer=customer))
    site_of = {router: site for site, routers in network.sites.items() for router in routers}
    return FileNetworkMap(
        NetworkFile(
            router=[
                RouterEntry(name=name, address=f"127.1.{i // 250}.{i % 250 + 1}",
                            site=site_of.get(name, ""))
                for i, name in enumerate(names)
            ],
            interface=faces,
            link=links,
            prefix=[PrefixEntry(prefix=p, router=r) for p, r in network.prefixes.items()],
        )
    )  # fmt: skip


def _pairs_of(chain: Sequence[str]) -> Iterator[tuple[str, str]]:
    names = [name for text in chain for name in expanded(text)]
    yield from zip(names[:-1], names[1:], strict=True)


# ---- what a story may expect; each check yields what is not so


def _count(name: str, have: int, wanted: Any) -> Iterator[str]:
    """`3`, or `{most: 5}`, `{least: 2}`."""
    if isinstance(wanted, dict):
        if have > wanted.get("most", have) or have < wanted.get("least", have):
            yield f"{name}: {have}, expected {wanted}"
    elif have != wanted:
        yield f"{name}: {have}, expected {wanted}"


def _incidents(played: Played, wanted: Any) -> Iterator[str]:
    yield from _count("incidents told", len(played.tickets), wanted)


def _open(played: Played, wanted: Any) -> Iterator[str]:
    have = sum(ticket.state == "open" for ticket in played.tickets.values())
    yield from _count("open tickets", have, wanted)


def _notices(played: Played, wanted: Any) -> Iterator[str]:
    yield from _count("notices", len(played.notices), wanted)


def _up(played: Played, wanted: Any) -> Iterator[str]:
    have = sum(alarm.state in ("raised", "updated") for alarm in played.alarms.values())
    yield from _count("alarms up", have, wanted)


def _reopened(played: Played, wanted: Any) -> Iterator[str]:
    have = sum(ticket.reopened for ticket in played.tickets.values())
    yield from _count("tickets re-opened", have, wanted)


def _title_changes(played: Played, wanted: Any) -> Iterator[str]:
    most = max((len(ticket.titles) - 1 for ticket in played.tickets.values()), default=0)
    yield from _count("changes of a title", most, wanted)


def _each_incident(played: Played, wanted: list[dict[str, Any]]) -> Iterator[str]:
    for one in wanted:
        if not any(t.newest and _fits_incident(t.newest, one) for t in played.tickets.values()):
            told = "; ".join(
                f"{t.newest.title!r} {t.newest.state} {t.newest.severity} alarms={t.newest.alarms_count} "
                f"causes={[(c['kind'], c['entity']) for c in t.newest.explain.get('causes', [])]}"
                for t in list(played.tickets.values())[:8] if t.newest
            )  # fmt: skip
            yield f"no incident is like {one}; told: {told or 'nothing'}"


def _fits_incident(notice: Alert, wanted: Mapping[str, Any]) -> bool:
    causes = notice.explain.get("causes", [])
    impact = notice.explain.get("impact", {})
    have: dict[str, Any] = {
        "title": notice.title, "severity": notice.severity, "state": notice.state,
        "alarms": notice.alarms_count, "entity": notice.entity, "kind": notice.kind,
        "acknowledged": notice.operator_state == "acknowledged",
        "cut_off": impact.get("cut_off_count", 0),
        "similar": len(notice.explain.get("similar", [])),
    }  # fmt: skip
    for name, value in wanted.items():
        if name == "cause":
            ok = bool(causes) and fnmatch.fnmatch(
                f"{causes[0]['kind']} {causes[0]['entity']}", value
            )
        elif name == "suspect":
            ok = any(fnmatch.fnmatch(f"{c['kind']} {c['entity']}", value) for c in causes)
        elif name == "customers":
            ok = set(value) <= set(impact.get("customers", []))
        elif name == "sites":
            ok = set(value) <= set(impact.get("sites", []))
        elif name == "one_more_failure":
            ok = any(one["if"] == value for one in impact.get("redundancy", []))
        elif name in have and isinstance(value, dict):
            ok = not list(_count(name, have[name], value))
        elif name in have:
            ok = fnmatch.fnmatch(str(have[name]), str(value))
        else:
            raise ConfigError(f"expect: incident: {name!r} is not known")
        if not ok:
            return False
    return True


def _each_alarm(played: Played, wanted: list[dict[str, Any]]) -> Iterator[str]:
    for one in wanted:
        fields = dict(one)
        count = fields.pop("count", None)
        for name in fields:
            if name not in Alert.__struct_fields__:
                raise ConfigError(f"expect: alarm: {name!r} is not known")
        found = sum(
            all(
                fnmatch.fnmatch(str(getattr(alarm, name)), str(value))
                for name, value in fields.items()
            )
            for alarm in played.alarms.values()
        )
        if count is not None:
            yield from _count(f"alarms like {fields}", found, count)
        elif not found:
            yield f"no alarm is like {fields}"


_CHECKS = {
    "incidents": _incidents,
    "open": _open,
    "notices": _notices,
    "alarms_up": _up,
    "reopened": _reopened,
    "title_changes": _title_changes,
    "incident": _each_incident,
    "alarm": _each_alarm,
}
