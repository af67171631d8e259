"""Predictions and what became of them: hit, late, false or unseen, counted for each limit.

A prediction is hit when its limit is passed by its deadline, with time to act before; late when it was told
too shortly before; false when the deadline goes by. Where nobody saw what the series did then (it fell silent,
the node was down, another limit was configured) it is unseen, neither right nor wrong. One that was hit is
shown while the series is beyond its limit; until it kept within it for a day, no breach of it is news. What
became of those of a limit corrects the probability of the next: where they were false, they fall silent, but
are judged on.
"""

from typing import Any

import msgspec

from detectors.detector import six

JUDGED_KEPT = 500
RESTS_NS = 86_400_000_000_000  # within its limit for so long: the next breach is news
UNSEEN = "unseen"
OUTCOMES = ("hit", "late", "false", UNSEEN)
CALM_STEPS = 2  # within the limit, before a breach is no longer shown
PRIOR = 4.0  # predictions' worth of trust in what is stated: Laplace's, with another base rate


class Prediction(msgspec.Struct):
    """One series will pass one limit."""

    view: str
    measure: str
    series_id: int
    entity: str
    limit: str  # name in [detection.forecast.limits]
    above: bool
    pace: int
    made_ns: int
    deadline_ns: int
    probability: float
    value: float  # of the limit
    median: float
    low: float
    high: float
    quantiles: list[float]  # .05, .25, .5, .75, .95 at the time it is likely passed
    likely_ns: int
    earliest_ns: int
    latest_ns: int  # 0: not within what is looked ahead
    error: float
    error_naive: float
    judged_before: int  # forecasts of this series that were judged
    admitted: bool = False  # by the budget
    said: bool = True  # False: it no longer looks like it; judged all the same
    outcome: str = ""  # one of OUTCOMES
    ended_ns: int = 0
    lead_s: float = 0.0  # from the telling to the breach
    calm: int = 0  # steps within the limit since it was hit
    beyond_ns: int = 0  # when it was last past its limit
    stated: float = 0.0  # what the forecast said; `probability` is that corrected by the record


class Judge:
    """Open predictions by (view, measure, place), those that ended, and the record of each limit."""

    def __init__(self, lead_least_ns: int) -> None:
        self._lead_least_ns = lead_least_ns
        self.open: dict[tuple[str, str, int], Prediction] = {}
        self.ended: list[Prediction] = []
        self.record: dict[str, dict[str, float]] = {}

    def calibrated(self, limit: str, stated: float) -> float:
        """Return how likely a prediction is right: by its own word, and by what became of its limit's others."""
        counts = self._counts(limit)
        right = counts["hit"] + counts["late"]
        return (PRIOR * stated + right) / (PRIOR + right + counts["false"])

    def step(
        self, key: tuple[str, str, int], *, beyond: bool | None, passed_ns: int, now_ns: int,
        step_ns: int,
    ) -> str:  # fmt: skip
        """A step of a series with an open prediction ended; return what became of it, "" as yet.

        `beyond` says whether it is past its limit, None where nothing came; `passed_ns` when it passed it
        to stay there, 0 = not yet; `step_ns` how long a step is.
        """
        one = self.open[key]
        if one.outcome:
            one.calm = 0 if beyond else one.calm + (beyond is False)
            one.said = one.calm < CALM_STEPS
            one.beyond_ns = now_ns if beyond else one.beyond_ns
            if now_ns - one.beyond_ns > RESTS_NS:
                del self.open[key]
            return ""
        if now_ns - one.deadline_ns > max(self._lead_least_ns, 2 * step_ns):
            outcome = UNSEEN  # else it had been judged by now
        elif passed_ns:
            one.lead_s = max(passed_ns - one.made_ns, 0) / 1e9
            outcome = "hit" if one.lead_s * 1e9 >= self._lead_least_ns else "late"
        elif now_ns > one.deadline_ns and beyond is False:
            outcome = "false"
        else:
            return ""
        one.beyond_ns = now_ns
        self._end(key, outcome, now_ns)
        return outcome

    def drop(self, key: tuple[str, str, int]) -> bool:
        """Forget a place; return whether a prediction of it was not judged yet."""
        one = self.open.get(key)
        if one is not None and not one.outcome:
            self._end(key, UNSEEN, one.made_ns)
            return True
        self.open.pop(key, None)
        return False

    def _end(self, key: tuple[str, str, int], outcome: str, now_ns: int) -> None:
        one = self.open[key]
        one.outcome, one.ended_ns = outcome, now_ns
        if outcome in ("false", UNSEEN):
            del self.open[key]
        self.ended = [*self.ended[1 - JUDGED_KEPT :], one]
        counts = self._counts(one.limit)
        counts[outcome] = counts.get(outcome, 0) + 1
        counts["lead_seconds"] += one.lead_s

    def _counts(self, limit: str) -> dict[str, float]:
        return self.record.setdefault(limit, {"hit": 0, "late": 0, "false": 0, "lead_seconds": 0.0})

    def snapshot(self) -> bytes:
        """Return all of it."""
        rows = [[*key, one] for key, one in self.open.items()]
        return msgspec.msgpack.encode([rows, self.ended, self.record])

    def restore(self, data: bytes) -> None:
        """Take it back."""
        rows, ended, record = msgspec.msgpack.decode(
            data,
            type=tuple[
                list[tuple[str, str, int, Prediction]],
                list[Prediction],
                dict[str, dict[str, float]],
            ],
        )
        self.open = {(view, measure, place): one for view, measure, place, one in rows}
        self.ended, self.record = ended, record

    def counted(self, limit: str) -> dict[str, Any]:
        """Return the record of a limit as people see it."""
        counts = self.record.get(limit, {})
        number = {name: int(counts.get(name, 0)) for name in OUTCOMES}
        right = number["hit"] + number["late"]
        judged = right + number["false"]
        return {
            **number,
            "right": float(f"{right / judged:.3g}") if judged else None,
            "mean_lead_seconds": six(counts.get("lead_seconds", 0.0) / max(right, 1)),
        }
