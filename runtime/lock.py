"""One process of a kind for each state folder: a file lock that ends with the last who holds it."""

import contextlib
import fcntl
import os
from pathlib import Path

from runtime.clock import Clock
from telemetry.errors import ConfigError, TransientError

STEP_SECONDS = 0.05


class FolderLock:
    """Owns `<folder>/<name>.lock`, which holds the process id. The lock ends with the process.

    Children may be handed `descriptor`: then it ends with the last of them, and who comes next waits
    for those that a killed parent has left behind.
    """

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        self._path = folder / f"{name}.lock"
        self._name = name
        self._clock = clock
        self.descriptor = -1

    def take(self, *, wait_seconds: float = 5.0) -> None:
        """Take the lock, or raise TransientError that says who has it.

        Waits only for what a dead process has left behind. Raises ConfigError where the folder
        cannot be written.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(
                f"{self._path}: {error.strerror}; make the state folder writable for this user or "
                f"name another one (node.state_dir, --state). The {self._name} was not started."
            ) from error
        until_ns = self._clock.monotonic_ns() + round(wait_seconds * 1e9)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                holder = self.holder()
                if _lives(holder) or self._clock.monotonic_ns() >= until_ns:
                    os.close(fd)
                    raise TransientError(self._refusal(holder)) from None
            self._clock.sleep(STEP_SECONDS)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self.descriptor = fd

    def hand_on(self) -> int:
        """Let the program that this process turns into (exec) keep the lock: return what it adopts."""
        os.set_inheritable(self.descriptor, True)
        return self.descriptor

    def adopt(self, descriptor: int) -> None:
        """Go on with the lock that the program before this one took."""
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor

    def holder(self) -> int:
        """Return the process id in the file, 0 where there is none."""
        try:
            return int(self._path.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _refusal(self, holder: int) -> str:
        return (
            f"{self._path}: another {self._name} (pid {holder}) works on this state folder; stop it, "
            f"or give this one a folder of its own (node.state_dir, --state). "
            f"This {self._name} was not started."
        )

    def free(self) -> None:
        """Give the lock back; the file stays."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1


def _lives(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
