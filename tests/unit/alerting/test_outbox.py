"""The outbox: one transaction a tick, each tick once, order for each alarm and sink, damage."""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.outbox.file import connect, migrate
from alerting.outbox.outbox import Outbox
from alerting.outbox.tables import MIGRATIONS, VERSION, check_bodies
from alerting.records.alarm import SEVERITIES
from alerting.words.delivery import Delivery, Verdict
from runtime.clock import ManualClock
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import ANOMALY
from tocsin.chain.ticks import Outcome
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

SECOND = 1_000_000_000
TWO = AlertingSettings(
    sinks={
        "a": SinkSettings(kind="stdout"),
        "b": SinkSettings(kind="stdout", least_severity="major"),
    },
    attempts_max=3,
)

ALARMS = AlertingSettings(sinks={n: SinkSettings(kind="stdout", send="alarms") for n in "ab"})


def opened(path: Path, settings: AlertingSettings = TWO) -> Outbox:
    made = Outbox(path, settings, make_context("outbox", clock=ManualClock(50 * SECOND)))
    made.start()
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.sqlite"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    made = opened(path)
    yield made
    made.stop()


class Ticks:
    """Commits ticks of a world in which exporters come and go."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.world = AlarmWorld()

    def batches(self, *exporters: str) -> tuple[list[Batch], list[Batch]]:
        rows = [self.world.silence(self.world.series("exporter", exporter=e)) for e in exporters]
        made = self.world.batches(rows)
        alarms = [b for b in made if b.schema.name == "alarm"]
        return alarms, [b for b in made if b.schema.name == "incident"]

    def commit(self, *exporters: str, now_ns: int = 0) -> list[str]:
        alarms, incidents = self.batches(*exporters)
        alerts = self.outbox.commit(self.world.now_ns, alarms, now_ns, incidents=incidents)
        return [f"{alert.entity} {alert.state}" for alert in alerts]


def sent(outbox: Outbox, deliveries: list[Delivery], now_ns: int = 0) -> None:
    outbox.mark([Verdict(number=d.number, key=d.key, sent=True) for d in deliveries], now_ns)


def test_a_tick_is_committed_once_and_its_alarms_are_there_after_a_restart(path: Path) -> None:
    outbox = opened(path)
    ticks = Ticks(outbox)
    alarms, incidents = ticks.batches("192.0.2.1")
    end_ns = ticks.world.now_ns
    assert not outbox.is_done(end_ns)
    assert len(outbox.commit(end_ns, alarms, 0, incidents=incidents)) == 1
    assert outbox.commit(end_ns, alarms, 0, incidents=incidents) == []
    outbox.stop()
    again = opened(path)
    assert again.is_done(end_ns)
    assert not again.is_done(end_ns + 1)
    (alarm,) = again.alarms(active_only=True, limit=10)
    assert (alarm["entity"], alarm["state"]) == ("192.0.2.1", "raised")
    assert len(again.changes()) == 1
    assert len(again.due(0, 10)) == 2
    again.stop()


def test_a_commit_that_fails_leaves_nothing_of_its_tick(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    alarms, _ = ticks.batches("192.0.2.1")
    broken = alarms[0].with_columns(
        alarms[0].schema, {**alarms[0].columns, "state": alarms[0]["state"] + 7}
    )
    with pytest.raises(IndexError):
        outbox.commit(ticks.world.now_ns, [alarms[0], broken], 0)
    assert not outbox.is_done(ticks.world.now_ns)
    assert outbox.alarms(active_only=False, limit=10) == []
    assert len(outbox.commit(ticks.world.now_ns, alarms, 0)) == 1


class Shows:
    """Is given what is told, and asks three times what is due while no other connection sees it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.kept: list[list[Batch]] = []
        self.due: list[list[Delivery]] = []
        self.fails = False

    def put(self, part: Sequence[Batch]) -> None:
        self.kept.append(list(part))

    def show(self) -> None:
        self.due += [self.outbox.due(7, 1) for _ in range(2)]
        self.due.append(self.outbox.due(7, 10))
        with contextlib.closing(sqlite3.connect(self.outbox._path)) as other:
            seen = {d.key for part in self.due for d in part}
            assert not seen & {key for (key,) in other.execute("select key from delivery")}
        if self.fails:
            raise sqlite3.OperationalError("disk I/O error")


