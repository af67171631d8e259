"""What exporters sent and no view has seen, whoever lost it: shares of each row of a frame."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from correlator.kept_batches import read_batches, write_batches
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch
from telemetry.schemas import FLOW_PROTOCOLS
from telemetry.views import View

_LOSSES = ("lost_wire", "lost_kernel", "undecodable")
U64 = np.uint64


class Unseen(NamedTuple):
    """What an exporter sent in a tick, in its own units, and how much of it no view has seen."""

    lost: int
    shed: int  # and drawn records stand for it: collectors.flow.shedding
    sent: int
    datagrams: int


class Ledgers:
    """Keeps what was reported of exporters until each view has made its tick of it."""

    def __init__(self, views: Iterable[str]) -> None:
        self._reports: list[Batch] = []
        self._told = dict.fromkeys(views, 0)  # reports up to here were used

    def take(self, batch: Batch) -> None:
        """Take a report."""
        self._reports.append(batch)

    def trim(self) -> None:
        """Forget what all views have used."""
        oldest = min(self._told.values())
        self._reports = [one for one in self._reports if int(one["arrival_ns"].max()) > oldest]

    def of_tick(self, view: View, end_ns: int) -> dict[tuple[int, int], Unseen]:
        """Return what of each exporter was not seen since this view's last tick.

        Which tick a report belongs to is decided by the frontier at which it was made, so that
        neither the order of shards nor when they were heard changes a frame.
        """
        since, until = self._told[view.name], end_ns + round(view.lateness_seconds * 1e9)
        self._told[view.name] = until
        lost: dict[tuple[int, int], Unseen] = {}
        for batch in self._reports:
            times = batch["arrival_ns"]
            of_flows = np.isin(batch.texts("protocol"), FLOW_PROTOCOLS)
            for i in np.flatnonzero((times > since) & (times <= until) & of_flows).tolist():
                key = (
                    int(batch["exporter_address_high"][i]),
                    int(batch["exporter_address_low"][i]),
                )
                before = lost.get(key, Unseen(0, 0, 0, 0))
                lost[key] = Unseen(
                    before.lost + sum(int(batch[name][i]) for name in _LOSSES),
                    before.shed + int(batch["shed"][i]),
                    before.sent + int(batch["sent"][i]),
                    before.datagrams + int(batch["datagrams"][i]),
                )
        return lost

    def snapshot(self, out: Any) -> None:
        """Write the reports, and how far each view has come."""
        told = [self._told[name] for name in sorted(self._told)]
        write_array(out, "told", np.array(told, np.int64))
        write_batches(out, "ledgers", self._reports)

    def restore(self, state: Any) -> None:
        """Take them back."""
        told = read_array(state, "told")
        if told is not None and len(told) == len(self._told):
            self._told = dict(zip(sorted(self._told), told.tolist(), strict=True))
        self._reports = read_batches(state, "ledgers")


def shares(
    view: View,
    keys: NDArray[np.uint64],
    lost: dict[tuple[int, int], Unseen],
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.uint64]]]:
    """Return shares of exports lost, and shed, of each row; datagrams and lost units for `exporter`."""
    share, shed = np.zeros(len(keys)), np.zeros(len(keys))
    extra = {name: np.zeros(len(keys), np.uint64) for name in ("datagrams", "lost")}
    if "exporter" not in view.key:
        if sent := sum(one.sent for one in lost.values()):
            share[:] = sum(max(one.lost, 0) for one in lost.values()) / sent
            shed[:] = sum(one.shed for one in lost.values()) / sent
        return share, shed, {}
    for (high, low), one in lost.items():
        mine = (keys[:, 1] == U64(low)) & (keys[:, 0] == U64(high))
        if one.sent > 0:
            share[mine], shed[mine] = max(one.lost, 0) / one.sent, one.shed / one.sent
        extra["datagrams"][mine] = max(one.datagrams, 0)
        extra["lost"][mine] = max(one.lost, 0)
    return share, shed, extra if view.key == ("exporter",) else {}
