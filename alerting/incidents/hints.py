"""Hints in log lines: a change of configuration, a crash. Not alarms, but suspects of what follows.

A few words that routers of many makes use for these; the lines come decoded (schema `log`).
"""

import re
from collections.abc import Iterator

from telemetry.batch import Batch

LINES_MAX = 2_000  # of one event tick
WORDS_SHOWN = 120
_CHANGE = re.compile(
    r"SYS-\d-CONFIG_I|UI_COMMIT|MGBL-CONFIG-\d-DB_COMMIT|configured from|commit complete|"
    r"configuration (changed|committed|loaded)|CFGMAN_\w*|HWCM/\d|mgd\[\d+\]: .*commit",
    re.I,
)
_SOFTWARE = re.compile(
    r"core dumped|dumped core|segfault|process \S* ?(crash|exited|restarted|terminated)|"
    r"SYS-\d-(CPUHOG|MALLOCFAIL)|out of memory|SYSTEM_ABNORMALLY|watchdog (reset|timeout)|"
    r"Traceback|SYSMGR-\d-SERVICE_CRASHED",
    re.I,
)


def hints(logs: Batch) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, host, words) of lines that tell of a change or of a software event."""
    rows = min(logs.rows, LINES_MAX)
    part = logs.slice(0, rows) if rows < logs.rows else logs
    for host, message in zip(part.texts("host"), part.texts("message"), strict=True):
        if _CHANGE.search(message):
            yield "change", host, _short(message)
        elif _SOFTWARE.search(message):
            yield "software", host, _short(message)


def _short(message: str) -> str:
    words = " ".join(message.split())
    return words if len(words) <= WORDS_SHOWN else words[: WORDS_SHOWN - 1] + "…"
