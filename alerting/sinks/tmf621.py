"""TM Forum TMF621 Trouble Ticket v4: a ticket for each incident, in step both ways.

`url` is the API's root, `https://host/tmf-api/troubleTicket/v4`. Our id is `externalId`, by which a
ticket is looked for before one is made. To some systems the notes of a PATCH are added, to others they are
all that the ticket has (RFC 7396): what the first one makes of them is seen, and put right.

Source: TMF621 Trouble Ticket Management v4.0.0 (swagger), TMF630 part 1 section 4.4 (filters).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, ask_json, host_of
from alerting.sinks.tickets import Change, Ticket, TicketSink, ask_for_ticket, mark_of
from alerting.words.wording import SOURCE
from runtime.registry import WEB, Part
from runtime.settings import Settings
from telemetry.errors import TransientError
from telemetry.identity import id_text, stable_id

OVER = ("resolved", "closed", "cancelled", "rejected")
STATES = {"acknowledged": "open", "pending": "open", "held": "open", "inProgress": "taken",
          "resolved": "resolved", "closed": "closed", "cancelled": "closed", "rejected": "closed"}  # fmt: skip
STATUS = {"open": "acknowledged", "taken": "inProgress", "resolved": "resolved"}
MERGED = ("mergedInto", "duplicateOf", "duplicates")
PAGE, PARTIAL = 100, 206
PAGES_MAX = 1_000
NAME_CHARACTERS_MAX = 255
NOTES_OF_MAX = 1_000  # tickets whose notes are remembered from looking at them to changing them


class TicketOptions(Settings, frozen=True, kw_only=True):
    """How our tickets look."""

    ticket_type: str = "networkIncident"  # of a new ticket
    user: str = SOURCE  # the author of our notes


class TroubleTickets:
    """TMF621's half of `TicketSink`."""

    title_characters_max = NAME_CHARACTERS_MAX

    def __init__(self, settings: SinkSettings, options: TicketOptions) -> None:
        self._settings = settings
        self._options = options
        self._url = settings.url.rstrip("/") + "/troubleTicket"
        self.user = options.user
        self._notes: OrderedDict[str, list[Any]] = OrderedDict()  # by ticket, as it showed them
        # Whether notes of a PATCH are all there are; None = not seen yet.
        self._replaces: bool | None = None

    def find(self, correlation: str) -> Sequence[Ticket]:
        """Return the tickets with this externalId, the oldest first."""
        found = self._list({"externalId": correlation})
        exact = [t for t in map(self._ticket, found) if t.correlation == correlation]
        return sorted(exact, key=lambda t: (t.made, t.number))

    def get(self, number: str) -> Ticket | None:
        """Return one ticket, None where it is gone."""
        url = f"{self._url}/{quote(number, safe='')}"
        answer = ask_json(self._settings, "GET", url)
        return None if answer.status == 404 else self._ticket(accepted(url, answer).json())

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
        return self._ticket(
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
        before = self._notes.get(number, [])
        if change.comment is not None:
            body["note"] = [{"author": self.user, "text": change.comment}]
            if self._replaces:
                body["note"] = [*before, *body["note"]]
        ticket = self._patch(number, body)
        if change.comment is not None and before and self._replaces is None:
            if not self._notes.get(number):  # the answer shows none: it may be short of them
                ticket = self.get(number) or ticket
            left = {_words(note) for note in self._notes.get(number, [])}
            self._replaces = not all(_words(note) in left for note in before)
            if self._replaces:
                ticket = self._patch(number, {"note": [*before, *body["note"]]})
        return ticket

    def _patch(self, number: str, body: dict[str, Any]) -> Ticket:
        url = f"{self._url}/{quote(number, safe='')}"
        return self._ticket(accepted(url, ask_json(self._settings, "PATCH", url, body)).json())

    def changed_since(self, mark: str, now_ns: int) -> tuple[Sequence[Ticket], str]:
        """Return our tickets that changed since `mark`, which is the newest lastUpdate seen."""
        since = mark_of(mark, now_ns, "%Y-%m-%dT%H:%M:%S.000Z")
        found = self._list({"lastUpdate.gte": since, "ticketType": self._options.ticket_type})
        tickets = [self._ticket(one) for one in found]
        return tickets, max([since, *(t.changed for t in tickets)])

    def _list(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        """Return all that is found. A system may give fewer a page than were asked for, and the first page
        again where it knows no `offset`."""
        made: dict[str, Any] = {}
        offset = 0
        for _ in range(PAGES_MAX):
            asked = {**filters, "offset": str(offset), "limit": str(PAGE)}
            url = f"{self._url}?{urlencode(asked)}"
            answer = accepted(url, ask_json(self._settings, "GET", url))
            page = answer.json()
            if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
                raise TransientError(f"{host_of(url)} answered no list of tickets")
            new = {str(one.get("id")): one for one in page if str(one.get("id")) not in made}
            made |= new
            offset += len(page)
            total = answer.headers.get("x-total-count", "")
            if not new or (total.isdecimal() and offset >= int(total)):
                break
            if not total.isdecimal() and answer.status != PARTIAL and len(page) < PAGE:
                break
        return list(made.values())

    def _ticket(self, body: Any) -> Ticket:
        if not isinstance(body, dict):
            raise TransientError("the ticket system's answer is no ticket")
        number = ask_for_ticket(body.get("id"), "id")
        notes = _objects(body.get("note"))
        self._notes[number] = notes
        self._notes.move_to_end(number)
        while len(self._notes) > NOTES_OF_MAX:
            self._notes.popitem(last=False)
        merged = ""
        if body.get("status") in OVER:
            for relation in _objects(body.get("troubleTicketRelationship")):
                if relation.get("relationshipType") in MERGED:
                    merged = str(relation.get("id", ""))
        return Ticket(
            number=number,
            correlation=str(body.get("externalId") or ""),
            state=STATES.get(str(body.get("status")), "open"),
            severity=str(body.get("severity") or "").lower(),
            title=str(body.get("name") or ""),
            merged_into=merged,
            made=str(body.get("creationDate") or ""),
            changed=str(body.get("lastUpdate") or ""),
            comments=tuple((_number(note), *_words(note)) for note in notes),
        )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _words(note: dict[str, Any]) -> tuple[str, str]:
    return str(note.get("author") or ""), str(note.get("text") or "")


def _number(note: dict[str, Any]) -> str:
    """Return what a note is known by; where it has no id, what it says: places in a list are none."""
    if note.get("id"):
        return str(note["id"])
    return id_text(stable_id("|".join((*_words(note), str(note.get("date"))))))


def _make(settings: SinkSettings, options: TicketOptions) -> TicketSink:
    return TicketSink(TroubleTickets(settings, options))


SINK = Part("trouble tickets, TMF621 v4", _make, TicketOptions, needs=("url",), schemes=WEB)
