"""Alarm load, the handover report, planned works of others, and the picture."""

import json
import math
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from alerting.asked import check
from alerting.life.load import TEN_MINUTES_NS, LoadMetrics, load_of
from alerting.life.windows import PLANNED_WORK, SHELVED, SILENCE, Window
from alerting.words.picture import picture
from runtime.metrics import Metrics
from telemetry.errors import ConfigError
from tocsin.files.maintenance import read_works, take_folder
from tocsin.reports.handover import report
from tocsin.testing.alarms import AlarmWorld

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def change(number: int, at: int, state: str = "raised", **fields: Any) -> dict[str, Any]:
    return {
        "alarm_id": number, "changed_ns": at, "raised_ns": at, "state": state, "severity": "major",
        "kind": "fan", "entity": f"r{number}", "suppressed": "", "operator_state": "none",
        "incident_id": number // 10 + 1,
    } | fields  # fmt: skip


def test_a_flood_is_more_than_ten_alarms_in_ten_minutes() -> None:
    rows = [change(i, i * SECOND) for i in range(25)]
    rows += [change(100 + i, TEN_MINUTES_NS + i * SECOND) for i in range(12)]
    rows += [change(200, 5 * TEN_MINUTES_NS)]
    load = load_of(rows, since_ns=0, until_ns=HOUR)
    assert (load.raises, load.peak_10min, load.floods) == (38, 25, 1)
    assert load.flood_share == pytest.approx(2 / 6, rel=1e-3)
    assert load.grade == "unacceptable"
    assert load_of(rows, since_ns=0, until_ns=HOUR, operators=10).grade == "acceptable"
    assert load.incidents == 6
    assert load.compression == pytest.approx(1 - 6 / 38, rel=1e-3)


def test_what_was_hidden_loads_nobody() -> None:
    load = load_of([change(1, 5, suppressed="planned-work")], since_ns=0, until_ns=HOUR)
    assert (load.raises, load.hidden) == (0, 1)
    assert (load.acknowledged_share, load.compression) == (None, None), "no share of nothing"
    metrics = Metrics("desk")
    LoadMetrics(metrics).show(load)
    assert b'figure="acknowledged_share"} NaN' in metrics.render()


def test_what_was_hidden_and_comes_before_people_later_loads_them_then() -> None:
    work = {"suppressed": "planned-work"}
    rows = [change(1, 5, **work), change(1, HOUR + 5, "updated", raised_ns=5),
            change(2, 6, **work), change(2, 9, "cleared", **work), change(3, 7, **work)]  # fmt: skip
    load = load_of(rows, since_ns=0, until_ns=2 * HOUR)
    assert (load.raises, load.hidden) == (1, 2)
    late = load_of(rows, since_ns=HOUR, until_ns=2 * HOUR)
    assert (late.raises, late.hidden) == (1, 0)


def test_what_is_back_from_the_shelf_is_a_raise_and_no_compression() -> None:
    taken_on = {"operator_state": "acknowledged"}
    rows = [
        change(1, 5),
        change(1, 6, suppressed="shelved"),
        change(1, 7, "updated", raised_ns=5, **taken_on),
    ]
    load = load_of(rows, since_ns=0, until_ns=HOUR)
    assert (load.raises, load.hidden, load.incidents, load.compression) == (2, 0, 1, 0.0)
    assert load.acknowledged_share == 0.5, "it was taken on before it was hidden"


def test_an_alarm_of_before_the_span_is_no_raise_of_it() -> None:
    rows = [change(1, 5), change(1, 90 * HOUR, operator_state="acknowledged", raised_ns=5)]
    load = load_of(rows, since_ns=88 * HOUR, until_ns=96 * HOUR)
    assert (load.raises, load.standing) == (0, 1)


def test_chattering_standing_and_acknowledged() -> None:
    rows = []
    for i in range(4):
        rows += [change(1, i * 20 * SECOND), change(1, (i * 20 + 10) * SECOND, "cleared")]
    rows += [change(2, 0), change(2, 60 * SECOND, operator_state="acknowledged")]
    load = load_of(rows, since_ns=0, until_ns=25 * HOUR)
    assert (load.chattering, load.standing) == (1, 1)
    assert load.acknowledged_share == pytest.approx(0.2)
    assert load.top[0] == {"alarm": f"{1:016x}", "kind": "fan", "entity": "r1", "raises": 4}


