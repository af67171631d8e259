"""The explain block: what an alert says for itself, in the order in which people ask.

The rules and the sources give what they know (`explain`, `foreign`); `Explainer` adds what stands
elsewhere before anybody is told: who owns it, which runbook, what changed just before, whether it
grows, and all of it in a text for a phone.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from alerting.config import AlertingSettings, RunbookSettings, any_of
from alerting.incidents.suspects import Suspects
from alerting.records.alarm import Alarm
from alerting.records.incident import Incident
from alerting.records.places import Place, Places
from alerting.words.amounts import amount, span
from alerting.words.escape import line
from alerting.words.templating import check, fill
from alerting.words.wording import moment
from runtime.ports import NetworkMap
from telemetry.errors import ConfigError
from telemetry.identity import id_text

MINUTE_NS = 60_000_000_000
SHORT_CHARACTERS_MAX = 300
SHORT_TITLE_MAX = 110
SHORT_PART_MAX = 90
RUNBOOK_HOLES = ("kind", "entity", "severity", "source")
FLAPS = "it flaps: told once, it stays up until it has been calm for a while"
RUNBOOKS_KEPT = 10_000


class Explainer:
    """Completes explain blocks. Owns nothing but a cache of runbook links."""

    def __init__(
        self, settings: AlertingSettings, network: NetworkMap, places: Places, suspects: Suspects
    ) -> None:
        self._network = network
        self._places = places
        self._suspects = suspects
        self._link = settings.links_url.rstrip("/")
        self._runbooks = tuple(settings.runbooks.values())
        self._known: dict[tuple[str, str, str, str], str] = {}
        for name, runbook in settings.runbooks.items():
            check_runbook(name, runbook)

    def complete(self, alarm: Alarm) -> None:
        """Add to the block of an alarm that is about to be told: all but its short text."""
        told, up = alarm.explain, alarm.up
        place = self._places.of(alarm.entity, alarm.title)
        trend = told.get("trend", "new" if alarm.state == "raised" else "steady")
        told["trend"] = trend = trend if up else "over"
        told["growing"] = trend == "growing"
        if up or "changed_before" not in told:
            told["changed_before"] = self._suspects.before(place.nodes, alarm.raised_ns)
        told["owner"] = self.owner(place)
        told["node"], told["link"] = place.nodes[0], place.link
        told["site"] = self._places.site(place.nodes[0])
        told["runbook"] = self.runbook(alarm)
        if self._link:
            told["picture"] = f"{self._link}/api/v1/alarms/{id_text(alarm.id)}/picture.svg"

    def shorten(self, alarm: Alarm) -> None:
        """Add the text for a phone to a block that is complete."""
        alarm.explain["short"] = short(
            alarm.explain, title=alarm.title, severity=alarm.severity, up=alarm.up,
            since_ns=alarm.raised_ns, over_ns=alarm.cleared_ns,
        )  # fmt: skip

    def incident(self, incident: Incident, root: Alarm) -> dict[str, Any]:
        """Return the block of an incident, on top of that of the alarm that seems to be its cause."""
        up = sum([member.up for member in incident.members.values()])
        trend = incident.trend(up, root.explain.get("trend", "steady"))
        made = {
            **root.explain,
            "what": incident.title,
            "causes": incident.causes,
            "alarms": len(incident.members),
            "alarms_up": up,
            "impact": incident.impact,
            "similar": incident.similar,
            "trend": trend,
            "growing": trend == "growing",
        }
        more = [*incident.parted, *([FLAPS] if root.flapping and incident.open else ())]
        if more:
            made["why"] = [*root.explain.get("why", ()), *more]
        incident.told_up = up
        if self._link:
            number = id_text(incident.number)
            made["picture"] = f"{self._link}/api/v1/incidents/{number}/picture.svg"
        made["short"] = short(
            made, title=incident.title, severity=incident.severity, up=incident.open,
            since_ns=incident.opened_ns, over_ns=incident.closed_ns,
            into=id_text(incident.parent) if incident.parent else "",
        )  # fmt: skip
        return made

    def owner(self, place: Place) -> str:
        """Return the team that a place belongs to: the link's, else the node's, else the site's."""
        for name in (place.link, *place.nodes) if place.link else place.nodes:
            if team := self._network.team_of(name):
                return team
        return ""

    def runbook(self, alarm: Alarm) -> str:
        """Return the link of the first runbook that is about an alarm, "" where none is."""
        if not self._runbooks:
            return ""
        key = (alarm.kind, alarm.entity, alarm.severity, alarm.source)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= RUNBOOKS_KEPT:
                self._known.clear()
            found = self._known[key] = self._find_runbook(key)
        return found

    def _find_runbook(self, key: tuple[str, str, str, str]) -> str:
        kind, entity, severity, source = key
        for one in self._runbooks:
            here = any_of(one.kinds, kind) and any_of(one.entities, entity)
            if here and any_of(one.sources, source):
                named = {"kind": kind, "entity": entity, "severity": severity, "source": source}
                quoted = {name: quote(value, safe="") for name, value in named.items()}
                return fill(one.url, quoted, "plain")
        return ""


