"""The watchdog: a process of its own that says `Tocsin is blind for X`, and when it sees again.

It shares nothing with the node but a datagram socket, `<state>/watchdog.sock`, on which the node
beats once a second with what it last saw. It imports no numpy, no OpenSSL and no HTTP client, so
that it fits in 20 MB and goes on when the machine is short of memory; a webhook is called by a
child that lives for one request. What is silent for three ticks is blindness: the node itself, its
ticks, one of its streams, or more than a fifth of the exporters.

`python -m tocsin.watchdog watch STATE WEBHOOK SYSLOG REPEAT TICK` is what `tocsin watchdog` turns into
once its options are checked; `python -m tocsin.watchdog post URL SECONDS` is that child: it posts its
standard input.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.clock import Clock, SystemClock
from telemetry.errors import ConfigError

SOCKET_NAME = "watchdog.sock"
TICKS_BLIND = 3
SILENT_SHARE_MAX = 0.2
BEAT_SECONDS = 1.0
TICK_SECONDS_FIRST = 60.0  # until the node has said how long its tick is
LATENESS_TICKS = 0.5  # a tick is closed at most so long after its end by default
STREAMS_MAX = 64
BEAT_BYTES_MAX = 65_536
OWN_GAP_SECONDS = 5.0  # longer pauses of our own are not the node's silence
POSTS_WAITING_MAX = 100
POST_SECONDS = 5.0
POST_ATTEMPTS_MAX = 50
SYSLOG_DAEMON = 3 << 3
SYSLOG_CRITICAL, SYSLOG_NOTICE = 2, 5


@dataclass(slots=True)
class Subject:
    """One thing that Tocsin can be blind for."""

    name: str  # `node`, `ticks`, `stream netflow`, `exporters`
    seen_ns: int  # monotonic: when it last gave a sign of life
    blind_since_ns: int = 0  # monotonic; 0 = it sees
    said_ns: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the watchdog has to say: blind, still blind, or seeing again."""

    subject: str
    state: str  # raised, updated, cleared
    seconds: float  # how long it has been blind
    detail: str

    @property
    def title(self) -> str:
        """The line that people read."""
        if self.state == "cleared":
            return f"Tocsin sees again after {_duration(self.seconds)}: {self.subject}"
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
        return f"Tocsin is blind for {_duration(self.seconds)}: {what}{detail}"

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


@dataclass(slots=True)
class Watch:
    """Turns heartbeats and the passing of time into notices. Knows no socket."""

    started_ns: int
    repeat_seconds: float = 3600.0
    tick_seconds: float = TICK_SECONDS_FIRST
    refused: int = 0  # heartbeats that were none
    subjects: dict[str, Subject] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _ledgers: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # three ticks ago
    _looked_ns: int = 0

    def __post_init__(self) -> None:
        self._subject("node", self.started_ns)

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
                subject.detail = f"{gone / more:.0%} in {_duration((now_ns - first_ns) / 1e9)}"
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

    def look(self, now_ns: int) -> list[Notice]:
        """Return what is to be said at the monotonic time `now_ns`."""
        gap_ns = now_ns - self._looked_ns if self._looked_ns else 0
        self._looked_ns = now_ns
        if gap_ns > OWN_GAP_SECONDS * 1e9:
            # We were stopped or starved ourselves: what we could not hear is no silence.
            for subject in self.subjects.values():
                subject.seen_ns = min(subject.seen_ns + gap_ns, now_ns)
        made = []
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
            # How things stood when the node last spoke: its silence since then is its own.
            if subject is not node and (
                notice := self._judge(subject, node.seen_ns, self._limit_seconds(name))
            ):
                made.append(notice)
        return made

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