def test_the_figures_of_a_stage_add_up() -> None:
    world = AlarmWorld()
    rows = []
    start = world.now_ns
    for i in range(30):
        for batch in world.second(world.report("fan", f"r{i}"), seconds=30):
            if batch.schema.name == "alarm":
                texts = {n: batch.texts(n) for n in ("state", "severity", "kind", "entity", "suppressed",
                                                     "operator_state")}  # fmt: skip
                numbers = ("alarm_id", "changed_ns", "raised_ns", "incident_id")
                rows += [
                    {n: v[k] for n, v in texts.items()} | {n: int(batch[n][k]) for n in numbers}
                    for k in range(batch.rows)
                ]
    load = load_of(rows, since_ns=start, until_ns=world.now_ns + 1)
    assert load.raises == load.incidents == 30


HANDOVER = """\
Handover 1970-01-04 20:00 to 1970-01-05 04:00, all times UTC
load: 16 alarms told, 0.1667 per operator and 10 min (acceptable), worst 10 min 16, 0 floods
told: 3 incidents, 1 alarm hidden, 6% acknowledged in 5 min
standing over a day: 1, chattering: 1

Open incidents (3):
  1970-01-04 23:00 critical  new: link a-b is down (+3 alarms) acknowledged by ann
  1970-01-03 22:00 critical  changed: power of site X
  1970-01-03 21:00 critical  disk of nms2
Ended in this shift (1):
  1970-01-04 23:00 critical  new: fan of r7
Hidden now:
  silence s1: doorOpen until 1970-01-05 05:00 (painters)
  silence nc: source netcool until 1970-01-05 05:00
  shelved shelve-00000000000000aa: alarm 00000000000000aa until 1970-01-05 06:00 (known)
  shelved shelve-0000000000000001: alarm 0000000000000001 fan on r1 until 1970-01-05 06:00
Works now and in the next 16 h:
  planned-work CRQ1: a-b from 1970-01-05 07:00 until 1970-01-05 09:00 (splice)
  planned-work weekly: r1 from 1970-01-05 05:00 until 1970-01-05 06:00
Blind areas:
  exporter r9 is silent
Noisiest alarms:
      4 x fan on r50
      1 x fan on r1
      1 x fan on r2
      1 x fan on r3
      1 x fan on r4
      1 x fan on r5
      1 x fan on r6
      1 x fan on r7
      1 x fan on r8
      1 x fan on r9"""


def test_the_handover_says_what_the_next_shift_must_know() -> None:
    now = 100 * HOUR
    incident = {"opened_ns": 95 * HOUR, "closed_ns": 0, "severity": "critical", "title": "link a-b is down",
                "alarms_count": 4, "operator_state": "acknowledged", "operator": "ann"}  # fmt: skip
    over = incident | {"title": "fan of r7", "closed_ns": 99 * HOUR, "operator_state": "none",
                       "alarms_count": 1}  # fmt: skip
    worse = over | {
        "title": "power of site X",
        "opened_ns": 70 * HOUR,
        "changed_ns": 98 * HOUR,
        "closed_ns": 0,
    }
    old = worse | {"title": "disk of nms2", "opened_ns": 69 * HOUR, "changed_ns": 69 * HOUR}
    long_over = over | {"closed_ns": 80 * HOUR}
    untold = over | {"title": "came and went", "state": "pending"}
    merged = over | {"title": "part of the link's", "parent_incident_id": 7}
    windows = [
        Window("s1", SILENCE, now - HOUR, now + HOUR, kinds=("doorOpen",), reason="painters"),
        Window("nc", SILENCE, now - HOUR, now + HOUR, sources=("netcool",)),
        Window("shelve-00000000000000aa", SHELVED, now - HOUR, now + 2 * HOUR, alarms=(0xAA,), reason="known"),
        Window("shelve-0000000000000001", SHELVED, now - HOUR, now + 2 * HOUR, alarms=(1, 2), spared=(2,)),
        Window("gone", SILENCE, now - 3 * HOUR, now - HOUR, kinds=("x",)),
        Window("CRQ1", PLANNED_WORK, now + 3 * HOUR, now + 5 * HOUR, links=("a-b",), reason="splice"),
        Window("CRQ2", PLANNED_WORK, now + 90 * HOUR, now + 95 * HOUR, links=("c-d",)),
        Window("weekly", PLANNED_WORK, 5 * HOUR, 6 * HOUR, days=("mon",), nodes=("r1",)),
    ]  # fmt: skip
    start = 97 * HOUR
    rows = [change(0, 10 * HOUR)]  # stands since the day before yesterday
    rows += [change(i, start + i) for i in range(1, 13)]
    for i in range(4):
        rows += [
            change(50, start + (20 * i + k) * SECOND, state)
            for k, state in ((0, "raised"), (9, "cleared"))
        ]
    rows += [change(1, start + 200 * SECOND, operator_state="acknowledged"),
             change(2, start + 400 * SECOND, operator_state="acknowledged"),
             change(60, start + 500 * SECOND, suppressed="planned-work")]  # fmt: skip
    text = report(
        rows, [incident, worse, old, over, long_over, merged, untold], windows, since_ns=now - 8 * HOUR, now_ns=now,
        operators=2, acknowledge_seconds=300.0, blind=["exporter r9 is silent"],
    )  # fmt: skip
    assert text == HANDOVER
    quiet = report([], [], (), since_ns=now - 8 * HOUR, now_ns=now)
    assert "0 alarms hidden, nothing to be acknowledged in 10 min" in quiet


