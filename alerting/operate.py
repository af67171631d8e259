"""What operators do, as control rows: acknowledge, shelve, silence, close, merge, split, feedback.

A row is journalled with the tick from which it counts, so a replay does it again. Every action is
idempotent: the same one twice, or one that says what is so already, changes nothing and tells
nobody, which is also what ends the echo between two systems that keep each other in step.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from alerting.asked import Ask, apart, understood, window_of
from alerting.config import AlertingSettings, MaintenanceSettings
from alerting.incidents.incidents import Incidents
from alerting.life.foreign import ForeignAlarms
from alerting.life.triage import KIND as TRIAGE
from alerting.life.triage import VERDICTS, Triage
from alerting.life.windows import CONFIGURATION, Window, Windows, planned
from alerting.records.alarm import Alarm
from alerting.records.incident import Incident
from alerting.records.places import Places
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import id_text

ABOUT_ALARMS = ("acknowledge", "unacknowledge", "shelve", "unshelve", "close", "split", "feedback")
_KNOWN = "that is known here: it ended a while ago, or the id is another's; GET /api/v1/alarms has what is up"


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
        self._do: dict[str, Callable[[Ask, int], list[Alarm] | None]] = {
            "acknowledge": self._acknowledge,
            "unacknowledge": self._unacknowledge,
            "shelve": self._shelve,
            "unshelve": self._unshelve,
            "silence": lambda ask, now_ns: self._window("silence", ask, now_ns),
            "maintenance": self._maintenance,
            "expire": self._expire,
            "out_of_service": self._out_of_service,
            "close": self._close,
            "merge": self._merge,
            "split": self._split,
            "feedback": self._feedback,
        }

    def check_known(self, kind: str, ask: Ask, now_ns: int) -> None:
        """Raise ConfigError where an action is about nothing that is known here; it would do nothing."""
        if kind == "expire":
            window = next((one for one in self._windows.all() if one.name == ask.name), None)
            if window is None:
                raise ConfigError(
                    f"no window is called {ask.name!r}; `tocsin alarm windows` has them"
                )
            if window.by == CONFIGURATION and window.span(now_ns) is None:
                raise ConfigError(
                    f"{ask.name} is not on now, and [alerting.maintenance.{ask.name}] plans it: change it there"
                )
        elif kind == "merge":
            numbers = {_number(one) for one in ask.incidents}
            if len(numbers & self._incidents.all.keys()) < 2:
                raise ConfigError(f"{', '.join(ask.incidents)}: fewer than two incidents {_KNOWN}")
        elif kind == "out_of_service" and ask.over:
            names = {one.name: None for one in apart(kind, ask)}
            if not names.keys() & {window.name for window in self._windows.all()}:
                named = ", ".join((*ask.nodes, *ask.entities))
                raise ConfigError(
                    f"{named}: not out of service; `tocsin alarm windows` has what is"
                )
        elif kind in ABOUT_ALARMS and (ask.incident or ask.alarm or ask.alarms):
            if kind == "feedback" and _number(ask.incident) in self._incidents.all:
                return
            named = ask.incident or ", ".join(ask.alarms or (ask.alarm,))
            found = self._targets(ask)
            if found is None:
                raise ConfigError(f"{named}: no {'incident' if ask.incident else 'alarm'} {_KNOWN}")
            self._check_may(kind, ask, found, named)

    def _check_may(self, kind: str, ask: Ask, found: list[Alarm], named: str) -> None:
        """Raise ConfigError where an action would do nothing with any of these alarms, and why."""
        if kind in ("unacknowledge", "close") and not any(self._owns(one, ask) for one in found):
            owner = self._settings.owners[found[0].source]
            raise ConfigError(
                f"{named}: {owner} owns what becomes of alarms of {found[0].source} (alerting.owners): "
                f"do it there. Nothing was done"
            )
        shelving = (
            self._windows.shelving(one, self._places.of(one.entity, one.title)) for one in found
        )
        hidden = next((one for one in found if one.up and one.suppressed_by), None)
        if kind == "unshelve" and hidden is not None and not any(shelving):
            raise ConfigError(
                f"{named}: not shelved; {hidden.suppressed} {hidden.suppressed_by} hides it: `tocsin alarm expire "
                f"NAME` ends that. Nothing was done"
            )
        if kind == "close" and all(one.up and one.id not in self._foreign.alarms for one in found):
            raise ConfigError(
                f"{named}: it is seen by Tocsin itself and still up, so it clears when that is over; acknowledge "
                f"or shelve it. Nothing was done"
            )

    def take(self, control: Batch, now_ns: int) -> list[Alarm]:
        """Do what control rows ask; return the alarms that changed by it."""
        changed: list[Alarm] = []
        kinds, payloads = control.texts("kind"), control.texts("payload")
        for kind, payload in zip(kinds, payloads, strict=True):
            if kind not in self._do and kind != TRIAGE:
                continue
            try:
                done = self._take(kind, json.loads(payload), now_ns)
            except Exception as error:  # noqa: BLE001  # it is journalled: each restart would end as well
                self._refuse(kind, error)
                continue
            if done is None:
                self._actions.add("unknown")
            else:
                self._actions.add("done" if done else "no_change")
                changed += done
        return changed

    def _take(self, kind: str, payload: dict[str, Any], now_ns: int) -> list[Alarm] | None:
        ask = understood(kind, payload)
        if kind == TRIAGE:
            self._triage.learn(payload, now_ns)
            return []
        return self._do[kind](ask, now_ns)

    def _refuse(self, kind: str, why: object) -> None:
        self._actions.add("refused")
        self._log.warning("operator_action_refused kind=%s error=%s", kind, why)

    def restore_windows(self, kept: Any, now_ns: int) -> None:
        """Take windows of a checkpoint back; those that cannot be are refused as actions are."""
        for why in self._windows.restore(kept, now_ns):
            self._refuse("window", why)

    # ---- acknowledge

    def _acknowledge(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        """Acknowledge what this system may; ask the owner of the rest to do it."""
        until = "until-worse" if ask.until == "worse" else "until-clear"
        found = self._targets(ask)
        if found is None:
            return None
        changed, asked = [], 0
        for alarm in found:
            if not self._owns(alarm, ask):
                if not alarm.up or alarm.acknowledged or alarm.asked:
                    continue
                alarm.asked, asked = ask.who or "?", asked + 1
                self._actions.add("forwarded")
            elif alarm.state == "cleared":
                alarm.state = "closed"
            elif not alarm.up or alarm.acknowledged == until:
                continue
            else:
                alarm.acknowledged, alarm.asked, alarm.acknowledged_by = until, "", ask.who
            self._sign(alarm, ask, now_ns)
            changed.append(alarm)
        if incident := self._incident_of(ask):
            if asked and not incident.acknowledged:
                self._sign_incident(incident, ask, "", asked=ask.who or "?")
            elif len(changed) > asked and incident.acknowledged != until:
                self._sign_incident(incident, ask, until)
        return changed

    def _unacknowledge(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
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

    def _incident_of(self, ask: Ask) -> Incident | None:
        """Return the incident that an action is about: it itself, or that whose face its alarm is."""
        if incident := self._incidents.all.get(_number(ask.incident)):
            return incident
        alarm = self._alarm(_number(ask.alarm))
        incident = self._incidents.all.get(alarm.incident) if alarm else None
        return incident if incident and alarm and incident.front == alarm.id else None

    def _sign_incident(self, incident: Incident, ask: Ask, until: str, *, asked: str = "") -> None:
        incident.acknowledged, incident.asked = until, asked
        incident.operator, incident.origin = ask.who, ask.system
        self._incidents.touch(incident.number)

    def _owns(self, alarm: Alarm, ask: Ask) -> bool:
        """Whether this system may change the alarm's acknowledgement: one does for each source."""
        owner = self._settings.owners.get(alarm.source, "")
        return not owner or owner == ask.system

    def _owned(self, alarms: list[Alarm], ask: Ask) -> list[Alarm]:
        """Return those alarms whose acknowledgement this system may change."""
        made = [alarm for alarm in alarms if self._owns(alarm, ask)]
        for alarm in alarms:
            if alarm not in made:
                self._actions.add("not_owner")
                self._log.warning(
                    "not_owner alarm=%s owner=%s asked_by=%s", id_text(alarm.id),
                    self._settings.owners[alarm.source], ask.system,
                )  # fmt: skip
        return made

    # ---- hide

    def _shelve(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        if not (ask.alarm or ask.alarms or ask.incident):
            return self._window("shelve", ask, now_ns)
        found = self._targets(ask)
        if found is None:
            return None
        window = window_of("shelve", ask, now_ns)
        window.alarms = tuple(alarm.id for alarm in found)
        window.name = ask.name or f"shelve-{id_text(found[0].id)}"
        self._put(window, now_ns)
        for alarm in found:
            self._sign(alarm, ask, now_ns)
        return []

    def _unshelve(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        found = self._targets(ask)
        if found is None:
            return None
        shelved: dict[str, list[int]] = {}
        for alarm in found:
            place = self._places.of(alarm.entity, alarm.title)
            for name in self._windows.shelving(alarm, place):
                shelved.setdefault(name, []).append(alarm.id)
        for name, numbers in shelved.items():
            self._windows.spare(name, numbers, now_ns)
        changed = {number for numbers in shelved.values() for number in numbers}
        return [alarm for alarm in found if alarm.id in changed]

    def _expire(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        return [] if self._windows.end(ask.name, now_ns) else None

    def _window(self, kind: str, ask: Ask, now_ns: int) -> list[Alarm] | None:
        return self._put(self._placed(window_of(kind, ask, now_ns), ask), now_ns)

    def _put(self, window: Window, now_ns: int) -> list[Alarm] | None:
        if not self._windows.put(window, now_ns):
            raise ConfigError(f"more than {self._settings.windows_max} windows (windows_max)")
        return []

    def _placed(self, window: Window, ask: Ask) -> Window:
        """Return a window with the nodes and links that the map has for what it is about."""
        nodes, links, entities = list(ask.nodes), list(ask.links), list(ask.entities)
        for site in ask.sites:
            nodes += self._places.nodes_at(site)
        for one in ask.objects:  # a notice does not say of what sort it is
            if self._places.link_name(one):
                links.append(one)
            elif self._places.knows(one):
                nodes += self._places.nodes_at(one)
            else:
                entities.append(one)
        if ask.behind:
            nodes = self._places.behind(nodes)
        return msgspec.structs.replace(
            window, nodes=tuple(sorted(set(nodes))), links=tuple(links), entities=tuple(entities)
        )

    def _maintenance(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        for one in ask.windows or (ask,):
            if one.cancelled:
                self._windows.end_all(one.name, now_ns)
            else:
                self._window("maintenance", one, now_ns)
        return []

    def plan(self, works: Mapping[str, MaintenanceSettings]) -> None:
        """Keep the planned works of the configuration."""
        for name, work in works.items():
            about = Ask(nodes=work.routers, sites=work.sites, links=work.links, behind=work.behind)
            self._put(self._placed(planned(name, work), about), 0)

    def _out_of_service(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        if not ask.over:
            for one in apart("out_of_service", ask):
                self._window("out_of_service", one, now_ns)
            return []
        ended = [self._windows.end(one.name, now_ns) for one in apart("out_of_service", ask)]
        return [] if any(ended) else None

    # ---- incidents

    def _close(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        found = self._targets(ask)
        if found is None:
            return None
        named = self._incidents.all.get(_number(ask.incident))
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

    def _merge(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        numbers = [_number(one) for one in ask.incidents]
        return [] if self._incidents.merge(numbers, now_ns, ask.who) else None

    def _split(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        alarms = _numbers(ask.alarms)
        done = self._incidents.split(_number(ask.incident), alarms, now_ns, ask.who)
        return [] if done else None

    def _feedback(self, ask: Ask, now_ns: int) -> list[Alarm] | None:
        if ask.verdict in VERDICTS:
            found = self._targets(ask)
            for alarm in found or []:
                self._triage.say(alarm, ask.verdict, by=ask.who, note=ask.why, now_ns=now_ns)
            if not ask.incident:
                return [] if found else None
        incident = self._incidents.all.get(_number(ask.incident))
        if incident is None:
            return None
        said = {
            "at_ns": now_ns, "by": ask.who, "verdict": ask.verdict[:40],
            "note": ask.why,
        }  # fmt: skip
        incident.said = [*incident.said[-19:], said]
        self._incidents.touch(incident.number)
        return []

    # ---- whom it is about

    def _targets(self, ask: Ask) -> list[Alarm] | None:
        """Return the alarms that an action names: one, several, or those of an incident."""
        if ask.incident:
            incident = self._incidents.all.get(_number(ask.incident))
            numbers = list(incident.members) if incident else []
        else:
            numbers = _numbers(ask.alarms or (ask.alarm,))
        found = [alarm for number in numbers if (alarm := self._alarm(number)) is not None]
        return found or None

    def _sign(self, alarm: Alarm, ask: Ask, now_ns: int) -> None:
        alarm.operator, alarm.operator_note = ask.who, ask.why
        alarm.origin = ask.system
        alarm.changed_ns = now_ns


def _number(text: str) -> int:
    """Return the number of an id as people see it, 0 for none."""
    return int(text, 16) if text else 0


def _numbers(texts: Iterable[str]) -> list[int]:
    """Return the numbers of ids, each once."""
    return [*dict.fromkeys(map(_number, texts))]