def test_of_many_incidents_the_gravest_are_shown_while_the_others_are_put_into_words(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerting.incidents.incidents.TOLD_TOGETHER", 2)
    for send, parts in (
        ("alarms", [["alarm"]]),
        ("incidents", [["incident"], ["incident"], ["incident"]]),
    ):
        settings = AlertingSettings(sinks={"a": SinkSettings(kind="stdout", send=send)})
        outbox = opened(path.with_name(send), settings)
        world = AlarmWorld()
        rows = [world.silence(world.series("exporter", exporter=f"192.0.2.{i}")) for i in range(5)]
        world.stage.process(batch_from_rows(ANOMALY, rows))
        end_ns = world.now_ns + 5 * SECOND
        world.stage.judge(end_ns)
        outcome, seen = Outcome(end_ns), Shows(outbox)
        outcome.follow(world.stage.alarms(), world.stage.tell())
        told = outcome.incidents
        outbox.commit(end_ns, outcome.alarms, 7, incidents=told, coming=outcome, first=seen)
        assert [[b.schema.name for b in part] for part in seen.kept] == parts
        assert sum(map(len, seen.due)) == 5
        assert len(seen.due) == 3 * len(parts)
        outcome.complete()
        assert sum(batch.rows for batch in told) == 5
        severities = [severity for batch in told for severity in batch.texts("severity")]
        assert severities == sorted(severities, key=SEVERITIES.index)
        outbox.stop()


def test_what_is_due_is_shown_before_it_is_committed_and_comes_again_where_that_fails(
    outbox: Outbox,
) -> None:
    ticks = Ticks(outbox)
    alarms, incidents = ticks.batches("192.0.2.1", "192.0.2.2")
    end_ns = ticks.world.now_ns
    seen = Shows(outbox)
    seen.fails = True
    outcome = Outcome(end_ns)
    outcome.follow(iter(alarms), iter(incidents))
    assert (
        outbox.commit(
            end_ns, outcome.alarms, 7, incidents=outcome.incidents, coming=outcome, first=seen
        )
        == []
    )
    assert outbox.due(7, 10) == [], "nothing is due that was not committed"
    assert [[d.number for d in part] for part in seen.due] == [[1, 2], [3, 4], []]
    assert {d.sink for d in seen.due[0]} == {"a", "b"}
    assert [[b.schema.name for b in part] for part in seen.kept] == [["incident"]]
    first = [delivery for part in seen.due for delivery in part]
    sent(outbox, first)
    outcome.complete()
    assert len(outbox.retry_ticks()) == 2
    assert len(seen.due) == 3, "a tick that waited is not shown again"
    assert outbox.due(7, 10) == first, "the same letters under the same keys"
    sent(outbox, [msgspec.structs.replace(d, key="of another start") for d in first])
    assert outbox.due(7, 10) == first
    sent(outbox, first[:1])
    assert outbox.due(7, 10) == first[1:]


def test_only_to_sinks_for_which_nothing_waits_is_anything_shown(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.1")
    sent(outbox, [d for d in outbox.due(0, 10) if d.sink == "a"])
    alarms, incidents = ticks.batches("192.0.2.1", "192.0.2.2")
    seen = Shows(outbox)
    outbox.commit(ticks.world.now_ns, alarms, 0, incidents=incidents, first=seen)
    shown = [delivery for part in seen.due for delivery in part]
    assert {d.sink for d in shown} == {"a"}
    assert [d for d in outbox.due(0, 9) if d.sink == "a"] == shown
    assert len([d for d in outbox.due(0, 9) if d.sink == "b"]) == 2


def test_routes_by_severity_and_kind(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.1")
    assert {d.sink for d in outbox.due(0, 10)} == {"a", "b"}
    minor = AlertingSettings(sinks={"a": SinkSettings(kind="stdout", kinds=("port-scan",))})
    other = Outbox(outbox._path.with_name("other.sqlite"), minor, make_context())
    other.start()
    Ticks(other).commit("192.0.2.1")
    assert other.due(0, 10) == []
    other.stop()


def test_a_later_change_waits_for_the_one_before_it_at_that_sink(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.1")
    for _ in range(3):
        ticks.commit()
    first = outbox.due(0, 10)
    assert [(d.sink, json.loads(d.body)["state"]) for d in first] == [
        ("a", "raised"), ("b", "raised"),
    ]  # fmt: skip
    sent(outbox, first[:1])
    assert [(d.sink, json.loads(d.body)["state"]) for d in outbox.due(0, 10)] == [
        ("b", "raised"), ("a", "cleared"),
    ]  # fmt: skip


def test_a_sink_with_a_long_queue_leaves_the_others_theirs(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    ticks.commit(*[f"192.0.2.{i}" for i in range(1, 60)])
    sent(outbox, [d for d in outbox.due(0, 100) if d.sink == "b"])
    ticks.commit("198.51.100.1", *[f"192.0.2.{i}" for i in range(1, 60)])
    due = outbox.due(0, 10)
    assert [d.sink for d in due].count("a") == 10
    assert [d.sink for d in due].count("b") == 1


def test_failures_come_back_later_with_jitter_and_are_given_up_in_the_end(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.1")
    now_ns, waits = 0, []
    for _ in range(3):
        (delivery,) = (d for d in outbox.due(now_ns, 10) if d.sink == "a")
        outbox.mark(
            [Verdict(number=delivery.number, key=delivery.key, sent=False, answer="no")], now_ns
        )
        before = now_ns
        while now_ns < before + 10 * SECOND and not any(
            d.sink == "a" for d in outbox.due(now_ns, 10)
        ):
            now_ns += SECOND // 20
        waits.append((now_ns - before) / SECOND)
    assert 0.75 <= waits[0] <= 1.3
    assert 1.5 <= waits[1] <= 2.55
    assert "1 deliveries were given up" in outbox.health()
    assert outbox.retry() == 1
    assert any(d.sink == "a" for d in outbox.due(now_ns, 10))
    assert outbox.health() == ""


def test_what_is_refused_for_good_is_given_up_at_once(outbox: Outbox) -> None:
    Ticks(outbox).commit("192.0.2.1")
    (delivery,) = (d for d in outbox.due(0, 10) if d.sink == "a")
    outbox.mark(
        [Verdict(number=delivery.number, key=delivery.key, sent=False, answer="400", final=True)], 0
    )
    (row,) = (d for d in outbox.deliveries() if d["number"] == delivery.number)
    assert (row["state"], row["answer"]) == ("given_up", "400")


def test_a_retry_never_sends_a_raise_behind_its_clear(outbox: Outbox) -> None:
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.1")
    (raised,) = (d for d in outbox.due(0, 10) if d.sink == "a")
    outbox.mark([Verdict(number=raised.number, key=raised.key, sent=False, final=True)], 0)
    for _ in range(3):
        ticks.commit()
    sent(outbox, [d for d in outbox.due(0, 10) if d.sink == "a"])
    assert outbox.retry() == 0
    assert [d for d in outbox.due(0, 10) if d.sink == "a"] == []


def test_too_many_waiting_are_given_up_oldest_first_and_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerting.outbox.outbox.TRIM_EVERY_TICKS", 1)
    small = AlertingSettings(sinks={"a": SinkSettings(kind="stdout")}, waiting_max=5)
    context = make_context("outbox")
    outbox = Outbox(path, small, context)
    outbox.start()
    Ticks(outbox).commit(*[f"192.0.2.{i}" for i in range(1, 13)])
    assert len(outbox.due(0, 100)) == 5
    assert context.metrics.value("outbox_deliveries_total", result="overflowed") == 7
    outbox.stop()


def test_every_table_stays_within_its_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in {
        "TRIM_EVERY_TICKS": 1, "DONE_KEPT": 10, "CHANGES_KEPT": 20, "CLEARED_KEPT": 5,
        "SENT_KEPT": 8,
    }.items():  # fmt: skip
        where = "outbox" if name == "TRIM_EVERY_TICKS" else "trim"
        monkeypatch.setattr(f"alerting.outbox.{where}.{name}", bound)
    outbox = opened(path)
    ticks = Ticks(outbox)
    for i in range(1, 200):
        ticks.commit(f"192.0.2.{i}")
        sent(outbox, outbox.due(0, 100))
    counts = {
        table: outbox._one(f"select count(*) from {table}")
        for table in ("done", "change", "alarm", "delivery")
    }
    assert counts["done"] <= 10
    assert counts["change"] <= 22  # rows of one time go together
    assert counts["alarm"] <= 5 + 4
    assert counts["delivery"] <= 8 + 2 * 2
    outbox.stop()


# ---- files of before


OWN_BODIES = 3  # the last version in which each table had its own


def of_version(path: Path, version: int) -> None:
    """Write a file as a Tocsin of that version left it: an alarm that is up, told to a, not yet to b."""
    filled(path.with_name("now"))
    now = opened(path.with_name("now"))
    (body, *_) = (str(d.body) for d in now.due(0, 10))
    (alarm, *_) = now.changes()
    now.stop()
    crc = zlib.crc32(body.encode())
    with contextlib.closing(sqlite3.connect(path)) as db:
        for migration in MIGRATIONS[:version]:
            db.executescript(migration)
        db.execute(f"pragma user_version = {version}")
        db.execute(
            "insert into alarm values (?,?,?,'raised','major',?,?,0,?,?)",
            (
                alarm["id"],
                alarm["kind"],
                alarm["entity"],
                alarm["raised_ns"],
                alarm["changed_ns"],
                body,
                crc,
            ),
        )
        for number, sink in ((7, "a"), (9, "b")):
            db.execute(
                "insert into delivery values (?,?,?,?,?,?,0,0,0,?,'')",
                (number, f"{alarm['change']}-{sink}", sink, alarm["id"], body, crc,
                 "sent" if sink == "a" else "waiting"),
            )  # fmt: skip
            if version > 1:
                db.execute("insert into told values (?,?,?)", (alarm["id"], sink, body))
        db.commit()


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_file_of_an_older_tocsin_is_brought_up(path: Path, version: int) -> None:
    of_version(path, min(version, OWN_BODIES))
    with contextlib.closing(connect(path)) as db:
        migrate(db, min(version, OWN_BODIES), version)
    outbox = opened(path, ALARMS)
    assert outbox.damaged == ""
    (alarm,) = outbox.alarms(active_only=True, limit=10)
    assert [change["id"] for change in outbox.changes()] == [alarm["id"]]
    (due,) = outbox.due(0, 10)
    assert (due.number, due.sink, json.loads(due.body)["id"]) == (9, "b", alarm["id"])
    assert [json.loads(body)["id"] for body in outbox.told("a")] == [alarm["id"]]
    with contextlib.closing(sqlite3.connect(path)) as db:
        check_bodies(db)
    # The key of what was told then is known: the same change is never made twice.
    assert outbox._db is not None
    with pytest.raises(sqlite3.IntegrityError):
        outbox._db.execute(
            "insert into delivery (key, changed_ns) values (?,?)", (due.key, alarm["changed_ns"])
        )
    outbox.stop()


def test_of_a_damaged_file_of_an_older_tocsin_what_is_whole_is_taken_over(path: Path) -> None:
    of_version(path, OWN_BODIES)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("update delivery set crc = crc + 1 where sink = 'b'")
        db.commit()
    outbox = opened(path, ALARMS)
    assert outbox.damaged
    assert len(outbox.alarms(active_only=True, limit=10)) == 1
    assert [row["sink"] for row in outbox.deliveries()] == ["a"]
    outbox.stop()


def test_a_body_is_there_once_and_goes_with_the_last_row_that_has_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, bound in {"CHANGES_KEPT": 20, "CLEARED_KEPT": 5, "SENT_KEPT": 8}.items():
        monkeypatch.setattr(f"alerting.outbox.trim.{name}", bound)
    monkeypatch.setattr("alerting.outbox.outbox.TRIM_EVERY_TICKS", 1)
    outbox = opened(path, ALARMS)
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.250")
    assert outbox._one("select count(*) from body") == 1  # change, alarm, two deliveries, two told
    standing = outbox.told("a")
    for i in range(1, 100):
        ticks.commit(f"192.0.2.{i}", "192.0.2.250")
        sent(outbox, outbox.due(0, 100))
    assert outbox.told("a")[:1] != []
    assert set(standing) <= set(outbox.told("a"))
    bodies = outbox._one("select count(*) from body")
    outbox.stop()
    again = opened(path, ALARMS)  # a start deletes what no row names: there is nothing of that
    assert again._one("select count(*) from body") == bodies <= 22 + 8 + 4 + 1
    again.stop()


# ---- damage


def filled(path: Path) -> int:
    """Commit two alarms; return the end of their tick."""
    outbox = opened(path)
    ticks = Ticks(outbox)
    ticks.commit("192.0.2.1", "192.0.2.2")
    outbox.stop()
    return ticks.world.now_ns


def test_a_damaged_file_is_set_aside_whole_and_named(path: Path) -> None:
    end_ns = filled(path)
    path.write_bytes(b"this is no database" * 500)
    outbox = opened(path)
    assert outbox.damaged == "node.sqlite.damaged-50"
    assert path.with_name(outbox.damaged).read_bytes().startswith(b"this is no database")
    assert "node.sqlite.damaged-50" in outbox.health()
    assert not outbox.is_done(end_ns)
    outbox.stop()


def test_a_flipped_bit_in_a_body_is_found_and_the_rest_is_taken_over(path: Path) -> None:
    end_ns = filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(
            "update body set text = replace(text, 'major', 'mayor') where number ="
            " (select body from change where number = body and text like '%192.0.2.1\"%')"
        )
        db.commit()
    outbox = opened(path)
    assert outbox.damaged
    assert outbox.is_done(end_ns)
    assert [a["entity"] for a in outbox.alarms(active_only=True, limit=10)] == ["192.0.2.2"]
    assert len(outbox.due(0, 10)) == 4  # two alarms to two sinks: their bodies are whole
    outbox.stop()


def test_a_torn_page_is_found(path: Path) -> None:
    filled(path)
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(bytes(data))
    outbox = opened(path)
    assert outbox.damaged
    outbox.stop()


@pytest.mark.parametrize("number", [VERSION + 1, 900])
def test_a_file_of_a_newer_tocsin_is_refused_and_left_alone(path: Path, number: int) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma user_version = {number}")
    before = path.read_bytes()
    with pytest.raises(
        ConfigError, match=f"has version {number}, this Tocsin knows {VERSION}; upgrade"
    ):
        opened(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="The node was not started"):
        opened(tmp_path / "file" / "node.sqlite")


def test_a_locked_file_is_one_sentence_and_left_alone(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        with pytest.raises(ConfigError, match="another Tocsin"):
            opened(path)
        other.rollback()
    assert not list(path.parent.glob("*.damaged*"))


def test_what_is_sent_of_replayed_ticks_is_the_same_bytes(tmp_path: Path) -> None:
    bodies: list[Any] = []
    for name in ("one", "two"):
        outbox = opened(tmp_path / name)
        ticks = Ticks(outbox)
        ticks.commit("192.0.2.1", now_ns=len(bodies))  # another host clock
        bodies.append([(d.key, d.body) for d in outbox.due(SECOND, 10)])
        outbox.stop()
    assert bodies[0] == bodies[1]


def test_a_full_disk_keeps_ticks_in_memory_and_commits_them_when_there_is_room(
    tmp_path: Path,
) -> None:
    world = AlarmWorld()
    outbox = Outbox(tmp_path / "node.sqlite", AlertingSettings(), make_context())
    outbox.start()
    series = [world.series("exporter", exporter=f"192.0.2.{i}") for i in range(1, 120)]
    assert outbox._db is not None
    pages = outbox._db.execute("pragma page_count").fetchone()[0]
    outbox._db.execute(f"pragma max_page_count = {pages}")
    ends, told = [], 0
    for first in range(0, 100, 20):
        alarms = [
            b
            for b in world.batches([world.silence(s) for s in series[first : first + 20]])
            if b.schema.name == "alarm"
        ]
        told += len(outbox.commit(world.now_ns, alarms, 0))
        ends.append(world.now_ns)
    assert "make room" in outbox.health()
    assert not outbox.is_done(ends[-1])
    outbox._db.execute("pragma max_page_count = 1000000")
    assert told < len(series) / 2, "told before it was committed"
    told += len(outbox.retry_ticks())
    assert all(outbox.is_done(end) for end in ends)
    assert outbox.health() == ""
    assert len(outbox.changes(limit=1_000)) == told >= 100
    outbox.stop()
