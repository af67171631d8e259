"""A ticket system that behaves as badly as real ones do, in two dialects on one store.

It speaks TMF621 v4 under /tmf-api/troubleTicket/v4 and ServiceNow's Table API under /api/now/table.
`lose_every` drops every n-th answer *after* acting (the connection ends), `slow_every` acts and then
answers only after the client gave up, `late_every` lets a create act only after its client gave up, as
a queue in between does. `merge` closes one ticket as a duplicate of another, as people do. Of TMF621 systems
some give `page_max` tickets at most, or the first ones whatever the `offset`; take a PATCH of notes as
all there are (`notes` = "replaced": RFC 7396) or show them without ids, the newest first ("bare"); or write
severities in their own way. With `closed_for_good` nobody changes a closed ticket any more.
"""

import http.server
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

TMF = "/tmf-api/troubleTicket/v4/troubleTicket"
TABLE = "/api/now/table"
OVER = ("resolved", "closed")
TO_STATE = {"1": "open", "2": "taken", "3": "open", "6": "resolved", "7": "closed", "8": "closed"}
FROM_STATE = {"open": "1", "taken": "2", "resolved": "6", "closed": "7"}
TO_STATUS = {
    "open": "acknowledged",
    "taken": "inProgress",
    "resolved": "resolved",
    "closed": "closed",
}
FROM_STATUS = {status: state for state, status in TO_STATUS.items()}
TMF_PATCHES = {"name", "description", "severity", "status", "note", "priority"}


@dataclass
class Stored:
    """One ticket."""

    number: str
    correlation: str
    title: str = ""
    description: str = ""
    severity: str = ""
    impact: str = "3"
    urgency: str = "3"
    state: str = "open"
    ticket_type: str = ""
    merged_into: str = ""
    made: int = 0
    changed: int = 0
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)  # every state it was in


