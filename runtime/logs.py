"""Logging: one line per event, `event key=value`, for people; every line counted by level and place."""

import logging
import sys
from collections.abc import Iterable

from runtime.clock import Clock
from runtime.metrics import Metrics
from telemetry.text import printable

LEVELS = ("debug", "info", "warning", "error", "critical")
LINES_PER_MINUTE = 20
CHARACTERS_MAX = 10_000
WHOLE = {"whole": True}  # `extra` of lines that are a record: none is held back


class _OneLine(logging.Formatter):
    """Shows control characters of a message, which others may have written; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # as logging has it
        return printable(super().formatMessage(record), CHARACTERS_MAX).replace("\n", "\\n")


class _Counted(logging.Filter):
    """Counts every line, also those it holds back: at most 20 a minute from one place, but for `WHOLE`."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._lines = metrics.counter(
            "log_lines_total", "log lines by level", label="level", values=LEVELS
        )
        self._held = metrics.counter("log_lines_held_total", "log lines held back by the limit")
        self._recent: dict[tuple[str, int], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        level = record.levelname.lower()
        if level in LEVELS:
            self._lines.add(level)
        minute = self._clock.monotonic_ns() // 60_000_000_000
        place = (record.pathname, record.lineno)
        before, count = self._recent.get(place, (minute, 0))
        count = count + 1 if before == minute else 1
        self._recent[place] = (minute, count)
        if count > LINES_PER_MINUTE and not getattr(record, "whole", False):
            self._held.add()
            return False
        return True


def set_up(process: str, metrics: Metrics, clock: Clock, *, level: str = "info") -> logging.Logger:
    """Send this process's log lines to stderr and return its logger."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(f"%(asctime)s %(levelname)s {process} %(name)s %(message)s"))
    handler.addFilter(_Counted(metrics.scoped("logs"), clock))
    root = logging.getLogger("tocsin")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
    return root


def child(name: str) -> logging.Logger:
    """Return the logger of one component."""
    return logging.getLogger(f"tocsin.{name}")


def joined(pairs: Iterable[tuple[str, object]]) -> str:
    """Return `key=value key=value` for log lines made from a table."""
    return " ".join(f"{key}={value}" for key, value in pairs)
