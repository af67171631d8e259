"""What a sink sends about an alarm: one struct, and its canonical bytes.

The explain block is most of it, and nobody between the alerting stage and the sink looks inside: on that
way it stays the bytes that the stage wrote (`SealedAlert`).
"""

import json
from typing import Any

import msgspec


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one alarm without its explain block: what routes, limits and keys go by.

    Everything here is deterministic; attempts are outside.
    """

    id: str  # of the alarm, 16 hex digits: the same from raise to clear
    change: str  # idempotency key of this change
    kind: str
    entity: str
    state: str
    severity: str
    title: str
    changed_ns: int
    raised_ns: int
    cleared_ns: int
    occurrence: int
    event_type: str
    probable_cause: str
    source: str = "tocsin"  # who says it: we, or the foreign manager
    foreign_id: str = ""  # its id there
    operator_state: str = "none"  # acknowledged, shelved, out_of_service, closed
    operator: str = ""  # who acknowledged or shelved it
    suppressed: str = ""  # why nobody is told, "" where people are
    incident: str = ""  # the incident it belongs to, 16 hex digits
    parent: str = ""  # of an incident: the one that it became part of
    symptoms: tuple[str, ...] = ()  # what else belongs to that incident
    alarms_count: int = 1  # of that incident
    origin: str = ""  # the system that caused this change: it is not told again

    @property
    def hidden(self) -> bool:
        """Whether nobody is to be told who does not know of it: of an incident, all that is up under it is hidden."""
        return bool(self.suppressed) or self.operator_state == "shelved"


class Alert(Envelope, frozen=True, kw_only=True):
    """One change of one alarm, as sent."""

    explain: dict[str, Any]


class SealedAlert(Envelope, frozen=True, kw_only=True):
    """The same with its explain block as it was encoded: to be kept and passed on."""

    explain: msgspec.Raw

    def opened(self) -> Alert:
        """Return it with its explain block decoded."""
        fields = {name: getattr(self, name) for name in Envelope.__struct_fields__}
        return Alert(**fields, explain=read_json(bytes(self.explain)))


def read_json(text: str | bytes) -> Any:
    """Return what a column of JSON holds; half a surrogate pair is left for the outbox to mend."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json.loads(text)


_ENCODER = msgspec.json.Encoder(order="sorted")


def canonical(alert: Envelope) -> bytes:
    """Return the canonical JSON of an alert: sorted keys, no white space, floats of 6 digits."""
    return _ENCODER.encode(alert)


def within(realm: str, alert: Alert) -> Alert:
    """Return an alert as a system knows it that hears of alarms of several Tocsins."""
    return msgspec.structs.replace(
        alert, id=f"{realm}{alert.id}", change=f"{realm}{alert.change}",
        incident=alert.incident and f"{realm}{alert.incident}",
        parent=alert.parent and f"{realm}{alert.parent}",
    )  # fmt: skip