class TicketServer:
    """Owns the store and its HTTP server. `user` is how the client's own notes are signed."""

    def __init__(
        self, *, port: int = 0, lose_every: int = 0, slow_every: int = 0, late_every: int = 0,
        slow_seconds: float = 1.0, user: str = "tocsin", page_max: int = 1000, pages: bool = True,
        notes: str = "added", severities: Callable[[str], str] = str, title_max: int = 1000,
        closed_for_good: bool = False,
    ) -> None:  # fmt: skip
        self._closed_for_good = closed_for_good
        self._page_max, self._pages, self._notes = page_max, pages, notes
        self._severities, self._title_max = severities, title_max
        self.tickets: dict[str, Stored] = {}
        self._by_correlation: dict[str, list[Stored]] = {}
        self.lost = self.slow = self.late = 0
        self._lose_every, self._slow_every, self._late_every = lose_every, slow_every, late_every
        self._slow_seconds = slow_seconds
        self._user = user
        self._requests = itertools.count(1)
        self._creates = itertools.count(1)
        self._time = itertools.count(1)
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._timers: list[threading.Timer] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _do(self) -> None:
                owner._answer(self)

            do_GET = do_POST = do_PATCH = _do  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that gave up is what we are here for."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        for timer in self._timers:
            timer.cancel()
        self._server.shutdown()
        self._server.server_close()

    # ---- what people do

    def note(self, number: str, by: str, text: str) -> None:
        with self._lock:
            ticket = self.tickets[number]
            ticket.notes.append((f"n{len(ticket.notes)}-{number}", by, text))
            self._touch(ticket)

    def set(self, number: str, **values: str) -> None:
        with self._lock:
            ticket = self.tickets[number]
            for name, value in values.items():
                setattr(ticket, name, value)
            if "state" in values:
                ticket.states.append(values["state"])
            self._touch(ticket)

    def merge(self, number: str, into: str) -> None:
        self.set(number, state="closed", merged_into=into)

    def of(self, correlation: str) -> list[Stored]:
        with self._lock:
            return list(self._by_correlation.get(correlation, []))

    def _touch(self, ticket: Stored) -> None:
        ticket.changed = next(self._time)

    def _make(self, **values: Any) -> Stored:
        number = f"T{len(self.tickets) + 1:06d}"
        now = next(self._time)
        made = Stored(number, made=now, changed=now, **values)
        made.states.append(made.state)
        self.tickets[number] = made
        self._by_correlation.setdefault(made.correlation, []).append(made)
        return made

    # ---- HTTP

    def _answer(self, asked: Any) -> None:
        data = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        turn = next(self._requests)
        if (
            asked.command == "POST"
            and self._late_every
            and next(self._creates) % self._late_every == 0
        ):
            self.late += 1
            with self._lock:
                timer = threading.Timer(
                    self._slow_seconds, self._act, (asked.command, asked.path, data)
                )
                timer.daemon = True
                self._timers.append(timer)
            timer.start()
            asked.close_connection = True
            return  # the connection ends without an answer; the create comes through later
        status, body, headers = self._act(asked.command, asked.path, data)
        if self._lose_every and turn % self._lose_every == 0:
            self.lost += 1
            asked.close_connection = True
            return
        if self._slow_every and turn % self._slow_every == 0:
            self.slow += 1
            self._ended.wait(self._slow_seconds)
        text = json.dumps(body).encode()
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.send_header("Content-Type", "application/json")
        asked.send_header("Content-Length", str(len(text)))
        asked.end_headers()
        asked.wfile.write(text)

    def _act(self, method: str, target: str, data: bytes) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        body = json.loads(data) if data else {}
        with self._lock:
            if parts.path.startswith(TMF):
                return self._tmf(
                    method, unquote(parts.path.removeprefix(TMF).strip("/")), query, body
                )
            if parts.path.startswith(TABLE):
                return self._table(method, parts.path.removeprefix(TABLE).strip("/"), query, body)
        return 404, {"reason": "no such resource"}, {}

    # ---- TMF621

    def _tmf(
        self, method: str, number: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any, dict[str, str]]:
        if method == "GET" and not number:
            offset, limit = int(query.pop("offset", 0)), int(query.pop("limit", 20))
            named = query.get("externalId")
            looked_at = self.of(named) if named else self.tickets.values()
            found = [t for t in map(self._as_tmf, looked_at) if _passes(t, query)]
            found.sort(key=lambda t: t["lastUpdate"])
            offset = offset if self._pages else 0
            page = found[offset : offset + min(limit, self._page_max)]
            total = {"X-Total-Count": str(len(found))} if self._pages else {}
            return 200 if len(page) == len(found) else 206, page, total
        if method == "POST":
            if missing := [n for n in ("description", "severity", "ticketType") if not body.get(n)]:
                return 400, {"code": "400", "reason": f"missing {missing}"}, {}
            made = self._make(
                correlation=body.get("externalId", ""), title=body.get("name", "")[: self._title_max],
                description=body["description"], severity=body["severity"],
                state=FROM_STATUS[body.get("status", "acknowledged")], ticket_type=body["ticketType"],
            )  # fmt: skip
            return 201, self._as_tmf(made), {}
        ticket = self.tickets.get(number)
        if ticket is None:
            return 404, {"code": "404", "reason": "no such ticket"}, {}
        if method == "PATCH":
            if self._closed_for_good and ticket.state == "closed":
                return 409, {"code": "409", "reason": "closed tickets stay closed"}, {}
            if set(body) - TMF_PATCHES:
                return (
                    400,
                    {"code": "400", "reason": f"not patchable: {set(body) - TMF_PATCHES}"},
                    {},
                )
            self._patch(
                ticket, state=FROM_STATUS.get(body.get("status", "")), title=body.get("name"),
                severity=body.get("severity"),
            )  # fmt: skip
            if "note" in body and self._notes == "replaced":
                ticket.notes.clear()
            for note in body.get("note", []):
                self.note(number, note.get("author", ""), note["text"])
        return 200, self._as_tmf(ticket), {}

    def _patch(self, ticket: Stored, **values: str | None) -> None:
        self.set(
            ticket.number, **{name: value for name, value in values.items() if value is not None}
        )

    def _as_tmf(self, t: Stored) -> dict[str, Any]:
        made: dict[str, Any] = {
            "id": t.number, "externalId": t.correlation, "name": t.title, "description": t.description,
            "severity": t.severity, "status": TO_STATUS[t.state], "ticketType": t.ticket_type,
            "creationDate": _stamp(t.made), "lastUpdate": _stamp(t.changed),
            "note": [{"id": n, "author": by, "text": text} for n, by, text in t.notes],
        }  # fmt: skip
        made["severity"] = self._severities(t.severity)
        if self._notes == "bare":
            made["note"] = [{"author": by, "text": text} for _, by, text in reversed(t.notes)]
        if t.merged_into:
            made["troubleTicketRelationship"] = [
                {"id": t.merged_into, "relationshipType": "mergedInto"}
            ]
        return made

    # ---- ServiceNow Table API

    def _table(
        self, method: str, path: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any, dict[str, str]]:
        table, _, number = path.partition("/")
        if method == "GET" and table == "sys_journal_field":
            numbers = query["sysparm_query"].partition("^")[0].removeprefix("element_idIN")
            rows = [
                {"sys_id": n, "element_id": number, "sys_created_by": by, "value": text}
                for number in numbers.split(",") for n, by, text in self.tickets[number].notes
            ]  # fmt: skip
            return 200, {"result": rows[: int(query["sysparm_limit"])]}, {}
        if method == "GET":
            return 200, {"result": [*self._rows(query["sysparm_query"])]}, {}
        state = TO_STATE.get(str(body.get("state", "")))
        if method == "POST":
            made = self._make(
                correlation=body.get("correlation_id", ""), title=body.get("short_description", ""),
                description=body.get("description", ""), impact=body["impact"], urgency=body["urgency"],
                state=state or "open",
            )  # fmt: skip
            return 201, {"result": self._as_row(made)}, {}
        ticket = self.tickets.get(number)
        if ticket is None:
            return 404, {"error": {"message": "No Record found"}}, {}
        if self._closed_for_good and ticket.state == "closed":
            return 403, {"error": {"message": "Operation Failed", "detail": "Data Policy"}}, {}
        if state == "resolved" and not body.get("close_code"):
            return 403, {"error": {"message": "close_code is mandatory"}}, {}
        self._patch(
            ticket, state=state, title=body.get("short_description"), impact=body.get("impact"),
            urgency=body.get("urgency"),
        )  # fmt: skip
        if body.get("comments"):
            self.note(number, self._user, body["comments"])
        return 200, {"result": self._as_row(ticket)}, {}

    def _rows(self, query: str) -> Iterator[dict[str, Any]]:
        terms = [term for term in query.split("^") if not term.startswith("ORDERBY")]
        order = "made" if "sys_created_on" in query else "changed"
        named = dict(t.split("=", 1) for t in terms if ">=" not in t).get("correlation_id")
        looked_at = self.of(named) if named else list(self.tickets.values())
        for ticket in sorted(looked_at, key=lambda t: getattr(t, order)):
            row = self._as_row(ticket)
            if all(_holds(row, term) for term in terms):
                yield row

    def _as_row(self, t: Stored) -> dict[str, Any]:
        return {
            "sys_id": t.number, "number": f"INC{t.number}", "correlation_id": t.correlation,
            "correlation_display": "tocsin", "state": FROM_STATE[t.state], "impact": t.impact,
            "urgency": t.urgency, "short_description": t.title, "parent_incident": t.merged_into,
            "sys_created_on": _stamp(t.made), "sys_updated_on": _stamp(t.changed),
        }  # fmt: skip


def _passes(shown: dict[str, Any], query: dict[str, str]) -> bool:
    for name, wanted in query.items():
        field_name, _, compare = name.partition(".")
        value = str(shown.get(field_name, ""))
        if not (value >= wanted if compare == "gte" else value == wanted):
            return False
    return True


def _holds(row: dict[str, Any], term: str) -> bool:
    if ">=" in term:
        name, _, wanted = term.partition(">=")
        return bool(row[name] >= wanted)
    name, _, wanted = term.partition("=")
    return bool(row[name] == wanted)


def _stamp(count: int) -> str:
    """The store's own clock: one second a change, far from the tests' clocks."""
    return (datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=count)).strftime(
        "%Y-%m-%dT%H:%M:%S.000Z"
    )
