"""The node's sign of life: to systemd from its start on, and to the watchdog with what each stream last said."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.clock import Clock
from runtime.journal import Cursor
from runtime.notify import notify
from telemetry.errors import TocsinError

FAULT_CHARACTERS_MAX = 300
HISTORY_BEHIND = 3  # journal blocks: the desk stores them as they come

COMING_UP_NS = 5_000_000_000  # so often a start says that it goes on,
COMING_UP_USEC = 600_000_000  # and then has so long for what comes next: one tick, every kernel


class ComingUp:
    """Tells systemd what a start waits for: neither TimeoutStartSec nor WatchdogSec ends one that goes on.

    The watchdog looks at a node that the supervisor started again: of the service as a whole, the start is over.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_ns = clock.monotonic_ns()
        self._watched = os.environ.get("WATCHDOG_USEC", "")  # "" = there is no WatchdogSec

    def begins(self, what: str) -> None:
        """Say it now: the next part of the start."""
        self._due_ns = self._clock.monotonic_ns()
        self.says(what)

    def says(self, what: str) -> None:
        """Say it, where the last word is a while ago."""
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + COMING_UP_NS
            watched = f"WATCHDOG_USEC={COMING_UP_USEC}\nWATCHDOG=1\n" if self._watched else ""
            notify(
                f"EXTEND_TIMEOUT_USEC={COMING_UP_USEC}\n{watched}"
                f"STATUS=Starting: {' '.join(what.split())}"
            )

    def ready(self) -> None:
        """It is up."""
        notify("READY=1")
        if self._watched:
            notify(f"WATCHDOG_USEC={self._watched}\nWATCHDOG=1")
        notify("STATUS=")


class Heartbeat:
    """Owns the socket to the watchdog; nobody waits for it."""

    def __init__(self, state: Path) -> None:
        self._address = str(state / "watchdog.sock")
        self._history = state / "cursors" / "history"
        self._cursor = Cursor(self._history.parent, self._history.name)
        self._read: tuple[int, int] | None = None  # the file that it was read from
        self._up_ns = 0  # when the desk was last up with the journal, by the last look that worked
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def beat(self, says: Mapping[str, Any], faults: Mapping[str, str]) -> None:
        """Send what the node says; `faults`: what alerts need on their way out, and what is wrong with it."""
        notify("WATCHDOG=1")
        told = {name: text[:FAULT_CHARACTERS_MAX] for name, text in faults.items() if text}
        with contextlib.suppress(OSError):
            message = json.dumps({**says, "faults": told}).encode()
            self._socket.sendto(message, self._address)

    def history_ns(self, next_sequence: int, now_ns: int) -> int | None:
        """Return when the desk was last up with the journal, None where there is no desk."""
        try:
            there = self._history.stat()
        except FileNotFoundError:
            return None
        except OSError:
            return self._up_ns or None
        if (there.st_ino, there.st_mtime_ns) != self._read:  # else it stands where it stood
            self._cursor = Cursor(self._history.parent, self._history.name)
            with contextlib.suppress(TocsinError, OSError):  # nothing is known of how far it came
                self._cursor.load()
                self._read = there.st_ino, there.st_mtime_ns
        behind = next_sequence - self._cursor.next_sequence
        self._up_ns = there.st_mtime_ns if behind > HISTORY_BEHIND else now_ns
        return self._up_ns

    def stop(self) -> None:
        """Close the socket."""
        self._socket.close()
