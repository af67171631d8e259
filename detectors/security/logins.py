"""Brute force: one host that logs in again and again, over SSH, Telnet, RDP, VNC or FTP.

A try is a short flow to a login port: a handshake, a password, the end. Many of them to the same few
targets within minutes are what no person does. Blind to tries that are spread over many sources, or
one to a target; to those that the exporter's sampling never sees; and to success.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, end_s, values
from runtime.checkpoint import read_array, write_array
from runtime.registry import Part
from telemetry.batch import Batch

TRIES_MIN = 30.0  # within some minutes
TRIES_PER_TARGET_MIN = 3.0
HALF_LIFE_S = 180.0
OVER_OWN = 4.0
OVER_CROWD = 4.0


class LoginDetector:
    """Finds (host, login port) with far more tries in the last minutes than is usual."""

    name, view = "login_tries", "login"

    def __init__(self) -> None:
        self._usual = Usual()
        self._recent = np.zeros(1, np.float32)  # tries of the last minutes, by row
        self._seen_s = np.zeros(1, np.int64)

    def _tries(self, frame: Batch) -> NDArray[np.float64]:
        rows = self._usual.rows(frame)
        if len(self._recent) < len(self._usual.series_id):
            more = len(self._usual.series_id) - len(self._recent)
            self._recent = np.concatenate([self._recent, np.zeros(more, np.float32)])
            self._seen_s = np.concatenate([self._seen_s, np.zeros(more, np.int64)])
        known = self._usual.series_id[rows] == frame["series_id"][:-1]
        age = np.maximum(end_s(frame) - self._seen_s[rows], 0)
        before = known * self._recent[rows] * 2.0 ** (-age / HALF_LIFE_S)
        return np.asarray(before + values(frame, "flows"), np.float64)

    def find(self, frame: Batch) -> list[Finding]:
        """Return who tries to log in far too often."""
        tries, targets = self._tries(frame), np.maximum(values(frame, "distinct_destination"), 1.0)
        flows, own = values(frame, "flows"), self._usual.own(frame)
        limit = np.maximum(np.maximum(OVER_OWN * own, OVER_CROWD * self._usual.busy), TRIES_MIN)
        hit = (tries >= limit) & (flows >= TRIES_PER_TARGET_MIN * targets)
        return [
            finding(
                self, i, "flows", actual=tries[i], expected=own[i], limit=limit[i],
                detail={"tries": flows[i], "tries_of_late": tries[i], "targets": targets[i],
                        "octets_per_try": values(frame, "octets")[i] / max(flows[i], 1.0)},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Count on, and learn how many tries are usual."""
        tries, rows = self._tries(frame), self._usual.rows(frame)
        self._recent[rows], self._seen_s[rows] = tries, end_s(frame)
        self._usual.learn(frame, tries, calm, every=every)

    def snapshot(self, out: Any) -> None:
        """Write what is usual, and the tries of the last minutes."""
        self._usual.snapshot(out)
        write_array(out, "recent", self._recent)
        write_array(out, "seen_s", self._seen_s)

    def restore(self, state: Any) -> None:
        """Take them back."""
        recent, seen_s = read_array(state, "recent"), read_array(state, "seen_s")
        if recent is not None and seen_s is not None:
            self._usual.restore(state)
            self._recent, self._seen_s = np.array(recent), np.array(seen_s)


DETECTOR = Part("brute force at logins", LoginDetector)
