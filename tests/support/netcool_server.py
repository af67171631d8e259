"""An emulated ObjectServer: alerts.status over its HTTP interface, with the faults of real ones.

Written from our notes on the interface alone; it shares nothing with the client. Filters are SQL and
run as SQL.
"""

import json
import sqlite3
import threading
from base64 import b64encode
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_emulator import Asked, Emulator, Reply

TEXTS = ("Identifier", "Node", "NodeAlias", "Manager", "Agent", "AlertGroup", "AlertKey", "Summary",
         "Location", "Service", "Customer", "URL", "LocalPriObj", "RemoteNodeAlias", "RemotePriObj",
         "X733SpecificProb", "ServerName")  # fmt: skip
NUMBERS = ("Serial", "RowSerial", "ServerSerial", "Severity", "Type", "Tally", "Class", "Acknowledged",
           "OwnerUID", "SuppressEscl", "NmosCauseType", "X733EventType", "X733ProbableCause")  # fmt: skip
TIMES = ("StateChange", "FirstOccurrence", "LastOccurrence", "InternalLast")
PATH = "/objectserver/restapi/alerts/status"


class ObjectServer:
    """Rows in memory. The knobs below make it misbehave; they may be turned while it runs."""

    def __init__(
        self, now: Callable[[], float], *, user: str = "root", password: str = "s3cret"
    ) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._rows = sqlite3.connect(":memory:", check_same_thread=False)
        self._rows.row_factory = sqlite3.Row
        columns = [f"{name} TEXT DEFAULT ''" for name in TEXTS]
        columns += [f"{name} INTEGER DEFAULT 0" for name in NUMBERS + TIMES]
        self._rows.execute(f"CREATE TABLE status ({', '.join(columns)}, UNIQUE (Identifier))")
        self._serial = 884_000
        self.credentials = b64encode(f"{user}:{password}".encode()).decode()
        self.name = "AGG_P"
        self.page_rows = 0  # at most so many rows an answer; 0 = all
        self.deny_after = -1  # so many more answers, then 401
        self.clock_ahead_seconds = 0
        self.sends_date = True
        self.encoding = "utf-8"
        self.body: bytes | None = None  # said instead of a row set
        self.http = Emulator(self._answer)
        self.url = self.http.url

    def close(self) -> None:
        self.http.close()
        self._rows.close()

    def clock(self) -> int:
        return int(self._now()) + self.clock_ahead_seconds

    # ---- what probes and automations do

    def event(self, identifier: str, node: str, severity: int, **columns: Any) -> None:
        """A probe's insert: a row of that Identifier is counted up instead."""
        with self._lock, self._rows:
            now = self.clock()
            at = columns.pop("LastOccurrence", now)
            changed = self._rows.execute(
                "UPDATE status SET Tally = Tally + 1, LastOccurrence = ?, StateChange = ?,"
                " InternalLast = ?, Severity = ?, Summary = ? WHERE Identifier = ?",
                (at, now, now, severity, columns.get("Summary", identifier), identifier),
            )
            if changed.rowcount:
                return
            self._serial += 1
            row = {
                "Identifier": identifier, "Node": node, "Severity": severity, "Type": 1, "Tally": 1,
                "Serial": self._serial, "RowSerial": self._serial, "ServerSerial": self._serial,
                "ServerName": "AGG_P", "Manager": "MTTrapd probe", "AlertGroup": "Interface Status",
                "Summary": identifier, "OwnerUID": 65534, "StateChange": now, "InternalLast": now,
                "FirstOccurrence": at, "LastOccurrence": at, **columns,
            }  # fmt: skip
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            self._rows.execute(f"INSERT INTO status ({names}) VALUES ({marks})", list(row.values()))

    def storm(self, prefix: str, count: int, severity: int) -> None:
        """Many new rows within a second."""
        now = self.clock()
        names = ("Identifier", "Summary", "Node", "Severity", "Type", "Tally", "ServerName", "Manager",
                 "AlertGroup", "OwnerUID", "StateChange", "FirstOccurrence", "LastOccurrence",
                 "ServerSerial", "Serial", "RowSerial")  # fmt: skip
        rows = [
            (f"{prefix}{i}", f"{prefix}{i}", f"node-{i % 300}", severity, 1, 1, "AGG_P", "probe",
             "Interface Status", 65534, now, now, now, *[self._serial + i + 1] * 3)
            for i in range(count)
        ]  # fmt: skip
        with self._lock, self._rows:
            self._serial += count
            marks = ", ".join("?" * len(names))
            self._rows.executemany(
                f"INSERT INTO status ({', '.join(names)}) VALUES ({marks})", rows
            )

    def change(self, identifier: str, **columns: Any) -> None:
        """An operator or an automation changes a row."""
        columns["StateChange"] = self.clock()
        sets = ", ".join(f"{name} = ?" for name in columns)
        with self._lock, self._rows:
            self._rows.execute(
                f"UPDATE status SET {sets} WHERE Identifier = ?", [*columns.values(), identifier]
            )

    def delete(self, identifier: str) -> None:
        """delete_clears, or an operator."""
        with self._lock, self._rows:
            self._rows.execute("DELETE FROM status WHERE Identifier = ?", (identifier,))

    def fail_over(self) -> None:
        """The backup answers: Serial and RowSerial are its own, ServerName and ServerSerial stay."""
        with self._lock, self._rows:
            self.name = "AGG_B"
            self._rows.execute(
                "UPDATE status SET Serial = Serial + 500000, RowSerial = RowSerial + 500000"
            )

    # ---- the interface

    def _answer(self, asked: Asked) -> Reply:
        date = formatdate(self.clock(), usegmt=True) if self.sends_date else ""
        if (
            self.deny_after == 0
            or asked.headers.get("authorization") != f"Basic {self.credentials}"
        ):
            return Reply(401, b"Authorization Required", date=date)
        self.deny_after -= self.deny_after > 0
        parts = urlsplit(asked.target)
        if parts.path != PATH:
            return Reply(404, b"no such resource", date=date)
        if "json" not in asked.headers.get("accept", ""):
            return Reply(406, b"", date=date)
        if "+" in parts.query:
            return Reply(400, b"the query is not percent-encoded", date=date)
        query = {name: unquote(values[0]) for name, values in parse_qs(parts.query).items()}
        if self.body is not None:
            return Reply(200, self.body, date=date)
        try:
            return Reply(
                200, self._row_set(query), {"Content-Type": "application/json;charset=UTF-8"}, date
            )
        except sqlite3.Error as error:
            return Reply(400, str(error).encode(), date=date)

    def _row_set(self, query: dict[str, str]) -> bytes:
        names = query.get("collist", "*")
        names = names if names == "*" else f"{names},RowSerial"
        where = f" WHERE {query['filter']}" if "filter" in query else ""
        order = f" ORDER BY {query['orderby']}" if "orderby" in query else ""
        with self._lock:
            found = self._rows.execute(f"SELECT {names} FROM status{where}{order}").fetchall()
        rows = [dict(row) for row in found]
        shown = rows[: self.page_rows] if self.page_rows else rows
        columns = [
            {
                "name": name,
                "type": "utc" if name in TIMES else "string" if name in TEXTS else "integer",
            }
            for name in (rows[0] if rows else {})
        ]
        document = {"rowset": {
            "osname": self.name, "dbname": "alerts", "tblname": "status",
            "affectedRows": len(shown), "coldesc": columns, "rows": shown,
        }}  # fmt: skip
        return json.dumps(document, ensure_ascii=False).encode(self.encoding)
