"""Tickets: one for each incident, in step with it both ways, whatever answers get lost.

A ticket is known by our correlation id, the incident's (or alarm's) id, which the ticket system
keeps in a field of its own. Before one is made it is looked for, so that a create whose answer was
lost is found and not repeated; where a late create or a person left two, the older one counts and the
younger is closed as its duplicate. A ticket that is closed for good, which its system does not open again,
is followed by another one with the same id. A ticket that people merged into another is followed there; what was
merged before this gate began is looked up before the first ticket is closed.

What others change (closed, severity, comments, taken on) is read in passing and given to the node as
orders; what we wrote ourselves is remembered by ticket, so that it never comes back as news. A severity or
title that people gave a ticket is theirs until ours changes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from alerting.records.alarm import ASKED
from alerting.sinks.parcel import LaterError, NotSentError, Parcel, RefusedError
from alerting.words.alert import Alert
from alerting.words.delivery import Order
from alerting.words.wording import is_over, story
from telemetry.errors import TransientError

DOUBT_NS = 30_000_000_000
KNOWN_MAX = 20_000  # tickets whose last state is remembered
MERGES_FOLLOWED_MAX = 5
HEAR_SECONDS = 15.0
REPEAT_SECONDS = 86_400.0  # it is what is up when the gate begins that is asked for
LOOKED_UP_MAX = 500  # of those, tickets that are looked at for merges
HEARD_BACK = timedelta(days=1)  # what people did while no gate was there
ORDERS_MAX = 10_000  # heard while something was sent, and not fetched yet
COMMENT_CHARACTERS_MAX = 2_000
TWIN = "Duplicate of"  # how our note on a ticket made twice begins


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket as its system shows it, in our words."""

    number: str  # the other system's key
    correlation: str
    state: str  # "open", "taken", "resolved", "closed"
    severity: str
    title: str = ""
    merged_into: str = ""
    made: str = ""  # when, as text that sorts
    changed: str = ""
    comments: tuple[tuple[str, str, str], ...] = ()  # (id, by, text), ours included

    @property
    def over(self) -> bool:
        """Whether nobody works on it any more."""
        return self.state in ("resolved", "closed")


@dataclass(frozen=True, slots=True)
class Change:
    """What to make of a ticket; None leaves it."""

    state: str | None = None  # "open", "taken" or "resolved"
    severity: str | None = None
    title: str | None = None
    description: str | None = None
    comment: str | None = None


class TicketDesk(Protocol):
    """A ticket system, in five calls. Each raises TransientError, RefusedError where it is final."""

    user: str  # who we are there: what this name wrote is ours
    title_characters_max: int  # what is longer is cut there

    def find(self, correlation: str) -> Sequence[Ticket]:
        """Return every ticket with this correlation id, the oldest first."""
        ...

    def get(self, number: str) -> Ticket | None:
        """Return one ticket."""
        ...

    def create(self, correlation: str, change: Change) -> Ticket:
        """Make one and return it."""
        ...

    def update(self, number: str, change: Change) -> Ticket:
        """Change one and return it as it is now."""
        ...

    def changed_since(self, mark: str, now_ns: int) -> tuple[Sequence[Ticket], str]:
        """Return our tickets that changed since a mark ("" = the last day), and the next mark."""
        ...


@dataclass(slots=True)
class _Known:
    """How a ticket stood when we last wrote or read it, and which alert it tells."""

    number: str
    state: str
    severity: str
    change: str = ""
    said: tuple[str, str] = ("", "")  # severity and title that we told it
    over: bool = False  # whether the incident is
    comments: set[str] = field(default_factory=set)


