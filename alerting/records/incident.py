"""The record of an incident: alarms that have one cause, and what of it was told."""

from collections.abc import Iterable
from typing import Any

import msgspec

from alerting.records.alarm import (
    ASKED,
    OURS,
    ROUTE_FAULTS,
    SEVERITIES,
    Alarm,
    json_bytes,
    json_text,
)
from alerting.records.layers import Nature, is_hard
from alerting.records.places import Place
from telemetry.identity import id_text, stable_id

SYMPTOMS_SHOWN = 50
STABLE_AFTER_NS = 60_000_000_000
TITLE_CHANGES_MAX = 2  # after the first minute
NONE: frozenset[str] = frozenset()


class Member(msgspec.Struct):
    """An alarm as its incident knows it."""

    kind: str
    entity: str
    title: str
    severity: str
    layer: int
    hard: bool
    up: bool
    hidden: bool
    raised_ns: int
    nodes: tuple[str, ...]
    link: str = ""
    link_down: bool = False
    node_down: bool = False
    primary: bool = False  # a fault that our own cause rules named: never two in one incident
    behind: bool = False  # it is there because its way to the network is cut
    acknowledged: str = ""  # as its alarm is

    @property
    def cuts(self) -> bool:
        """Whether it may cut others off: it names a link or a node that is down."""
        return self.node_down or (self.link_down and bool(self.link))

    def remembered(self, number: int) -> Alarm:
        """Return its alarm, which is over and forgotten, as far as it is known here."""
        return Alarm(
            self.kind, self.entity, self.severity, "cleared", title=self.title, id=number,
            raised_ns=self.raised_ns, source=OURS if self.primary else "",
        )  # fmt: skip


def member_of(alarm: Alarm, place: Place, nature: Nature, *, primary: bool, behind: bool) -> Member:
    """Return an alarm as a member."""
    return Member(
        alarm.kind, alarm.entity, alarm.title, alarm.severity, nature.layer, is_hard(alarm, nature),
        alarm.up, bool(alarm.suppressed), alarm.raised_ns, place.nodes, place.link,
        nature.link_down, nature.node_down, primary, behind, alarm.acknowledged,
    )  # fmt: skip


