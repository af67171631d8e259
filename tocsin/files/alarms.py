"""Alarm files of others as raises and clears: which column says what, and what a row then means."""

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from runtime.ports import NetworkMap
from telemetry.errors import ConfigError
from telemetry.x733 import CLEARED, SEVERITIES, severity_from
from tocsin.files.rows import rows_of
from tocsin.files.times import Reader, reader_of

# What a column may be called, whatever its case and its marks; the first that is there counts, and of
# `fields.device.name` the whole is looked at before its end.
COLUMNS = {
    "kind": ("kind", "alarm type", "alarm kind", "alarm name", "event name", "alarm title", "alert name",
             "alert group", "alarm group", "alarm code", "event id", "probable cause", "specific problem", "type",
             "event type", "event", "trigger", "trigger name", "check", "check name", "problem", "alarm", "alarm id",
             "name", "code"),
    "entity": ("entity", "device id", "device name", "device", "node", "node id", "node name", "managed object",
               "managed object instance", "managed object id", "ne", "ne name", "ne id", "ne alias",
               "network element", "element", "resource", "alarm source", "router", "host", "host name",
               "equipment", "site id", "source", "instance", "model name"),
    "part": ("interface", "interface name", "if name", "port", "port name", "slot", "card", "component",
             "location information", "location info", "alarm location", "location"),
    "start": ("start", "start timestamp", "start time", "raised", "raised at", "raised on", "raised time",
              "raise time", "alarm raised time", "event time", "first occurrence", "occurred", "occur time",
              "occurrence time", "begin", "begin time", "created", "created at", "create time", "starts at", "time",
              "timestamp", "time s", "date time", "date", "ts", "alarm time", "occurred at", "occurred on",
              "first occurred", "last occurred", "last occurrence"),
    "date": ("date", "alarm date", "event date", "start date"),  # where the time has none
    "end": ("end", "end timestamp", "end time", "cleared", "cleared on", "cleared time", "clear time",
            "clearance time", "cleared at", "ends at", "is cleared", "alarm cleared", "stop", "stop time",
            "finish time", "recovery time", "cease time", "alarm cleared time"),
    "severity": ("severity", "perceived severity", "alarm severity", "event severity", "level", "priority"),
    "title": ("title", "specific problem", "text", "summary", "description", "message", "additional text",
              "alarm text"),
    "state": ("state", "status", "alarm state", "alarm status", "action", "event state", "notification",
              "notification type", "operation", "value"),
    "fault": ("fault", "root", "group", "incident", "incident id", "fault id"),
}  # fmt: skip
NEEDED = ("kind", "entity", "start")
NETCOOL = frozenset({"alertgroup", "alertkey", "serverserial"})  # its severities are numbers
CLEAR_WORDS = frozenset({
    "cleared", "clear", "clr", "resolved", "closed", "inactive", "ok", "normal", "ended", "end", "terminated",
    "recovered", "recovery", "ceased", "off",
})  # fmt: skip
RAISE_WORDS = frozenset({
    "set", "raise", "raised", "active", "firing", "problem", "alarm", "open", "opened", "new", "on", "fault",
    "failed", "start", "started", "begin", "occurred", "triggered",
})  # fmt: skip
SEVERITY_WORDS = {
    "crit": "critical", "fatal": "critical", "emergency": "critical", "emerg": "critical", "alert": "critical",
    "error": "major", "err": "major", "high": "major", "medium": "minor", "low": "warning", "warn": "warning",
    "notice": "warning", "info": "indeterminate", "informational": "indeterminate", "unknown": "indeterminate",
} | {word: word for word in SEVERITIES} | dict.fromkeys(CLEAR_WORDS, CLEARED)  # fmt: skip
_BROKEN = (
    "",
    "down",
    "failed",
    "failure",
    "fail",
    "fault",
    "lost",
    "alarm",
    "raised",
    "set",
    "error",
    "problem",
)
# A word of a kind that tells an end, and what the kind that began may have there.
ENDS = {
    "up": ("down",),
    "off": ("on",),
    "reachable": ("unreachable",),
    "found": ("lost",),
} | dict.fromkeys(
    (
        "clear",
        "cleared",
        "restored",
        "recovered",
        "recovery",
        "resolved",
        "ceased",
        "normal",
        "ok",
        "end",
    ),
    _BROKEN,
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
YES, NO = (
    ("true", "yes", "y"),
    ("false", "no", "n", "null", "none", "nan", "nat", "-", "n/a", "0000-00-00 00:00:00"),
)
ROWS_MAX = 5_000_000
BAD_SHARE_MAX = 0.05  # of rows that cannot be read; beyond it the file is not what it seems
_MARKS = re.compile(r"[^a-z0-9]+")
STATES_LOOKED_AT = 5_000  # rows in which a column that tells what ended is looked for
_BEHIND = re.compile(r" *\([^()]*\)$")  # `Cleared On (NT)`
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[AP]M)?", re.I)
_AFTER_NODE = re.compile(r"[:/ ]")
_WHOLE = re.compile(r"(\d+)\.0+")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One raise or clear of an alarm file."""

    time_ns: int
    kind: str
    entity: str
    severity: str  # or "cleared"
    title: str
    fault: str = ""  # the true cause, where the file knows it


@dataclass(slots=True)
class AlarmFile:
    """What a file says: raises and clears in order of time, and what people should know of it."""

    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_alarms(path: Path, columns: Mapping[str, str] | None = None) -> AlarmFile:
    """Return the raises and clears of an alarm file, or raise ConfigError.

    A row with an end that is not its start is a raise and a clear; one with a state or a severity
    such as "cleared" is a clear. In a file that tells no clear at all each row is an occurrence that
    was over at once. `columns` are names of the file for some of ours.
    """
    reading = _Reading(path, columns or {})
    for number, (names, values) in enumerate(rows_of(path)):
        if number >= ROWS_MAX:
            raise ConfigError(f"{path}: more than {ROWS_MAX} rows; split the file")
        reading.row(number + 2, names, values)
    return reading.finish()


class _Reading:
    """One pass over a file."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self._path = path
        self._columns = columns
        self._places: dict[tuple[str, ...], dict[str, int]] = {}
        self._titles: dict[tuple[str, str], str] = {}
        self._time: Reader | None = None
        self._events: list[Event] = []
        self._rows = self._clears = 0
        self._bad = 0
        self._first_bad = ""
        self._notes: list[str] = []
        self._no_words: Counter[str] = Counter()  # severities that are none

    def row(self, number: int, names: tuple[str, ...], values: Sequence[str]) -> None:
        places = self._places.get(names)
        if places is None:
            places = self._places[names] = _places(names, self._columns)
            if not self._rows:
                self._check(names, places)
                self._find_state(names, places)
        self._rows += 1
        try:
            self._events.extend(self._events_of(places, names, values))
        except (ValueError, OverflowError) as error:
            self._bad += 1
            self._first_bad = self._first_bad or f"row {number}: {error}"

    def _check(self, names: tuple[str, ...], places: Mapping[str, int]) -> None:
        for ours in NEEDED:
            if ours not in places:
                raise ConfigError(
                    f"{self._path}: no column for {ours} among {', '.join(names)[:500]}; it may be called "
                    f"{', '.join(COLUMNS[ours])}; or say --column {ours}=NAME"
                )

    def _find_state(self, names: tuple[str, ...], places: dict[str, int]) -> None:
        """Take the column that says of each row whether it begins or ends something, whatever it is called."""
        seen: list[set[str]] = [set() for _ in names]
        for these, row in islice(rows_of(self._path), STATES_LOOKED_AT):
            if these == names:
                for words, value in zip(seen, row, strict=False):
                    words.add(value.strip().lower())
        state = places.get("state", -1)
        if "state" in self._columns or (state >= 0 and seen[state] & CLEAR_WORDS):
            return
        for place, words in enumerate(seen):
            fits = words - {""} <= CLEAR_WORDS | RAISE_WORDS
            if (
                fits
                and words & CLEAR_WORDS
                and words & RAISE_WORDS
                and place not in places.values()
            ):
                places["state"] = place
                self._notes.append(
                    f"column {names[place]} is taken as what begins and ends an alarm"
                )
                return

    def _events_of(
        self, places: Mapping[str, int], names: tuple[str, ...], values: Sequence[str]
    ) -> Iterator[Event]:
        def value(ours: str) -> str:
            place = places.get(ours, -1)
            return values[place].strip() if 0 <= place < len(values) else ""

        kind, entity, start = (_name(value(ours)) for ours in NEEDED)
        if _CLOCK.fullmatch(start):
            start = f"{value('date')} {start}".strip()
        if not kind or not entity or not start:
            raise ValueError(f"no {'kind' if not kind else 'entity' if not entity else 'time'}")
        part = value("part")
        if part and part.lower() not in NO and not _ends_with(entity, part):
            entity = f"{entity}:{part}"
        kind, entity = sys.intern(kind), sys.intern(entity)
        title = value("title")
        title = sys.intern(title) if title and title != kind else self._title(kind, entity)
        if self._time is None:
            self._time = self._reader(places, names)
        start_ns = self._time(start)
        severity, end = self._severity(value("severity"), names), value("end").lower()
        if value("state").lower() in CLEAR_WORDS or end in YES:
            severity = CLEARED
        fault = sys.intern(value("fault"))
        yield Event(start_ns, kind, entity, severity, title, fault)
        if severity == CLEARED:
            self._clears += 1
        elif end and end not in NO:
            end_ns = self._time(value("end"))
            if end_ns >= start_ns:
                self._clears += 1
                yield Event(end_ns, kind, entity, CLEARED, title, fault)

    def _title(self, kind: str, entity: str) -> str:
        title = self._titles.get((kind, entity))
        if title is None:
            title = self._titles[kind, entity] = f"{kind} on {entity}"
        return title

    def _reader(self, places: Mapping[str, int], names: tuple[str, ...]) -> Reader:
        """Return what reads the file's times: where they are no plain ones all of them are looked at."""
        place, date = places["start"], places.get("date", -1)

        def time_of(row: Sequence[str]) -> str:
            text = row[place].strip()
            return f"{row[date].strip()} {text}" if date >= 0 and _CLOCK.fullmatch(text) else text

        return reader_of(time_of(row) for these, row in rows_of(self._path) if these == names)

    def _severity(self, word: str, names: tuple[str, ...]) -> str:
        if not word:
            return "major"
        found = SEVERITY_WORDS.get(word.lower())
        if found is None and NETCOOL & {_key(name) for name in names}:
            found = severity_from("netcool", word)
        if found is None:
            self._no_words[word[:40]] += 1
        return found or "indeterminate"

    def finish(self) -> AlarmFile:
        if not self._rows:
            raise ConfigError(f"{self._path}: no rows below its header")
        if self._bad > BAD_SHARE_MAX * self._rows:
            raise ConfigError(
                f"{self._path}: {self._bad} of {self._rows} rows cannot be read; the first is {self._first_bad}"
            )
        made = AlarmFile(self._events, self._notes)
        if ends := ends_among({event.kind for event in made.events if event.severity != CLEARED},
                              {event.kind for event in made.events if event.severity == CLEARED}):  # fmt: skip
            made.events = [_as_end(event, ends) for event in made.events]
            self._clears += 1
            pairs = ", ".join(f"{end} of {begin}" for end, begin in sorted(ends.items()))
            made.notes.append(f"kinds that are taken as the end of another: {pairs}")
        if self._bad:
            made.notes.append(f"{self._bad} rows left out; the first is {self._first_bad}")
        if self._no_words:
            words = ", ".join(word for word, _ in self._no_words.most_common(5))
            made.notes.append(f"severities taken as indeterminate: {words}")
        if not self._clears:
            made.notes.append("no row tells of an end: each is taken as over at once")
            made.events = [
                one
                for event in made.events
                for one in (event, msgspec.structs.replace(event, severity=CLEARED))
            ]
        # A clear that comes at the moment of a raise stands where the file has it.
        made.events.sort(key=lambda event: event.time_ns)
        return made


