"""Time comes from here and nowhere else, so that a replay is a live run with another clock."""

import time
from typing import Protocol


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


class SystemClock:
    """The clock of a live node."""

    def now_ns(self) -> int:
        """Return the system's wall-clock time."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return the system's steady clock."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of real time."""
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to. Tests and replays use it."""

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

    def set_ns(self, now_ns: int) -> None:
        """Move to `now_ns`."""
        self._now_ns = now_ns
