"""ServiceNow incidents through the Table API: one for each incident of ours, in step both ways.

`url` is the instance, `https://<name>.service-now.com`. Our id is `correlation_id`, by which a record
is looked for before one is made; `correlation_display` is `tocsin`.

Source: ServiceNow, Table API; incident states 1 New, 2 In Progress, 3 On Hold, 6 Resolved, 7 Closed,
8 Canceled of the base system.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, ask_json, host_of
from alerting.sinks.tickets import Change, Ticket, TicketSink, ask_for_ticket, mark_of
from alerting.words.wording import SOURCE
from runtime.registry import WEB, Part
from runtime.settings import Settings
from telemetry.errors import TransientError

STATES = {"1": "open", "2": "taken", "3": "open", "6": "resolved", "7": "closed", "8": "closed"}
STATE = {"open": "1", "taken": "2", "resolved": "6"}
# Impact and urgency, 1 high to 3 low; the platform makes the priority of both.
WEIGHT = {"critical": ("1", "1"), "major": ("1", "2"), "minor": ("2", "2"), "warning": ("2", "3"),
          "indeterminate": ("3", "3")}  # fmt: skip
SEVERITY = {pair: severity for severity, pair in WEIGHT.items()}
FIELDS = ("sys_id,number,correlation_id,state,impact,urgency,short_description,parent_incident,"
          "sys_created_on,sys_updated_on")  # fmt: skip
LIMIT = 1000
TOGETHER = 20  # records whose comments are asked for at once
SHORT_CHARACTERS_MAX = 160


class IncidentOptions(Settings, frozen=True, kw_only=True):
    """How our records look."""

    user: str = SOURCE  # our login there: what it wrote is not news to us
    close_code: str = "Resolved by caller"  # of a ticket that Tocsin closes
    assignment_group: str = ""  # of a new ticket; empty = by their rules


class Incidents:
    """The Table API's half of `TicketSink`."""

    title_characters_max = SHORT_CHARACTERS_MAX

    def __init__(self, settings: SinkSettings, options: IncidentOptions) -> None:
        self._settings = settings
        self._options = options
        self._url = settings.url.rstrip("/") + "/api/now/table"
        self.user = options.user

    def find(self, correlation: str) -> Sequence[Ticket]:
        """Return the records with this correlation_id, the oldest first."""
        found = self._query(
            "incident", f"correlation_id={correlation}^ORDERBYsys_created_on", FIELDS
        )
        return [t for t in self._tickets(found) if t.correlation == correlation]

    def get(self, number: str) -> Ticket | None:
        """Return one record, None where it is gone."""
        found = self._query("incident", f"sys_id={number}", FIELDS)
        return self._tickets(found)[0] if found else None

    def create(self, correlation: str, change: Change) -> Ticket:
        """Make one."""
        impact, urgency = WEIGHT[change.severity or "indeterminate"]
        body = {
            "correlation_id": correlation,
            "correlation_display": SOURCE,
            "short_description": (change.title or "")[:SHORT_CHARACTERS_MAX],
            "description": change.description,
            "impact": impact,
            "urgency": urgency,
            "state": STATE["open"],
        }
        if self._options.assignment_group:
            body["assignment_group"] = self._options.assignment_group
        url = f"{self._url}/incident"
        return self._one(url, "POST", body)

    def update(self, number: str, change: Change) -> Ticket:
        """Change one."""
        body: dict[str, Any] = {}
        if change.state is not None:
            body["state"] = STATE[change.state]
            if change.state == "resolved":
                body["close_code"] = self._options.close_code
                body["close_notes"] = change.comment or "The incident is over."
        if change.severity is not None:
            body["impact"], body["urgency"] = WEIGHT[change.severity]
        if change.title is not None:
            body["short_description"] = change.title[:SHORT_CHARACTERS_MAX]
        if change.comment is not None:
            body["comments"] = change.comment
        return self._one(f"{self._url}/incident/{number}", "PATCH", body)

    def changed_since(self, mark: str, now_ns: int) -> tuple[Sequence[Ticket], str]:
        """Return our records that changed since `mark`, which is the newest sys_updated_on seen."""
        since = mark_of(mark, now_ns, "%Y-%m-%d %H:%M:%S")
        query = f"correlation_display={SOURCE}^sys_updated_on>={since}^ORDERBYsys_updated_on"
        tickets = self._tickets(self._query("incident", query, FIELDS))
        return tickets, max([since, *(t.changed for t in tickets)])

    def _one(self, url: str, method: str, body: dict[str, Any]) -> Ticket:
        answer = accepted(url, ask_json(self._settings, method, url, body)).json()
        if not isinstance(answer, dict) or not isinstance(answer.get("result"), dict):
            raise TransientError(f"{host_of(url)} answered no record")
        return self._tickets([answer["result"]])[0]

    def _query(self, table: str, query: str, fields: str) -> list[dict[str, Any]]:
        asked = {"sysparm_query": query, "sysparm_fields": fields, "sysparm_limit": str(LIMIT),
                 "sysparm_exclude_reference_link": "true"}  # fmt: skip
        url = f"{self._url}/{table}?{urlencode(asked)}"
        body = accepted(url, ask_json(self._settings, "GET", url)).json()
        if not isinstance(body, dict) or not isinstance(body.get("result"), list):
            raise TransientError(f"{host_of(url)} answered no list of records")
        found: list[dict[str, Any]] = body["result"]
        if not all(isinstance(row, dict) for row in found):
            raise TransientError(f"{host_of(url)} answered what is no record")
        return found

    def _tickets(self, rows: Sequence[Mapping[str, Any]]) -> list[Ticket]:
        numbers = [ask_for_ticket(row.get("sys_id"), "sys_id") for row in rows]
        comments: dict[str, list[tuple[str, str, str]]] = {}
        for first in range(0, len(numbers), TOGETHER):
            self._comments(numbers[first : first + TOGETHER], comments)
        return [_ticket(row, n, comments.get(n, [])) for row, n in zip(rows, numbers, strict=True)]

    def _comments(self, numbers: Sequence[str], out: dict[str, list[tuple[str, str, str]]]) -> None:
        """Write the comments of records, by record, the oldest first."""
        notes = self._query(
            "sys_journal_field",
            f"element_idIN{','.join(numbers)}^element=comments^ORDERBYsys_created_on",
            "sys_id,element_id,sys_created_by,value",
        )
        if len(notes) >= LIMIT and len(numbers) > 1:  # there are more: ask for each
            for number in numbers:
                self._comments([number], out)
            return
        for note in notes:
            said = (str(note.get(name) or "") for name in ("sys_id", "sys_created_by", "value"))
            number, by, text = said
            if number and text:
                out.setdefault(str(note.get("element_id")), []).append((number, by, text))


def _ticket(
    row: Mapping[str, Any], number: str, comments: Sequence[tuple[str, str, str]]
) -> Ticket:
    state = STATES.get(str(row.get("state")), "open")
    weight = (str(row.get("impact")), str(row.get("urgency")))
    return Ticket(
        number=number,
        correlation=str(row.get("correlation_id") or ""),
        state=state,
        severity=SEVERITY.get(weight, "indeterminate"),
        title=str(row.get("short_description") or ""),
        merged_into=str(row.get("parent_incident") or "")
        if state in ("resolved", "closed")
        else "",
        made=str(row.get("sys_created_on") or ""),
        changed=str(row.get("sys_updated_on") or ""),
        comments=tuple(comments),
    )


def _make(settings: SinkSettings, options: IncidentOptions) -> TicketSink:
    return TicketSink(Incidents(settings, options))


SINK = Part(
    "incidents in ServiceNow, Table API", _make, IncidentOptions, needs=("url",), schemes=WEB
)
