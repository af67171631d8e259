"""The ledger of notifications: what each sender's datagrams came to. UDP says nothing of what it lost.

sent = decoded + lost_kernel + undecodable: what was lost on the wire nobody numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.snmp.digest import Fate
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import LEDGER

FATES = tuple(fate.name.lower() for fate in Fate)
# Understood and without a row of its own: an inform sent again, an engine that asks who we are.
_UNDERSTOOD = (Fate.OK, Fate.DUPLICATE, Fate.UNKNOWN_ENGINE)
_REFUSED_FROM = Fate.UNKNOWN_COMMUNITY
_DATAGRAMS, _DECODED, _MALFORMED, _REFUSED, _DUPLICATE, _LOST = range(6)
Sender = tuple[int, int]
OTHER: Sender = (0, 0)  # `::`: senders beyond the bound, and what our socket lost, whoever's it was


class SenderLedger:
    """Counts since the last report, by sender; bounded."""

    def __init__(self, senders_max: int) -> None:
        self._max = senders_max
        self._counts: dict[Sender, list[int]] = {}

    def lost(self, datagrams: int) -> None:
        """Count what the socket lost."""
        if datagrams:
            self._of(OTHER)[_LOST] += datagrams

    def count(
        self, block: DatagramBlock, senders: NDArray[np.uint64], fates: NDArray[np.uint8]
    ) -> None:
        """Count a block; `senders` tells its senders apart."""
        _, first, which = np.unique(senders, return_index=True, return_inverse=True)
        places = which.reshape(-1) * len(FATES) + fates
        table = np.bincount(places, minlength=first.size * len(FATES)).reshape(-1, len(FATES))
        understood = table.take(_UNDERSTOOD, axis=1).sum(axis=1).tolist()
        malformed = table[:, 1:_REFUSED_FROM].sum(axis=1).tolist()
        duplicate = table[:, Fate.DUPLICATE].tolist()
        for place, at in enumerate(first.tolist()):
            total = int(table[place].sum())
            counts = self._of((int(block.exporter_high[at]), int(block.exporter_low[at])))
            counts[_DATAGRAMS] += total
            counts[_DECODED] += understood[place]
            counts[_MALFORMED] += malformed[place]
            counts[_REFUSED] += total - understood[place] - malformed[place]
            counts[_DUPLICATE] += duplicate[place]

    def _of(self, sender: Sender) -> list[int]:
        counts = self._counts.get(sender)
        if counts is None:
            if len(self._counts) >= self._max:
                sender = OTHER
            counts = self._counts.setdefault(sender, [0] * 6)
        return counts

    def report(self, frontier_ns: int) -> list[Batch]:
        """Return a row for each sender heard of since the last report."""
        counts, self._counts = self._counts, {}
        rows: list[dict[str, Any]] = []
        for (high, low), one in sorted(counts.items()):
            undecodable = one[_MALFORMED] + one[_REFUSED]
            rows.append(
                {
                    "arrival_ns": frontier_ns,
                    "exporter_address_high": high,
                    "exporter_address_low": low,
                    "protocol": "snmp-trap",
                    "sent": one[_DECODED] + undecodable + one[_LOST],
                    "decoded": one[_DECODED],
                    "lost_kernel": one[_LOST],
                    "undecodable": undecodable,
                    "datagrams": one[_DATAGRAMS],
                    "records": one[_DECODED],
                    "malformed": one[_MALFORMED],
                    "duplicate": one[_DUPLICATE],
                }
            )
        if not rows:
            return []
        return [
            batch_from_rows(
                LEDGER, rows, source="ledger", arrival_ns=frontier_ns, frontier_ns=frontier_ns
            )
        ]
