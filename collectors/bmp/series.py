"""BMP's numbers as samples: what peers announced, withdrew and changed, and what routers count."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bmp.bgp_updates import FAMILIES, FAMILY_NAMES
from collectors.bmp.frames import RIBS
from collectors.bmp.peers import Peers
from collectors.bmp.rib import ANNOUNCED, DUMPED, ORIGIN_CHANGED, PATH_CHANGED, ROUTES, WITHDRAWN
from collectors.bmp.words import Statistic
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import SAMPLE

# Metrics of a peer, table of routes and family, by column of the counts.
DELTAS = {
    ANNOUNCED: "bgp_announcements",
    WITHDRAWN: "bgp_withdrawals",
    PATH_CHANGED: "bgp_path_changes",
    ORIGIN_CHANGED: "bgp_origin_changes",
    DUMPED: "bgp_table_routes",  # of the table a peer sends when it comes up
}
_GAUGE = "bgp_prefixes"
_COLUMNS = [*DELTAS, ROUTES]
_WRAP = 1 << 32


class PeerSeries:
    """Samples of all peers. Deltas of a period are told at its end, only where something happened."""

    def __init__(self, series_max: int) -> None:
        self._names = SeriesNames(series_max=series_max)
        self._ids = np.zeros((256, len(_COLUMNS)), np.uint64)  # by row of the counts; 0 = not named
        self._series_max = series_max
        # Of statistics reports, what was told last at the end; a gauge's says that it was announced.
        self._last: dict[tuple[int, str, str], int] = {}

    def close(self, peers: Peers, time_ns: int, only: set[int] | None = None) -> list[Batch]:
        """Return samples of what was counted since the last call, and how many routes there are.

        `only`: of these peers, which are about to be forgotten, without their number of routes.
        """
        counted = [c for c in peers.counted() if only is None or c[1] in only]
        if not counted:
            return []
        rows = np.array([row for row, _, _ in counted])
        self._room(peers)
        for row, peer, slot in counted:
            if self._ids[row, 0] == 0:
                self._name(row, peers.name(peer), slot)
        columns = list(DELTAS)
        delta = (peers.counts[rows] - peers.reported[rows])[:, columns]
        peers.reported[rows] = peers.counts[rows]
        which, metric = np.nonzero(delta)
        ids = self._ids[rows[which], metric]
        values = delta[which, metric].astype(float)
        kinds = np.full(ids.size, SampleKind.DELTA, np.uint8)
        if only is None:
            ids = np.concatenate([ids, self._ids[rows, len(DELTAS)]])
            values = np.concatenate([values, peers.counts[rows, ROUTES].astype(float)])
            kinds = np.concatenate([kinds, np.full(rows.size, SampleKind.GAUGE, np.uint8)])
        else:
            self._ids[rows] = 0
        return self._batches(ids, values, kinds, time_ns)

    def statistics(
        self, peer: int, name: str, found: list[Statistic], time_ns: int, arrival_ns: int
    ) -> list[Batch]:
        """Return samples of a statistics report; a counter's first value only starts it."""
        ids, values, kinds = [], [], []
        for one in found:
            value = one.value
            key = (peer, one.metric, one.family)
            before = self._last.pop(key, None)
            self._last[key] = value
            if len(self._last) > self._series_max:  # that one starts anew
                del self._last[next(iter(self._last))]
            if not one.gauge:
                if before is None:
                    continue
                value = (value - before) % _WRAP
                if value >= _WRAP // 2:  # it went back: the router began to count anew
                    value = one.value
                if not value:
                    continue
            ids.append(self._statistic_id(name, one.metric, one.family))
            values.append(float(value))
            kinds.append(SampleKind.GAUGE if one.gauge else SampleKind.DELTA)
        return self._batches(
            np.array(ids, np.uint64),
            np.array(values),
            np.array(kinds, np.uint8),
            time_ns,
            arrival_ns,
        )

    def forget(self, peer: int) -> None:
        """Drop the counters of a peer that is gone."""
        for key in [key for key in self._last if key[0] == peer]:
            del self._last[key]

    def _room(self, peers: Peers) -> None:
        if len(self._ids) < len(peers.counts):
            longer = np.zeros((len(peers.counts), len(_COLUMNS)), np.uint64)
            longer[: len(self._ids)] = self._ids
            self._ids = longer

    def _statistic_id(self, entity: str, metric: str, family: str) -> int:
        dimensions = {"family": family} if family else {}
        return self._names.id(entity, metric, dimensions, unit="1")

    def _name(self, row: int, entity: str, slot: int) -> None:
        rib, family = divmod(slot, len(FAMILIES))
        dimensions = {"table": RIBS[rib], "family": FAMILY_NAMES[family]}
        for place, metric in enumerate([*DELTAS.values(), _GAUGE]):
            self._ids[row, place] = self._names.id(entity, metric, dimensions, unit="{route}")

    def _batches(
        self,
        ids: NDArray[np.uint64],
        values: NDArray[np.float64],
        kinds: NDArray[np.uint8],
        time_ns: int,
        arrival_ns: int = 0,
    ) -> list[Batch]:
        new = self._names.new()
        made = [new] if new is not None else []
        if ids.size:
            columns: dict[str, NDArray[Any]] = {
                "time_ns": np.full(ids.size, time_ns, np.int64),
                "arrival_ns": np.full(ids.size, arrival_ns or time_ns, np.int64),
                "series_id": ids,
                "value": values,
                "kind": kinds,
            }
            made.append(Batch(SAMPLE, columns, source="bmp", arrival_ns=arrival_ns or time_ns))
        return made

    def snapshot(self, out: Any) -> None:
        """Write the last statistics and which series were announced."""
        text = "\n".join(
            f"{peer}\t{metric}\t{family}\t{value}"
            for (peer, metric, family), value in self._last.items()
        )
        write_array(out, "last", np.frombuffer(text.encode(), np.uint8))
        write_array(out, "named", np.flatnonzero(self._ids[:, 0]))

    def restore(self, state: Any, peers: Peers) -> None:
        """Take them back; what was announced is not announced again."""
        kept, named = read_array(state, "last"), read_array(state, "named")
        if kept is None or named is None:
            return
        for line in kept.tobytes().decode().split("\n") if kept.size else ():
            peer, metric, family, value = line.split("\t")
            self._last[int(peer), metric, family] = int(value)
            self._statistic_id(peers.name(int(peer)), metric, family)
        self._room(peers)
        told = set(named.tolist())
        for row, peer_row, slot in peers.counted():
            if row in told:
                self._name(row, peers.name(peer_row), slot)
        self._names.new()
