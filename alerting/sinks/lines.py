"""JSON lines on standard output or in a file: one alert a line, flushed (a file: synced)."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from alerting.config import SinkSettings
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from runtime.registry import NoOptions, Part
from telemetry.errors import TransientError


class LineSink:
    """Append alerts as JSON lines. A repeated line has the same `change`: readers drop by that."""

    batch_max = 500
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings) -> None:
        self._path = Path(settings.path) if settings.kind == "file" else None

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Write a line each."""
        lines = b"".join(parcel.json + b"\n" for parcel in parcels)
        try:
            if self._path is None:
                sys.stdout.buffer.write(lines)
                sys.stdout.buffer.flush()
                return "written"
            with self._path.open("ab") as file:
                # A write that a full disk cut short leaves half a line: end it, so that the next
                # reader loses that line only.
                if file.tell() and not _ends_in_newline(self._path):
                    file.write(b"\n")
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TransientError(f"{self._path or 'stdout'}: {error.strerror}") from error
        return "written"

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Lines stay: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _make(settings: SinkSettings, options: NoOptions) -> LineSink:  # noqa: ARG001
    return LineSink(settings)


STDOUT = Part("JSON lines on standard output", _make)
FILE = Part("JSON lines in a file, synced", _make, needs=("path",))
