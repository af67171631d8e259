"""Beacons: a host that reports to another like clockwork, in small flows, for hours.

Contacts of a pair are counted on a grid (five minutes). A process with no clock is at least as
irregular as Poisson's: counts vary by their mean, or the waits between contacts by theirs. Counts, or
waits, that vary far less over hours are a clock; so are sizes that never change. Jitter of a quarter
of the period still shows.

Blind to periods above an hour, to jitter of half a period, to protocols that are regular by nature
(DNS, NTP, BGP, SNMP, exports), and to what the exporter's sampling never sees. Software that asks for
updates by the clock is a beacon too: the alert names the pair, people know which it is.

Source: Fisher (1950), index of dispersion; Wilson and Hilferty (1931) for the chi-square's tail.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import seconds, values
from runtime.checkpoint import read_arrays, write_array
from runtime.kernels import kernel
from runtime.registry import Part
from telemetry.batch import Batch

ROWS_FIRST = 256
BINS = 144  # of the grid: twelve hours
CONTACTS_MIN = 12
SPAN_SECONDS_MIN = 5_400.0
Z_MOST = -5.6  # p 1e-8
SIZE_VARIES_MAX = 0.6  # deviation of the flows' octets over their mean
RATIO_MOST = 0.3  # of the dispersion over chance: a little regular is no clock, however sure
REGULAR, PERIOD, CONTACTS, SPAN, RATIO = 0, 1, 2, 3, 4
JUDGED = 5
PER_ROW = ("series_id", "ring", "first_bin", "last_bin", "size")
KEPT = (*PER_ROW, "bin_s")


@kernel("i8(const i8[::1], i8, const u1[:,::1], const i8[::1], const i8[::1], f8[:,::1])")
def judge(
    rows: NDArray[np.int64],
    now: int,
    ring: NDArray[np.uint8],
    first_bin: NDArray[np.int64],
    last_bin: NDArray[np.int64],
    out: NDArray[np.float64],
) -> int:
    """Write how regular the contacts of each row were before bin `now`; return rows judged.

    In      rows int64[N] of ring uint8[M, BINS], contacts by bin modulo BINS; first_bin, last_bin
            int64[M], bins of the first and the last contact.
    Out     float64[N, 5]: z of the dispersion (far below 0 = a clock), period in bins, contacts,
            bins they lie in, dispersion over chance. Rows with too few contacts have z 0.
    """
    judged = 0
    for i in range(rows.size):
        row = rows[i]
        for k in range(5):
            out[i, k] = 0.0
        begin = max(first_bin[row], now - ring.shape[1] + 1)
        end = last_bin[row]
        span = end - begin + 1
        if span < 3 or now - end > ring.shape[1] // 2:
            continue
        total, squares, hit = 0.0, 0.0, 0
        waits, wait_sum, wait_squares, at = 0, 0.0, 0.0, -1
        for b in range(begin, end + 1):
            c = float(ring[row, b % ring.shape[1]])
            total += c
            squares += c * c
            if c > 0.0:
                hit += 1
                if at >= 0:
                    waits += 1
                    wait_sum += float(b - at)
                    wait_squares += float(b - at) * float(b - at)
                at = b
        out[i, 2], out[i, 3] = total, float(span)
        if total < 12.0:
            continue
        judged += 1
        mean = total / span
        if mean >= 0.75:
            degrees = float(span - 1)
            ratio = max(squares / span - mean * mean, 0.0) / mean * span / degrees
            out[i, 1] = 1.0 / mean
        else:
            if waits < 4:
                continue
            wait = wait_sum / waits
            degrees = float(waits - 1)
            spread = max(wait_squares / waits - wait * wait, 0.0) * waits / degrees
            # Waits of a process without a clock are geometric on this grid.
            ratio = spread / max(wait * wait - wait, 0.25)
            out[i, 1] = wait
        out[i, 4] = ratio
        part = 2.0 / (9.0 * degrees)
        out[i, 0] = (ratio ** (1.0 / 3.0) - (1.0 - part)) / math.sqrt(part)
    return judged


@kernel(
    "i8(const i8[::1], const f8[::1], const f8[::1], const f8[::1], i8, u1[:,::1], i8[::1],"
    " i8[::1], f4[:,::1])"
)
def count(
    rows: NDArray[np.int64],
    flows: NDArray[np.float64],
    octets: NDArray[np.float64],
    m2: NDArray[np.float64],
    now: int,
    ring: NDArray[np.uint8],
    first_bin: NDArray[np.int64],
    last_bin: NDArray[np.int64],
    size: NDArray[np.float32],
) -> int:
    """Add the contacts of bin `now`; return how many rows are new.

    In      rows int64[N]; flows, octets, sum of squared deviations of the flows' octets, float64[N].
    Inout   ring, first_bin, last_bin as in `judge`, first_bin 0 = new; size float32[M, 3]: flows,
            mean octets, sum of squared deviations (Chan, Golub and LeVeque 1979).
    """
    new = 0
    bins = ring.shape[1]
    for i in range(rows.size):
        row = rows[i]
        if flows[i] <= 0.0:
            continue
        if first_bin[row] == 0 or now - last_bin[row] >= bins:
            first_bin[row] = now
            for b in range(bins):
                ring[row, b] = 0
            for k in range(3):
                size[row, k] = 0.0
            new += 1
        else:
            for b in range(last_bin[row] + 1, now):
                ring[row, b % bins] = 0
        ring[row, now % bins] = np.uint8(min(flows[i], 255.0))
        last_bin[row] = now
        mean, n = octets[i] / flows[i], float(size[row, 0])
        both = n + flows[i]
        apart = mean - size[row, 1]
        size[row, 2] += np.float32(m2[i] + apart * apart * n * flows[i] / both)
        size[row, 1] += np.float32(apart * flows[i] / both)
        size[row, 0] = np.float32(both)
    return new


class BeaconDetector:
    """Finds pairs that meet by the clock. State is 184 bytes a pair."""

    name, view = "beacon", "contact"

    def __init__(self) -> None:
        self._allocate(ROWS_FIRST)
        self.bin_s = np.zeros(1)  # how long a bin is: what was counted on another grid is forgotten

    def _allocate(self, rows: int) -> None:
        self.series_id = np.zeros(rows, np.uint64)
        self.ring = np.zeros((rows, BINS), np.uint8)
        self.first_bin = np.zeros(rows, np.int64)
        self.last_bin = np.zeros(rows, np.int64)
        self.size = np.zeros((rows, 3), np.float32)

    def _rows(self, frame: Batch) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = frame["row"][:-1].astype(np.int64)
        if self.bin_s[0] != seconds(frame):
            self._allocate(ROWS_FIRST)
            self.bin_s[0] = seconds(frame)
        size = len(self.series_id)
        if rows.size and int(rows.max()) >= size:
            kept = {name: getattr(self, name) for name in PER_ROW}
            while size <= int(rows.max()):
                size *= 2
            self._allocate(size)
            for name, array in kept.items():
                getattr(self, name)[: len(array)] = array
        changed = rows[self.series_id[rows] != frame["series_id"][:-1]]
        self.first_bin[changed] = 0
        self.series_id[rows] = frame["series_id"][:-1]
        return rows

    @property
    def warm(self) -> bool:
        """There is no notion of usual: a clock shows in what a pair does."""
        return True

    def find(self, frame: Batch) -> list[Finding]:
        """Return the pairs that meet by the clock, by what they did before this tick."""
        rows, bin_s = self._rows(frame), seconds(frame)
        judged = np.zeros((rows.size, JUDGED))
        judge(rows, _bin(frame), self.ring, self.first_bin, self.last_bin, judged)
        size = self.size[rows].astype(np.float64)
        varies = np.sqrt(size[:, 2] / np.maximum(size[:, 0], 1.0)) / np.maximum(size[:, 1], 1.0)
        hit = (self.first_bin[rows] > 0) & (judged[:, REGULAR] <= Z_MOST)
        hit &= (judged[:, CONTACTS] >= CONTACTS_MIN) & (varies <= SIZE_VARIES_MAX)
        hit &= (judged[:, SPAN] * bin_s >= SPAN_SECONDS_MIN) & (judged[:, RATIO] <= RATIO_MOST)
        return [
            finding(
                self, i, "flows", actual=judged[i, CONTACTS], expected=0.0, limit=0.0,
                p_value=max(0.5 * math.erfc(-max(judged[i, REGULAR], -37.0) / math.sqrt(2.0)), 1e-300),
                detail={"period_seconds": judged[i, PERIOD] * bin_s,
                        "contacts": judged[i, CONTACTS],
                        "hours": judged[i, SPAN] * bin_s / 3600.0,
                        "octets_per_contact": size[i, 1], "size_varies": varies[i],
                        "since_ns": int(self.first_bin[rows[i]] * bin_s) * 1_000_000_000},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:  # noqa: ARG002
        """Count the tick's contacts; there is no notion of normal that a beacon could move."""
        count(
            self._rows(frame), values(frame, "flows"), values(frame, "octets"),
            values(frame, "octets_m2"), _bin(frame), self.ring, self.first_bin, self.last_bin,
            self.size,
        )  # fmt: skip

    def snapshot(self, out: Any) -> None:
        """Write the contacts of each pair."""
        for name in KEPT:
            write_array(out, name, getattr(self, name))

    def restore(self, state: Any) -> None:
        """Take them back."""
        found = read_arrays(state, *KEPT)
        if found is not None:
            for name, array in zip(KEPT, found, strict=True):
                setattr(self, name, np.array(array))


def _bin(frame: Batch) -> int:
    return int(frame["tick_start_ns"][0]) // round(seconds(frame) * 1e9)


DETECTOR = Part("beacons", BeaconDetector)
