"""An emulated OneClick server: alarms over REST in three dialects, with the faults of real ones.

Written from our notes on the interface alone; it shares nothing with the client.
"""

import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from tests.support.http_emulator import Asked, Emulator, Reply

BASE = "/spectrum/restful"
RESPONSE = "http://www.ca.com/spectrum/restful/schema/response"


class OneClick:
    """Alarms in memory. The knobs below make it misbehave; they may be turned while it runs."""

    def __init__(
        self, now: Callable[[], float], *, user: str = "noc", password: str = "s3cret"
    ) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._alarms: dict[str, dict[str, str]] = {}
        self._results: dict[str, list[str]] = {}
        self._subscriptions: dict[str, list[str]] = {}
        self._numbers = 0
        self._epoch = 1
        self.credentials = b64encode(f"{user}:{password}".encode()).decode()
        self.dialect = "new"  # new, old or xml: what an Accept of JSON or XML gets
        self.throttle_max = 0  # at most so many alarms a page, whatever is asked; 0 = as asked
        self.deny_after = -1
        self.clock_ahead_seconds = 0
        self.encoding = "utf-8"
        self.body: bytes | None = None
        self.hidden: set[str] = set()  # alarms of a landscape that is away
        self.drops_last_page = False
        self.http = Emulator(self._answer)
        self.url = self.http.url + BASE

    def close(self) -> None:
        self.http.close()

    def clock(self) -> int:
        return int(self._now()) + self.clock_ahead_seconds

    # ---- what happens in the network and at the consoles

    def alarm(
        self, model: str, cause: str = "0x10009", severity: int = 3, **attributes: str
    ) -> str:
        """A new alarm; return its id."""
        with self._lock:
            self._numbers += 1
            made = f"{self._epoch:08x}-0000-1001-02f7-{self._numbers:012x}"
            handle = f"0x{0x100000 + sum(ord(c) * 31**i for i, c in enumerate(model)) % 0xFFFFF:x}"
            self._alarms[made] = {
                "0x11f9c": made, "0x11f53": handle, "0x129fa": handle, "0x1006e": model,
                "0x10000": "GnSNMPDev", "0x11f56": str(severity), "0x11f4e": str(self.clock()),
                "0x12b4c": f"ALARM ON {model}", "0x11f50": cause, "0x11f4d": "false",
                "0x11fc5": "1", "0x12d7f": "192.0.2.7", "0x11f57": "", "0x11f54": "true", **attributes,
            }  # fmt: skip
            for waiting in self._subscriptions.values():
                waiting.append(made)
            return made

    def again(self, alarm_id: str) -> None:
        """A second occurrence: counted, and told to nobody."""
        with self._lock:
            attributes = self._alarms[alarm_id]
            attributes["0x11fc5"] = str(int(attributes["0x11fc5"]) + 1)

    def change(self, alarm_id: str, **attributes: str) -> None:
        with self._lock:
            self._alarms[alarm_id] |= attributes

    def end(self, alarm_id: str) -> None:
        with self._lock:
            del self._alarms[alarm_id]

    def fail_over(self, *, new_times: bool = False) -> None:
        """The backup SpectroSERVER has the same alarms under ids of its own; result sets are gone."""
        with self._lock:
            self._epoch += 1
            old, self._alarms = self._alarms, {}
            for attributes in old.values():
                self._numbers += 1
                made = f"{self._epoch:08x}-0000-1001-02f7-{self._numbers:012x}"
                attributes["0x11f9c"] = made
                if new_times:
                    attributes["0x11f4e"] = str(self.clock())
                self._alarms[made] = attributes
            self._results.clear()
            self._subscriptions.clear()

    def forget_subscriptions(self) -> None:
        with self._lock:
            self._subscriptions.clear()

    # ---- the interface

    def _answer(self, asked: Asked) -> Reply:
        date = formatdate(self.clock(), usegmt=True)
        if (
            self.deny_after == 0
            or asked.headers.get("authorization") != f"Basic {self.credentials}"
        ):
            return Reply(401, b"<html>This request requires HTTP authentication</html>", date=date)
        self.deny_after -= self.deny_after > 0
        if self.body is not None:
            return Reply(200, self.body, date=date)
        with self._lock:
            reply = self._route(asked)
        reply.date = date
        return reply

    def _route(self, asked: Asked) -> Reply:
        parts = urlsplit(asked.target)
        path, query = parts.path.removeprefix(BASE), parse_qs(parts.query)
        if path == "/alarms" and asked.method == "GET":
            if "id" in query:
                return self._page(query["id"][0], int(query["start"][0]), query)
            return self._first([a for a in self._alarms if a not in self.hidden], query)
        if path == "/alarms" and asked.method == "POST":
            return self._filtered(asked.body)
        if path == "/subscription" and asked.method == "POST":
            ElementTree.fromstring(asked.body)
            self._numbers += 1
            made = f"0b1c9a52-{self._numbers:012x}"
            self._subscriptions[made] = []
            return self._said({"subscription-response": {"subscription-id": made}})
        found = re.fullmatch(r"/subscription/([\w-]+)", path)
        if found and asked.method == "DELETE":
            self._subscriptions.pop(found[1], None)
            return Reply(200)
        if found and found[1] in self._subscriptions:
            waiting = [a for a in self._subscriptions[found[1]] if a in self._alarms]
            self._subscriptions[found[1]] = []
            items = [{**self._shown(a, None), "@preexisting": "false"} for a in waiting]
            return self._said({"pull-response": {"notifications": {"alarm": items}}})
        return Reply(404, b"no such resource")

    def _filtered(self, body: bytes) -> Reply:
        root = ElementTree.fromstring(body)
        bound = root.find(".//{*}greater-than-or-equals/{*}attribute")
        assert bound is not None
        assert bound.get("id") == "0x11f4e"
        least = int(bound.findtext("{*}value") or 0)
        ids = [
            a
            for a, t in self._alarms.items()
            if int(t["0x11f4e"]) >= least and a not in self.hidden
        ]
        wanted = [e.get("id", "") for e in root.findall("{*}requested-attribute")]
        return self._first(
            ids, {"attr": wanted, "throttlesize": [root.get("throttlesize", "1000")]}
        )

    def _first(self, ids: list[str], query: dict[str, list[str]]) -> Reply:
        self._numbers += 1
        made = f"673075bf-{self._numbers:012x}"
        self._results[made] = ids
        return self._page(made, 0, query)

    def _page(self, result: str, start: int, query: dict[str, list[str]]) -> Reply:
        if result not in self._results:
            return Reply(404, b"result set is gone")
        ids = self._results[result]
        size = int(query.get("throttlesize", ["1000"])[0])
        size = min(size, self.throttle_max) if self.throttle_max else size
        page = ids[start : start + size]
        end = start + size >= len(ids)
        made: dict[str, Any] = {
            "@total-alarms": len(ids), "@throttle": size,
            "alarm-responses": {"alarm": [self._shown(a, query.get("attr")) for a in page if a in self._alarms]},
        }  # fmt: skip
        if self.drops_last_page and end and start:
            return self._said(
                {"alarm-response-list": {**made, "@error": "EndOfResults", "alarm-responses": {}}}
            )
        if end:
            made |= {"@error": "EndOfResults"} if start else {}
        else:
            attributes = "".join(f"&attr={a}" for a in query.get("attr", []))
            where = f"id={result}&start={start + size}&throttlesize={size}{attributes}"
            href = f"https://oneclick.example:8443{BASE}/alarms?{where}"
            made["link"] = {"@rel": "next", "@href": href, "@type": "application/xml"}
        return self._said({"alarm-response-list": made})

    def _shown(self, alarm_id: str, wanted: list[str] | None) -> dict[str, Any]:
        attributes = self._alarms[alarm_id]
        names = attributes if wanted is None else [name for name in wanted if name in attributes]
        return {
            "@id": alarm_id,
            "attribute": [
                {"@id": n, **({"$": attributes[n]} if attributes[n] else {})} for n in names
            ],
        }

    def _said(self, tree: dict[str, Any]) -> Reply:
        if self.dialect == "xml":
            ((name, value),) = tree.items()
            text = f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{xml(name, value, RESPONSE)}'
        else:
            shaped = collapsed(tree)
            text = json.dumps(
                prefixed(shaped) if self.dialect == "old" else shaped, ensure_ascii=False
            )
        return Reply(200, text.encode(self.encoding))


def collapsed(value: Any) -> Any:
    """One result is no list."""
    if isinstance(value, dict):
        return {name: collapsed(item) for name, item in value.items()}
    if isinstance(value, list):
        return collapsed(value[0]) if len(value) == 1 else [collapsed(item) for item in value]
    return value


def prefixed(value: Any) -> Any:
    """Old servers: names carry ns1., numbers are texts."""
    if isinstance(value, dict):
        return {
            name if name[0] in "@$" else f"ns1.{name}": prefixed(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [prefixed(item) for item in value]
    return str(value)


def xml(name: str, value: Any, namespace: str = "") -> str:
    """The same tree as XML."""
    if isinstance(value, list):
        return "".join(xml(name, item) for item in value)
    if not isinstance(value, dict):
        return f"<{name}>{escape(str(value))}</{name}>"
    space = f' xmlns="{namespace}"' if namespace else ""
    marks = "".join(f" {k[1:]}={quoteattr(str(v))}" for k, v in value.items() if k[0] == "@")
    inner = "".join(xml(k, v) for k, v in value.items() if k[0] not in "@$")
    return f"<{name}{space}{marks}>{inner}{escape(value.get('$', ''))}</{name}>"
