"""Times as people write them: RFC 3339, `2h` ago, or the id of an alert."""

import re
from datetime import UTC, datetime
from pathlib import Path

from alerting.outbox.file import read_only
from telemetry.errors import ConfigError

LAST_NS = 9_223_372_036 * 10**9  # the last full second that int64 can say, in 2262
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def time_ns(text: str, *, now_ns: int, zoned: bool = False) -> int:
    """Return ns since 1970 of an RFC 3339 time, or of `2h` (so long ago).

    A time without its zone is UTC; where what is meant is what people will do then, it is `zoned`. What is
    before 1970 is 1970, what no ns of 64 bits can say the last that they can.
    """
    if (seconds := span_seconds(text)) is not None:
        return _within(now_ns - round(seconds * 1e9))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no time: write 2026-11-24T10:00:00Z, or 2h for two hours ago"
        ) from error
    if moment.tzinfo is None:
        if zoned:
            raise ConfigError(f"{text!r} does not say in which zone: end it with Z or +01:00")
        moment = moment.replace(tzinfo=UTC)
    return _within(round(moment.timestamp() * 1e9))


def _within(time_ns: int) -> int:
    return min(max(time_ns, 0), LAST_NS)


def span_seconds(text: str) -> float | None:
    """Return how long a span such as `2h` is, None for a text that is none.

    >>> span_seconds("2h"), span_seconds("90s"), span_seconds("soon")
    (7200.0, 90.0, None)
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)([smhdw])", text)
    return float(match.group(1)) * _UNITS[match.group(2)] if match else None


def moment_of(text: str, state: Path, *, now_ns: int) -> int:
    """Return when an alert was raised (its id, or how it begins), or the time a text says."""
    if re.fullmatch(r"[0-9a-f]{6,16}", text):
        path = state / "node.sqlite"
        with read_only(path) as db:
            row = db.execute(
                "select min(changed_ns) from change where id like ? || '%' and changed_ns ="
                " (select max(changed_ns) from change where id like ? || '%' and state = 'raised')",
                (text, text),
            ).fetchone()
        if row is None or row[0] is None:
            raise ConfigError(f"no alert {text!r} in {path}; `tocsin trace --list` shows them")
        return int(row[0])
    return time_ns(text, now_ns=now_ns)
