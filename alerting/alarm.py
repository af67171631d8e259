"""The life of an alarm: pending, raised, updated, cleared; its key holds no severity and no state.

Source: ITU-T X.733 (fields), RFC 8632 section 3.3 (an alarm is a resource and a type; cleared is a
state, not a severity).
"""

from dataclasses import dataclass, field
from typing import Any

from telemetry.identity import stable_id

SEVERITIES = ("critical", "major", "minor", "warning", "indeterminate")

# kind: (X.733 event type, X.733 / X.736 probable cause)
KINDS = {
    "link-cut": ("communicationsAlarm", "lossOfSignal"),
    "exporter-down": ("communicationsAlarm", "communicationsSubsystemFailure"),
    "volumetric-attack": ("securityServiceOrMechanismViolation", "denialOfService"),
    "port-scan": ("securityServiceOrMechanismViolation", "unauthorizedAccessAttempt"),
    "slow-leak": ("qualityOfServiceAlarm", "thresholdCrossed"),
    "deviation": ("qualityOfServiceAlarm", "performanceDegraded"),
    "tocsin-blind": ("processingErrorAlarm", "underlyingResourceUnavailable"),
}

# Faults that explain what else was seen. The rest is what nothing explains.
PRIMARY = ("link-cut", "exporter-down", "volumetric-attack", "port-scan", "slow-leak")


@dataclass(slots=True)
class Claim:
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
    evidence: list[str] = field(default_factory=list)
    causes: list[dict[str, Any]] = field(default_factory=list)
    affects: list[str] = field(default_factory=list)
    advice: str = ""
    talkers: list[dict[str, Any]] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    disposition: str = "alert"
    tick_seconds: float = 0.0

    @property
    def alarm_id(self) -> int:
        """The id of the alarm this claim is about."""
        return alarm_id(self.kind, self.entity)


def alarm_id(kind: str, entity: str) -> int:
    """Return the id of an alarm: a hash of kind and entity, without severity, state or time."""
    return stable_id(f"alarm|{kind}|{entity}")


@dataclass(slots=True)
class Alarm:
    """One alarm and where it stands in its life.

    pending → raised → updated ... → cleared → (raised again | forgotten). `cleared_ns` stays while
    it is cleared; a raise soon after it is the same occurrence, which keeps its `raised_ns`.
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
    raises: list[int] = field(default_factory=list)
    flapping: bool = False
    title: str = ""
    explain: dict[str, Any] = field(default_factory=dict)
    best_score: float = 0.0
    sizes: list[float] = field(default_factory=list)  # |actual - expected| of the last ticks
    attached: list[str] = field(default_factory=list)  # what it explains, "view entity", as seen

    @property
    def up(self) -> bool:
        """Whether it is raised and not cleared."""
        return self.state in ("raised", "updated")
