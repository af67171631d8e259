"""What the watchdog makes of heartbeats and of time passing. Knows no socket and no clock of its own.

What is silent for three ticks is blindness: the node itself, its ticks, one of its streams, or more
than a fifth of the exporters. A wall clock that moves against the steady one was stepped, or the
machine slept: what alarms say of times before and after does not fit together.
"""

import json
from typing import Any, NamedTuple

TICKS_BLIND = 3
SILENT_SHARE_MAX = 0.2
BEAT_SECONDS = 1.0
TICK_SECONDS_FIRST = 60.0  # until the node has said how long its tick is
LATENESS_TICKS = 0.5  # a tick is closed at most so long after its end by default
STREAMS_MAX = 64
OWN_GAP_SECONDS = 5.0  # longer pauses of our own are not the node's silence
CLOCK_STEP_SECONDS = 1.0  # slewing moves a clock by half a millisecond a second at most


class Subject:
    """One thing that Tocsin can be blind for."""

    def __init__(self, name: str, seen_ns: int) -> None:
        self.name = name  # `node`, `ticks`, `stream netflow`, `exporters`
        self.seen_ns = seen_ns  # monotonic: when it last gave a sign of life
        self.blind_since_ns = 0  # monotonic; 0 = it sees
        self.said_ns = 0
        self.detail = ""


class Notice(NamedTuple):
    """What the watchdog has to say: blind, still blind, or seeing again."""

    subject: str
    state: str  # raised, updated, cleared
    seconds: float  # how long it has been blind
    detail: str

    @property
    def title(self) -> str:
        """The line that people read."""
        if self.subject == "clock":
            return self._of_the_clock
        if self.state == "cleared":
            return f"Tocsin sees again after {duration(self.seconds)}: {self.subject}"
        said = {
            "node": "the node gives no sign of life", "ticks": "no tick was closed",
            "gate": "no alert goes out: the gate gives no sign of life",
            "history": "nothing is stored: the desk gives no sign of life",
        }  # fmt: skip
        kind, _, name = self.subject.partition(" ")
        what = said.get(self.subject) or f"{self.subject} silent"
        if kind == "ledger":
            what = f"much of what {name} senders sent is missing"
        elif kind == "fault":
            what = f"{name} in trouble"
        detail = f" ({self.detail})" if self.detail else ""
        return f"Tocsin is blind for {duration(self.seconds)}: {what}{detail}"

    @property
    def _of_the_clock(self) -> str:
        if self.state == "cleared":
            return f"The clock of this machine has been steady for {duration(self.seconds)}"
        return (
            f"The clock of this machine was set {self.detail}, or the machine slept: times before and"
            " after do not fit together"
        )

    def as_alert(self, now_ns: int) -> dict[str, Any]:
        """Return it in the fields of an alert, so that one receiver takes both."""
        since_ns = now_ns - round(self.seconds * 1e9)
        return {
            "id": f"tocsin-blind:{self.subject}",
            "change": f"tocsin-blind:{self.subject}-{now_ns}-{self.state}",
            "kind": "tocsin-blind",
            "entity": f"tocsin {self.subject}",
            "state": self.state,
            "severity": "critical",
            "title": self.title,
            "event_type": "processingErrorAlarm",
            "probable_cause": "underlyingResourceUnavailable",
            "changed_ns": now_ns,
            "raised_ns": since_ns,
            "cleared_ns": now_ns if self.state == "cleared" else 0,
        }


