"""What the watchdog makes of heartbeats and of time passing. Knows no socket and no clock of its own.

What is silent for three ticks is blindness: the node itself, its ticks, one of its streams, or more
than a fifth of the exporters. A wall clock that moves against the steady one was stepped, or the
machine slept: what alarms say of times before and after does not fit together.

A node that starts anew counts from nothing and does not know yet what it will hear: that alone is no
silence, and no sign of life either. What it tells of no more (a collector taken out, no desk in this
profile) is expected no longer.
"""

import json
from collections.abc import Collection
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
        self.blind_since_ns: int | None = None  # monotonic; None = it sees
        self.said_ns = 0
        self.told_ns = seen_ns  # when the node last spoke of it
        self.mark = 0  # the count or time of which a new value is a sign of life
        self.detail = ""


class Notice(NamedTuple):
    """What the watchdog has to say: blind, still blind, or seeing again."""

    subject: str
    state: str  # raised, updated, cleared
    seconds: float  # how long it has been blind
    detail: str
    gone: bool = False  # cleared because nothing is expected of it any more

    @property
    def title(self) -> str:
        """The line that people read."""
        if self.subject == "clock":
            return self._of_the_clock
        if self.gone:
            return (
                f"Tocsin expects nothing more of {self.subject}, for which it was blind for"
                f" {duration(self.seconds)}"
            )
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
        self._run_ns = 0  # when the node that we hear started, by its clock
        self._run_heard_ns = -(10**18)  # and when we heard it first
        self._gone: list[Notice] = []
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
            run_ns = int(told.get("started_ns", 0))
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
        node = self.subjects["node"]
        if now_ns - node.seen_ns > 3 * BEAT_SECONDS * 1e9:
            self._pass_over(now_ns - node.seen_ns, now_ns)
        node.seen_ns = now_ns
        if run_ns != self._run_ns:
            self._start_anew(run_ns, now_ns)
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
        self._hear_faults(faults, now_ns)
        for name, sums in sorted(ledger.items())[:STREAMS_MAX]:
            self._hear_ledger(name, *sums, now_ns=now_ns)
        self._leave_out(
            {*alive, *(f"stream {n}" for n in streams), *(f"ledger {n}" for n in ledger)}
        )

    def _start_anew(self, run_ns: int, now_ns: int) -> None:
        """Another node speaks: what counted from the last one's start counts from nothing."""
        self._run_ns, self._run_heard_ns = run_ns, now_ns
        self._ledgers.clear()
        for name, subject in self.subjects.items():
            if name.startswith("stream "):
                subject.mark = 0

    def _leave_out(self, told: Collection[str]) -> None:
        """Expect nothing more of streams, processes and ledgers that the node tells of no more."""
        now_ns = self.subjects["node"].seen_ns
        for name, subject in list(self.subjects.items()):
            kind = name.partition(" ")[0]
            if name in told or kind not in ("stream", "ledger", "gate", "history"):
                continue
            if subject.blind_since_ns is not None:
                # A node that started anew has a ledger again once something was sent.
                if kind == "ledger" and now_ns - subject.told_ns <= self._limit_seconds("") * 1e9:
                    continue
                blind = (now_ns - subject.blind_since_ns) / 1e9
                self._gone.append(Notice(name, "cleared", blind, subject.detail, gone=True))
            del self.subjects[name]
            if kind == "ledger":  # one that comes again is not compared with what it was
                self._ledgers.pop(name.removeprefix("ledger "), None)

    def _hear_faults(self, faults: dict[str, str], now_ns: int) -> None:
        for name, text in sorted(faults.items())[:STREAMS_MAX]:
            self._subject(f"fault {name}", now_ns).detail = text
        # A node that starts anew has not tried all that was in trouble.
        known = now_ns - self._run_heard_ns > self._limit_seconds("") * 1e9
        for name, subject in self.subjects.items():
            kind, _, fault = name.partition(" ")
            if (
                kind == "fault"
                and fault not in faults
                and (known or subject.blind_since_ns is None)
            ):
                subject.seen_ns = now_ns

    def _hear_ledger(self, name: str, sent: int, missing: int, *, now_ns: int) -> None:
        """Compare what was sent and what is missing of it, over three ticks."""
        subject = self._subject(f"ledger {name}", now_ns)
        subject.told_ns = now_ns
        first_ns, first_sent, first_missing = self._ledgers.setdefault(
            name, (now_ns, sent, missing)
        )
        if now_ns - first_ns >= TICKS_BLIND * self.tick_seconds * 1e9:
            more, gone = sent - first_sent, missing - first_missing
            if gone <= SILENT_SHARE_MAX * more:
                subject.seen_ns = now_ns
            elif more > 0:
                subject.seen_ns = min(subject.seen_ns, first_ns)
                subject.detail = f"{gone / more:.0%} in {duration((now_ns - first_ns) / 1e9)}"
            self._ledgers[name] = (now_ns, sent, missing)
        elif subject.blind_since_ns is None:
            subject.seen_ns = now_ns

    def _moved(self, name: str, mark: int, now_ns: int, *, expected: bool) -> None:
        if not expected and name not in self.subjects:
            return
        subject = self._subject(name, now_ns)
        if mark not in (0, subject.mark):
            subject.mark, subject.seen_ns = mark, now_ns

    def _pass_over(self, gap_ns: int, now_ns: int) -> None:
        """Hold a time in which nothing could be heard against nobody."""
        for subject in self.subjects.values():
            if subject.blind_since_ns is None:
                subject.seen_ns = min(subject.seen_ns + gap_ns, now_ns)

    def look(self, now_ns: int, wall_ns: int | None = None) -> list[Notice]:
        """Return what is to be said at the monotonic time `now_ns` (wall-clock time `wall_ns`)."""
        made, self._gone = self._gone, []
        if wall_ns is not None:
            made += self._look_at_clock(now_ns, wall_ns)
        gap_ns = now_ns - self._looked_ns if self._looked_ns else 0
        self._looked_ns = now_ns
        if gap_ns > OWN_GAP_SECONDS * 1e9:
            self._pass_over(gap_ns, now_ns)  # we were stopped or starved ourselves
        node = self.subjects["node"]
        if notice := self._judge(node, now_ns, self._limit_seconds("node")):
            made.append(notice)
        if node.blind_since_ns is not None:
            return made  # nothing can be said of the rest
        for name, subject in sorted(self.subjects.items()):
            if name == "clock":
                continue
            # How things stood when the node last spoke: its silence since then is its own.
            if subject is not node and (
                notice := self._judge(subject, node.seen_ns, self._limit_seconds(name))
            ):
                made.append(notice)
        return made

    def raised(self, now_ns: int, wall_ns: int) -> dict[str, Any]:
        """Return what is said to be blind, in wall-clock times, as JSON takes it."""
        return {
            "run_ns": self._run_ns,
            "raised": [
                {
                    "subject": one.name,
                    "since_ns": wall_ns - now_ns + one.blind_since_ns,
                    "said_ns": wall_ns - now_ns + one.said_ns,
                    "mark": one.mark,
                    "detail": one.detail,
                }
                for one in self.subjects.values()
                if one.blind_since_ns is not None
            ],
        }  # fmt: skip

    def go_on(self, kept: dict[str, Any], now_ns: int, wall_ns: int) -> None:
        """Take over what a watchdog before said (`raised`): it is cleared once, when it is over."""
        self._run_ns = int(kept["run_ns"])
        for row in kept["raised"]:
            one = self._subject(str(row["subject"]), now_ns)
            one.mark, one.detail = int(row["mark"]), str(row["detail"])
            one.said_ns = min(int(row["said_ns"]) - wall_ns, 0) + now_ns
            one.blind_since_ns = min(int(row["since_ns"]) - wall_ns, 0) + now_ns
            one.seen_ns = one.blind_since_ns
            if one.name == "clock":
                one.blind_since_ns = now_ns  # how steady it was meanwhile nobody knows

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
        if stepped and stepped.blind_since_ns is not None:
            steady = (now_ns - stepped.blind_since_ns) / 1e9
            if steady > self._limit_seconds("clock"):
                stepped.blind_since_ns = None
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
            if subject.blind_since_ns is None:
                subject.blind_since_ns = subject.seen_ns
                subject.said_ns = now_ns
                return Notice(subject.name, "raised", silent, subject.detail)
            if now_ns - subject.said_ns >= self.repeat_seconds * 1e9:
                subject.said_ns = now_ns
                return Notice(subject.name, "updated", silent, subject.detail)
            return None
        if subject.blind_since_ns is not None:
            blind = (now_ns - subject.blind_since_ns) / 1e9
            subject.blind_since_ns = None
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