ICALS = ("ical1", "ical2", "ical4", "ical5", "ical7")


@pytest.mark.parametrize("name", ICALS)
def test_notices_of_carriers_become_windows(shared: Path, name: str) -> None:
    folder = shared / "ext" / "maintenance" / "ical"
    windows = {one["name"]: one for one in read_works(folder / name)}
    for one in json.loads((folder / f"{name}_result.json").read_text()):
        window = windows[f"{one['provider']} {one['maintenance_id']}"]
        none = all(c["impact"] in ("NO-IMPACT",) for c in one["circuits"])
        if none or one["status"] in ("CANCELLED", "COMPLETED"):
            assert window["cancelled"]
        else:
            assert (window["start_ns"], window["end_ns"]) == (
                one["start"] * SECOND,
                one["end"] * SECOND,
            )
            assert {c["circuit_id"] for c in one["circuits"]} <= set(window["objects"])


def test_a_calendar_event_that_repeats_hides_alarms_of_the_link_it_names(tmp_path: Path) -> None:
    path = tmp_path / "works.ics"
    path.write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:7\r\n"
        "DTSTART:20231115T020000Z\r\nDTEND:20231115T040000Z\r\nRRULE:FREQ=DAILY;COUNT=3\r\n"
        "LOCATION:ams1-fra2\r\nSUMMARY:splice\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    windows = read_works(path)
    assert len(windows) == 3
    world = AlarmWorld()
    world.now_ns = windows[1]["start_ns"] - 60 * SECOND
    world.second(world.act("maintenance", windows=windows))
    world.second(seconds=120)
    (hidden,) = world.told(world.report("linkDown", "ams1:1"))
    assert (hidden.suppressed, hidden.operator) == ("planned-work", "calendar")
    (other,) = world.told(world.report("linkDown", "ams1:2"))
    assert other.suppressed == ""


EVENT = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:7\r\n{}LOCATION:ams1-fra2\r\n"
    "SUMMARY:splice\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
NOTICE = (
    "X-MAINTNOTE-PROVIDER:carrier.example\r\nX-MAINTNOTE-MAINTENANCE-ID:M1\r\nX-MAINTNOTE-STATUS:{}\r\n"
    "X-MAINTNOTE-OBJECT-ID:circuit-9\r\nX-MAINTNOTE-IMPACT:OUTAGE\r\n"
    "DTSTART:20261201T010000Z\r\nDTEND:20261201T030000Z\r\n"
)


