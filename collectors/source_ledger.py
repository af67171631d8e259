"""The ledger of sources: what each sender sent, and where every unit of it went."""

import threading
from typing import Any

from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_pair, stable_id
from telemetry.schemas import LEDGER

COUNTS = ("decoded", "lost_wire", "undecodable", "shed")
OTHER = "__other__"


class SourceLedger:
    """Counts by (sender address, name it goes by there) since the last report, for many threads.

    sent = decoded + lost_wire + undecodable + shed for every row. Senders beyond `senders_max`
    between two reports share one row. One thread reports: `report`, offer, then `reported`; what
    was offered in vain stands in the next report again.
    """

    def __init__(self, protocol: str, *, senders_max: int = 10_000) -> None:
        self._protocol = protocol
        self._senders_max = senders_max
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._told: dict[tuple[str, str], dict[str, Any]] = {}

    def count(
        self,
        address: str,
        name: str = "",
        *,
        decoded: int = 0,
        lost_wire: int = 0,
        undecodable: int = 0,
        shed: int = 0,
        duplicate: int = 0,
        restarts: int = 0,
        clock_offset_ns: int | None = None,
    ) -> None:
        """Add to the row of one sender."""
        with self._lock:
            key = (address, name)
            if key not in self._rows and len(self._rows) >= self._senders_max:
                key = ("", OTHER)
            row = self._rows.setdefault(key, {"messages": 0, "duplicate": 0, "restarts": 0})
            for field, amount in zip(COUNTS, (decoded, lost_wire, undecodable, shed), strict=True):
                row[field] = row.get(field, 0) + amount
            row["messages"] += decoded + undecodable + shed
            row["duplicate"] += duplicate
            row["restarts"] += restarts
            if clock_offset_ns is not None:
                row["clock_offset_ns"] = clock_offset_ns

    def report(self, now_ns: int) -> list[Batch]:
        """Return a batch of all that was counted and not yet reported, or none."""
        with self._lock:
            self._told, self._rows = self._rows, {}
            rows = [self._row(*key, row, now_ns) for key, row in self._told.items()]
        if not rows:
            return []
        return [batch_from_rows(LEDGER, rows, source=self._protocol, arrival_ns=now_ns)]

    def reported(self) -> None:
        """What `report` returned last has arrived."""
        self._told = {}

    def keep(self) -> None:
        """What `report` returned last has not arrived: it stands in the next report."""
        with self._lock:
            told, self._told = self._told, {}
            for key, row in told.items():
                now = self._rows.setdefault(key, {})
                for field, amount in row.items():
                    if field == "clock_offset_ns":
                        now.setdefault(field, amount)
                    else:
                        now[field] = now.get(field, 0) + amount

    def _row(self, address: str, name: str, row: dict[str, Any], now_ns: int) -> dict[str, Any]:
        try:
            high, low = address_pair(address.partition("%")[0])
        except ValueError:
            high, low = 0, 0
        return {
            **{field: row[field] for field in COUNTS},
            "arrival_ns": now_ns,
            "exporter_address_high": high,
            "exporter_address_low": low,
            "observation_domain_id": stable_id(name) & 0xFFFF_FFFF if name else 0,
            "protocol": self._protocol,
            "sent": sum(row[field] for field in COUNTS),
            "datagrams": row["messages"],
            "records": row["decoded"],
            "malformed": max(row["undecodable"], 0),
            "duplicate": row["duplicate"],
            "restarts": row["restarts"],
            "clock_offset_ns": row.get("clock_offset_ns", 0),
        }
