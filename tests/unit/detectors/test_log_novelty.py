"""New kinds of log lines: told where they are rare, never while learning, never one a minute."""

import numpy as np
import pytest

from detectors.config import LogSettings
from detectors.log_novelty import STANDS_NS, LogWatch
from runtime.checkpoint import Snapshot, write_array
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import LOG
from tocsin.testing import make_context

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
START = 1_790_553_600 * SECOND


def line(
    at_ns: int,
    message: str = "fan tray 2 failed",
    *,
    novelty: int = 1,
    severity: int = 3,
    pattern: int = 7,
    host: str = "ams1",
) -> Batch:
    row = {
        "time_ns": at_ns, "arrival_ns": at_ns, "host": host, "facility": 3, "severity": severity,
        "app": "chassisd", "pattern_id": pattern, "variables": "[]", "message": message, "event": "",
        "message_id": "", "process_id": "", "structured_data": "", "novelty": novelty,
    }  # fmt: skip
    return batch_from_rows(LOG, [row], source="test", frontier_ns=at_ns)


def alarms(made: list[Batch]) -> list[tuple[str, str, str]]:
    return [
        (batch.texts("state")[k], batch.texts("kind")[k], batch.texts("specific_problem")[k])
        for batch in made
        for k in range(batch.rows)
    ]


def watch(days: int = 3, every_hours: int = 1, **settings: float) -> tuple[LogWatch, int]:
    """Return a watch that has seen old kinds of lines for days, and the time."""
    made = LogWatch(LogSettings(**settings), make_context("logs"))  # type: ignore[arg-type]
    hours = range(0, 24 * days, every_hours)
    for hour in hours:
        assert not made.process(line(START + hour * HOUR, novelty=0), START + hour * HOUR)
    return made, START + 24 * days * HOUR


def test_a_new_kind_is_told_once_and_ends_after_an_hour() -> None:
    made, now = watch()
    told = alarms(made.process(line(now), now))
    assert told == [
        ("raised", "new-log-pattern", "ams1 logs what nobody has seen before: fan tray 2 failed")
    ]
    assert not made.process(line(now + SECOND, novelty=0), now + SECOND)
    later = now + STANDS_NS
    assert made.due_ns == later
    assert made.advance(later - 1) == []
    ended = [one[:2] for one in alarms(made.advance(later))]
    assert ended == [("cleared", "new-log-pattern")]
    assert made.advance(made.due_ns) == []


@pytest.mark.parametrize(
    ("severity", "novelty"),
    [(4, 1), (6, 1), (3, 0), (0, 2)],
    ids=["warning", "info", "known", "wider"],
)
def test_other_lines_are_left_alone(severity: int, novelty: int) -> None:
    made, now = watch()
    assert not made.process(line(now, severity=severity, novelty=novelty), now)


def test_nothing_is_told_on_the_first_day() -> None:
    made = LogWatch(LogSettings(), make_context("logs"))
    for minute in range(0, 1_440, 30):
        now = START + minute * 60 * SECOND
        assert not made.process(line(now, pattern=minute), now)


def test_where_something_new_comes_each_hour_nobody_is_told_of_it() -> None:
    made = LogWatch(LogSettings(), make_context("logs"))
    told = 0
    for hour in range(24 * 10):
        now = START + hour * HOUR
        told += sum(
            one[0] == "raised" for one in alarms(made.process(line(now, pattern=hour), now))
        )
    assert told <= 1


def test_a_change_of_software_is_not_a_storm() -> None:
    made, now = watch(days=30)
    told = 0
    for k in range(500):
        at = now + k * SECOND
        told += sum(one[0] == "raised" for one in alarms(made.process(line(at, pattern=k), at)))
    assert 1 <= told <= 30


def test_a_restart_changes_nothing() -> None:
    made, now = watch()
    made.process(line(now, host="ams1\x85\u2028x"), now)  # what Python takes for ends of lines
    kept, again = Snapshot(), LogWatch(LogSettings(), make_context("logs"))
    made.snapshot(kept)
    again.restore(kept)
    random = np.random.default_rng(1)
    for k in range(50):
        now += int(random.integers(1, 3 * HOUR))
        batch = line(now, pattern=100 + k, novelty=int(random.integers(0, 2)))
        assert alarms(made.advance(now)) == alarms(again.advance(now))
        assert alarms(made.process(batch, now)) == alarms(again.process(batch, now))


@pytest.mark.parametrize("lines", [b"", b"7\t1f\tams1\n9\t2a\tfra1"])
def test_a_checkpoint_of_before_is_taken(lines: bytes) -> None:
    made, _ = watch()
    kept, again = Snapshot(), LogWatch(LogSettings(), make_context("logs"))
    made.snapshot(kept)
    older = Snapshot()
    for name in kept.names():
        for first_row, block in kept.read(name):
            if name != "standing":
                older.write(name, first_row, block)
    write_array(older, "standing", np.frombuffer(lines, np.uint8))
    again.restore(older)
    assert again.advance(START + 30 * 24 * HOUR) == []
