"""What a watchdog leaves to the one after it: `<state>/watchdog.json`, written whole and synced.

The first line is `tocsin-watchdog 1 CRC32`, the rest JSON. A thread writes, so that a disk that hangs
does not silence the one who has to say so.
"""

import contextlib
import json
import os
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

FILE_NAME = "watchdog.json"
HEAD = "tocsin-watchdog 1"


class Kept:
    """One JSON value in one file; the latest that was saved gets there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next: bytes | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def load(self) -> Any:
        """Return what was saved last, None where nothing can be read."""
        try:
            head, _, data = self._path.read_bytes().partition(b"\n")
            if head.decode() != f"{HEAD} {zlib.crc32(data):08x}":
                raise ValueError("damaged, or of another version")
            return json.loads(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            sys.stderr.write(
                f"tocsin watchdog: {self._path}: {error}; what was said before this start is not cleared\n"
            )
            return None

    def save(self, value: Any) -> None:
        """Write `value` soon; wait for no disk."""
        data = json.dumps(value).encode()
        with self._lock:
            self._next = f"{HEAD} {zlib.crc32(data):08x}\n".encode() + data
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, daemon=True)
                self._thread.start()

    def _write(self) -> None:
        while True:
            with self._lock:
                data, self._next = self._next, None
                if data is None:
                    self._thread = None
                    return
            new = self._path.with_name(self._path.name + ".new")
            # A full disk: the node says so, and the next one may get there.
            with contextlib.suppress(OSError):
                with new.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(self._path)

    def stop(self, *, wait_seconds: float = 5.0) -> None:
        """Give the last one its time to get there."""
        if (thread := self._thread) is not None:
            thread.join(wait_seconds)
