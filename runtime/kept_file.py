"""A small state of one component on disk: written whole, checked when read, set aside when damaged."""

import json
import os
from pathlib import Path
from typing import Any

from runtime.checkpoint import append_record, read_record
from runtime.component import Context
from runtime.damaged import set_aside
from telemetry.errors import DecodeError, TransientError

FORMAT = 1


class KeptFile:
    """One JSON value in one file. A write replaces the file or leaves the old one as it was."""

    def __init__(self, path: Path, context: Context) -> None:
        self._path = path
        self._context = context

    def load(self) -> Any:
        """Return what was saved last, None where there is nothing (or nothing that can be read)."""
        try:
            with self._path.open("rb") as file:
                head, data = read_record(file)
            if head.get("format") != FORMAT:
                raise DecodeError("unknown_version", f"format {head.get('format')!r}")
            return json.loads(data)
        except FileNotFoundError:
            return None
        except (DecodeError, OSError, ValueError) as error:
            try:
                set_aside(self._path, error, self._context, kind="source")
            except OSError as failed:
                raise TransientError(f"{self._path}: {failed.strerror}") from failed
            return None

    def save(self, state: Any) -> None:
        """Write `state`, or raise TransientError and keep what was there."""
        new = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                append_record(file, {"format": FORMAT}, json.dumps(state).encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise TransientError(f"{self._path}: {error.strerror}") from error
