"""Predictions and what became of them: hit, late or false, counted for each limit.

A prediction is hit when its limit is passed by its deadline, with time to act before; late when it was told
too shortly before; false when the deadline goes by. One that was hit is shown while the series is beyond
its limit; until it kept within it for a day, no breach of it is news. What became of those of a limit
corrects the probability of the next: where they were false, they fall silent, but are judged on.
"""

from typing import Any

import msgspec

JUDGED_KEPT = 500
RESTS_NS = 86_400_000_000_000  # within its limit for so long: the next breach is news
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
    outcome: str = ""  # hit, late, false
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
        self, key: tuple[str, str, int], *, beyond: bool | None, passed_ns: int, now_ns: int
    ) -> str:
        """A step of a series with an open prediction ended; return what became of it, "" as yet.

        `beyond` says whether it is past its limit, None where nothing came; `passed_ns` when it passed it
        to stay there, 0 = not yet.
        """
        one = self.open[key]
        if one.outcome:
            one.calm = 0 if beyond else one.calm + (beyond is False)
            one.said = one.calm < CALM_STEPS
            one.beyond_ns = now_ns if beyond else one.beyond_ns
            if now_ns - one.beyond_ns > RESTS_NS:
                del self.open[key]
            return ""
        if passed_ns:
            lead_ns = max(passed_ns - one.made_ns, 0)
            one.lead_s = lead_ns / 1e9
            one.outcome = "hit" if lead_ns >= self._lead_least_ns else "late"
        elif now_ns > one.deadline_ns:
            one.outcome = "false"
            del self.open[key]
        if one.outcome:
            one.ended_ns = one.beyond_ns = now_ns
            self.ended = [*self.ended[1 - JUDGED_KEPT :], one]
            counts = self._counts(one.limit)
            counts[one.outcome] += 1
            counts["lead_seconds"] += one.lead_s
        return one.outcome

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

    def table(self) -> dict[str, Any]:
        """Return the record of each limit as people see it."""
        made = {}
        for limit, counts in sorted(self.record.items()):
            told = counts["hit"] + counts["late"] + counts["false"]
            made[limit] = {
                "hit": int(counts["hit"]), "late": int(counts["late"]),
                "false": int(counts["false"]),
                "right": float(f"{(counts['hit'] + counts['late']) / told:.3g}") if told else None,
                "mean_lead_seconds": float(
                    f"{counts['lead_seconds'] / max(counts['hit'] + counts['late'], 1):.6g}"
                ),
            }  # fmt: skip
        return made
