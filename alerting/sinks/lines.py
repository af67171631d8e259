"""JSON lines on standard output or in a file: one alert a line, flushed (a file: synced)."""

import os
import sys
from pathlib import Path

from alerting.alert import Alert, canonical
from alerting.config import SinkSettings
from telemetry.errors import TransientError


class LineSink:
    """Append alerts as JSON lines. A repeated line has the same `change`: readers drop it by that."""

    def __init__(self, settings: SinkSettings) -> None:
        self._path = Path(settings.path) if settings.kind == "file" else None

    def send(self, alert: Alert, *, key: str, now_ns: int) -> str:  # noqa: ARG002
        """Write one line."""
        line = canonical(alert) + b"\n"
        try:
            if self._path is None:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                return "written"
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TransientError(f"{self._path or 'stdout'}: {error.strerror}") from error
        return "written"

    def close(self) -> None:
        """Nothing is held open."""
