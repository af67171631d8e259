"""The life of our own alarms: what the cause rules claim of each tick raises, updates and clears them."""

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from alerting.causes.rows import Row
from alerting.causes.rules import CauseRules
from alerting.causes.suppress import Explanations, attach
from alerting.config import AlertingSettings
from alerting.life.explain import TREND_RATIO, attached, explain, sure
from alerting.records.alarm import SEVERITIES, Alarm, Claim, alarm_id
from alerting.words.amounts import rounded
from runtime.component import Context
from telemetry.identity import id_text

PARTS_FEW = 4  # of an alarm: each of so many is news, of more when they have doubled
PARTS_MAX = 256
SIZES_KEPT = 6  # ticks by which growing and shrinking are told apart
CLEARED_KEPT_NS = 86_400_000_000_000  # so long its occurrences are counted on
SLOW_NS = {"slow-leak": 1_800 * 10**9}  # what changes slowly is over when it was away for so long
ENDED = ("cleared", "closed")  # states
FORGOTTEN_MAX = 1_000  # of those that were over for long, in one tick
SIBLING_TICKS = 2  # deviations that begin so close together are one event


class OwnAlarms:
    """All our own alarms by id; `judge` takes what a view tick found and tells which changed.

    A tick looks at those that it shows and those that are going (up, or shown before), not at all that
    once were.
    """

    def __init__(
        self,
        settings: AlertingSettings,
        context: Context,
        rules: CauseRules,
        explanations: Explanations,
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._explanations = explanations
        self.alarms: dict[int, Alarm] = {}
        self._going: dict[int, Alarm] = {}  # in the order in which they began
        # Cleared or closed, that of longest ago first, which is found at once in an OrderedDict.
        self._over: OrderedDict[int, Alarm] = OrderedDict()
        self._held = context.metrics.counter(
            "alarms_held_total",
            "claims that became no alarm, by reason",
            label="reason",
            values=("too_many",),
        )

    def judge(
        self, rows: Sequence[Row], now_ns: int, cadences: set[str], said: Sequence[Claim] = ()
    ) -> list[Alarm]:
        """Move every alarm on by one tick; return those that changed.

        `said` are claims that come from no anomaly: of what logs tell.
        """
        attacks = (a for a in self._going.values() if a.up and a.kind == "volumetric-attack")
        claims = self._rules.claims(rows, {alarm.entity for alarm in attacks}, self._alarm)
        claims += [one for one in said if not joined(one, claims)]
        shown = {claim.alarm_id for claim in claims}
        claimed: list[tuple[Alarm, Claim]] = []
        for claim in claims:
            if alarm := self._alarm_of(claim, shown):
                claimed.append((alarm, claim))
        # The anomalies that these faults explain are attached before the alarms are told.
        own = {series for claim in claims for series in claim.series}
        other = [row for row in rows if id_text(row.key.series_id) not in own]
        faults = [*self._going.values(), *self._newly_over(now_ns)] if other else []
        rest = self._explanations.rest(other, faults, now_ns)
        for claim in self._rules.deviations(rest):
            sibling = self._sibling(claim, shown)
            if sibling is not None:
                # Part of an event that has an alarm: it keeps that alarm up and raises no other.
                attach(sibling, f"deviation {claim.entity}")
                sibling.quiet_ticks, sibling.last_ns = 0, now_ns
                shown.add(sibling.id)
            elif alarm := self._alarm_of(claim, shown):
                claimed.append((alarm, claim))
                shown.add(claim.alarm_id)
        changed = [alarm for alarm, claim in claimed if self._claim(alarm, claim, now_ns)]
        for key, alarm in list(self._going.items()):
            ended = not cadences or not alarm.cadence or alarm.cadence in cadences
            if key not in shown and ended and self._quiet(key, alarm, now_ns):
                changed.append(alarm)
        self._sort_out(shown, now_ns)
        return changed

    def _sort_out(self, shown: set[int], now_ns: int) -> None:
        """Tell those that go on from those that are over, and forget what was over for long."""
        ended = [alarm for alarm in self._going.values() if alarm.state in ENDED]
        for alarm in sorted(ended, key=lambda one: (one.cleared_ns, one.id)):
            self._over.setdefault(alarm.id, alarm)
            if not alarm.pending_ticks:
                del self._going[alarm.id]
        gone = []
        for key, alarm in itertools.islice(self._over.items(), FORGOTTEN_MAX):
            if now_ns - alarm.cleared_ns <= CLEARED_KEPT_NS:
                break
            if key not in shown:
                gone.append(key)
        for key in gone:
            self._forget(key)

    def _forget(self, key: int) -> None:
        del self.alarms[key]
        self._over.pop(key, None)
        self._going.pop(key, None)

    def _newly_over(self, now_ns: int) -> Iterator[Alarm]:
        """Yield those that were cleared not long ago, the newest first."""
        for alarm in reversed(self._over.values()):
            if now_ns - alarm.cleared_ns >= self._explanations.aftermath_ns:
                return
            if alarm.id not in self._going:
                yield alarm

    def _alarm(self, kind: str, entity: str) -> Alarm | None:
        return self.alarms.get(alarm_id(kind, entity))

    def _alarm_of(self, claim: Claim, shown: set[int]) -> Alarm | None:
        """Return the claim's alarm, a new one where there is none, None where there is no room."""
        number = claim.alarm_id
        alarm = self.alarms.get(number)
        if alarm is None:
            if len(self.alarms) >= self._settings.alarms_max and not self._make_room(shown):
                self._held.add("too_many")
                return None
            alarm = Alarm(claim.kind, claim.entity, first_ns=claim.since_ns, id=number)
            self.alarms[number] = alarm
        self._going.setdefault(number, alarm)
        if not alarm.up and alarm.pending_ticks == 0:
            alarm.first_ns = claim.since_ns
        return alarm

    def _make_room(self, shown: set[int]) -> bool:
        """Forget the alarm that was cleared longest ago, if there is one that this tick has not."""
        key = next((key for key in self._over if key not in shown), None)
        if key is not None:
            self._forget(key)
        return key is not None

    def _sibling(self, claim: Claim, shown: set[int]) -> Alarm | None:
        """Return the deviation alarm of another entity that began when this one did."""
        if claim.alarm_id in self.alarms:
            return None
        near = round(SIBLING_TICKS * claim.tick_seconds * 1e9)
        for key, alarm in self._going.items():
            going = alarm.up or (alarm.state == "pending" and key in shown)
            if going and alarm.kind == "deviation" and abs(alarm.first_ns - claim.since_ns) <= near:
                return alarm
        return None

    def _claim(self, alarm: Alarm, claim: Claim, now_ns: int) -> bool:
        """Move an alarm on by one tick that shows it; return whether there is a change to tell."""
        alarm.quiet_ticks, alarm.last_ns = 0, now_ns
        self._pace(alarm, claim, now_ns)
        alarm.sizes = [*alarm.sizes[1 - SIZES_KEPT :], rounded(abs(claim.actual - claim.expected))]
        if not alarm.up:
            alarm.pending_ticks += 1
            # What the budget has not let in yet is in the digest; its confirmation goes on.
            if alarm.pending_ticks < claim.ticks_needed or claim.disposition == "digest":
                return False
            self._raise(alarm, claim, now_ns)
            return True
        if claim.disposition == "hard":
            return False  # a hard fault is certain when it is raised; only its end is news
        alarm.parts = alarm.parts or sorted(claim.parts)[:PARTS_MAX]  # of a checkpoint without them
        worse = SEVERITIES.index(claim.severity) < SEVERITIES.index(alarm.severity)
        again = now_ns - alarm.changed_ns >= round(self._settings.update_seconds * 1e9)
        grown = again and claim.score > 2.0 * alarm.best_score and _is_news(claim, alarm)
        if worse or ((grown or (again and _has_more(claim, alarm))) and not alarm.flapping):
            alarm.state = "updated"
            self._tell(alarm, claim, now_ns)
            return True
        return False

    def _pace(self, alarm: Alarm, claim: Claim, now_ns: int) -> None:
        """Let the slowest of the views that show an alarm say when it is quiet, while that one does."""
        slow_ns = round(self._settings.clear_ticks * alarm.tick_seconds * 1e9)
        going_on = alarm.up and now_ns - alarm.paced_ns <= slow_ns
        if not (going_on and claim.tick_seconds < alarm.tick_seconds):
            alarm.tick_seconds, alarm.cadence = claim.tick_seconds, claim.cadence
            alarm.paced_ns = now_ns

    def _raise(self, alarm: Alarm, claim: Claim, now_ns: int) -> None:
        reopen = round(self._settings.reopen_seconds * 1e9)
        anew = not alarm.cleared_ns or now_ns - alarm.cleared_ns > reopen
        if anew:
            alarm.occurrence += 1
            alarm.raised_ns = alarm.first_ns
            alarm.raises = [] if not alarm.cleared_ns else alarm.raises
        flap = round(self._settings.flap_seconds * 1e9)
        alarm.raises = [at for at in alarm.raises if now_ns - at < flap] + [now_ns]
        alarm.flapping = len(alarm.raises) >= self._settings.flap_changes
        if alarm.cleared_ns:
            alarm.end_acknowledgement(anew=anew)
        alarm.state, alarm.cleared_ns, alarm.pending_ticks, alarm.asked = "raised", 0, 0, ""
        self._over.pop(alarm.id, None)
        alarm.best_score, alarm.parts = 0.0, []
        self._tell(alarm, claim, now_ns)

    def _tell(self, alarm: Alarm, claim: Claim, now_ns: int) -> None:
        if alarm.acknowledged == "until-worse" and alarm.is_worse(claim.severity):
            alarm.acknowledged = ""
        alarm.severity, alarm.origin = claim.severity, ""
        alarm.changed_ns = now_ns
        alarm.title = claim.title + (" (flapping)" if alarm.flapping else "")
        alarm.best_score = max(alarm.best_score, claim.score)
        alarm.parts = sorted({*alarm.parts, *claim.parts})[:PARTS_MAX]
        alarm.explain = explain(alarm, claim)

    def _quiet(self, key: int, alarm: Alarm, now_ns: int) -> bool:
        """Move an alarm on by one tick that does not show it; return whether it cleared."""
        alarm.quiet_ticks += 1
        if alarm.state == "pending":
            if alarm.quiet_ticks > 1:
                self._forget(key)
            return False
        if not alarm.up:
            alarm.pending_ticks = 0
            return False
        if alarm.quiet_ticks < self._settings.clear_ticks:
            return False
        if now_ns - alarm.last_ns < SLOW_NS.get(alarm.kind, 0):
            return False
        # A flapping alarm is said once and stays up until it has been calm for long.
        if alarm.flapping and now_ns - alarm.last_ns < round(self._settings.reopen_seconds * 1e9):
            return False
        alarm.state, alarm.cleared_ns, alarm.changed_ns = "cleared", now_ns, now_ns
        alarm.origin = ""
        alarm.pending_ticks, alarm.sizes = 0, []
        if alarm.flapping:
            alarm.flapping, alarm.raises = False, []
            alarm.title = alarm.title.removesuffix(" (flapping)")
        alarm.explain = {**alarm.explain, "growing": False, "trend": "over"} | attached(alarm)
        alarm.attached, alarm.moved = [], {}
        return True

    # ---- checkpoint

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"alarms": list(self.alarms.values()), "going": list(self._going)}

    def restore(self, kept: dict[str, Any]) -> None:
        """Take it back."""
        found = [msgspec.convert(fields, Alarm) for fields in kept["alarms"]]
        self.alarms = {alarm.id: alarm for alarm in found}
        over = sorted(
            (one for one in found if one.state in ENDED), key=lambda a: (a.cleared_ns, a.id)
        )
        self._over = OrderedDict((alarm.id, alarm) for alarm in over)
        # A checkpoint of before the list was kept: what is not over goes on.
        going = kept.get("going", [a.id for a in found if a.state not in ENDED or a.pending_ticks])
        self._going = {key: self.alarms[key] for key in going}


def _has_more(claim: Claim, alarm: Alarm) -> bool:
    """Return whether a claim has parts that nobody was told of, and enough of them."""
    known = len(alarm.parts)
    count = min(len({*alarm.parts, *claim.parts}), PARTS_MAX)
    return count > known and (count <= PARTS_FEW or count >= 2 * known)


def _is_news(claim: Claim, alarm: Alarm) -> bool:
    """Whether a claim is larger than what was told, or surer in words: a score alone is no news."""
    told = alarm.explain
    size = abs(told.get("actual", 0.0) - told.get("expected", 0.0))
    return abs(claim.actual - claim.expected) > TREND_RATIO * size or sure(claim) != told.get(
        "sure"
    )


def joined(claim: Claim, claims: Sequence[Claim]) -> bool:
    """Return whether one of these claims is about the same alarm; it takes over the evidence."""
    for other in claims:
        if other.alarm_id == claim.alarm_id:
            other.evidence += claim.evidence
            other.affects = [*dict.fromkeys((*other.affects, *claim.affects))]
            return True
    return False
