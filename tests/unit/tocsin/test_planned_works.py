"""Planned works of others: every event is understood, or its file is refused with a sentence."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alerting.asked import check
from telemetry.errors import ConfigError
from tests.unit.alerting.test_load import EVENT, NOTICE
from tocsin.files.maintenance import REPEATS_MAX, read_works, take_folder
from tocsin.testing.alarms import START_NS, AlarmWorld

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
START = "DTSTART:20261101T010000Z\r\n"


def calendar(folder: Path, lines: str, name: str = "w.ics") -> Path:
    path = folder / name
    path.write_text(EVENT.format(lines), newline="")
    return path


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param("DTEND:20261101T020000Z\r\n", "no DTSTART", id="no-start"),
        pytest.param("DTSTART:foo\r\n", "DTSTART: Expected datetime", id="start"),
        pytest.param(f"{START}{START}", "more than one DTSTART", id="two-starts"),
        pytest.param(f"{START}DURATION:foo\r\n", "DURATION: ", id="duration"),
        pytest.param(f"{START}DURATION:PT0S\r\n", "ends before it begins", id="no-time"),
        pytest.param(f"{START}DTEND:20261101T000000Z\r\n", "ends before it begins", id="back"),
        pytest.param(
            f"{START}DTEND:99991231T235959Z\r\n", "9999-12-31 is before 1970 or", id="ever"
        ),
        pytest.param("DTSTART:00010101T000000Z\r\n", "1-01-01 is before 1970", id="year-1"),
        pytest.param(
            "DTSTART;TZID=Nowhere/X:20261101T010000\r\n", "the zone 'Nowhere/X' is none", id="zone"
        ),
        pytest.param(f"{START}RRULE:FREQ=NEVER\r\n", "RRULE: Expected frequency", id="rule"),
        pytest.param(
            f"{START}RRULE:INTERVAL=2\r\n", "RRULE: planned works return by", id="no-freq"
        ),
        pytest.param(f"{START}RRULE:FREQ=SECONDLY\r\n", "not SECONDLY", id="secondly"),
        pytest.param(f"{START}RRULE:FREQ=DAILY;INTERVAL=0\r\n", "DAILY each 0", id="interval"),
        pytest.param(f"{START}RRULE:FREQ=DAILY;BYHOUR=99\r\n", "hour", id="by-hour"),
        pytest.param(f"{START}EXDATE:foo\r\nRRULE:FREQ=DAILY\r\n", "EXDATE: ", id="exception"),
        pytest.param(f"{START}RDATE:foo\r\n", "RDATE: ", id="date"),
        pytest.param(
            f"{START}RDATE;VALUE=DATE:20261102\r\n", "RDATE: 2026-11-02 has no time", id="date-only"
        ),
        pytest.param(
            f"{START}RDATE;VALUE=PERIOD:20261102T010000Z/20261102T000000Z\r\n",
            "RDATE: a period ends before it begins",
            id="period",
        ),
        pytest.param(
            f"{START}RRULE:FREQ=DAILY\r\nEXRULE:FREQ=WEEKLY\r\n", "EXRULE is not read", id="exrule"
        ),
        pytest.param(
            f"{START}RRULE:FREQ=WEEKLY;BYDAY=MO\r\n", "DTSTART is none of the times", id="sunday"
        ),
        pytest.param(
            f"{START}RECURRENCE-ID;RANGE=THISANDFUTURE:20261101T010000Z\r\n",
            "THISANDFUTURE: the event that returns is not in the file",
            id="alone",
        ),
        pytest.param(
            f"{START}RECURRENCE-ID;RANGE=THISANDPRIOR:20261101T010000Z\r\n",
            "RANGE=THISANDPRIOR is not read",
            id="prior",
        ),
    ],
)
def test_an_event_that_cannot_be_understood_refuses_its_file(
    tmp_path: Path, lines: str, said: str
) -> None:
    path = calendar(tmp_path, lines)
    with pytest.raises(ConfigError) as caught:
        read_works(path)
    assert f"{path}: event 1 (7): " in str(caught.value)
    assert said in str(caught.value)


def spans(windows: list[dict[str, Any]]) -> list[str]:
    """Return each window as day, hour and minute of begin and end, in UTC; `x` for one that is cancelled."""

    def at(time_ns: int, form: str) -> str:
        return f"{datetime.fromtimestamp(time_ns // SECOND, UTC):{form}}"

    return [
        f"x {one['name'].partition('#')[2][6:]}" if one.get("cancelled")
        else f"{at(one['start_ns'], '%d %H%M')}-{at(one['end_ns'], '%H%M')}"
        for one in windows
    ]  # fmt: skip


DAILY = f"{START}RRULE:FREQ=DAILY;COUNT=4\r\n"


@pytest.mark.parametrize(
    ("lines", "times"),
    [
        pytest.param(f"{START}RDATE:20261103T020000Z,20261105T030000Z\r\n",
                     ["01 0100-0200", "03 0200-0300", "05 0300-0400"], id="dates"),
        pytest.param(f"{START}RDATE:20261103T020000Z\r\nRDATE:20261101T010000Z\r\n",
                     ["01 0100-0200", "03 0200-0300"], id="twice-the-start"),
        pytest.param(f"{START}RDATE;VALUE=PERIOD:20261103T020000Z/PT3H,20261104T000000Z/20261104T003000Z\r\n",
                     ["01 0100-0200", "03 0200-0500", "04 0000-0030"], id="periods"),
        pytest.param("DTSTART;TZID=Europe/Vienna:20261101T030000\r\nRDATE;TZID=Europe/Vienna:20260701T030000,"
                     "20261103T030000\r\n", ["01 0200-0300", "03 0200-0300"], id="zone"),
        pytest.param("DTSTART;VALUE=DATE:20261101\r\nRDATE;VALUE=DATE:20261104\r\n",
                     ["01 0000-0000", "04 0000-0000"], id="days"),
        pytest.param(f"{DAILY}RDATE:20261110T000000Z\r\nEXDATE:20261102T010000Z,20261110T000000Z\r\n",
                     ["01 0100-0200", "03 0100-0200", "04 0100-0200"], id="rule-dates-exceptions"),
        pytest.param(f"{DAILY}EXDATE;VALUE=DATE:20261102,20261104\r\n",
                     ["01 0100-0200", "03 0100-0200"], id="exception-days"),
        pytest.param("DTSTART;TZID=Europe/Vienna:20261101T003000\r\nRRULE:FREQ=DAILY;COUNT=3\r\n"
                     "EXDATE;VALUE=DATE:20261102\r\n", ["31 2330-0030", "02 2330-0030"], id="day-of-its-zone"),
        pytest.param(f"{START}RDATE:20261103T020000Z\r\nEXDATE:20261101T010000Z\r\n", ["03 0200-0300"],
                     id="start-left-out"),
    ],
)  # fmt: skip
def test_an_event_returns_by_its_rule_and_dates_but_for_its_exceptions(
    tmp_path: Path, lines: str, times: list[str]
) -> None:
    windows = read_works(calendar(tmp_path, lines))
    assert spans(windows) == times
    assert len({one["name"] for one in windows}) == len(windows)


def beside(path: Path, *others: str) -> Path:
    """Add events to a file, of the same UID."""
    text = path.read_text("utf-8")
    event = text[text.index("BEGIN:VEVENT") : text.index("END:VCALENDAR")]
    start = event.index("DTSTART")
    head, tail = event[:start], event[event.index("LOCATION") :]
    more = "".join(f"{head}{other}{tail}" for other in others)
    path.write_text(text.replace("END:VCALENDAR", f"{more}END:VCALENDAR"), newline="")
    return path


REACH = (
    "RECURRENCE-ID;RANGE=THISANDFUTURE:202611{}T010000Z\r\nDTSTART:202611{}Z\r\nDURATION:PT{}H\r\n"
)


@pytest.mark.parametrize(
    ("others", "times"),
    [
        pytest.param([REACH.format("03", "03T050000", 2)],
                     ["01 0100-0200", "02 0100-0200", "03 0500-0700", "04 0500-0700"], id="moved"),
        pytest.param([REACH.format("02", "02T050000", 2), REACH.format("04", "05T000000", 1)],
                     ["01 0100-0200", "02 0500-0700", "03 0500-0700", "05 0000-0100"], id="twice"),
        pytest.param([REACH.format("03", "03T050000", 2) + "STATUS:CANCELLED\r\n"],
                     ["01 0100-0200", "02 0100-0200", "x 030100", "x 040100"], id="cancelled"),
        pytest.param([REACH.format("02", "02T050000", 2),
                      "RECURRENCE-ID:20261103T010000Z\r\nDTSTART:20261103T090000Z\r\n"],
                     ["01 0100-0200", "02 0500-0700", "03 0500-0700", "04 0500-0700", "03 0900-1000"],
                     id="one-alone-counts-over-all"),
        pytest.param(["RECURRENCE-ID;VALUE=DATE:20261103\r\nDTSTART:20261103T090000Z\r\n"],
                     ["01 0100-0200", "02 0100-0200", "03 0100-0200", "04 0100-0200", "03 0900-1000"],
                     id="by-its-day"),
    ],
)  # fmt: skip
def test_occurrences_are_changed_from_one_on(
    tmp_path: Path, others: list[str], times: list[str]
) -> None:
    windows = read_works(beside(calendar(tmp_path, DAILY), *others))
    assert spans(windows) == times
    assert {one["name"] for one in windows} == {f"7 #202611{day:02}0100" for day in range(1, 5)}


def test_a_calendar_that_cancels_cancels_without_a_status(tmp_path: Path) -> None:
    path = calendar(tmp_path, DAILY)
    path.write_text(
        path.read_text().replace("BEGIN:VEVENT", "METHOD:CANCEL\r\nBEGIN:VEVENT", 1), newline=""
    )
    (window,) = read_works(path)
    assert window["cancelled"]


def test_a_zone_that_is_a_folder_of_zones_is_none(tmp_path: Path) -> None:
    path = calendar(tmp_path, "DTSTART;TZID=Europe:20261101T010000\r\n")
    with pytest.raises(ConfigError, match="no iCalendar that can be read"):
        read_works(path)


def test_an_event_about_nothing_is_refused(tmp_path: Path) -> None:
    """It would be a work on the whole network, and hide every alarm."""
    path = tmp_path / "w.ics"
    about = "LOCATION:ams1-fra2\r\nSUMMARY:splice\r\n"
    path.write_text(EVENT.format(START).replace(about, ""), newline="")
    with pytest.raises(ConfigError, match="names nothing that is worked on"):
        read_works(path)


@pytest.mark.parametrize(
    ("start", "until", "times"),
    [
        ("DTSTART;VALUE=DATE:20261101", "20261110", 10),
        ("DTSTART:20261101T010000Z", "20261110", 10),
        ("DTSTART:20261101T010000Z", "20261110T005959Z", 9),
        ("DTSTART:20261101T010000", "20261110T010000", 10),
        ("DTSTART;TZID=Europe/Vienna:20261101T233000", "20261110", 10),
        ("DTSTART;TZID=Europe/Vienna:20261101T010000", "20261110T010000", 10),
        ("DTSTART;TZID=Europe/Vienna:20261101T010000", "20261110T000000Z", 10),
    ],
)
def test_a_rule_ends_with_a_day_a_local_time_or_one_in_utc(
    tmp_path: Path, start: str, until: str, times: int
) -> None:
    path = calendar(tmp_path, f"{start}\r\nRRULE:FREQ=DAILY;UNTIL={until}\r\n")
    assert len(read_works(path)) == times


def test_of_a_rule_that_began_long_ago_what_comes_now_is_taken(tmp_path: Path) -> None:
    path = calendar(tmp_path, "DTSTART:20200106T020000Z\r\nDURATION:PT4H\r\nRRULE:FREQ=WEEKLY\r\n")
    now = datetime(2026, 11, 30, 3, tzinfo=UTC)  # in the middle of one
    windows = read_works(path, now_ns=round(now.timestamp()) * SECOND)
    starts = [datetime.fromtimestamp(one["start_ns"] // SECOND, UTC) for one in windows]
    assert starts[:2] == [now.replace(hour=2), now.replace(hour=2) + timedelta(7)]
    assert 52 <= len(starts) <= 58
    check("maintenance", {"windows": windows}, START_NS)
    ended = calendar(tmp_path, f"{START}RRULE:FREQ=DAILY;COUNT=3\r\n")
    assert read_works(ended, now_ns=round(now.timestamp()) * SECOND) == []


def test_however_often_an_event_returns_few_of_it_are_taken(tmp_path: Path) -> None:
    hours = ",".join(map(str, range(24)))
    rule = f"RRULE:FREQ=DAILY;BYHOUR={hours};BYMINUTE=0,15,30,45;BYSECOND=0\r\n"
    path = calendar(tmp_path, START + rule)
    assert len(read_works(path)) == REPEATS_MAX
    path = calendar(tmp_path, START.replace("2026", "2020") + rule)
    with pytest.raises(ConfigError, match="times before now"):
        read_works(path, now_ns=START_NS + 2000 * DAY)


def test_one_bad_file_in_a_folder_leaves_those_behind_it_theirs(tmp_path: Path) -> None:
    calendar(tmp_path, f"{START}RRULE:FREQ=DAILY;INTERVAL=0\r\n", "a.ics")
    calendar(tmp_path, START, "b.ics")
    calendar(tmp_path, NOTICE.format("CONFIRMED"), "c.ics")
    taken: list[dict[str, Any]] = []

    def act(windows: list[dict[str, Any]]) -> None:
        if windows[0]["name"] == "7":
            raise ConfigError("more than 10 windows")
        taken.extend(windows)

    bad, refused, good = take_folder(tmp_path, {}, act)
    assert "RRULE" in bad
    assert refused.endswith("b.ics: more than 10 windows")
    assert good.endswith("c.ics: 1 windows")
    assert [one["name"] for one in taken] == ["carrier.example M1"]
    assert sorted(path.name for path in (tmp_path / "refused").iterdir()) == ["a.ics", "b.ics"]


def test_a_cancelled_rule_ends_every_one_of_its_windows(tmp_path: Path) -> None:
    world = AlarmWorld()
    start = "DTSTART:20231116T000000Z\r\nRRULE:FREQ=DAILY;COUNT=3\r\n"
    windows = read_works(calendar(tmp_path, start))
    world.told(world.act("maintenance", windows=windows))
    world.told(world.act("maintenance", name="7 #x", nodes=["ams1"], seconds=60))
    assert len(world.stage.windows()) == 4
    cancelled = read_works(calendar(tmp_path, f"{start}STATUS:CANCELLED\r\n"))
    world.told(world.act("maintenance", windows=cancelled))
    assert [one.name for one in world.stage.windows()] == ["7 #x"]


def test_one_occurrence_of_a_rule_is_moved_or_cancelled_alone(tmp_path: Path) -> None:
    """As calendars and carriers send it: beside its rule, in front of it, or by itself later."""
    rule = "DTSTART:20231116T010000Z\r\nRRULE:FREQ=DAILY;COUNT=4\r\n"
    which = "RECURRENCE-ID:202311{}T010000Z\r\nDTSTART:20231117T050000Z\r\n"
    path = calendar(tmp_path, which.format(17))
    both = path.read_text("utf-8")
    path.write_text(both.replace("BEGIN:VEVENT", f"BEGIN:VEVENT\r\nUID:7\r\nLOCATION:a\r\n{rule}"
                                 "END:VEVENT\r\nBEGIN:VEVENT", 1), newline="")  # fmt: skip
    world = AlarmWorld()

    def hours() -> list[str]:
        world.told(world.act("maintenance", windows=read_works(path)))
        starts = sorted(one.start_ns for one in world.stage.windows())
        return [f"{datetime.fromtimestamp(at // SECOND, UTC):%d %H}" for at in starts]

    assert hours() == ["16 01", "17 05", "18 01", "19 01"]
    calendar(tmp_path, f"{which.format(19)}STATUS:CANCELLED\r\n")
    assert hours() == ["16 01", "17 05", "18 01"]
    calendar(tmp_path, "STATUS:CANCELLED\r\n")
    assert hours() == []
    calendar(tmp_path, "RECURRENCE-ID:foo\r\nSTATUS:CANCELLED\r\n")
    with pytest.raises(ConfigError, match="RECURRENCE-ID: Expected"):
        read_works(path)


def test_a_watched_folder_is_watched_on_while_the_node_is_away(tmp_path: Path) -> None:
    calendar(tmp_path, START)
    with subprocess.Popen(
        [sys.executable, "-m", "tocsin", "alarm", "works", str(tmp_path), "--every", "0.1s"],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "TOCSIN_STATE_DIR": str(tmp_path)},
        stderr=subprocess.PIPE, text=True,
    ) as watching:  # fmt: skip
        assert watching.stderr is not None
        said = watching.stderr.readline()
        watching.terminate()
    assert "is Tocsin running?; the next try is in 0.1 s" in said
    assert (tmp_path / "w.ics").exists()
