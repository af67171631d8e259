"""What classes on probation would have raised: counted, listed, never told.

They run beside the real alarms: neither can keep the other up or take a place from it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from alerting.records.alarm import Claim
from runtime.component import Context
from telemetry.identity import id_text

LISTED_MAX = 200
PENDING_MAX = 10_000
QUIET_TICKS = 3  # of its own cadence, after which it would have cleared


class Trial(msgspec.Struct):
    """A fault as a class on probation claims it."""

    alarm: str
    kind: str
    entity: str
    severity: str
    title: str
    since_ns: int
    cadence: str
    ticks: int = 0
    quiet: int = 0
    would_ns: int = 0  # when it would have been raised, 0 while it is not confirmed


class Trials:
    """Counts claims on probation as alarms are counted: confirmed once, over after quiet ticks."""

    def __init__(self, context: Context) -> None:
        self._going: dict[int, Trial] = {}
        self._listed: list[Trial] = []
        self._count = context.metrics.counter(
            "alarms_would_total", "alarms that classes on probation would have raised"
        )

    def judge(self, claims: Sequence[Claim], now_ns: int, cadences: set[str]) -> None:
        """Move on by one tick with what was claimed in it."""
        shown = set()
        for claim in claims:
            one = self._going.get(claim.alarm_id)
            if one is None:
                if len(self._going) >= PENDING_MAX:
                    continue
                one = Trial(
                    id_text(claim.alarm_id), claim.kind, claim.entity, claim.severity, claim.title,
                    claim.since_ns, claim.cadence,
                )  # fmt: skip
                self._going[claim.alarm_id] = one
            shown.add(claim.alarm_id)
            one.ticks, one.quiet = one.ticks + 1, 0
            if (
                not one.would_ns
                and one.ticks >= claim.ticks_needed
                and claim.disposition == "would"
            ):
                one.would_ns, one.title, one.severity = now_ns, claim.title, claim.severity
                self._count.add()
                self._listed = [*self._listed[1 - LISTED_MAX :], one]
        for number, one in list(self._going.items()):
            if number not in shown and (not cadences or one.cadence in cadences):
                one.quiet += 1
                if one.quiet >= QUIET_TICKS:
                    del self._going[number]

    def listed(self) -> list[dict[str, Any]]:
        """Return what would have been raised, newest first."""
        return [msgspec.to_builtins(one) for one in reversed(self._listed)]

    def snapshot(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"going": list(self._going.values()), "listed": self._listed}

    def restore(self, data: dict[str, Any]) -> None:
        """Take it back."""
        going = msgspec.convert(data["going"], list[Trial])
        self._going = {int(one.alarm, 16): one for one in going}
        self._listed = msgspec.convert(data["listed"], list[Trial])
