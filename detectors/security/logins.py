"""Brute force: one host that logs in again and again, over SSH, Telnet, RDP, VNC or FTP.

A try is a short flow to a login port: a handshake, a password, the end. Many of them to the same few
targets within minutes are what no person does. Blind to tries that are spread over many sources, or
one to a target; to those that the exporter's sampling never sees (of sampled packets only a SYN is a
try); and to success. Tries add up over minutes, so only ticks that follow one another for some minutes
teach how many are usual: a history of ticks far apart does not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, end_s, grown, seconds, values
from runtime.checkpoint import read_arrays, write_array
from runtime.registry import Part
from telemetry.batch import Batch

TRIES_MIN = 30.0  # within some minutes
TRIES_PER_TARGET_MIN = 3.0
HALF_LIFE_S = 180.0
WHOLE_S = 3 * HALF_LIFE_S  # of ticks without a gap, before what adds up is what it will be
OVER_OWN = 4.0
OVER_CROWD = 4.0
KEPT = ("recent", "seen_s", "owner", "run_s")


class LoginDetector:
    """Finds (host, login port) with far more tries in the last minutes than is usual."""

    name, view = "login_tries", "login"

    def __init__(self) -> None:
        self._usual = Usual(self.view)
        self.recent = np.zeros(1, np.float32)  # tries of the last minutes, by row
        self.seen_s = np.zeros(1, np.int64)
        self.owner = np.zeros(1, np.uint64)  # the series that a row holds
        self.run_s = np.zeros(2, np.int64)  # begin and end of the ticks that follow one another

    @property
    def warm(self) -> bool:
        """Whether it knows what is usual; until then, TRIES_MIN."""
        return self._usual.warm

    def _tries(self, frame: Batch) -> NDArray[np.float64]:
        rows = self._usual.rows(frame)
        if rows.size and len(self.recent) <= int(rows.max()):
            for name in KEPT[:-1]:
                setattr(self, name, grown(getattr(self, name), 2 * int(rows.max()) + 1))
        known = self.owner[rows] == frame["series_id"][:-1]
        age = np.maximum(end_s(frame) - self.seen_s[rows], 0)
        before = known * self.recent[rows] * 2.0 ** (-age / HALF_LIFE_S)
        return np.asarray(before + values(frame, "flows"), np.float64)

    def find(self, frame: Batch) -> list[Finding]:
        """Return who tries to log in far too often."""
        tries, targets = self._tries(frame), np.maximum(values(frame, "distinct_destination"), 1.0)
        flows, own = values(frame, "flows"), self._usual.own(frame)
        limit = np.maximum(
            np.maximum(OVER_OWN * own, OVER_CROWD * self._usual.busy(frame, tries)), TRIES_MIN
        )
        hit = (tries >= limit) & (flows >= TRIES_PER_TARGET_MIN * targets)
        return [
            finding(
                self, i, "flows", actual=tries[i], expected=own[i], limit=limit[i],
                detail={"tries": flows[i], "tries_of_late": tries[i], "targets": targets[i]},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Count on, and learn how many tries are usual."""
        tries, rows, now_s = self._tries(frame), self._usual.rows(frame), end_s(frame)
        self.recent[rows], self.seen_s[rows] = tries, now_s
        self.owner[rows] = frame["series_id"][:-1]
        if now_s - self.run_s[1] > 2 * seconds(frame):
            self.run_s[0] = now_s
        self.run_s[1] = now_s
        if now_s - self.run_s[0] >= WHOLE_S:
            self._usual.learn(frame, tries, calm, every=every)

    def snapshot(self, out: Any) -> None:
        """Write what is usual, and the tries of the last minutes."""
        self._usual.snapshot(out)
        for name in KEPT:
            write_array(out, name, getattr(self, name))

    def restore(self, state: Any) -> None:
        """Take them back."""
        found = read_arrays(state, *KEPT)
        if found is not None:
            self._usual.restore(state)
            for name, array in zip(KEPT, found, strict=True):
                setattr(self, name, np.array(array))


DETECTOR = Part("brute force at logins", LoginDetector)