def _ends_with(entity: str, part: str) -> bool:
    """Whether an entity names its part already: `r1:ge-0` has `ge-0`, `r12` has no port 2."""
    return entity == part or (entity.endswith(part) and entity[-len(part) - 1] in ":/ ")


def _as_end(event: Event, ends: Mapping[str, str]) -> Event:
    begin = ends.get(event.kind)
    if begin is None:
        return event
    return msgspec.structs.replace(event, kind=begin, severity=CLEARED)


def ends_among(raised: Collection[str], cleared: Collection[str] = ()) -> dict[str, str]:
    """Return which kinds tell the end of which others, by their words; a kind that ends itself is none.

    >>> ends_among(["linkDown", "linkUp", "BGP session lost", "BGP session restored", "powerUp", "LOS", "LOS_CLEAR"])
    {'linkUp': 'linkDown', 'BGP session restored': 'BGP session lost', 'LOS_CLEAR': 'LOS'}
    """
    words = {kind: [word.lower() for word in _WORD.findall(kind)] for kind in raised}
    known = {tuple(said): kind for kind, said in words.items()}
    made = {}
    for kind, said in words.items():
        for place, word in enumerate(said):
            begins = () if kind in cleared else ENDS.get(word, ())
            others = ((*said[:place], *begin.split(), *said[place + 1 :]) for begin in begins)
            found = next((known[other] for other in others if other in known), None)
            if found is not None:
                made[kind] = found
    return made


