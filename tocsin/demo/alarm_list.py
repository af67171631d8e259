"""The transport network's own manager in the demo: an alarm list, read over HTTP.

It sees the line under a link and reports loss of signal a little later than the routers.

Source: TM Forum TMF642 Alarm Management API, resource `alarm`.
"""

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tocsin.demo.traffic import Fault

PATH = "/tmf-api/alarmManagement/v4/alarm"
SYSTEM = "transport-ems"
LATER_NS = 1_500_000_000


class AlarmList:
    """Alarms of every line that is or was cut, as of a time."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._cuts = [fault for fault in faults if fault.kind == "link-cut"]

    def alarms(self, now_ns: int) -> list[dict[str, Any]]:
        """Return the alarms that were raised by `now_ns`, oldest first."""
        return [
            self._alarm(number, fault, now_ns)
            for number, fault in enumerate(self._cuts)
            if fault.start_ns + LATER_NS <= now_ns
        ]

    def _alarm(self, number: int, fault: Fault, now_ns: int) -> dict[str, Any]:
        raised_ns, cleared_ns = fault.start_ns + LATER_NS, fault.end_ns + LATER_NS
        over = cleared_ns <= now_ns
        alarm: dict[str, Any] = {
            "id": f"OTN-{number + 1:05d}",
            "href": f"{PATH}/OTN-{number + 1:05d}",
            "@type": "Alarm",
            "alarmType": "communicationsAlarm",
            "perceivedSeverity": "cleared" if over else "critical",
            "probableCause": "lossOfSignal",
            "specificProblem": f"OTU4-LOS on line {fault.entity}",
            "alarmedObject": {"id": fault.entity},
            "alarmedObjectType": "OpticalLine",
            "sourceSystemId": SYSTEM,
            "state": "cleared" if over else "raised",
            "ackState": "unacknowledged",
            "alarmRaisedTime": _time(raised_ns),
            "alarmChangedTime": _time(cleared_ns if over else raised_ns),
        }
        if over:
            alarm["alarmClearedTime"] = _time(cleared_ns)
        return alarm


class AlarmListServer:
    """Serves the list on loopback, a page at a time, until stopped."""

    def __init__(self, alarms: AlarmList, port: int) -> None:
        self._now_ns = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                asked = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(asked.query).items()}
                if asked.path != PATH:
                    self.send_error(404)
                    return
                found = alarms.alarms(server._now_ns)
                first, most = int(query.get("offset", 0)), int(query.get("limit", 1000))
                page = found[first : first + most]
                body = json.dumps(page).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Total-Count", str(len(found)))
                self.send_header("X-Result-Count", str(len(page)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing of each request."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def step(self, now_ns: int) -> None:
        """Let time pass."""
        self._now_ns = now_ns

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()


def _time(at_ns: int) -> str:
    stamp = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{at_ns // 10**6 % 1000:03d}Z"
