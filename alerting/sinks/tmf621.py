"""TM Forum TMF621 Trouble Ticket v4: a ticket for each incident, in step both ways.

`url` is the API's root, `https://host/tmf-api/troubleTicket/v4`. Our id is `externalId`, by which a
ticket is looked for before one is made.

Source: TMF621 Trouble Ticket Management v4.0.0 (swagger), TMF630 part 1 section 4.4 (filters).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, ask_json, host_of
from alerting.sinks.tickets import Change, Ticket, TicketSink, ask_for_ticket
from alerting.words.wording import SOURCE
from runtime.registry import WEB, Part
from runtime.settings import Settings
from telemetry.errors import TransientError

OVER = ("resolved", "closed", "cancelled", "rejected")
STATES = {"acknowledged": "open", "pending": "open", "held": "open", "inProgress": "taken",
          "resolved": "resolved", "closed": "closed", "cancelled": "closed", "rejected": "closed"}  # fmt: skip
STATUS = {"open": "acknowledged", "taken": "inProgress", "resolved": "resolved"}
MERGED = ("mergedInto", "duplicateOf", "duplicates")
PAGE = 100
NAME_CHARACTERS_MAX = 255


class TicketOptions(Settings, frozen=True, kw_only=True):
    """How our tickets look."""

    ticket_type: str = "networkIncident"  # of a new ticket
    user: str = SOURCE  # the author of our notes


class TroubleTickets:
    """TMF621's half of `TicketSink`."""

    def __init__(self, settings: SinkSettings, options: TicketOptions) -> None:
        self._settings = settings
        self._options = options
        self._url = settings.url.rstrip("/") + "/troubleTicket"
        self.user = options.user

    def find(self, correlation: str) -> Sequence[Ticket]:
        """Return the tickets with this externalId, the oldest first."""
        found = self._list({"externalId": correlation})
        exact = [t for t in map(_ticket, found) if t.correlation == correlation]
        return sorted(exact, key=lambda t: (t.made, t.number))

    def get(self, number: str) -> Ticket | None:
        """Return one ticket, None where it is gone."""
        url = f"{self._url}/{quote(number, safe='')}"
        answer = ask_json(self._settings, "GET", url)
        return None if answer.status == 404 else _ticket(accepted(url, answer).json())

    def create(self, correlation: str, change: Change) -> Ticket:
        """Make one."""
        body = {
            "externalId": correlation,
            "name": (change.title or "")[:NAME_CHARACTERS_MAX],
            "description": change.description,
            "severity": change.severity,
            "ticketType": self._options.ticket_type,
            "status": STATUS["open"],
            "relatedEntity": [{"id": correlation, "role": "incident", "@referredType": "Incident"}],
        }
        return _ticket(
            accepted(self._url, ask_json(self._settings, "POST", self._url, body)).json()
        )

    def update(self, number: str, change: Change) -> Ticket:
        """Change one."""
        body: dict[str, Any] = {}
        if change.state is not None:
            body["status"] = STATUS[change.state]
        if change.severity is not None:
            body["severity"] = change.severity
        if change.title is not None:
            body["name"] = change.title[:NAME_CHARACTERS_MAX]
        if change.comment is not None:
            body["note"] = [{"author": self.user, "text": change.comment}]
        url = f"{self._url}/{quote(number, safe='')}"
        return _ticket(accepted(url, ask_json(self._settings, "PATCH", url, body)).json())

    def changed_since(self, mark: str, now_ns: int) -> tuple[Sequence[Ticket], str]:
        """Return our tickets that changed since `mark`, which is the newest lastUpdate seen."""
        if not mark:
            mark = (datetime.fromtimestamp(now_ns // 10**9, UTC) - timedelta(hours=1)).strftime(
                "%Y-%m-%dT%H:%M:%S.000Z"
            )
        found = self._list({"lastUpdate.gte": mark, "ticketType": self._options.ticket_type})
        tickets = [_ticket(one) for one in found]
        return tickets, max([mark, *(t.changed for t in tickets)])

    def _list(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        while True:
            asked = {**filters, "offset": str(len(made)), "limit": str(PAGE)}
            url = f"{self._url}?{urlencode(asked)}"
            page = accepted(url, ask_json(self._settings, "GET", url)).json()
            if not isinstance(page, list):
                raise TransientError(f"{host_of(url)} answered no list")
            made += page
            if len(page) < PAGE:
                return made


def _ticket(body: Any) -> Ticket:
    if not isinstance(body, dict):
        raise TransientError("the ticket system's answer is no ticket")
    merged = ""
    if body.get("status") in OVER:
        for relation in body.get("troubleTicketRelationship") or []:
            if relation.get("relationshipType") in MERGED:
                merged = str(relation.get("id", ""))
    return Ticket(
        number=ask_for_ticket(body.get("id"), "id"),
        correlation=str(body.get("externalId") or ""),
        state=STATES.get(str(body.get("status")), "open"),
        severity=str(body.get("severity") or ""),
        title=str(body.get("name") or ""),
        merged_into=merged,
        made=str(body.get("creationDate") or ""),
        changed=str(body.get("lastUpdate") or ""),
        comments=tuple(
            (str(note.get("id", n)), str(note.get("author", "")), str(note.get("text", "")))
            for n, note in enumerate(body.get("note") or [])
            if isinstance(note, dict)
        ),
    )


def _make(settings: SinkSettings, options: TicketOptions) -> TicketSink:
    return TicketSink(TroubleTickets(settings, options))


SINK = Part("trouble tickets, TMF621 v4", _make, TicketOptions, needs=("url",), schemes=WEB)
