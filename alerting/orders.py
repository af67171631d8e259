"""What others want of alarms (ticket systems, TMF642 clients) as control rows for the journal."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from alerting.config import SinkSettings
from alerting.delivery import Order

KEYS_KEPT = 10_000
# order: kind of control row. What has none of its own is said as feedback on the incident.
ROWS = {
    "acknowledge": "acknowledge",
    "unacknowledge": "unacknowledge",
    "close": "close",
    "clear": "close",
    "comment": "feedback",
    "severity": "feedback",
    "reopen": "feedback",
}


class Orders:
    """Turns orders into control rows, each key once. A row names the system that ordered, so that
    the change it makes is not told to that system again."""

    def __init__(self, sinks: Mapping[str, SinkSettings]) -> None:
        self._sinks = sinks
        self._seen: OrderedDict[str, None] = OrderedDict()

    def rows(self, orders: Iterable[Order]) -> list[tuple[str, dict[str, Any]]]:
        """Return (kind, payload) of each order that is new and can be done."""
        made = []
        for order in orders:
            kind = ROWS.get(order.do)
            key = f"{order.sink}|{order.key}"
            if kind is None or (order.key and key in self._seen):
                continue
            if order.key:
                self._seen[key] = None
                if len(self._seen) > KEYS_KEPT:
                    self._seen.popitem(last=False)
            sink = self._sinks.get(order.sink)
            about = "incident" if sink is not None and sink.send == "incidents" else "alarm"
            payload = {about: order.id, "by": order.by, "system": order.sink}
            if order.text:
                payload["note"] = order.text
            if kind == "feedback":
                payload["verdict"] = order.do
            made.append((kind, payload))
        return made