def test_a_rule_keeps_local_time_leaves_out_its_exceptions_and_lasts_as_long_as_it_says(
    tmp_path: Path,
) -> None:
    """02:00 in Amsterdam before and after summer time begins on 2026-03-29, one day left out."""
    path = tmp_path / "w.ics"
    zone = "TZID=Europe/Amsterdam"
    path.write_text(EVENT.format(
        f"DTSTART;{zone}:20260327T020000\r\nDURATION:PT4H\r\nRRULE:FREQ=DAILY;COUNT=5\r\n"
        f"EXDATE;{zone}:20260328T020000\r\n"
    ))  # fmt: skip
    starts = [datetime.fromtimestamp(w["start_ns"] // SECOND, UTC) for w in read_works(path)]
    assert [f"{at:%d %H}" for at in starts] == ["27 01", "29 01", "30 00", "31 00"]
    assert {w["end_ns"] - w["start_ns"] for w in read_works(path)} == {4 * HOUR}
    path.write_text(EVENT.format("DTSTART;VALUE=DATE:20261201\r\n"))
    (whole,) = read_works(path)
    assert whole["end_ns"] - whole["start_ns"] == 24 * HOUR


def mail(*parts: tuple[str, str, str]) -> bytes:
    made = EmailMessage()
    made["From"], made["Subject"] = "noc@carrier.example", "Maintenance M1"
    made.set_content("see the calendar")
    for kind, subtype, text in parts:
        if kind == "file":
            made.add_attachment(
                text.encode(), maintype="application", subtype="octet-stream", filename=subtype
            )
        else:
            made.add_attachment(text, subtype=subtype)
    return made.as_bytes()


@pytest.mark.parametrize("part", [("text", "calendar"), ("file", "M1.ICS")])
def test_a_notice_by_mail_is_read_from_its_calendar(tmp_path: Path, part: tuple[str, str]) -> None:
    path = tmp_path / "notice.eml"
    path.write_bytes(mail((*part, EVENT.format(NOTICE.format("CONFIRMED")))))
    (window,) = read_works(path, {"circuit-9": "ams1-fra2"})
    assert (window["name"], window["objects"]) == ("carrier.example M1", ["ams1-fra2"])
    path.write_bytes(mail((*part, EVENT.format(NOTICE.format("CANCELLED")))))
    assert read_works(path)[0]["cancelled"]


def test_a_mail_of_html_alone_is_said_not_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "notice.eml"
    path.write_bytes(mail(("text", "html", "<p>1 December, 01:00 to 03:00 UTC, circuit 9</p>")))
    with pytest.raises(ConfigError, match=r"HTML is not read: ask its sender for the iCalendar"):
        read_works(path)


def test_what_is_dropped_in_a_folder_is_taken_once_or_refused(tmp_path: Path) -> None:
    good = EVENT.format(NOTICE.format("CONFIRMED"))
    (tmp_path / "a.ics").write_text(good)
    (tmp_path / "b.eml").write_bytes(mail(("text", "html", "<p>soon</p>")))
    (tmp_path / ".c.ics").write_text(good)  # still being written
    taken: list[dict[str, Any]] = []
    first, second = take_folder(tmp_path, {}, taken.extend)
    assert first.endswith("a.ics: 1 windows")
    assert "HTML is not read" in second
    assert [window["name"] for window in taken] == ["carrier.example M1"]
    assert take_folder(tmp_path, {}, taken.extend) == []
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        ".c.ics", "refused/b.eml", "taken/a.ics",
    ]  # fmt: skip


def test_what_is_no_calendar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ics"
    path.write_text("hello")
    with pytest.raises(ConfigError, match=r"x\.ics"):
        read_works(path)


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("dance", {}, "not known"),
        ("acknowledge", {}, "needs alarm"),
        ("acknowledge", {"alarm": "zz"}, "no id"),
        ("shelve", {"alarm": "00000000000000aa"}, "must end"),
        ("silence", {"seconds": 5}, "what it is about"),
        ("merge", {"incidents": ["x"]}, "no id"),
    ],
)
def test_actions_that_cannot_be_meant_are_refused(
    kind: str, payload: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check(kind, payload, 0)


def test_the_picture_is_svg_with_band_gap_and_marks_and_escapes_what_it_is_told() -> None:
    times = [i * SECOND for i in range(50)]
    values = [10.0 + i if i != 20 else math.nan for i in range(50)]
    svg = picture(
        times, values, lower=[5.0] * 50, upper=[40.0] * 50, marks=[(30 * SECOND, "raised <b>")],
        title="<script>alert(1)</script>", unit="By/s",
    )  # fmt: skip
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polyline")) == 2
    assert len(root.findall(f"{space}polygon")) == 1
    assert "<script" not in svg
    assert "raised &lt;b&gt;" in svg
    assert ElementTree.fromstring(picture([], [])).tag == f"{space}svg"
