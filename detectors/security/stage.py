"""All security detectors on the frames of their views, and what each one's record is worth."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import SECURITY, SecurityDetector
from detectors.security.usual import P_LEAST
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch
from telemetry.views import View

FINDINGS_MAX = 64  # of one detector and tick: the surest
FIRED_MAX = 1e9  # tests after which older ones fade


class SecurityDetectors:
    """The security detectors of the views that there are.

    A rule's p-value is P_LEAST at its limit: it must fire once in 10^8 tests, of which a site makes
    some millions a day. That is believed as if it had been seen in 10^8 tests, and then held against
    what the detector does: one that fires every day on what is no attack loses its credit.
    """

    def __init__(self, views: Iterable[View]) -> None:
        names = {view.name for view in views}
        every = [SECURITY.get(kind).make() for kind in SECURITY.kinds()]
        self._by_view: dict[str, list[SecurityDetector]] = {}
        for one in every:
            if one.view in names:
                self._by_view.setdefault(one.view, []).append(one)
        self._record = {
            one.name: [0.0, 1.0 / P_LEAST] for ones in self._by_view.values() for one in ones
        }

    def knows(self, detector: str) -> bool:
        """Return whether a finding's detector is one of these."""
        return detector in self._record

    def names(self, view: str) -> list[str]:
        """Return the detectors that look at a view."""
        return [one.name for one in self._by_view.get(view, ())]

    def stages(self) -> dict[str, str]:
        """Return of each detector "judging", or "warming up": then only hard evidence counts."""
        return {
            one.name: "judging" if one.warm else "warming up"
            for ones in self._by_view.values()
            for one in ones
        }

    def tests(self, view: str, frame: Batch) -> int:
        """Return how many tests a frame means."""
        return len(self._by_view.get(view, ())) * (frame.rows - 1)

    def find(self, view: str, frame: Batch) -> list[Finding]:
        """Return the findings of one frame."""
        found: list[Finding] = []
        for one in self._by_view.get(view, ()):
            own = one.find(frame)
            if len(own) > FINDINGS_MAX:
                own = sorted(own, key=lambda f: (f.p_value, f.row))[:FINDINGS_MAX]
            found += own
        return found

    def learn(
        self, view: str, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False
    ) -> None:
        """Learn a frame: its calm rows, now and then every one; `__other__` is left out."""
        for one in self._by_view.get(view, ()):
            one.learn(frame, calm, every=every)

    def count(self, begun: Sequence[str], frames: Sequence[tuple[str, Batch]]) -> None:
        """Note which detectors began to find something in a tick, and how many tests it had."""
        for view, frame in frames:
            for one in self._by_view.get(view, ()):
                self._record[one.name][1] += frame.rows - 1
        for name in begun:
            self._record[name][0] += 1.0
        for record in self._record.values():
            if record[1] > FIRED_MAX:
                record[:] = [0.5 * value for value in record]

    def calibrated(self, one: Finding) -> Finding:
        """Return a finding with the p-value that its detector's record gives it."""
        fired, tests = self._record[one.detector]
        return replace(
            one, p_value=min(one.p_value * max((fired + 1.0) / tests / P_LEAST, 1.0), 1.0)
        )

    def snapshot(self, out: Any) -> None:
        """Write every detector's state and record."""
        for ones in self._by_view.values():
            for one in ones:
                one.snapshot(out.scoped(one.name))
        write_array(out, "record", np.array([self._record[name] for name in sorted(self._record)]))

    def restore(self, state: Any) -> None:
        """Take them back."""
        for ones in self._by_view.values():
            for one in ones:
                one.restore(state.scoped(one.name))
        record = read_array(state, "record")
        if record is not None and len(record) == len(self._record):
            self._record = dict(zip(sorted(self._record), record.tolist(), strict=True))