class Watch:
    """Turns heartbeats and the passing of time into notices. Knows no socket."""

    def __init__(
        self,
        started_ns: int,
        *,
        repeat_seconds: float = 3600.0,
        tick_seconds: float = TICK_SECONDS_FIRST,
    ) -> None:
        self.started_ns = started_ns
        self.repeat_seconds = repeat_seconds
        self.tick_seconds = tick_seconds
        self.refused = 0  # heartbeats that were none
        self.subjects: dict[str, Subject] = {}
        self._last: dict[str, int] = {}
        self._ledgers: dict[str, tuple[int, int, int]] = {}  # three ticks ago
        self._looked_ns = 0
        self._clock_ahead_ns: int | None = None  # of the steady clock
        self._subject("node", started_ns)

    def _subject(self, name: str, now_ns: int) -> Subject:
        return self.subjects.setdefault(name, Subject(name, now_ns))

    def hear(self, beat: bytes, now_ns: int) -> None:
        """Take one heartbeat that was received at the monotonic time `now_ns`."""
        try:
            told = json.loads(beat)
            tick_seconds = float(told["tick_ns"]) / 1e9
            tick_end = int(told["last_tick_end_ns"])
            streams = {str(name): int(count) for name, count in told["streams"].items()}
            total, silent = int(told["exporters_total"]), int(told["exporters_silent"])
            alive = {str(name): int(mark) for name, mark in told.get("alive", {}).items()}
            faults = {str(name): str(text) for name, text in told.get("faults", {}).items()}
            ledger = {
                str(name): (int(sums["sent"]), int(sums["missing"]))
                for name, sums in told.get("ledger", {}).items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            self.refused += 1
            return
        if tick_seconds > 0:
            self.tick_seconds = tick_seconds
        self._subject("node", now_ns).seen_ns = now_ns
        self._moved("ticks", tick_end, now_ns, expected=True)
        for name, count in sorted(streams.items())[:STREAMS_MAX]:
            # A stream that never spoke is one that nobody uses; one that stopped is blindness.
            self._moved(f"stream {name}", count, now_ns, expected=count > 0)
        exporters = self._subject("exporters", now_ns)
        if silent <= SILENT_SHARE_MAX * total:
            exporters.seen_ns = now_ns
        exporters.detail = f"{silent} of {total}"
        for name, mark in sorted(alive.items())[:STREAMS_MAX]:
            self._moved(name, mark, now_ns, expected=mark > 0)
        for name in ("gate", "history"):
            if name not in alive and name in self.subjects:
                self.subjects[name].seen_ns = now_ns  # the node expects it no longer
        self._hear_faults(faults, now_ns)
        for name, sums in sorted(ledger.items())[:STREAMS_MAX]:
            self._hear_ledger(name, *sums, now_ns=now_ns)

    def _hear_faults(self, faults: dict[str, str], now_ns: int) -> None:
        for name, text in sorted(faults.items())[:STREAMS_MAX]:
            self._subject(f"fault {name}", now_ns).detail = text
        for name, subject in self.subjects.items():
            kind, _, fault = name.partition(" ")
            if kind == "fault" and fault not in faults:
                subject.seen_ns = now_ns

    def _hear_ledger(self, name: str, sent: int, missing: int, *, now_ns: int) -> None:
        """Compare what was sent and what is missing of it, over three ticks."""
        subject = self._subject(f"ledger {name}", now_ns)
        first_ns, first_sent, first_missing = self._ledgers.setdefault(
            name, (now_ns, sent, missing)
        )
        if sent < first_sent or now_ns - first_ns >= TICKS_BLIND * self.tick_seconds * 1e9:
            more, gone = sent - first_sent, missing - first_missing
            if (
                gone <= SILENT_SHARE_MAX * more or sent < first_sent
            ):  # it fell: the node started anew
                subject.seen_ns = now_ns
            elif more > 0:
                subject.seen_ns = min(subject.seen_ns, first_ns)
                subject.detail = f"{gone / more:.0%} in {duration((now_ns - first_ns) / 1e9)}"
            self._ledgers[name] = (now_ns, sent, missing)
        elif not subject.blind_since_ns:
            subject.seen_ns = now_ns

    def _moved(self, name: str, count: int, now_ns: int, *, expected: bool) -> None:
        if not expected and name not in self.subjects:
            return
        subject = self._subject(name, now_ns)
        if self._last.get(name) != count:  # also when it fell: the node started anew
            self._last[name] = count
            subject.seen_ns = now_ns

    def look(self, now_ns: int, wall_ns: int | None = None) -> list[Notice]:
        """Return what is to be said at the monotonic time `now_ns` (wall-clock time `wall_ns`)."""
        made = self._look_at_clock(now_ns, wall_ns) if wall_ns is not None else []
        gap_ns = now_ns - self._looked_ns if self._looked_ns else 0
        self._looked_ns = now_ns
        if gap_ns > OWN_GAP_SECONDS * 1e9:
            # We were stopped or starved ourselves: what we could not hear is no silence.
            for subject in self.subjects.values():
                subject.seen_ns = min(subject.seen_ns + gap_ns, now_ns)
        node = self.subjects["node"]
        if notice := self._judge(node, now_ns, self._limit_seconds("node")):
            made.append(notice)
        if node.blind_since_ns:
            # Nothing can be said of the rest; do not count the node's silence against it.
            for subject in self.subjects.values():
                if subject is not node and not subject.blind_since_ns:
                    subject.seen_ns = now_ns
            return made
        for name, subject in sorted(self.subjects.items()):
            if name == "clock":
                continue
            # How things stood when the node last spoke: its silence since then is its own.
            if subject is not node and (
                notice := self._judge(subject, node.seen_ns, self._limit_seconds(name))
            ):
                made.append(notice)
        return made

    def _look_at_clock(self, now_ns: int, wall_ns: int) -> list[Notice]:
        """Return that the clock was stepped, at once, and that it is steady again, after three ticks."""
        ahead_ns = wall_ns - now_ns
        before_ns, self._clock_ahead_ns = self._clock_ahead_ns, ahead_ns
        step_ns = ahead_ns - before_ns if before_ns is not None else 0
        if abs(step_ns) > CLOCK_STEP_SECONDS * 1e9:
            subject = self._subject("clock", now_ns)
            way = "forward" if step_ns > 0 else "back"
            subject.detail = f"{way} by {duration(abs(step_ns) / 1e9)}"
            subject.blind_since_ns = now_ns
            return [Notice("clock", "raised", 0.0, subject.detail)]
        stepped = self.subjects.get("clock")
        if stepped and stepped.blind_since_ns:
            steady = (now_ns - stepped.blind_since_ns) / 1e9
            if steady > self._limit_seconds("clock"):
                stepped.blind_since_ns = 0
                return [Notice("clock", "cleared", steady, stepped.detail)]
        return []

    def _limit_seconds(self, name: str) -> float:
        three = TICKS_BLIND * self.tick_seconds
        if name == "exporters":
            return 0.0  # an exporter counts as silent only after its ticks: they have passed
        if name.startswith(("fault ", "ledger ")):
            return 3 * BEAT_SECONDS  # it was looked at over some time before
        if name == "ticks":
            return three + LATENESS_TICKS * self.tick_seconds
        return max(three, 3 * BEAT_SECONDS)

    def _judge(self, subject: Subject, now_ns: int, limit_seconds: float) -> Notice | None:
        silent = (now_ns - subject.seen_ns) / 1e9
        if silent > limit_seconds:
            if not subject.blind_since_ns:
                subject.blind_since_ns = subject.seen_ns
                subject.said_ns = now_ns
                return Notice(subject.name, "raised", silent, subject.detail)
            if now_ns - subject.said_ns >= self.repeat_seconds * 1e9:
                subject.said_ns = now_ns
                return Notice(subject.name, "updated", silent, subject.detail)
            return None
        if subject.blind_since_ns:
            blind = (now_ns - subject.blind_since_ns) / 1e9
            subject.blind_since_ns = 0
            return Notice(subject.name, "cleared", blind, subject.detail)
        return None


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(15.2), duration(90), duration(7300)
    ('15 s', '1 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")
