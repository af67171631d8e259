"""The record of an alarm, ours or a foreign one; its key holds no severity and no state.

Source: ITU-T X.733 (fields), RFC 8632 section 3.3 (an alarm is a resource and a type; cleared is a
state, not a severity).
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from telemetry.identity import stable_id
from telemetry.x733 import SEVERITIES as SEVERITIES  # part of this room

ASKED = "acknowledge_asked"  # operator state: its owner system was asked, and has not said yes yet
OURS = "tocsin"  # who says an alarm: we, or the foreign manager by its name
NEVER_NS = (1 << 63) - 1  # when what is not due happens

_JSON = msgspec.json.Encoder(order="sorted")
_entity_id = lru_cache(16_384)(stable_id)

# kind: (X.733 event type, X.733 / X.736 probable cause)
KINDS = {
    "link-cut": ("communicationsAlarm", "lossOfSignal"),
    "exporter-down": ("communicationsAlarm", "communicationsSubsystemFailure"),
    "volumetric-attack": ("securityServiceOrMechanismViolation", "denialOfService"),
    "port-scan": ("securityServiceOrMechanismViolation", "unauthorizedAccessAttempt"),
    "brute-force": ("securityServiceOrMechanismViolation", "authenticationFailure"),
    "dns-tunnel": ("securityServiceOrMechanismViolation", "unauthorizedAccessAttempt"),
    "unusual-upload": ("securityServiceOrMechanismViolation", "breachOfConfidentiality"),
    "beacon": ("securityServiceOrMechanismViolation", "unauthorizedAccessAttempt"),
    "spoofed-sources": ("securityServiceOrMechanismViolation", "nonRepudiationFailure"),
    "slow-leak": ("qualityOfServiceAlarm", "thresholdCrossed"),
    "deviation": ("qualityOfServiceAlarm", "performanceDegraded"),
    "predicted": ("qualityOfServiceAlarm", "thresholdCrossed"),
    "tocsin-blind": ("processingErrorAlarm", "underlyingResourceUnavailable"),
}

# Faults that explain what else was seen. The rest is what nothing explains.
PRIMARY = (
    "link-cut", "exporter-down", "volumetric-attack", "port-scan", "brute-force", "dns-tunnel",
    "spoofed-sources", "unusual-upload", "slow-leak",
)  # fmt: skip
# Faults of routes, which the watch on them states: beside those above, never under one of them.
ROUTE_FAULTS = ("prefix-hijack", "subprefix-hijack", "origin-takeover", "route-leak")
# Of the first, what adds many flows and next to no octets.
MANY_SMALL = ("port-scan", "brute-force", "dns-tunnel", "spoofed-sources")


SAMPLED = ("sample", "slow_sample")  # views of sampled series
OWN_CADENCE = (*SAMPLED, "contact", "slow_probe")  # views with longer ticks than others of flows


def cadence_of(view: str) -> str:
    """Return what tells whose ticks count for an alarm: those of most flow views close together."""
    return view if view in OWN_CADENCE else "flow"


class Claim(msgspec.Struct):
    """What the cause rules say of one tick: this fault, on this entity, for these reasons."""

    kind: str
    entity: str
    severity: str
    title: str
    since_ns: int
    score: float
    ticks_needed: int = 1
    actual: float = 0.0
    expected: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    unit: str = ""
    evidence: list[str] = []
    causes: list[dict[str, Any]] = []
    affects: list[str] = []
    advice: str = ""
    # More of it: the FlowSpec rules against an attack, or why there is none.
    filters: list[str] = []
    talkers: list[dict[str, Any]] = []
    series: list[str] = []
    disposition: str = "alert"
    parts: list[str] = []  # of which new ones are news: vectors, scanning hosts, ports tried
    tick_seconds: float = 0.0
    cadence: str = ""  # `cadence_of` its view
    forecast: dict[str, Any] = {}  # of a predicted alarm

    @property
    def alarm_id(self) -> int:
        """The id of the alarm this claim is about."""
        return alarm_id(self.kind, self.entity)


def json_bytes(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no white space."""
    return _JSON.encode(value)


def json_text(value: Any) -> str:
    """Return canonical JSON as text."""
    return _JSON.encode(value).decode()


@lru_cache(16_384)
def alarm_id(kind: str, entity: str) -> int:
    """Return the id of an alarm: a hash of kind and entity, without severity, state or time."""
    return stable_id(f"alarm|{kind}|{entity}")