def placed(file: AlarmFile, network: NetworkMap) -> AlarmFile:
    """Return a file's events with entities called as the topology calls its nodes, where it knows them.

    Case and marks of a name do not count, nor the domain of one of both where no other node has its host. A name
    that no node has is one node: `New York` is not `New`.
    """
    nodes = {_key(node): node for node in network.routers()}
    hosts = Counter(_host(node) for node in network.routers())
    short = {host: node for node in network.routers() if hosts[host := _host(node)] == 1 and host}
    names = {
        entity: _placed(entity, nodes, short) for entity in {event.entity for event in file.events}
    }
    events = [
        event
        if names[event.entity] == event.entity
        else msgspec.structs.replace(event, entity=names[event.entity])
        for event in file.events
    ]
    notes = list(file.notes)
    if nodes:
        known = set(network.routers())
        strange = [one for one in names.values() if _AFTER_NODE.split(one)[0] not in known]
        if strange:
            notes.append(
                f"the topology does not have {len(strange)} of {len(names)} entities: "
                f"{', '.join(sorted(strange)[:3])}, ..."
            )
    return AlarmFile(events, notes)


def _placed(entity: str, nodes: Mapping[str, str], hosts: Mapping[str, str]) -> str:
    if (whole := nodes.get(_key(entity))) is not None:
        return whole
    for match in _AFTER_NODE.finditer(entity):
        if (node := nodes.get(_key(entity[: match.start()]))) is not None:
            return node + entity[match.start() :]
    node_text = _AFTER_NODE.split(entity)[0]
    if (node := hosts.get(_host(node_text))) is not None and ("." in node_text or "." in node):
        return node + entity[len(node_text) :]
    return entity.replace(" ", "_")


def _host(name: str) -> str:
    """Return the first label of a host's name, "" for an address."""
    label = name.partition(".")[0]
    return "" if label.isdigit() else _key(label)


def _key(name: str) -> str:
    return _MARKS.sub("", name.lower())


def _places(names: Sequence[str], columns: Mapping[str, str]) -> dict[str, int]:
    """Return where each of our columns is among a file's; one of theirs is taken for one of ours."""
    keys: dict[str, int] = {}
    for place, name in reversed(list(enumerate(names))):
        keys[_key(name.rpartition(".")[2])] = place
    for place, name in reversed(list(enumerate(names))):
        keys[_key(_BEHIND.sub("", name))] = place
    for place, name in reversed(list(enumerate(names))):
        keys[_key(name)] = place
    made: dict[str, int] = {}
    for ours, words in COLUMNS.items():
        given = columns.get(ours)
        found = [_key(given)] if given else [_key(word) for word in words]
        place = next((keys[key] for key in found if key in keys), -1)
        if place >= 0 and (given or place not in made.values() or ours == "title"):
            made[ours] = place
    return made


def _name(text: str) -> str:
    """Return a name without what a table of numbers made of it: 28.0 is 28."""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text
