"""An emulated TMF642 system: a list in pages and a hub that tells events. Shares nothing with the client."""

import json
import threading
import urllib.request
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_emulator import Asked, Emulator, Reply

BASE = "/tmf-api/alarmManagement/v4"


class AlarmSystem:
    """Alarms in memory. The knobs below make it misbehave; they may be turned while it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.alarms: dict[str, dict[str, Any]] = {}
        self.hubs: dict[str, str] = {}
        self._numbers = 100
        self.counts = True  # says X-Total-Count
        self.page_max = 0
        self.status = 200
        self.body: bytes | None = None
        self.http = Emulator(self._answer)
        self.url = self.http.url + BASE

    def close(self) -> None:
        self.http.close()

    def alarm(self, entity: str, severity: str = "major", **fields: Any) -> str:
        """A new alarm; return its id."""
        with self._lock:
            self._numbers += 1
            made = str(self._numbers)
            self.alarms[made] = {
                "id": made, "href": f"{BASE}/alarm/{made}", "state": "raised", "ackState": "unacknowledged",
                "alarmType": "communicationsAlarm", "probableCause": "Loss of Signal",
                "specificProblem": f"no signal on {entity}", "perceivedSeverity": severity,
                "alarmedObject": {"id": entity}, "alarmRaisedTime": "2026-03-20T10:00:00Z", **fields,
            }  # fmt: skip
        self.tell("AlarmCreateEvent", made)
        return made

    def change(
        self, alarm_id: str, *, event: str = "AlarmAttributeValueChangeEvent", **fields: Any
    ) -> None:
        self.alarms[alarm_id] |= fields
        self.tell(event, alarm_id)

    def delete(self, alarm_id: str, *, silently: bool = False) -> None:
        if not silently:
            self.tell("AlarmDeleteEvent", alarm_id)
        del self.alarms[alarm_id]

    def fail_over(self) -> None:
        """The same alarms under other ids, and nobody is registered any more."""
        with self._lock:
            old, self.alarms = self.alarms, {}
            for alarm in old.values():
                self._numbers += 1
                self.alarms[str(self._numbers)] = alarm | {"id": str(self._numbers)}
            self.hubs.clear()

    def tell(self, event: str, alarm_id: str, *, only: tuple[str, ...] = ()) -> None:
        """Send an event to every hub."""
        alarm = self.alarms[alarm_id]
        alarm = {name: alarm[name] for name in only} if only else alarm
        body = json.dumps({"eventId": "1", "eventType": event, "event": {"alarm": alarm}}).encode()
        for callback in self.hubs.values():
            where = f"{callback}/listener/{event[0].lower()}{event[1:]}"
            request = urllib.request.Request(where, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=10).close()

    def _answer(self, asked: Asked) -> Reply:
        if self.status != 200:
            return Reply(self.status, b'{"code": "1", "reason": "as told"}')
        if self.body is not None:
            return Reply(200, self.body)
        parts = urlsplit(asked.target)
        path, query = parts.path.removeprefix(BASE), parse_qs(parts.query)
        if path == "/alarm":
            start, limit = int(query["offset"][0]), int(query["limit"][0])
            limit = min(limit, self.page_max) if self.page_max else limit
            page = list(self.alarms.values())[start : start + limit]
            headers = {"X-Total-Count": str(len(self.alarms))} if self.counts else {}
            return Reply(200, json.dumps(page).encode(), headers)
        if path == "/hub" and asked.method == "POST":
            self._numbers += 1
            made = {"id": str(self._numbers), **json.loads(asked.body)}
            self.hubs[made["id"]] = made["callback"]
            return Reply(201, json.dumps(made).encode())
        if path.startswith("/hub/") and asked.method == "DELETE":
            return Reply(204 if self.hubs.pop(path[5:], "") else 404)
        return Reply(404)
