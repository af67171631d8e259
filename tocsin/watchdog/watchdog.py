"""The watchdog: a process of its own that says `Tocsin is blind for X`, and when it sees again.

It shares nothing with the node but a datagram socket, `<state>/watchdog.sock`, on which the node
beats once a second with what it last saw. It imports no numpy, no OpenSSL and no HTTP client, so
that it fits in 20 MB and goes on when the machine is short of memory; a webhook is called by a
child that lives for one request. `tocsin/watchdog/watch.py` says what is blindness. What it has said
and not cleared, and what its webhook has not taken, is in `<state>/watchdog.json` for its next start.

`python -m tocsin.watchdog watch STATE WEBHOOK SYSLOG REPEAT TICK` is what `tocsin watchdog` turns into
once its options are checked; `python -m tocsin.watchdog post URL SECONDS` is that child: it posts its
standard input.
"""

import contextlib
import json
import select
import signal
import socket
import sys
from pathlib import Path

from runtime.clock import Clock, SystemClock
from telemetry.errors import ConfigError
from tocsin.watchdog.kept import FILE_NAME, Kept
from tocsin.watchdog.voices import Posts, notify, post, to_syslog
from tocsin.watchdog.watch import TICK_SECONDS_FIRST, Notice, Watch

SOCKET_NAME = "watchdog.sock"
BEAT_BYTES_MAX = 65_536


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
        self._watch = Watch(
            self._clock.monotonic_ns(), repeat_seconds=repeat_seconds, tick_seconds=tick_seconds
        )
        self._posts = Posts(webhook, self._clock) if webhook else None
        self._kept = Kept(state / FILE_NAME)
        self._syslog = syslog
        self._socket: socket.socket | None = None
        self._ended = False

    def start(self) -> None:
        """Bind the socket (one that a dead watchdog left behind is replaced); go on where it stood."""
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
        if kept := self._kept.load():
            self._watch.go_on(kept, self._clock.monotonic_ns(), self._clock.now_ns())
            if self._posts is not None:
                for body in kept["unsent"]:
                    self._posts.add(body.encode())

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
        notify("READY=1")
        while not self._ended:
            self.step()
        notify("STOPPING=1")

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
        notices = self._watch.look(now_ns, self._clock.now_ns())
        for notice in notices:
            self._say(notice)
        sent = self._posts is not None and self._posts.step()
        if notices or sent:
            self._keep()
        notify("WATCHDOG=1")
        return notices

    def _keep(self) -> None:
        raised = self._watch.raised(self._clock.monotonic_ns(), self._clock.now_ns())
        unsent = self._posts.unsent if self._posts is not None else []
        self._kept.save({**raised, "unsent": unsent})

    def _say(self, notice: Notice) -> None:
        alert = notice.as_alert(self._clock.now_ns())
        line = json.dumps(alert, sort_keys=True, separators=(",", ":"))
        with contextlib.suppress(OSError):  # a closed pipe must not silence the other voices
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        if self._syslog:
            to_syslog(self._syslog, notice, self._clock.now_ns())
        if self._posts is not None:
            self._posts.add(line.encode())

    def stop(self) -> None:
        """Close and remove the socket; what is raised stays so for the next start."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)
        if self._posts is not None:
            self._posts.stop()
        self._kept.stop()


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


def main() -> int:
    """Watch, or post what the watchdog has to say; return the exit code."""
    if sys.argv[1] == "watch":
        return _watch(*sys.argv[2:])
    return post(sys.argv[2], float(sys.argv[3]))
