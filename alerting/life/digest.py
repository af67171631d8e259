"""The digest: what was found but is over the alert budget, one row an hour and class, never lost."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from alerting.causes.rows import Row
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import DIGEST

HOUR_NS = 3_600_000_000_000
CLASSES_MAX = 500  # of an hour; views, detectors and measures are closed sets far below
OTHER = "__other__"


class Entry(msgspec.Struct):
    """One class of findings of one hour."""

    view: str
    detector: str
    measure: str
    findings: int = 0
    entity: str = ""  # of the strangest finding
    score: float = -1.0
    actual: float = 0.0
    expected: float = 0.0
    time_ns: int = 0
    would: int = 0


class Digest:
    """Counts findings that are not told, over the budget or on probation, by hour and class.

    It names the strangest of each.
    """

    def __init__(self, context: Context) -> None:
        self._hour_ns = 0
        self._entries: dict[tuple[str, str, str], Entry] = {}
        self._rows = context.metrics.counter(
            "digest_findings_total", "findings that went to the digest"
        )

    def add(self, rows: Sequence[Row], now_ns: int) -> list[Batch]:
        """Count a tick's rows; return the rows of the last hour when this tick ends a new one."""
        made = self._close(now_ns)
        for row in rows:
            if row.disposition in ("digest", "would"):
                self._count(row)
        return made

    def _count(self, row: Row) -> None:
        self._rows.add()
        key = (row.view, row.detector, row.measure)
        if key not in self._entries and len(self._entries) >= CLASSES_MAX:
            key = (OTHER, OTHER, OTHER)
        entry = self._entries.setdefault(key, Entry(*key))
        entry.findings += 1
        entry.would += row.disposition == "would"
        if row.score > entry.score:
            entry.entity, entry.score, entry.time_ns = row.key.entity, row.score, row.tick_start_ns
            entry.actual, entry.expected = row.actual, row.expected

    def _close(self, now_ns: int) -> list[Batch]:
        hour_ns = (now_ns - 1) // HOUR_NS * HOUR_NS  # a tick that ends on the hour belongs to it
        if hour_ns == self._hour_ns:
            return []
        rows: list[dict[str, Any]] = [
            {"hour_start_ns": self._hour_ns, **msgspec.structs.asdict(self._entries[key])}
            for key in sorted(self._entries)
        ]
        self._hour_ns, self._entries = hour_ns, {}
        return [batch_from_rows(DIGEST, rows, source="digest", frontier_ns=now_ns)] if rows else []

    def snapshot(self, out: Any) -> None:
        """Write the open hour."""
        data = msgspec.msgpack.encode([self._hour_ns, list(self._entries.values())])
        write_array(out, "digest", np.frombuffer(data, np.uint8))

    def restore(self, state: Any) -> None:
        """Take it back."""
        kept = read_array(state, "digest")
        if kept is not None:
            hour_ns, entries = msgspec.msgpack.decode(kept.tobytes(), type=tuple[int, list[Entry]])
            self._hour_ns = hour_ns
            self._entries = {(e.view, e.detector, e.measure): e for e in entries}