class TicketSink:
    """Keeps tickets in step with incidents; `desk` speaks one system's language."""

    batch_max = 1
    repeat_seconds = REPEAT_SECONDS
    hear_seconds = HEAR_SECONDS

    def __init__(self, desk: TicketDesk) -> None:
        self._desk = desk
        self._known: dict[str, _Known] = {}  # by correlation, the least recently used first
        self._doubts: dict[str, int] = {}  # by correlation: when a create was not answered
        self._merged: dict[str, set[str]] = {}  # by ticket: incidents whose tickets went into it
        # Incidents that were up when we began, and whose tickets nobody looked at.
        self._up: list[str] = []
        self._mark = ""
        self._orders: deque[Order] = deque(maxlen=ORDERS_MAX)

    # ---- ours to theirs

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Bring the ticket to what the alert says; the same again changes nothing."""
        (parcel,) = parcels
        alert = parcel.alert
        found = self._desk.find(alert.id)
        if not found:
            if is_over(alert):
                return "no ticket, and none is needed: it is over"
            found = [self._create(alert, now_ns)]
            if alert.operator_state != ASKED:
                self._learn(alert.id, found[0], alert)
                return f"ticket {found[0].number} opened"
        self._doubts.pop(alert.id, None)
        ticket = self._one_of(found)
        if ticket.correlation != alert.id:
            self._merged.setdefault(ticket.number, set()).add(alert.id)
        else:  # what people did since it was looked at is no less news for being met here
            self._orders += self._news(ticket, now_ns)
        change = self._difference(alert, ticket)
        if change.state == "resolved" and self._others_up(alert.id, ticket):
            change = replace(change, state=None)  # it closes with the last of its incidents
        if change != Change():
            ticket = self._changed(alert, ticket, change, now_ns)
            if ticket.correlation == alert.id:
                self._orders += self._comments(ticket, now_ns)
        self._learn(alert.id, ticket, alert)
        return f"ticket {ticket.number} {ticket.state}"

    def _changed(self, alert: Alert, ticket: Ticket, change: Change, now_ns: int) -> Ticket:
        """Change a ticket and return it. One that is closed for good takes no words, and another follows it
        where it should be open."""
        try:
            return self._desk.update(ticket.number, change)
        except (RefusedError, NotSentError) as error:
            if ticket.state != "closed" or isinstance(error, LaterError):
                raise
            now = self._desk.get(ticket.number)
            if now is None or now.state != "closed":
                raise
        return self._create(alert, now_ns) if change.state == "open" else now

    def _create(self, alert: Alert, now_ns: int) -> Ticket:
        """Make a ticket. Where the answer to a create did not come, a queue in between may let it
        through late: until that can no longer be, the ticket is looked for and not made again."""
        asked_ns = self._doubts.get(alert.id, -DOUBT_NS)
        if now_ns - asked_ns < DOUBT_NS:
            raise TransientError("an earlier create was not answered and may still come through")
        try:
            return self._desk.create(alert.id, _whole(alert))
        except (RefusedError, NotSentError):
            raise
        except TransientError:
            self._doubts[alert.id] = now_ns
            while len(self._doubts) > KNOWN_MAX:
                del self._doubts[next(iter(self._doubts))]
            raise

    def _difference(self, alert: Alert, ticket: Ticket) -> Change:
        """Return what must change so that the ticket says what the alert does."""
        over, known = is_over(alert), self._known.get(alert.id)
        state = None
        if over and not ticket.over:
            state = "resolved"
        elif not over and ticket.over and alert.state == "raised":
            state = "open"  # it is up again; an update alone opens nothing that a person closed
        marked = f"[{alert.change}]"
        if not over and alert.operator_state == ASKED and ticket.state == "open":
            state = "taken"
        told = known is not None and known.change == alert.change
        if told or any(marked in text for _, _, text in ticket.comments):
            return Change(state=state)
        said = known.said if known is not None else ("", "")
        severity = alert.severity if alert.severity not in (ticket.severity, said[0]) else None
        same = ticket.title == alert.title[: self._desk.title_characters_max].strip()
        title = None if same or alert.title == said[1] else alert.title
        if over:
            severity = title = None
        if state is None and severity is None and title is None and alert.state == "raised":
            return Change()  # just made by an attempt whose answer was lost
        return Change(state, severity, title, comment=f"{story(alert)}\n{marked}")

    def _others_up(self, correlation: str, ticket: Ticket) -> bool:
        """Whether another incident that this ticket stands for is still up."""
        while self._up:
            self._look_up(self._up[-1])
            self._up.pop()
        sharing = self._merged.get(ticket.number)
        if not sharing:
            return False
        others = (sharing | {ticket.correlation}) - {correlation}
        return any(one in self._known and not self._known[one].over for one in others)

    def _look_up(self, correlation: str) -> None:
        """Learn into which ticket that of an incident was merged, if it was."""
        if correlation in self._known or not (found := self._desk.find(correlation)):
            return
        ticket = self._one_of(found)
        if ticket.correlation != correlation:
            self._merged.setdefault(ticket.number, set()).add(correlation)
            self._learn(correlation, ticket)

    def _one_of(self, found: Sequence[Ticket]) -> Ticket:
        """Return the ticket that counts, and close its younger twins: the oldest that is not closed for
        good, else the youngest."""
        once = [t for t in found if not self._is_twin(t)] or found
        first = next((t for t in once if t.state != "closed" or t.merged_into), once[-1])
        for twin in found:
            if twin is not first and not twin.over:
                note = f"{TWIN} {first.number}: made when an answer was lost."
                self._desk.update(twin.number, Change(state="resolved", comment=note))
        for _ in range(MERGES_FOLLOWED_MAX):
            if not first.merged_into:
                return first
            target = self._desk.get(first.merged_into)
            if target is None:
                return first
            first = target
        return first

    def _is_twin(self, ticket: Ticket) -> bool:
        return any(
            by == self._desk.user and text.startswith(TWIN) for _, by, text in ticket.comments
        )

    def _learn(self, correlation: str, ticket: Ticket, alert: Alert | None = None) -> None:
        made = self._known.pop(correlation, None) or _Known(ticket.number, "open", "")
        made.number, made.state, made.severity = ticket.number, ticket.state, ticket.severity
        made.comments |= {number for number, _, _ in ticket.comments}
        if alert is not None:
            made.change, made.over = alert.change, is_over(alert)
            made.said = (alert.severity, alert.title)
            if alert.operator_state == ASKED and ticket.state == "taken":
                made.state = "open"  # what they make of it is news: it is theirs to acknowledge
        self._known[correlation] = made
        while len(self._known) > KNOWN_MAX:
            gone = next(iter(self._known))
            self._merged.pop(self._known.pop(gone).number, None)

    # ---- theirs to ours

    def hear(self, *, now_ns: int) -> Sequence[Order]:
        """Return what others changed since the last call, as orders for the node."""
        try:
            tickets, mark = self._desk.changed_since(self._mark, now_ns)
            for ticket in tickets:
                self._orders += self._news(ticket, now_ns)
            self._mark = mark
        except TransientError:
            if not self._orders:  # what was heard on the way is told all the same
                raise
        made = list(self._orders)
        self._orders.clear()
        return made

    def _seen(self, ticket: Ticket) -> _Known:
        """Return what is known of a ticket, of one that is met for the first time what our notes say of it."""
        known = self._known.get(ticket.correlation)
        if known is not None:
            return known
        ours = [text for _, by, text in ticket.comments if by == self._desk.user]
        ended = bool(ours) and ours[-1].endswith("-cleared]")
        return _Known(ticket.number, "resolved" if ended else "open", ticket.severity)

    def _order(self, ticket: Ticket, now_ns: int, do: str, **more: str) -> Order:
        order = Order(
            do=do, id=ticket.correlation, by=f"ticket {ticket.number}", at_ns=now_ns,
            key=f"{ticket.number}-{ticket.changed}-{do}",
        )  # fmt: skip
        return msgspec.structs.replace(order, **more)

    def _comments(self, ticket: Ticket, now_ns: int) -> list[Order]:
        """Return the comments of others that were not heard of yet."""
        seen = self._seen(ticket)
        return [
            self._order(
                ticket, now_ns, "comment", text=text[:COMMENT_CHARACTERS_MAX], by=who,
                key=f"{ticket.number}-{number}-comment",
            )
            for number, who, text in ticket.comments
            if number not in seen.comments and who != self._desk.user
        ]  # fmt: skip

    def _news(self, ticket: Ticket, now_ns: int) -> list[Order]:
        """Return what others made of a ticket since we looked, and learn it."""
        if ticket.merged_into or not ticket.correlation:
            return []
        seen = self._seen(ticket)
        counts = seen.number == ticket.number
        if ticket.correlation not in self._known and ticket.over and seen.state == "open":
            counts = self._one_of(self._desk.find(ticket.correlation)).number == ticket.number
        if not counts:
            return []  # a twin, one that another follows, or one that was merged away
        made = self._comments(ticket, now_ns)
        if ticket.severity != seen.severity:
            made.append(self._order(ticket, now_ns, "severity", text=ticket.severity))
        if ticket.state != seen.state:
            if ticket.state == "taken":
                made.append(self._order(ticket, now_ns, "acknowledge"))
            elif ticket.over and seen.state not in ("resolved", "closed"):
                made.append(self._order(ticket, now_ns, "close"))
            elif not ticket.over and seen.state in ("resolved", "closed"):
                made.append(self._order(ticket, now_ns, "reopen"))
        self._learn(ticket.correlation, ticket)
        return made

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:  # noqa: ARG002
        """Tickets stay: nothing to say again, but to know what is up."""
        new = [alert.id for alert in active if alert.id not in self._known]
        self._up = new[:LOOKED_UP_MAX]

    def close(self) -> None:
        """Nothing is held open."""


def _whole(alert: Alert) -> Change:
    return Change("open", alert.severity, alert.title, story(alert))


def mark_of(mark: str, now_ns: int, form: str) -> str:
    """Return from when on changes are asked for: a mark, or where there is none a day ago."""
    return mark or (datetime.fromtimestamp(now_ns // 10**9, UTC) - HEARD_BACK).strftime(form)


def ask_for_ticket(value: object, name: str) -> str:
    """Return a text field of a ticket system's answer, or raise TransientError."""
    if not isinstance(value, str | int):
        raise TransientError(f"the ticket system's answer has no {name}")
    return str(value)