class Watchdog:
    """Owns the socket and the voices: JSON lines on stdout, syslog, a webhook."""

    def __init__(
        self,
        state: Path,
        *,
        webhook: str = "",
        syslog: str = "",
        repeat_seconds: float = 3600.0,
        tick_seconds: float = TICK_SECONDS_FIRST,
        clock: Clock | None = None,
    ) -> None:
        self._path = state / SOCKET_NAME
        self._clock = clock or SystemClock()
        self._watch = Watch(self._clock.monotonic_ns(), repeat_seconds, tick_seconds)
        self._posts = _Posts(webhook, self._clock) if webhook else None
        self._syslog = syslog
        self._socket: socket.socket | None = None
        self._ended = False

    def start(self) -> None:
        """Bind the socket; one that a dead watchdog left behind is replaced."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_a_second_one()
            self._path.unlink(missing_ok=True)
            made.bind(str(self._path))
        except OSError as error:
            made.close()
            raise ConfigError(
                f"{self._path}: {error.strerror or error}; the watchdog needs a state folder that "
                f"it can write (--state), of less than 90 characters. It was not started."
            ) from error
        made.setblocking(False)
        self._socket = made

    def _refuse_a_second_one(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError):
                return
        raise ConfigError(
            f"{self._path}: a watchdog already listens there; stop it first. "
            f"This one was not started."
        )

    def run(self) -> None:
        """Listen until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        _notify("READY=1")
        while not self._ended:
            self.step()
        _notify("STOPPING=1")

    def _end(self, number: int, frame: object) -> None:  # noqa: ARG002  # signal's signature
        self._ended = True

    def step(self, *, wait_seconds: float = 0.5) -> list[Notice]:
        """Hear what came within `wait_seconds`, look once, and say what there is to say."""
        assert self._socket is not None
        select.select([self._socket], [], [], wait_seconds)
        now_ns = self._clock.monotonic_ns()
        with contextlib.suppress(BlockingIOError):
            while True:
                self._watch.hear(self._socket.recv(BEAT_BYTES_MAX), now_ns)
        notices = self._watch.look(now_ns)
        for notice in notices:
            self._say(notice)
        if self._posts is not None:
            self._posts.step()
        _notify("WATCHDOG=1")
        return notices

    def _say(self, notice: Notice) -> None:
        alert = notice.as_alert(self._clock.now_ns())
        line = json.dumps(alert, sort_keys=True, separators=(",", ":"))
        with contextlib.suppress(OSError):  # a closed pipe must not silence the other voices
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        if self._syslog:
            _to_syslog(self._syslog, notice, self._clock.now_ns())
        if self._posts is not None:
            self._posts.add(line.encode())

    def stop(self) -> None:
        """Close and remove the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)
        if self._posts is not None:
            self._posts.stop()


class _Posts:
    """Calls the webhook in order, each by a short-lived child, with back-off; waits for none."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._waiting: deque[bytes] = deque(maxlen=POSTS_WAITING_MAX)  # drops the oldest
        self._current: bytes | None = None
        self._child = 0
        self._attempts = 0
        self._due_ns = 0

    def add(self, body: bytes) -> None:
        """Queue one body."""
        self._waiting.append(body)

    def step(self) -> None:
        """Collect a child that ended; start the next one when it is due."""
        now_ns = self._clock.monotonic_ns()
        if self._child:
            child, status = os.waitpid(self._child, os.WNOHANG)
            if not child:
                return
            self._child = 0
            if status == 0 or self._attempts >= POST_ATTEMPTS_MAX:
                self._current, self._attempts = None, 0
            else:
                wait = min(2.0 ** min(self._attempts, 8), 300.0)
                self._due_ns = now_ns + round(wait * 1e9)
        if self._current is None and self._waiting:
            self._current, self._due_ns = self._waiting.popleft(), 0
        if self._current is not None and now_ns >= self._due_ns:
            self._attempts += 1
            self._child = self._spawn(self._current)

    def _spawn(self, body: bytes) -> int:
        reading, writing = os.pipe()
        os.write(writing, body)  # a few hundred bytes: a pipe holds at least 4,096
        os.close(writing)
        try:
            return os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "tocsin.watchdog", "post", self._url, str(POST_SECONDS)],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)],
            )
        finally:
            os.close(reading)

    def stop(self) -> None:
        """Give the child in flight its time to end, then end it."""
        if self._child:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._child, signal.SIGTERM)
                os.waitpid(self._child, 0)
            self._child = 0


def _to_syslog(address: str, notice: Notice, now_ns: int) -> None:
    """Send an RFC 5424 line to a unix datagram socket (a path) or over UDP (host:port)."""
    level = SYSLOG_NOTICE if notice.state == "cleared" else SYSLOG_CRITICAL
    head = f"<{SYSLOG_DAEMON | level}>1 {_rfc3339(now_ns)} - tocsin-watchdog {os.getpid()} - -"
    data = f"{head} {notice.title}".encode()
    with contextlib.suppress(OSError, ValueError):
        if address.startswith("/"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.connect(address)
                out.send(data)
            return
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            out.sendto(data, (host.strip("[]"), int(port)))


def _notify(state: str) -> None:
    """Tell systemd (sd_notify protocol); nothing where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + address[1:] if address.startswith("@") else address)
        out.send(state.encode())


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(15.2), _duration(90), _duration(7300)
    ('15 s', '1 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")


def _rfc3339(now_ns: int) -> str:
    from datetime import UTC, datetime

    seconds, rest = divmod(now_ns, 10**9)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def _post(url: str, timeout_seconds: float) -> int:
    """Post standard input; the child's whole life. Return its exit code."""
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        sys.stderr.write(f"tocsin watchdog: {url!r} is not http or https\n")
        return 2
    body = sys.stdin.buffer.read()
    key = json.loads(body)["change"]
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    request = Request(url, body, headers, method="POST")  # noqa: S310  # checked above
    try:
        with urlopen(request, timeout=timeout_seconds):  # noqa: S310
            return 0
    except (OSError, ValueError) as error:
        sys.stderr.write(f"tocsin watchdog: {url}: {error}\n")
        return 1


def _watch(state: str, webhook: str, syslog: str, repeat: str, tick: str) -> int:
    """Watch until SIGTERM; return the exit code."""
    made = Watchdog(
        Path(state), webhook=webhook, syslog=syslog,
        repeat_seconds=float(repeat), tick_seconds=float(tick),
    )  # fmt: skip
    try:
        made.start()
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        return 2
    try:
        made.run()
    finally:
        made.stop()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        sys.exit(_watch(*sys.argv[2:]))
    sys.exit(_post(sys.argv[2], float(sys.argv[3])))
