"""Kinds of log lines that nobody has seen before, at severity error or worse: alarms.

The log pattern says which kind a line is (`collectors/syslog/patterns.py`), its `novelty` that it is the
first. What is new is news only where little is: how often new kinds came so far, in a record that fades
with a half-life of a week, is the p-value, and a budget of its own decides. A network that logs something
new each day is not told of it; all of them are in the history (column `novelty` of table `logs`).

Blind to lines below the severity, to the first day, to bursts of kinds that are known (their counts are
series like any other), and to a pattern that a restart of an old state folder forgot.

Source: novelty by frequency estimation (Good 1953: the chance of the unseen is the share of what was seen
once), per second instead of per line.
"""

from typing import Any

import msgspec
import numpy as np

from detectors.budget import AlertBudget
from detectors.config import LogSettings
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch, batch_from_rows
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import id_text
from telemetry.schemas import ALARM
from telemetry.x733 import CLEARED

SOURCE, KIND = "logs", "new-log-pattern"
HALF_LIFE_S = 7 * 86_400.0
STANDS_NS = 3600 * 10**9  # an alarm is over after an hour: it states an event
NEVER_NS = 1 << 62
STANDING_MAX = 64
SHOWN_MAX = 160  # characters of the line in the title


class LogWatch:
    """Looks at every batch of log lines in the order of the journal."""

    def __init__(self, settings: LogSettings, context: Context) -> None:
        self._settings = settings
        self._budget = AlertBudget(false_alerts_per_day=settings.new_patterns_per_day)
        self._began_s = 0.0  # of the first line ever
        self._last_s = 0.0
        self._new = 0.0  # and fading: new kinds so far, seconds watched
        self._watched_s = 0.0
        self._standing: list[tuple[int, str, str]] = []  # since, host, pattern
        self._found = context.metrics.counter(
            "detection_new_log_patterns_total",
            "new kinds of log lines at the severity or worse, by what became of them",
            label="disposition", values=("alert", "learning", "over_budget"),
        )  # fmt: skip

    def process(self, logs: Batch, now_ns: int) -> list[Batch]:
        """Return alarms for what is new in these lines."""
        now_s = now_ns / 1e9
        self._began_s = self._began_s or now_s
        passed = max(now_s - self._last_s, 0.0) if self._last_s else 0.0
        kept = 0.5 ** (passed / HALF_LIFE_S)
        self._new, self._watched_s = kept * self._new, kept * self._watched_s + passed
        self._last_s = max(self._last_s, now_s)
        rows = []
        new = np.flatnonzero(
            (logs["novelty"] == 1) & (logs["severity"] <= self._settings.severity_max)
        )
        for k in new.tolist():
            rows += self._judge(logs, k, now_ns)
        return [batch_from_rows(ALARM, rows, source=SOURCE, frontier_ns=now_ns)] if rows else []

    def _judge(self, logs: Batch, k: int, now_ns: int) -> list[dict[str, Any]]:
        now_s = now_ns / 1e9
        chance = (self._new + 1.0) / (self._watched_s + 1.0)  # a second
        self._new += 1.0
        if now_s - self._began_s < self._settings.learn_hours * 3600.0:
            self._found.add("learning")
            return []
        self._budget.open_tick(now_s)
        if not self._budget.admit([min(chance, 1.0)], tests=1, tick_s=1.0)[0]:
            self._found.add("over_budget")
            return []
        self._found.add("alert")
        host, pattern = logs.texts("host")[k], id_text(int(logs["pattern_id"][k]))
        message = logs.texts("message")[k]
        rows = []
        if len(self._standing) >= STANDING_MAX:
            rows.append(self._end(self._standing.pop(0), now_ns))
        self._standing.append((now_ns, host, pattern))
        rows.append(
            alarm_row(
                source=SOURCE,
                kind=KIND,
                entity=host,
                qualifier=pattern,
                severity="warning",
                changed_ns=now_ns,
                probable_cause="softwareError",
                title=f"{host} logs what nobody has seen before: {message[:SHOWN_MAX]}",
                do=f"look at the log of {host} around that line",
                detail={
                    "pattern": pattern,
                    "app": logs.texts("app")[k],
                    "syslog_severity": int(logs["severity"][k]),
                    "chance_per_day": round(chance * 86_400, 3),
                },
            )
        )
        return rows

    @property
    def due_ns(self) -> int:
        """When the oldest alarm ends by itself, NEVER_NS for none."""
        return self._standing[0][0] + STANDS_NS if self._standing else NEVER_NS

    def advance(self, now_ns: int) -> list[Batch]:
        """Return the end of alarms that have stood for an hour."""
        over = [one for one in self._standing if now_ns - one[0] >= STANDS_NS]
        self._standing = self._standing[len(over) :]
        rows = [self._end(one, now_ns) for one in over]
        return [batch_from_rows(ALARM, rows, source=SOURCE, frontier_ns=now_ns)] if rows else []

    def _end(self, one: tuple[int, str, str], now_ns: int) -> dict[str, Any]:
        _, host, pattern = one
        return alarm_row(
            source=SOURCE, kind=KIND, entity=host, qualifier=pattern, severity=CLEARED,
            changed_ns=now_ns, probable_cause="softwareError",
            title=f"{host}: the new kind of line is an hour old",
        )  # fmt: skip

    def snapshot(self, out: Any) -> None:
        """Write the record, the budget, and what stands."""
        self._budget.snapshot(out)
        numbers = [self._began_s, self._last_s, self._new, self._watched_s]
        write_array(out, "record", np.array(numbers))
        text = msgspec.json.encode(self._standing)
        write_array(out, "standing", np.frombuffer(text, np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back."""
        self._budget.restore(state)
        record, standing = read_array(state, "record"), read_array(state, "standing")
        if record is None or standing is None:
            return
        self._began_s, self._last_s, self._new, self._watched_s = record.tolist()
        text = standing.tobytes()
        if text.startswith(b"["):  # an older checkpoint has lines: what stood then ends by time-out
            self._standing = msgspec.json.decode(text, type=list[tuple[int, str, str]])
