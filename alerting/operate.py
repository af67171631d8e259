"""What operators do, as control rows: acknowledge, shelve, silence, close, merge, split, feedback.

A row is journalled with the tick from which it counts, so a replay does it again. Every action is
idempotent: the same one twice, or one that says what is so already, changes nothing and tells
nobody, which is also what ends the echo between two systems that keep each other in step.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from alerting.config import AlertingSettings, MaintenanceSettings
from alerting.incidents.incidents import Incidents
from alerting.life.foreign import ForeignAlarms
from alerting.life.triage import KIND as TRIAGE
from alerting.life.triage import VERDICTS, Triage
from alerting.life.triage import check as check_triage
from alerting.life.windows import (
    NEVER_NS,
    OUT_OF_SERVICE,
    PLANNED_WORK,
    SHELVED,
    SILENCE,
    Window,
    Windows,
    moment_ns,
)
from alerting.records.alarm import Alarm
from alerting.records.incident import Incident
from alerting.records.places import Places
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import id_text, stable_id

KINDS = (
    "acknowledge", "unacknowledge", "shelve", "unshelve", "silence", "expire", "maintenance",
    "out_of_service", "close", "merge", "split", "feedback", TRIAGE,
)  # fmt: skip
NOTE_CHARACTERS_MAX = 1000
LISTED_MAX = 1000


def check(kind: str, payload: dict[str, Any]) -> None:
    """Raise ConfigError with one sentence for an action that cannot be meant."""
    if kind not in KINDS:
        raise ConfigError(f"action {kind!r} is not known; known: {', '.join(KINDS)}")
    needs = {
        "acknowledge": ("alarm", "alarms", "incident"),
        "unacknowledge": ("alarm", "alarms", "incident"),
        "unshelve": ("alarm", "alarms", "incident"),
        "close": ("alarm", "alarms", "incident"),
        "merge": ("incidents",),
        "split": ("incident",),
        "feedback": ("incident", "alarm", "alarms"),
        "expire": ("name",),
    }.get(kind, ())
    if needs and not any(payload.get(name) for name in needs):
        raise ConfigError(f"{kind} needs {' or '.join(needs)}")
    if kind == TRIAGE:
        check_triage(payload)
    if kind == "feedback" and "incident" not in payload and payload.get("verdict") not in VERDICTS:
        raise ConfigError(f"feedback on an alarm needs a verdict: {', '.join(VERDICTS)}")
    for name in ("alarm", "incident"):
        _check_id(name, payload.get(name, ""))
    for name in ("alarms", "incidents"):
        for one in _listed(payload, name):
            _check_id(name, one)
    if kind in ("shelve", "silence") and not ("seconds" in payload or "end_ns" in payload):
        raise ConfigError(f"{kind} needs seconds or end_ns: what hides alarms must end")
    if kind in ("shelve", "silence") and not any(
        payload.get(name)
        for name in ("alarm", "alarms", "incident", "sites", "nodes", "links", "entities", "objects",
                     "kinds", "sources")
    ):  # fmt: skip
        raise ConfigError(
            f"{kind} needs what it is about: an alarm, an incident, sites, kinds, ..."
        )


def _check_id(name: str, text: object) -> None:
    if text and not re.fullmatch(r"[0-9a-f]{16}", str(text)):
        raise ConfigError(f"{name} {str(text)[:40]!r} is no id; ids are 16 hex digits")


class Operations:
    """Applies control rows to alarms, windows and incidents; says which alarms changed."""

    def __init__(
        self,
        settings: AlertingSettings,
        context: Context,
        *,
        places: Places,
        windows: Windows,
        incidents: Incidents,
        foreign: ForeignAlarms,
        triage: Triage,
        alarm: Callable[[int], Alarm | None],
    ) -> None:
        self._settings = settings
        self._triage = triage
        self._log = context.log
        self._places = places
        self._windows = windows
        self._incidents = incidents
        self._foreign = foreign
        self._alarm = alarm
        self._actions = context.metrics.counter(
            "operator_actions_total",
            "actions of operators and ticket systems by what became of them",
            label="fate",
            values=("done", "no_change", "forwarded", "not_owner", "unknown", "refused"),
        )
        self._do: dict[str, Callable[[dict[str, Any], int], list[Alarm] | None]] = {
            "acknowledge": self._acknowledge,
            "unacknowledge": self._unacknowledge,
            "shelve": self._shelve,
            "unshelve": self._unshelve,
            "silence": lambda ask, now_ns: self._window(ask, now_ns, SILENCE),
            "maintenance": self._maintenance,
            "expire": self._expire,
            "out_of_service": self._out_of_service,
            "close": self._close,
            "merge": self._merge,
            "split": self._split,
            "feedback": self._feedback,
            TRIAGE: self._learn,
        }

    def take(self, control: Batch, now_ns: int) -> list[Alarm]:
        """Do what control rows ask; return the alarms that changed by it."""
        changed: list[Alarm] = []
        kinds, payloads = control.texts("kind"), control.texts("payload")
        for kind, payload in zip(kinds, payloads, strict=True):
            if kind not in self._do:
                continue
            try:
                done = self._do[kind](json.loads(payload), now_ns)
            except (ConfigError, ValueError, KeyError, TypeError) as error:
                self._actions.add("refused")
                self._log.warning("operator_action_refused kind=%s error=%s", kind, error)
                continue
            if done is None:
                self._actions.add("unknown")
            else:
                self._actions.add("done" if done else "no_change")
                changed += done
        return changed

    # ---- acknowledge

    def _acknowledge(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        """Acknowledge what this system may; ask the owner of the rest to do it."""
        until = "until-worse" if ask.get("until") == "worse" else "until-clear"
        found = self._targets(ask)
        if found is None:
            return None
        changed, asked = [], 0
        for alarm in found:
            if not self._owns(alarm, ask):
                if not alarm.up or alarm.acknowledged or alarm.asked:
                    continue
                alarm.asked, asked = _by(ask) or "?", asked + 1
                self._actions.add("forwarded")
            elif alarm.state == "cleared":
                alarm.state = "closed"
            elif not alarm.up or alarm.acknowledged == until:
                continue
            else:
                alarm.acknowledged, alarm.asked = until, ""
            self._sign(alarm, ask, now_ns)
            changed.append(alarm)
        if incident := self._incident_of(ask):
            if asked and not incident.acknowledged:
                self._sign_incident(incident, ask, "", asked=_by(ask) or "?")
            elif len(changed) > asked and incident.acknowledged != until:
                self._sign_incident(incident, ask, until)
        return changed

    def _unacknowledge(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        found = self._targets(ask)
        if found is None:
            return None
        changed = [alarm for alarm in self._owned(found, ask) if alarm.operator_state != "none"]
        for alarm in changed:
            alarm.acknowledged = alarm.asked = ""
            self._sign(alarm, ask, now_ns)
        incident = self._incident_of(ask)
        if changed and incident and (incident.acknowledged or incident.asked):
            self._sign_incident(incident, ask, "")
        return changed

    def _incident_of(self, ask: dict[str, Any]) -> Incident | None:
        """Return the incident that an action is about: it itself, or that whose face its alarm is."""
        if incident := self._incidents.all.get(_number(ask.get("incident", ""))):
            return incident
        alarm = self._alarm(_number(ask.get("alarm", "")))
        incident = self._incidents.all.get(alarm.incident) if alarm else None
        return incident if incident and alarm and incident.front == alarm.id else None

    def _sign_incident(
        self, incident: Incident, ask: dict[str, Any], until: str, *, asked: str = ""
    ) -> None:
        incident.acknowledged, incident.asked = until, asked
        incident.operator, incident.origin = _by(ask), str(ask.get("system", ""))
        self._incidents.touch(incident.number)

    def _owns(self, alarm: Alarm, ask: dict[str, Any]) -> bool:
        """Whether this system may change the alarm's acknowledgement: one does for each source."""
        owner = self._settings.owners.get(alarm.source, "")
        return not owner or owner == str(ask.get("system", ""))

    def _owned(self, alarms: list[Alarm], ask: dict[str, Any]) -> list[Alarm]:
        """Return those alarms whose acknowledgement this system may change."""
        made = [alarm for alarm in alarms if self._owns(alarm, ask)]
        for alarm in alarms:
            if alarm not in made:
                self._actions.add("not_owner")
                self._log.warning(
                    "not_owner alarm=%s owner=%s asked_by=%s", id_text(alarm.id),
                    self._settings.owners[alarm.source], ask.get("system", ""),
                )  # fmt: skip
        return made

    # ---- hide

    def _shelve(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        if not ("alarm" in ask or "incident" in ask):
            return self._window(ask, now_ns, SHELVED)
        found = self._targets(ask)
        if found is None:
            return None
        seconds = float(ask["seconds"])
        window = Window(
            str(ask.get("name") or f"shelve-{id_text(found[0].id)}"), SHELVED, now_ns,
            now_ns + round(seconds * 1e9), alarms=tuple(alarm.id for alarm in found),
            reason=_note(ask), by=_by(ask),
        )  # fmt: skip
        for alarm in found:
            self._sign(alarm, ask, now_ns)
        return self._put(window, now_ns)

    def _unshelve(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        found = self._targets(ask)
        if found is None:
            return None
        names = {alarm.suppressed_by for alarm in found if alarm.shelved_until_ns}
        for name in sorted(names):
            self._windows.end(name, now_ns)
        return found if names else []

    def _expire(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        return [] if self._windows.end(str(ask["name"]), now_ns) else None

    def _window(self, ask: dict[str, Any], now_ns: int, kind: str) -> list[Alarm] | None:
        return self._put(self.window_of(ask, now_ns, kind), now_ns)

    def _put(self, window: Window, now_ns: int) -> list[Alarm] | None:
        if not self._windows.put(window, now_ns):
            raise ConfigError(f"more than {self._settings.windows_max} windows (windows_max)")
        return []

    def window_of(self, ask: dict[str, Any], now_ns: int, kind: str) -> Window:
        """Return the window that an action describes."""
        nodes = [str(node) for node in _listed(ask, "nodes")]
        entities = [str(entity) for entity in _listed(ask, "entities")]
        for site in _listed(ask, "sites"):
            nodes += self._places.nodes_at(str(site))
        links = [str(link) for link in _listed(ask, "links")]
        for one in map(str, _listed(ask, "objects")):  # a notice does not say of what sort it is
            if self._places.link_name(one):
                links.append(one)
            elif self._places.knows(one):
                nodes += self._places.nodes_at(one)
            else:
                entities.append(one)
        if ask.get("behind"):
            nodes = self._places.behind(nodes)
        start_ns = int(ask.get("start_ns", now_ns))
        end_ns = int(ask.get("end_ns", 0)) or (
            start_ns + round(float(ask["seconds"]) * 1e9) if "seconds" in ask else NEVER_NS
        )
        if end_ns <= start_ns:
            raise ConfigError("it ends before it begins")
        name = str(ask.get("name") or "") or (
            f"{kind}-{id_text(stable_id(json.dumps(ask, sort_keys=True) + str(now_ns)))}"
        )
        return Window(
            name, kind, start_ns, end_ns,
            days=tuple(_listed(ask, "days")), zone=str(ask.get("zone", "UTC")),
            nodes=tuple(sorted(set(nodes))), links=tuple(links),
            entities=tuple(entities), kinds=tuple(_listed(ask, "kinds")), sources=tuple(_listed(ask, "sources")),
            reason=_note(ask), by=_by(ask),
        )  # fmt: skip

    def _maintenance(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        for one in ask.get("windows", [ask]):
            if one.get("cancelled"):
                self._windows.end(str(one["name"]), now_ns)
            else:
                self._window(one, now_ns, PLANNED_WORK)
        return []

    def planned(self, name: str, work: MaintenanceSettings) -> Window:
        """Return the window of `[alerting.maintenance.<name>]`."""
        nodes = list(work.routers)
        for site in work.sites:
            nodes += self._places.nodes_at(site)
        if work.behind:
            nodes = self._places.behind(nodes)
        # One that returns each week needs a time of day alone: its first day may be any in the past.
        start = f"1970-01-05T{work.start}" if work.days else work.start
        start_ns = moment_ns(start, work.zone)
        end_ns = start_ns + work.minutes * 60_000_000_000
        return Window(
            name, PLANNED_WORK, start_ns, end_ns, days=work.days, zone=work.zone,
            nodes=tuple(sorted(set(nodes))), links=work.links, kinds=work.kinds,
            reason=work.reason, by="configuration",
        )  # fmt: skip

    def _out_of_service(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        name = (
            f"out-of-service-{'-'.join(map(str, _listed(ask, 'nodes') + _listed(ask, 'entities')))}"
        )
        if not ask.get("over"):
            return self._window({**ask, "name": name}, now_ns, OUT_OF_SERVICE)
        return [] if self._windows.end(name, now_ns) else None

    # ---- incidents

    def _close(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        found = self._targets(ask)
        if found is None:
            return None
        named = self._incidents.all.get(_number(ask.get("incident")))
        goes_on = named is not None and named.parent  # its ticket ends, its alarms are of another's
        changed = []
        for alarm in self._owned(found, ask):
            if alarm.state in ("closed", "pending") or (goes_on and alarm.up):
                continue
            if alarm.up and alarm.id in self._foreign.alarms:
                self._foreign.close(alarm, now_ns)
            elif alarm.up:
                continue  # ours clears when the network is well again, not when people wish it
            else:
                alarm.state = "closed"
            self._sign(alarm, ask, now_ns)
            changed.append(alarm)
        return changed

    def _merge(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        numbers = [_number(one) for one in _listed(ask, "incidents")]
        return [] if self._incidents.merge(numbers, now_ns, _by(ask)) else None

    def _split(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        alarms = [_number(one) for one in _listed(ask, "alarms")]
        done = self._incidents.split(_number(ask["incident"]), alarms, now_ns, _by(ask))
        return [] if done else None

    def _learn(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        self._triage.learn(ask, now_ns)
        return []

    def _feedback(self, ask: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        if ask.get("verdict") in VERDICTS:
            found = self._targets(ask)
            for alarm in found or []:
                self._triage.say(alarm, ask["verdict"], by=_by(ask), note=_note(ask), now_ns=now_ns)
            if "incident" not in ask:
                return [] if found else None
        incident = self._incidents.all.get(_number(ask.get("incident", "")))
        if incident is None:
            return None
        said = {
            "at_ns": now_ns, "by": _by(ask), "verdict": str(ask.get("verdict", ""))[:40],
            "note": _note(ask),
        }  # fmt: skip
        incident.said = [*incident.said[-19:], said]
        self._incidents.touch(incident.number)
        return []

    # ---- whom it is about

    def _targets(self, ask: dict[str, Any]) -> list[Alarm] | None:
        """Return the alarms that an action names: one, several, or those of an incident."""
        if "incident" in ask:
            incident = self._incidents.all.get(_number(ask["incident"]))
            numbers = list(incident.members) if incident else []
        else:
            numbers = [_number(one) for one in _listed(ask, "alarms") or [ask["alarm"]]]
        found = [alarm for number in numbers if (alarm := self._alarm(number)) is not None]
        return found or None

    def _sign(self, alarm: Alarm, ask: dict[str, Any], now_ns: int) -> None:
        alarm.operator, alarm.operator_note = _by(ask), _note(ask)
        alarm.origin = str(ask.get("system", ""))
        alarm.changed_ns = now_ns


def _number(text: object) -> int:
    """Return the number of an id as people see it, 0 for none."""
    return int(str(text), 16) if text else 0


def _listed(ask: dict[str, Any], name: str) -> list[Any]:
    value = ask.get(name, [])
    return list(value)[:LISTED_MAX] if isinstance(value, list | tuple) else [value]


def _by(ask: dict[str, Any]) -> str:
    return str(ask.get("by", ""))[:200]


def _note(ask: dict[str, Any]) -> str:
    return str(ask.get("note", ask.get("reason", "")))[:NOTE_CHARACTERS_MAX]
