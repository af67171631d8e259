"""What a peer says, for so long in all and no longer."""

import io
import socket
from typing import Any

from runtime.clock import SystemClock

_CLOCK = SystemClock()


class Hearing(io.RawIOBase):
    """Read from a connection until a moment. Its own limit is of each read: a peer that says a byte now
    and then would be heard for ever."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._said = connection.makefile("rb", buffering=0)
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Let what is said from now on take so long."""
        self._until_ns = _CLOCK.monotonic_ns() + round(seconds * 1e9)

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, into: Any) -> int | None:
        """Read what there is, or raise TimeoutError."""
        left_ns = self._until_ns - _CLOCK.monotonic_ns()
        if left_ns <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_ns / 1e9)
        return self._said.readinto(into)

    def close(self) -> None:
        """Let the connection go."""
        self._said.close()
        super().close()
