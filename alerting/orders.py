"""What others want of alarms (ticket systems, TMF642 clients) as control rows for the journal."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alerting.config import SinkSettings
from alerting.words.delivery import Order
from runtime.checkpoint import read_array, write_array
from runtime.component import SnapshotReader, SnapshotWriter
from telemetry.batch import Batch
from telemetry.schemas import CONTROL

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
KINDS = frozenset(ROWS.values())


class Orders:
    """Turns orders into control rows, each key once. A row names the system that ordered, so that
    the change it makes is not told to that system again.

    Keys are journalled with what they stand for, and from then on kept in checkpoints: an order that is
    repeated after either side was restarted is done once, also where the node ended before it had it on disk.
    """

    def __init__(self, sinks: Mapping[str, SinkSettings]) -> None:
        self._sinks = sinks
        self._seen: OrderedDict[str, None] = OrderedDict()  # journalled, the newest KEYS_KEPT
        self._given: set[str] = set()  # for the tick that is still open

    def rows(self, orders: Iterable[Order]) -> list[tuple[str, dict[str, Any]]]:
        """Return (kind, payload) of each order that is new and can be done."""
        made = []
        for order in orders:
            kind = ROWS.get(order.do)
            key = f"{order.sink}|{order.key}"
            if kind is None or (order.key and (key in self._seen or key in self._given)):
                continue
            if order.key:
                self._given.add(key)
            sink = self._sinks.get(order.sink)
            about = "incident" if sink is not None and sink.send == "incidents" else "alarm"
            payload = {about: order.id, "by": order.by, "system": order.sink}
            if order.key:
                payload["key"] = key
            if order.text:
                payload["note"] = order.text
            if kind == "feedback":
                payload["verdict"] = order.do
            made.append((kind, payload))
        return made

    def _keep(self, key: str) -> None:
        self._given.discard(key)
        self._seen[key] = None
        if len(self._seen) > KEYS_KEPT:
            self._seen.popitem(last=False)

    def absorb(self, batches: Sequence[Batch]) -> None:
        """Learn the keys of a tick that is journalled, now or before a restart."""
        for batch in batches:
            if batch.schema.name != CONTROL.name:
                continue
            for kind, payload in zip(batch.texts("kind"), batch.texts("payload"), strict=True):
                if kind in KINDS and isinstance(key := json.loads(payload).get("key"), str):
                    self._keep(key)

    def snapshot(self, out: SnapshotWriter) -> None:
        """Write the keys."""
        write_array(out, "keys", np.frombuffer(json.dumps([*self._seen]).encode(), np.uint8))

    def restore(self, state: SnapshotReader) -> None:
        """Take them back."""
        kept = read_array(state, "keys")
        for key in json.loads(kept.tobytes()) if kept is not None else ():
            self._keep(key)
