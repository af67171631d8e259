"""How the watchdog is heard: a webhook, called by short-lived children, syslog, and systemd."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque

from runtime.clock import Clock
from tocsin.watchdog.watch import Notice

POSTS_WAITING_MAX = 100
POST_SECONDS = 5.0
POST_ATTEMPTS_MAX = 50
SYSLOG_DAEMON = 3 << 3
SYSLOG_CRITICAL, SYSLOG_NOTICE = 2, 5


class Posts:
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

    @property
    def unsent(self) -> list[str]:
        """What was not taken yet, in order."""
        current = [self._current] if self._current is not None else []
        return [body.decode() for body in (*current, *self._waiting)]

    def step(self) -> bool:
        """Collect a child that ended, start the next one when it is due; return whether one is done."""
        now_ns = self._clock.monotonic_ns()
        done = False
        if self._child:
            child, status = os.waitpid(self._child, os.WNOHANG)
            if not child:
                return False
            self._child = 0
            if status == 0 or self._attempts >= POST_ATTEMPTS_MAX:
                self._current, self._attempts, done = None, 0, True
            else:
                wait = min(2.0 ** min(self._attempts, 8), 300.0)
                self._due_ns = now_ns + round(wait * 1e9)
        if self._current is None and self._waiting:
            self._current, self._due_ns = self._waiting.popleft(), 0
        if self._current is not None and now_ns >= self._due_ns:
            self._attempts += 1
            self._child = self._spawn(self._current)
        return done

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


def to_syslog(address: str, notice: Notice, now_ns: int) -> None:
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


def notify(state: str) -> None:
    """Tell systemd (sd_notify protocol); nothing where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + address[1:] if address.startswith("@") else address)
        out.send(state.encode())


def _rfc3339(now_ns: int) -> str:
    from datetime import UTC, datetime

    seconds, rest = divmod(now_ns, 10**9)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def post(url: str, timeout_seconds: float) -> int:
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