class Alarm(msgspec.Struct):
    """One alarm and where it stands in its life.

    pending → raised → updated ... → cleared → (raised again | closed | forgotten). `cleared_ns`
    stays while it is cleared; a raise soon after it is the same occurrence, which keeps its
    `raised_ns`. What operators do (acknowledge, shelve) and why nobody is told (`suppressed`) stand
    beside that state, as RFC 8632 has it.
    """

    kind: str
    entity: str
    severity: str = "indeterminate"
    state: str = "pending"
    pending_ticks: int = 0
    quiet_ticks: int = 0
    first_ns: int = 0  # start of the first tick that showed it
    raised_ns: int = 0
    cleared_ns: int = 0
    changed_ns: int = 0
    occurrence: int = 0
    last_ns: int = 0  # when the last tick that showed it closed
    tick_seconds: float = 0.0  # length of the ticks that show it
    cadence: str = ""  # whose ticks they are
    paced_ns: int = 0  # when the last of those that showed it closed
    raises: list[int] = []
    flapping: bool = False
    title: str = ""
    explain: dict[str, Any] = {}
    best_score: float = 0.0
    sizes: list[float] = []  # |actual - expected| of the last ticks
    parts: list[str] = []  # of its claims, as they were told
    attached: list[str] = []  # what it explains, in the order seen
    moved: dict[str, tuple[float, float]] = {}  # how far it moved these, down and up (logarithms)
    id: int = msgspec.field(default=0, name="number")  # the same through all its life
    source: str = OURS
    foreign_id: str = ""
    event_type: str = ""  # of a foreign alarm; ours are in KINDS
    probable_cause: str = ""
    text: str = ""
    tally: int = 0  # how often it was reported in this occurrence
    acknowledged: str = ""  # "until-clear", "until-worse"
    acknowledged_by: str = ""
    asked: str = ""  # who asked the system that owns its acknowledgement to acknowledge it
    operator: str = ""
    operator_note: str = ""
    shelved_until_ns: int = 0
    out_of_service: bool = False
    suppressed: str = ""  # why nobody is told
    suppressed_by: str = ""  # the window that says so
    incident: int = 0
    origin: str = ""  # the system that caused the last change
    holds: str = ""  # foreign: "raise" or "clear" that waits to be believed
    due_ns: int = 0  # foreign: when its timer fires
    their_state: str = ""  # foreign: its operator state in its own system; "" = that says none
    their_owner: str = ""  # foreign: who works on it there
    words_ns: int = 0  # foreign: when a change of its words alone was told last
    words_wait: bool = False  # foreign: such a change is still to be told

    def __post_init__(self) -> None:
        self.id = self.id or alarm_id(self.kind, self.entity)

    @property
    def up(self) -> bool:
        """Whether it is raised and not cleared."""
        return self.state in ("raised", "updated")

    @property
    def operator_state(self) -> str:
        """What operators did with it, the strongest first."""
        if self.state == "closed":
            return "closed"
        if self.out_of_service:
            return "out_of_service"
        if self.shelved_until_ns:
            return "shelved"
        if self.acknowledged:
            return "acknowledged"
        return ASKED if self.asked and self.up else "none"

    @property
    def types(self) -> tuple[str, str]:
        """X.733 event type and probable cause."""
        if self.source == OURS and self.kind in KINDS:
            return KINDS[self.kind]
        return self.event_type, self.probable_cause

    def is_worse(self, severity: str) -> bool:
        """Whether a severity is graver than the one it has."""
        return SEVERITIES.index(severity) < SEVERITIES.index(self.severity)

    def end_acknowledgement(self, *, anew: bool) -> None:
        """Take it up again where it comes back: one "until worse" lasts through its occurrence alone."""
        if anew or self.acknowledged == "until-clear":
            self.acknowledged = ""


# Columns of schema `alarm` that are attributes of the same name, and those of another.
_SAME = (
    "changed_ns", "raised_ns", "cleared_ns", "state", "severity", "kind", "entity", "source", "foreign_id",
    "occurrence", "suppressed", "operator", "operator_note", "shelved_until_ns", "tally", "origin",
)  # fmt: skip
_NAMED = {"alarm_id": "id", "specific_problem": "title", "incident_id": "incident"}
_read = attrgetter(*_SAME, *_NAMED.values(), "types", "operator_state")


def columns_of(alarms: Sequence[Alarm]) -> dict[str, Sequence[Any]]:
    """Return alarms as the columns of schema `alarm`; there is at least one."""
    *columns, types, states = zip(*map(_read, alarms), strict=True)
    made: dict[str, Sequence[Any]] = dict(zip((*_SAME, *_NAMED), columns, strict=True))
    made["operator_state"] = states
    made["event_type"], made["probable_cause"] = zip(*types, strict=True)
    made["entity_id"] = list(map(_entity_id, made["entity"]))
    made["additional_text"] = [a.text or "; ".join(a.explain.get("why", [])) for a in alarms]
    made["explain"] = [json_text(alarm.explain) for alarm in alarms]
    return made