def check_runbook(name: str, runbook: RunbookSettings) -> None:
    """Raise ConfigError for a link with a hole that nothing fills."""
    try:
        check(runbook.url, RUNBOOK_HOLES)
    except ConfigError as error:
        raise ConfigError(f"alerting.runbooks.{name}: {error}") from error


def _cause_of(told: Mapping[str, Any], title: str) -> str:
    """Return why the likeliest cause is that, "" where the title says it already."""
    causes = told.get("causes")
    why = str(causes[0].get("why", "")) if causes else ""
    return "" if why == title else why


def short(
    told: Mapping[str, Any], *, title: str, severity: str, up: bool, since_ns: int, over_ns: int,
    into: str = "",
) -> str:  # fmt: skip
    """Return the block in at most 300 characters: for a phone.

    Title and time always; then, while there is room and in this order: numbers, owner, runbook, what
    changed before, how sure, whether it grows, the cause, what to do. What does not fit is left out
    whole. What is over says how long it lasted, and nothing that held only while it did; what became part of
    another incident (`into`) says so: it is not over.
    """
    if not up:
        return _over(
            title, over_ns // MINUTE_NS, told.get("alarms", 1), span((over_ns - since_ns) / 1e9), into,
            told.get("owner") or "", told.get("runbook", ""),
        )  # fmt: skip
    before = told.get("changed_before")
    return _short(
        severity.upper(),
        title,
        since_ns // MINUTE_NS,
        told.get("alarms", 1),
        _numbers(told, title),
        told.get("owner") or "",
        told.get("runbook", ""),
        before[0] if before else "",
        told.get("sure") or "",
        told.get("trend", ""),
        "" if before else _cause_of(told, title),
        told.get("do") or "",
    )


@lru_cache(1024)  # an incident of one alarm mostly reads as that
def _over(
    title: str, minutes: int, alarms: int, lasted: str, into: str, owner: str, runbook: str
) -> str:
    head = f"{'MERGED' if into else 'CLEARED'} {line(title, SHORT_TITLE_MAX)}, at {_clock(minutes)}"
    return _fitted(
        head,
        (
            (1, f"now part of incident {into}" if into else f"it lasted {lasted}"),
            (2, f"{alarms} alarms" if alarms > 1 else ""),
            (3, f"owner {line(owner, SHORT_PART_MAX)}" if owner else ""),
            (4, runbook),
        ),
    )


@lru_cache(1024)
def _short(
    severity: str, title: str, minutes: int, alarms: int, numbers: str, owner: str, runbook: str,
    before: str, sure: str, trend: str, cause: str, do: str,
) -> str:  # fmt: skip
    head = f"{severity} {line(title, SHORT_TITLE_MAX)}, since {_clock(minutes)}"
    parts = (  # (where it stands, what), what matters most first
        (1, f"{alarms} alarms" if alarms > 1 else ""),
        (2, numbers),
        (7, f"owner {line(owner, SHORT_PART_MAX)}" if owner else ""),
        (9, runbook),
        (5, f"before: {line(before, SHORT_PART_MAX)}" if before else ""),
        (4, line(sure, SHORT_PART_MAX) if sure else ""),
        (3, trend),
        (6, f"cause: {line(cause, SHORT_PART_MAX)}" if cause else ""),
        (8, f"do: {line(do)}" if do else ""),
    )
    return _fitted(head, parts)


def _fitted(head: str, parts: Iterable[tuple[int, str]]) -> str:
    """Return a head and the parts that fit, in the order of their numbers."""
    room = SHORT_CHARACTERS_MAX - len(head)
    kept: list[tuple[int, str]] = []
    for part in parts:
        if part[1] and (needs := len(part[1]) + 2) <= room:
            kept.append(part)
            room -= needs
    kept.sort()
    return "; ".join([head, *[text for _, text in kept]])


def _numbers(told: Mapping[str, Any], title: str) -> str:
    """Return actual and expected in words, "" where the title has them already, as those of ours mostly do."""
    if "expected" in title:
        return ""
    actual, expected, unit = (
        told.get("actual", 0.0),
        told.get("expected", 0.0),
        told.get("unit", ""),
    )
    if not (actual or expected):
        return ""
    said = amount(actual, unit)
    if said in title or (unit[:1] == "{" and said.split()[0] in title.split()):
        return ""
    return f"{said}, {amount(expected, unit)} expected"


@lru_cache(1024)
def _clock(minutes: int) -> str:
    return moment(minutes * MINUTE_NS)
