"""The life of foreign alarms: what traps, log lines, VES and other managers state.

Same table, same states and same rows as our own alarms; only who shows and clears them differs: the
source does, or nobody for `silent_hours_max`. Work per report is constant: no scan over all alarms.
"""

import heapq
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from alerting.config import AlertingSettings
from alerting.life.flood import collapse
from alerting.life.storm import KIND as STORM
from alerting.life.storm import Storm, Storms
from alerting.records.alarm import NEVER_NS, Alarm
from alerting.words.escape import line
from runtime.component import Context
from telemetry.batch import Batch

CLEARED_KEPT_NS = 86_400_000_000_000  # so long its occurrences are counted on
RAISES_KEPT = 32
NO_DETAIL = ("", '{"detail":{}}')
WORDS_NS = 60_000_000_000  # an alarm whose words alone change is told of so often at most
FLAPPING = " (flapping)"
TEXT_SHOWN_MAX = 300  # characters of what its source says beside the title
_NUMBER = re.compile(r"\d+")


class Difference(Enum):
    """What is new in a report of an alarm that is up."""

    NONE = 0
    WORDS = 1  # its title or text
    STATE = 2  # who works on it, what causes it
    SEVERITY = 3


class ForeignAlarms:
    """All foreign alarms by id. `report` takes a batch, `advance` fires timers; both tell changes."""

    def __init__(self, settings: AlertingSettings, context: Context) -> None:
        self._settings = settings
        self._up_ns = _ns(settings.hold_up_seconds)
        self._down_ns = _ns(settings.hold_down_seconds)
        self._silent_ns = _ns(settings.silent_hours_max * 3600)
        self._calm_ns = _ns(settings.reopen_seconds)
        self._flap_ns = _ns(settings.flap_seconds)
        self.alarms: dict[int, Alarm] = {}
        # Cleared ones, the oldest first: room is made of them.
        self._over: OrderedDict[int, None] = OrderedDict()
        self._timers: list[tuple[int, int]] = []
        self._words: list[tuple[int, int]] = []  # changes of words alone that wait to be told
        self._storms = Storms(
            settings.storm_alarms, calm_ns=self._calm_ns, silent_ns=self._silent_ns,
            ids_max=settings.alarms_max,
        )  # fmt: skip
        self._reports = context.metrics.counter(
            "foreign_alarm_reports_total",
            "reports of foreign alarms by what became of them",
            label="fate",
            values=(
                "changed", "repeated", "held", "flapping", "hidden_by_storm", "clear_of_unknown",
                "too_many",
            ),
        )  # fmt: skip

    # ---- reports

    def report(self, batch: Batch, now_ns: int) -> list[Alarm]:
        """Take the reports of an event tick; return the alarms that changed, in order."""
        changed = []
        fates: Counter[str] = Counter()
        for number, row, last_raise, raises, clears, first_raised in collapse(batch).entries():
            alarm = self.alarms.get(number)
            reports = raises + clears
            cleared = row != last_raise
            if alarm is None:
                if not raises:
                    self._clear_of_unknown(number, batch, row, clears, now_ns)
                    continue
                alarm = self._new(number, batch, last_raise, reports, now_ns)
                if alarm is None:
                    continue
            fate = self._move(
                alarm, batch, last_raise if raises else -1, cleared=cleared, raises=raises,
                between=(clears and first_raised) or clears > 1, now_ns=now_ns,
            )  # fmt: skip
            fates[fate] += 1
            fates["repeated"] += reports - 1
            if fate == "changed":
                changed.append(alarm)
        for fate, count in fates.items():
            self._reports.add(fate, count)
        for storm in self._storms.changed(now_ns):
            self._tell_storm(storm, changed, now_ns)
        return changed

    def _clear_of_unknown(
        self, number: int, batch: Batch, row: int, clears: int, now_ns: int
    ) -> None:
        source, kind = _text(batch, "source", row), _text(batch, "kind", row)
        hidden = self._storms.clear(source, kind, number, now_ns)
        self._reports.add("hidden_by_storm" if hidden else "clear_of_unknown", clears)

    def _new(self, number: int, batch: Batch, row: int, reports: int, now_ns: int) -> Alarm | None:
        source, kind = _text(batch, "source", row), _text(batch, "kind", row)
        entity = _text(batch, "entity", row)
        if self._storms.hides(source, kind, entity, number, now_ns):
            self._reports.add("hidden_by_storm", reports)
            return None
        if len(self.alarms) >= self._settings.alarms_max and not self._make_room():
            self._reports.add("too_many", reports)
            return None
        alarm = Alarm(kind, entity, id=number, source=source)
        self.alarms[number] = alarm
        return alarm

    def _make_room(self) -> bool:
        if self._over:
            del self.alarms[self._over.popitem(last=False)[0]]
            return True
        return False

    def _move(
        self, alarm: Alarm, batch: Batch, row: int, *, cleared: bool, raises: int, between: bool,
        now_ns: int,
    ) -> str:  # fmt: skip
        """Move an alarm on by the reports of a tick; return their fate. `row` is its last raise."""
        alarm.last_ns = now_ns
        alarm.tally += raises
        alarm.origin = ""
        if cleared:
            if row >= 0 and not alarm.up and alarm.holds != "raise":
                # Raised and cleared in one tick: told as one change, counted as one occurrence.
                if self._up_ns:
                    return self._drop_hold(alarm, now_ns)
                self._take(alarm, batch, row)
                self._begin(alarm, now_ns)
                return self._clear(alarm, now_ns)
            return self._wish_clear(alarm, now_ns)
        if between and alarm.up and alarm.holds != "clear":
            self._count_raise(alarm, now_ns)  # it was away within the tick
        if not alarm.up:
            if self._up_ns and alarm.holds != "raise":
                self._take(alarm, batch, row)
                self._over.pop(alarm.id, None)
                alarm.holds, alarm.due_ns = "raise", now_ns + self._up_ns
                self._push(alarm)
                return "held"
            if alarm.holds == "raise":
                self._take(alarm, batch, row)
                return "held"
            self._take(alarm, batch, row)
            self._begin(alarm, now_ns)
            return "changed"
        if alarm.holds == "clear":
            alarm.holds = ""
            self._watch(alarm, now_ns)
            if self._differs(alarm, batch, row) is Difference.NONE:
                return "held"
        return self._update(alarm, batch, row, now_ns)

    # ---- changes

    def _take(self, alarm: Alarm, batch: Batch, row: int) -> None:
        """Take over what a report says."""
        severity = _text(batch, "severity", row)
        if alarm.acknowledged == "until-worse" and alarm.is_worse(severity):
            alarm.acknowledged = ""
        alarm.severity = severity
        alarm.title = _text(batch, "specific_problem", row)
        alarm.text = _text(batch, "additional_text", row)
        alarm.event_type = _text(batch, "event_type", row)
        alarm.probable_cause = _text(batch, "probable_cause", row)
        alarm.foreign_id = _text(batch, "foreign_id", row)
        block = _text(batch, "explain", row)
        stated = {} if block in NO_DETAIL else json.loads(block)
        why = [f"{alarm.source} reports {alarm.kind}"]
        if alarm.text and alarm.text not in alarm.title:
            why.append(line(alarm.text, TEXT_SHOWN_MAX))
        alarm.explain = {
            "what": alarm.title,
            "where": alarm.entity,
            "sure": f"certain: {alarm.source} says so",
            "why": why,
            "detail": stated.get("detail", {}),
        }
        if stated.get("do"):
            alarm.explain["do"] = str(stated["do"])
        self._take_over_state(alarm, _text(batch, "operator_state", row), alarm.explain["detail"])
        alarm.words_wait = False

    def _take_over_state(self, alarm: Alarm, state: str, detail: Mapping[str, Any]) -> None:
        """Let an alarm be acknowledged, or not any more, as its own system says when that changes."""
        if not state:
            return
        owner = str(detail.get("owner", ""))
        if state == "acknowledged" and alarm.their_state != state:
            alarm.acknowledged, alarm.operator = "until-clear", owner or alarm.source
            alarm.acknowledged_by, alarm.asked = alarm.operator, ""
        elif state != "acknowledged" and alarm.their_state == "acknowledged":
            alarm.acknowledged, alarm.operator = "", ""
        elif state == "acknowledged" and owner and alarm.operator == alarm.their_owner:
            alarm.operator = alarm.acknowledged_by = owner
        alarm.their_state, alarm.their_owner = state, owner

    def _differs(self, alarm: Alarm, batch: Batch, row: int) -> Difference:
        """Return what of a report is new. Numbers in texts are not: they count."""
        if _text(batch, "severity", row) != alarm.severity:
            return Difference.SEVERITY
        state = _text(batch, "operator_state", row)
        if state and (state, _text(batch, "operator", row)) != (
            alarm.their_state or "none",
            alarm.their_owner,
        ):
            return Difference.STATE
        if (_text(batch, "probable_cause", row), _text(batch, "event_type", row)) != (
            alarm.probable_cause,
            alarm.event_type,
        ):
            return Difference.STATE
        title = alarm.title.removesuffix(FLAPPING)
        same = _same_words(_text(batch, "specific_problem", row), title)
        if same and _same_words(_text(batch, "additional_text", row), alarm.text):
            return Difference.NONE
        return Difference.WORDS

    def _begin(self, alarm: Alarm, now_ns: int) -> None:
        """Raise it: a new occurrence, or the last one again where that is not long ago."""
        anew = not alarm.cleared_ns or now_ns - alarm.cleared_ns > self._calm_ns
        if anew:
            alarm.occurrence += 1
            alarm.raised_ns = alarm.first_ns = now_ns
            alarm.tally = 1
        self._over.pop(alarm.id, None)
        if alarm.cleared_ns:
            alarm.end_acknowledgement(anew=anew)
            if alarm.their_state == "acknowledged":
                alarm.acknowledged = "until-clear"
        alarm.state, alarm.cleared_ns, alarm.holds, alarm.asked = "raised", 0, "", ""
        alarm.changed_ns = now_ns
        alarm.explain["since_ns"] = alarm.raised_ns
        self._count_raise(alarm, now_ns)
        self._watch(alarm, now_ns)

    def _count_raise(self, alarm: Alarm, now_ns: int) -> None:
        recent = [at for at in alarm.raises if now_ns - at < self._flap_ns]
        alarm.raises = [*recent, now_ns][-RAISES_KEPT:]
        if not alarm.flapping and len(alarm.raises) >= self._settings.flap_changes:
            alarm.flapping = True
            alarm.changed_ns = now_ns
        if alarm.flapping and not alarm.title.endswith(FLAPPING):
            alarm.title += FLAPPING
            alarm.explain["what"] = alarm.title

    def _update(self, alarm: Alarm, batch: Batch, row: int, now_ns: int) -> str:
        self._watch(alarm, now_ns)
        differs = self._differs(alarm, batch, row)
        if differs is Difference.NONE:
            return "repeated"
        worse = alarm.is_worse(_text(batch, "severity", row))
        since_ns, flapping = alarm.raised_ns, alarm.flapping
        waited = alarm.words_wait
        self._take(alarm, batch, row)
        alarm.explain["since_ns"] = since_ns
        if differs is Difference.SEVERITY:
            alarm.explain["trend"] = "growing" if worse else "shrinking"
        if flapping:
            alarm.title += FLAPPING
        if differs is Difference.WORDS:
            if alarm.words_ns and now_ns - alarm.words_ns < WORDS_NS:
                alarm.words_wait = True
                if not waited:
                    heapq.heappush(self._words, (alarm.words_ns + WORDS_NS, alarm.id))
                return "held"
            alarm.words_ns = now_ns
        alarm.state, alarm.changed_ns = "updated", now_ns
        return "changed"

    def _wish_clear(self, alarm: Alarm, now_ns: int) -> str:
        if alarm.holds == "raise":
            return self._drop_hold(alarm, now_ns)
        if not alarm.up:
            return "repeated"
        wait_ns = self._calm_ns if alarm.flapping else self._down_ns
        if not wait_ns:
            return self._clear(alarm, now_ns)
        alarm.holds, alarm.due_ns = "clear", now_ns + wait_ns
        self._push(alarm)
        return "flapping" if alarm.flapping else "held"

    def _drop_hold(self, alarm: Alarm, now_ns: int) -> str:
        """Forget a raise that did not last."""
        alarm.holds = ""
        self._forget_later(alarm, alarm.cleared_ns or now_ns)
        return "held"

    def _clear(self, alarm: Alarm, now_ns: int) -> str:
        alarm.state, alarm.holds = "cleared", ""
        alarm.cleared_ns = alarm.changed_ns = now_ns
        if alarm.flapping:
            alarm.flapping, alarm.raises = False, []
            alarm.title = alarm.title.removesuffix(FLAPPING)
        self._forget_later(alarm, now_ns)
        return "changed"

    def close(self, alarm: Alarm, now_ns: int) -> None:
        """Clear an alarm by hand, or by silence of its source."""
        self._clear(alarm, now_ns)

    # ---- timers

    def was_deaf(self, seconds: float) -> None:
        """Give sources the time in which nothing could be heard: their silence then ends no alarm."""
        gap_ns = _ns(seconds)
        for alarm in self.alarms.values():
            if alarm.up and not alarm.holds:
                alarm.due_ns += gap_ns
        self._storms.was_deaf(gap_ns)

    def _watch(self, alarm: Alarm, now_ns: int) -> None:
        """Clear it by time-out where nothing is heard of it any more."""
        due_ns = now_ns + self._silent_ns
        # A repeat moves the deadline on; its timer is pushed anew only when the old one fires.
        pushed = not alarm.holds and now_ns < alarm.due_ns <= due_ns
        alarm.due_ns = due_ns
        if not pushed:
            self._push(alarm)

    def _forget_later(self, alarm: Alarm, since_ns: int) -> None:
        self._over.pop(alarm.id, None)
        self._over[alarm.id] = None
        alarm.due_ns = since_ns + CLEARED_KEPT_NS
        self._push(alarm)

    def _push(self, alarm: Alarm) -> None:
        heapq.heappush(self._timers, (alarm.due_ns, alarm.id))
        if len(self._timers) > 4 * self._settings.alarms_max:
            self._timers = sorted((one.due_ns, one.id) for one in self.alarms.values())

    @property
    def due_ns(self) -> int:
        """When the next timer fires; it may find that there is nothing to do."""
        firsts = [heap[0][0] for heap in (self._timers, self._words) if heap]
        return min(*firsts, self._storms.due_ns, NEVER_NS)

    def advance(self, now_ns: int) -> list[Alarm]:
        """Fire what is due, in order of deadline."""
        changed = []
        while self._timers and self._timers[0][0] <= now_ns:
            _, number = heapq.heappop(self._timers)
            alarm = self.alarms.get(number)
            if alarm is None:
                continue
            if alarm.due_ns > now_ns:
                heapq.heappush(self._timers, (alarm.due_ns, number))
                continue
            if self._fire(alarm, now_ns):
                changed.append(alarm)
        changed += self._words_told(now_ns)
        for storm in self._storms.changed(now_ns):
            self._tell_storm(storm, changed, now_ns)
        return changed

    def _words_told(self, now_ns: int) -> list[Alarm]:
        """Return the alarms whose words have changed and waited for their turn."""
        changed = []
        while self._words and self._words[0][0] <= now_ns:
            alarm = self.alarms.get(heapq.heappop(self._words)[1])
            if alarm is not None and alarm.words_wait and alarm.up:
                alarm.words_wait, alarm.words_ns = False, now_ns
                alarm.state, alarm.changed_ns = "updated", now_ns
                changed.append(alarm)
        return changed

    def _fire(self, alarm: Alarm, now_ns: int) -> bool:
        if alarm.holds == "raise":
            self._begin(alarm, now_ns)
            return True
        if not alarm.up:
            self._over.pop(alarm.id, None)
            del self.alarms[alarm.id]
            return False
        if alarm.kind == STORM and self._storms.is_up(alarm.id):
            self._watch(alarm, now_ns)  # the storm says when it is over
            return False
        if alarm.holds != "clear":
            hours = self._settings.silent_hours_max
            alarm.explain["why"] = [f"{alarm.source} said nothing of it for {hours:g} h"]
        self._clear(alarm, now_ns)
        return True

    def _tell_storm(self, storm: Storm, changed: list[Alarm], now_ns: int) -> None:
        alarm = self.alarms.get(storm.alarm)
        if alarm is None:
            alarm = Alarm(STORM, f"{storm.source} {storm.kind}", id=storm.alarm)
            alarm.source, alarm.event_type, alarm.probable_cause = storm.source, "other", "other"
            self.alarms[storm.alarm] = alarm
        alarm.last_ns = now_ns
        if not storm.up:
            self._storms.forget(storm)
            if alarm.up:
                if storm.hidden:
                    hours = self._settings.silent_hours_max
                    why = f"{storm.hidden} were not cleared, and nothing was said of any for {hours:g} h"
                    alarm.explain["why"] = [why]
                self._clear(alarm, now_ns)
                changed.append(alarm)
            return
        alarm.severity = "major"
        more = f"{storm.hidden} more alarm{'s' if storm.hidden != 1 else ''}"
        alarm.title = f"storm of {storm.kind} from {storm.source}: {more}"
        alarm.explain = {
            "what": alarm.title,
            "where": storm.source,
            "sure": f"certain: {storm.source} says so",
            "why": [f"more than {self._settings.storm_alarms} new alarms of this kind in a minute"],
            "touches": [*storm.entities],
            "do": "the journal has each of them; look for one fault above all these entities",
        }
        if alarm.up:
            alarm.state, alarm.changed_ns = "updated", now_ns
            alarm.explain |= {"trend": "growing", "since_ns": alarm.raised_ns}
        else:
            self._begin(alarm, now_ns)
        changed.append(alarm)

    # ---- checkpoint

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "alarms": list(self.alarms.values()),
            "over": list(self._over),
            "timers": sorted(self._timers),
            "storms": list(self._storms.classes.values()),
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        alarms = (msgspec.convert(fields, Alarm) for fields in kept["alarms"])
        self.alarms = {alarm.id: alarm for alarm in alarms}
        self._over = OrderedDict.fromkeys(kept["over"])
        self._timers = [(due_ns, number) for due_ns, number in kept["timers"]]
        self._words = sorted(
            (one.words_ns + WORDS_NS, one.id) for one in self.alarms.values() if one.words_wait
        )
        self._storms.restore(msgspec.convert(fields, Storm) for fields in kept["storms"])


def _text(batch: Batch, name: str, row: int) -> str:
    """Return one value of a text or code column, without decoding the others."""
    column = batch.columns[name]
    start: int = column.item(row)
    words = batch.dictionaries.get(name)
    if words is not None:
        return words[start]
    end: int = column.item(row + 1)
    return batch.blobs[name][start:end].tobytes().decode("utf-8", "replace") if end > start else ""


def _same_words(one: str, other: str) -> bool:
    return one == other or _NUMBER.sub("", one) == _NUMBER.sub("", other)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
