"""Time comes from here and nowhere else, so that a replay is a live run with another clock."""

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

SET = "TOCSIN_CLOCK"  # to child processes: "<steady count> <what it was then>"
JUMP_NS = 60_000_000_000
PARTS = 100


class Clock(Protocol):
    """The only source of time in a node."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic_ns(self) -> int:
        """A steady count of nanoseconds for intervals; its zero means nothing."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; a manual clock moves itself instead."""
        ...

    @property
    def ahead_ns(self) -> int:
        """By how much `now_ns` is ahead of what the system and its kernel call now."""
        ...

    @property
    def jumped_ns(self) -> int:
        """How much time `now_ns` has left out since the start: nothing was heard in it."""
        ...

    def not_before(self, time_ns: int) -> None:
        """Begin at this time, where it is not reached yet."""
        ...


class SystemClock:
    """What the system says, steps and all: for what looks at the clock once, or looks for its steps."""

    @property
    def ahead_ns(self) -> int:
        """Nothing: it says what the system says."""
        return 0

    @property
    def jumped_ns(self) -> int:
        """Nothing: a step is not seen."""
        return 0

    def not_before(self, time_ns: int) -> None:
        """Do nothing."""

    def now_ns(self) -> int:
        """Return the system's wall-clock time."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return the system's steady clock."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of real time."""
        time.sleep(seconds)


class SteadyClock(SystemClock):
    """The clock of every process that lasts: the system's time without its steps. It never falls.

    It moves with the steady clock and draws towards the system's time, faster or slower by one part in
    a hundred at most: a tick of it is a tick for every rate that is measured. Only where the system is
    ahead by more than a minute (it slept, or learned the time late) does it jump, and counts that in
    `jumped_ns`. Where the system's time was set back it goes on ahead of it until they meet. A child
    process begins with its parent's time (`told`).
    """

    def __init__(
        self,
        *,
        system: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._system = system
        self._steady = steady
        self._lock = threading.Lock()
        self._jumped_ns = 0
        self._steady_ns, self._now_ns = steady(), system()
        if given := os.environ.get(SET):
            self._steady_ns, self._now_ns = map(int, given.split())

    def now_ns(self) -> int:
        """Return the time."""
        return self._look()[0]

    def monotonic_ns(self) -> int:
        """Return the steady clock."""
        return self._steady()

    def _look(self) -> tuple[int, int]:
        """Return (the time, by how much the system is behind it)."""
        with self._lock:
            system_ns, steady_ns = self._system(), self._steady()
            passed_ns = steady_ns - self._steady_ns
            off_ns = system_ns - self._now_ns - passed_ns
            if off_ns > JUMP_NS:
                self._jumped_ns += off_ns
            else:
                off_ns = max(min(off_ns, passed_ns // PARTS), -(passed_ns // PARTS))
            self._steady_ns = steady_ns
            self._now_ns += passed_ns + off_ns
            return self._now_ns, self._now_ns - system_ns

    @property
    def ahead_ns(self) -> int:
        """By how much `now_ns` is ahead of what the system and its kernel call now."""
        return self._look()[1]

    @property
    def jumped_ns(self) -> int:
        """How much time was left out since the start."""
        self._look()
        return self._jumped_ns

    def not_before(self, time_ns: int) -> None:
        """Begin at this time, where it is not reached yet: the system's time was set back meanwhile."""
        with self._lock:
            self._now_ns = max(self._now_ns, time_ns)


def told(clock: Clock) -> dict[str, str]:
    """Return what a child process must find in its environment to begin with our time."""
    return {SET: f"{clock.monotonic_ns()} {clock.now_ns()}"}


class ManualClock:
    """A clock that moves only when told to. Tests and replays use it."""

    ahead_ns = 0
    jumped_ns = 0

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return the time it was set to."""
        return self._now_ns

    def monotonic_ns(self) -> int:
        """Return the same as `now_ns`: nothing ticks by itself."""
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        """Move forward by `seconds` at once."""
        self.advance(seconds=seconds)

    def advance(self, *, seconds: float) -> None:
        """Move forward by `seconds`."""
        self._now_ns += round(seconds * 1e9)

    def not_before(self, time_ns: int) -> None:
        """Move to this time, where it is not reached yet."""
        self._now_ns = max(self._now_ns, time_ns)

    def set_ns(self, now_ns: int) -> None:
        """Move to `now_ns`."""
        self._now_ns = now_ns