class Incident(msgspec.Struct):
    """Alarms that belong together.

    `front` is the alarm that it was told as when people first heard of it: acknowledging it is
    acknowledging the incident. `root` is what seems to be the cause, and what it reads as; it may
    change while the picture gets clearer.
    """

    number: int
    front: int
    root: int
    opened_ns: int
    state: str = "pending"
    members: dict[int, Member] = {}
    nodes: dict[str, int] = {}  # node: last raise there
    title: str = ""
    severity: str = "indeterminate"
    closed_ns: int = 0
    changed_ns: int = 0
    last_ns: int = 0  # of its last raise
    told_ns: int = 0  # first told, 0 = never
    told_count: int = 0
    told_up: int = 0  # how many were up when it was last told
    title_changes: int = 0  # after its first minute
    parent: int = 0
    acknowledged: str = ""
    asked: str = ""  # who asked its owner system to acknowledge it
    operator: str = ""
    origin: str = ""
    by_hand: bool = False  # merged or split by an operator: only new alarms join
    cutting: dict[int, None] = {}  # those of its alarms that may cut others off
    hides: bool = False  # whether a window hid one of its alarms
    hidden: bool = False  # whether windows hide all under it that is up
    first: int = 0  # the deepest of its alarms, 0 = to be looked for anew
    causes: list[dict[str, Any]] = []
    impact: dict[str, Any] = {}
    similar: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []  # feedback of operators
    parted: list[str] = []  # what went to or came from another, in words

    @property
    def open(self) -> bool:
        """Whether something under it is still up."""
        return not self.closed_ns

    @property
    def operator_state(self) -> str:
        """What operators did with it."""
        if self.acknowledged:
            return "acknowledged"
        if self.hidden and self.open:
            return "shelved"
        return ASKED if self.asked and self.open else "none"

    @property
    def kinds(self) -> Iterable[str]:
        """The kinds of its alarms, each once, in order."""
        return dict.fromkeys(member.kind for member in self.members.values())

    @property
    def primary(self) -> bool:
        """Whether it is about a fault that our own rules named."""
        return any(member.primary for member in self.members.values())

    @property
    def of_routes(self) -> bool:
        """Whether it is about a hijack or a leak of routes."""
        return any(member.kind in ROUTE_FAULTS for member in self.members.values())

    @property
    def hard_up(self) -> bool:
        """Whether a hard alarm under it is up."""
        return any(member.hard and member.up for member in self.members.values())

    def add(self, number: int, member: Member) -> None:
        """Take an alarm in, or take it in anew."""
        alone = not self.members
        self.members[number] = member
        if member.cuts:
            self.cutting[number] = None
        else:
            self.cutting.pop(number, None)
        if alone:
            self.first = number
        elif self.first == number:
            self.first = 0
        elif self.first and self.depth(number) < self.depth(self.first):
            self.first = number

    def leave(self, number: int) -> Member:
        """Let an alarm go; return it."""
        self.cutting.pop(number, None)
        self.first = 0
        return self.members.pop(number)

    def hide(self) -> bool:
        """Look anew whether all that is up is hidden; return whether that changed."""
        before = self.hidden
        up = [member.hidden for member in self.members.values() if member.up] if self.hides else ()
        self.hidden = bool(up) and all(up)
        return self.hidden != before

    def follow(self, member: Member, alarm: Alarm) -> bool:
        """Note how an alarm is acknowledged; return whether it changed by that: it is as its front is."""
        if alarm.acknowledged == member.acknowledged:
            return False
        member.acknowledged = alarm.acknowledged
        if alarm.id != self.front or alarm.acknowledged == self.acknowledged:
            return False
        self.acknowledged, self.operator = alarm.acknowledged, alarm.operator
        return True

    def reopen(self, *, anew: bool) -> None:
        """Open it again; an acknowledgement "until worse" lasts where that is not `anew`."""
        if anew or self.acknowledged == "until-clear":
            self.acknowledged = ""
        self.closed_ns, self.asked = 0, ""

    def is_root(self, number: int, link: str) -> bool:
        """Whether an alarm is its root, or of the link of that."""
        return number == self.root or bool(link and link == self.members[self.root].link)

    def is_of_another(self, link: str) -> bool:
        """Whether its alarms name links, and not this one; False where no link is asked for."""
        named = {member.link for member in self.members.values() if member.link}
        return bool(link and named) and link not in named

    def links_down(self) -> frozenset[str]:
        """Return the links that its alarms say are down now."""
        if not self.cutting:
            return NONE
        cutting = map(self.members.__getitem__, self.cutting)
        return frozenset([m.link for m in cutting if m.link_down and m.up and m.link])

    def nodes_down(self) -> frozenset[str]:
        """Return the nodes that its alarms say are gone now."""
        if not self.cutting:
            return NONE
        cutting = map(self.members.__getitem__, self.cutting)
        return frozenset([node for m in cutting if m.node_down and m.up for node in m.nodes])

    def worst(self) -> str:
        """Return the gravest severity of what is up; of all where nothing is."""
        if len(self.members) == 1:
            return next(iter(self.members.values())).severity
        up = {m.severity for m in self.members.values() if m.up}
        found = up or {m.severity for m in self.members.values()}
        return min(found, key=SEVERITIES.index) if len(found) > 1 else next(iter(found))

    def deepest(self) -> int:
        """Return the alarm that is likeliest its root."""
        if not self.first:
            self.first = min(self.members, key=self.depth)
        return self.first

    def depth(self, number: int) -> tuple[int, bool, int, int, int]:
        """Return how likely a member is the root, the smallest most.

        Of one layer, what our rules named comes first: `link a-b is down` says more than the two
        interfaces of which others say it.
        """
        member = self.members[number]
        rank = SEVERITIES.index(member.severity)
        layer = member.layer + 10 * member.behind
        return (layer, not member.primary, rank, member.raised_ns, number)

    def choose_root(self, now_ns: int) -> None:
        """Choose root and title, and before people are told the front; after its first minute they change
        seldom."""
        root = self.deepest()
        if not self.told_ns and self.state == "pending":
            self.front = root
        if root != self.root and not self.parent:
            if self.told_ns and now_ns - self.told_ns > STABLE_AFTER_NS:
                deeper = self.members[root].layer < self.members[self.root].layer
                if not deeper or self.title_changes >= TITLE_CHANGES_MAX:
                    return
                self.title_changes += 1
            self.root = root
        self.title = self.title_of(self.root)

    def title_of(self, number: int) -> str:
        """Return a member's title without what comes and goes: that of an incident is stable."""
        return self.members[number].title.removesuffix(" (flapping)")

    def trend(self, up: int, of_root: str) -> str:
        """Return whether it grows, with `up` alarms under it now: by their number, else as its root."""
        if not self.open:
            return "over"
        if self.state == "raised":
            return "new"
        if up == self.told_up:
            return of_root if of_root in ("growing", "shrinking") else "steady"
        return "growing" if up > self.told_up else "shrinking"

    def shown(self) -> dict[str, Any]:
        """Return it as people look at it while it lasts, with its alarms, the root first."""
        order = sorted(self.members, key=lambda number: (number != self.root, *self.depth(number)))
        return {
            "incident_id": id_text(self.number),
            "state": "open" if self.open else "closed",
            "severity": self.severity,
            "title": self.title,
            "opened_ns": self.opened_ns,
            "changed_ns": self.changed_ns,
            "closed_ns": self.closed_ns,
            "operator_state": self.operator_state,
            "operator": self.operator,
            "lead_alarm_id": id_text(self.front),
            "alarms_count": len(self.members),
            "alarms": [
                {"id": id_text(number), "title": member.title, "severity": member.severity,
                 "up": member.up, "raised_ns": member.raised_ns}
                for number in order[:SYMPTOMS_SHOWN]
                for member in (self.members[number],)
            ],
            "causes": self.causes,
            "impact": self.impact,
            "similar": self.similar,
            "said": self.said,
        }  # fmt: skip

    def row(self, shown: Alarm, explain: dict[str, Any]) -> dict[str, Any]:
        """Return it as a row of schema `incident`, which reads as the alarm `shown`."""
        event_type, probable_cause = shown.types
        others = [m.title for number, m in self.members.items() if number != self.root]
        causes, impact = json_bytes(self.causes), json_bytes(self.impact)
        # Both are in the block as well: written once.
        explain["causes"], explain["impact"] = msgspec.Raw(causes), msgspec.Raw(impact)
        return {
            "changed_ns": self.changed_ns,
            "incident_id": self.number,
            "opened_ns": self.opened_ns,
            "closed_ns": self.closed_ns,
            "severity": self.severity,
            "title": self.title,
            "causes": causes.decode(),
            "alarms": json_text(list(map(id_text, self.members))),
            "state": self.state,
            "lead_alarm_id": self.front,
            "kind": shown.kind,
            "entity": shown.entity,
            "event_type": event_type,
            "probable_cause": probable_cause,
            "source": shown.source,
            "foreign_id": shown.foreign_id,
            "symptoms": json_text(others[:SYMPTOMS_SHOWN]) if others else "[]",
            "alarms_count": len(self.members),
            "explain": json_text(explain),
            "impact": impact.decode(),
            "occurrence": shown.occurrence,
            "parent_incident_id": self.parent,
            "operator_state": self.operator_state,
            "operator": self.operator,
            "origin": self.origin,
        }


def incident_id(alarm: Alarm) -> int:
    """Return the id of an incident that begins with an alarm: replays give the same one."""
    return stable_id(f"incident|{alarm.id}|{alarm.raised_ns}")
