"""What well-known log messages mean: the table `events.toml`, matched once for each message id.

A message whose id or program has rules goes through Python: rare by nature, and never shed. What has
none costs a look at one byte.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from telemetry.errors import BugError
from telemetry.foreign_alarm import alarm_row
from telemetry.x733 import CLEARED

_GRADES = {
    "CRITICAL": "critical",
    "MAJOR": "major",
    "MINOR": "minor",
    "RED": "major",
    "YELLOW": "minor",
}
# Parts of a message that tell alarms of one object apart: one peer address in two VRFs is two sessions, one
# neighbor on two links two adjacencies.
_APART = ("what", "vrf", "table", "instance", "via")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of message: how to know it, the event it is, and the alarm it moves, if any."""

    ids: tuple[str, ...]
    apps: frozenset[str]
    text: re.Pattern[str] | None
    event: str
    clear_event: str
    kind: str
    severity: str
    cause: str
    label: str
    raises: bool | None
    states: Mapping[str, bool]
    rests: Mapping[str, str]

    def read(self, text: str) -> "Finding | None":
        """Return what a message says, None where the text does not fit the rule."""
        parts: dict[str, str] = {}
        if self.text is not None:
            match = self.text.search(text)
            if match is None:
                return None
            parts = {name: value or "" for name, value in match.groupdict().items()}
        state = parts["state"].lower() if "state" in parts else None
        raises = self.raises if state is None else self.states.get(state)
        event = self.event if raises or not self.clear_event else self.clear_event
        if state is not None and raises is None:
            event = ""
        return Finding(self, self.rests.get(state or "", event), raises, parts)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one message says."""

    rule: Rule
    event: str
    raises: bool | None  # None: it moves no alarm
    parts: Mapping[str, str]

    def alarm(self, *, source: str, host: str, message_id: str, text: str) -> dict[str, Any] | None:
        """Return the change of an alarm as a row without times, or None."""
        rule = self.rule
        if not rule.kind or self.raises is None:
            return None
        name = self.parts.get("object", "").strip()
        place = f"{rule.label} {name}".strip() or message_id
        apart = " ".join(found for part in _APART if (found := self.parts.get(part, "").strip()))
        severity = _GRADES.get(self.parts.get("grade", "").upper(), rule.severity)
        said = f"{place} {apart}".strip()
        return alarm_row(
            source=source,
            kind=rule.kind,
            entity=f"{host}:{place}",
            qualifier=apart,
            severity=severity if self.raises else CLEARED,
            changed_ns=0,
            title=f"{host}: {said}: {self.event.replace('-', ' ')}",
            probable_cause=rule.cause or "other",
            text=text,
            foreign_id=message_id,
            detail={name: value for name, value in self.parts.items() if value},
        )


@cache
def rules() -> tuple[Rule, ...]:
    """Return all rules, in their order."""
    path = Path(__file__).with_name("events.toml")
    return tuple(_rule(made) for made in tomllib.loads(path.read_text("utf-8"))["rule"])


def rules_of_id(message_id: str) -> tuple[Rule, ...]:
    """Return the rules that a message id may fit."""
    return tuple(r for r in rules() if any(fnmatchcase(message_id, one) for one in r.ids))


def rules_of_app(app: str) -> tuple[Rule, ...]:
    """Return the rules for messages of a program that have no id."""
    return tuple(r for r in rules() if app in r.apps)


def find(candidates: tuple[Rule, ...], text: str) -> Finding | None:
    """Return what the first rule that fits says."""
    for rule in candidates:
        found = rule.read(text)
        if found is not None:
            return found
    return None


def _rule(row: dict[str, Any]) -> Rule:
    known = {
        "ids", "apps", "text", "event", "clear_event", "kind", "severity", "cause", "label",
        "raises", "raise", "clear", "rests",
    }  # fmt: skip
    if strange := set(row) - known:
        raise BugError(
            f"collectors/syslog/events.toml: {row.get('ids')}: unknown {sorted(strange)}"
        )
    states = dict.fromkeys(map(str.lower, row.get("raise", ())), True)
    states |= dict.fromkeys(map(str.lower, row.get("clear", ())), False)
    return Rule(
        ids=tuple(row.get("ids", ())),
        apps=frozenset(row.get("apps", ())),
        text=re.compile(row["text"], re.IGNORECASE) if "text" in row else None,
        event=row["event"],
        clear_event=row.get("clear_event", ""),
        kind=row.get("kind", ""),
        severity=row.get("severity", "minor"),
        cause=row.get("cause", ""),
        label=row.get("label", ""),
        raises=row.get("raises"),
        states=states,
        rests=row.get("rests", {}),
    )
