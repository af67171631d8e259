"""Nothing leaves the node for a tick that is not on disk: no result, no alert, no answer."""

import json
import logging
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.outbox.outbox import Outbox
from alerting.words.delivery import Delivery
from runtime.bus import Later, Publisher
from runtime.checkpoint import Snapshot
from runtime.clock import ManualClock
from runtime.journal import FILE_HEADER, Block, BlockKind, JournalReader, pack, write_segment
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import TransientError
from telemetry.foreign_alarm import alarm_row
from telemetry.schemas import ALARM, ANOMALY, INCIDENT
from tests.support.failing_disk import FailingDisk
from tocsin import verbs
from tocsin.chain.ticks import Outcome, Promise, Tick
from tocsin.control import control_row
from tocsin.node.commits import Commits, journalled
from tocsin.node.offers import Offers
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

SECOND = 1_000_000_000
SETTINGS = AlertingSettings(sinks={"a": SinkSettings(kind="stdout", send="alarms")})


class Said(Later):
    """An answer under way, and what was said."""

    def __init__(self, later: Later) -> None:
        self.words: list[str] = []
        later.bind(lambda status, body: self.words.append(status.decode()))


class End:
    """The node's way out: journal, outbox, publisher on a disk that can fail."""

    def __init__(self, folder: Path, disk: FailingDisk) -> None:
        self.folder, self.disk = folder, disk
        self.journal = JournalWriter(folder / "journal", make_context("journal"))
        self.journal.start()
        self.outbox = Outbox(folder / "node.sqlite", SETTINGS, make_context("outbox"))
        self.outbox.start()
        self.publisher = Publisher(f"ipc://{folder}/pub")
        self.publisher.start()
        self.commits = Commits(self.journal, self.outbox, self.publisher, ManualClock())
        self.world = AlarmWorld()
        self.answered: list[int] = []
        self.raised = 0  # alarm changes
        self.given: list[Batch] = []
        self.promises: list[Promise] = []
        self.offers = Offers(self.give, trouble=self.journal.health)

    def give(self, batches: list[Batch], *promises: Promise) -> None:
        self.given += batches
        self.promises += promises

    def tick(self) -> int:
        """Close a tick in which another exporter is silent, with what was given; return its end."""
        number = self.world.now_ns // (5 * SECOND) % 200 + 1
        series = self.world.series("exporter", exporter=f"192.0.2.{number}")
        batches = self.world.batches([self.world.silence(series)])
        end_ns = self.world.now_ns
        promises = [*self.promises, lambda: self.answered.append(end_ns)]
        outcome = Outcome(end_ns, promises, alarms=[b for b in batches if b.schema.name == "alarm"])
        self.raised += sum(batch.rows for batch in outcome.alarms)
        self.commits.journal(
            Tick(end_ns, (control_row("gap", end_ns, {"number": number}), *self.given))
        )
        self.given, self.promises = [], []
        self.commits.take(outcome)
        self.commits.rest()  # as a node does that has nothing else to do
        return end_ns

    def kept(self, kind: BlockKind) -> list[int]:
        """The ends of the ticks of which the journal has a block of a kind."""
        blocks = JournalReader(self.folder / "journal").read()
        return [block.tick_end_ns for block in blocks if block.kind is kind]

    def told(self) -> int:
        """How many alerts were published, once there was nothing else to do."""
        self.commits.rest()
        return self.publisher._sequence.get("alerts", 0)

    def offer(self, token: str) -> Said | str:
        """Offer an alarm; return the answer under way, "ok", or why it was refused at once."""
        row = alarm_row(source="s", kind="k", entity="e", severity="major", changed_ns=1, title="t")
        asked = verbs.Offered(source="s", token=token, data=pack([batch_from_rows(ALARM, [row])]))
        try:
            later = self.offers.take(asked)
        except ValueError as error:
            return str(error)
        return Said(later) if isinstance(later, Later) else "ok"

    def journalled_offers(self) -> list[str]:
        blocks = JournalReader(self.folder / "journal").read()
        return [
            json.loads(payload)["token"]
            for block in blocks
            for batch in block.batches
            if batch.schema.name == "control"
            for kind, payload in zip(batch.texts("kind"), batch.texts("payload"), strict=True)
            if kind == "offer"
        ]


@pytest.fixture
def end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[End]:
    made = End(tmp_path, FailingDisk(monkeypatch))
    yield made
    made.disk.refusals = 0
    made.journal.stop()
    made.outbox.stop()
    made.publisher.stop()


def test_what_came_of_a_tick_leaves_when_the_tick_is_on_disk(end: End) -> None:
    tick = end.tick()
    assert end.answered == end.kept(BlockKind.RESULT) == [tick]
    assert end.outbox.is_done(tick)
    assert end.told() == 1
    assert end.commits.on_disk_ns(tick + 7) == tick + 7


def test_incidents_that_no_sink_waits_for_are_told_and_journalled_behind_the_alarms(
    end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, end_ns = end.world, end.world.now_ns + 5 * SECOND
    advance = world.stage.incidents.advance
    moved: list[int] = []

    def counted(now_ns: int) -> Iterator[list[dict[str, Any]]]:
        moved.append(now_ns)
        yield from advance(now_ns)

    monkeypatch.setattr(world.stage.incidents, "advance", counted)
    silent = world.silence(world.series("exporter", exporter="192.0.2.1"))
    world.stage.process(batch_from_rows(ANOMALY, [silent]))
    end.commits.journal(Tick(end_ns, (control_row("gap", end_ns, {"number": 1}),)))
    world.stage.judge(end_ns)
    outcome = Outcome(end_ns)
    outcome.follow(world.stage.alarms(), world.stage.tell())
    end.commits.take(outcome)
    assert end.outbox.is_done(end_ns)
    assert moved == []
    outcome.complete()
    assert list(world.stage.tell()) == []
    assert moved == [end_ns], "incidents move on once in a tick"
    end.commits.rest()
    assert end.publisher._sequence == {"due": 1, "alerts": 1, "incidents": 1}
    result = [b for b in JournalReader(end.folder / "journal").read() if b.kind is BlockKind.RESULT]
    assert [batch.schema.name for one in result for batch in one.batches] == ["alarm", "incident"]


def test_the_gate_is_woken_for_what_is_new_and_not_for_what_a_start_takes_back(end: End) -> None:
    tick = end.tick()
    end.commits.rest()
    (result,) = [
        b for b in JournalReader(end.folder / "journal").read() if b.kind is BlockKind.RESULT
    ]
    again = Outcome(tick, alarms=list(result.batches))
    end.commits.keep(again, is_done=True, has_result=True)
    end.commits.rest()
    assert end.publisher._sequence == {"due": 1, "alerts": 1}
    assert end.kept(BlockKind.RESULT) == [tick]
    end.commits.keep(again, is_done=True)  # a power cut took the result
    end.commits.rest()
    assert end.publisher._sequence == {"due": 1, "alerts": 1}
    assert end.kept(BlockKind.RESULT) == [tick, tick]


def test_a_result_is_in_the_journal_before_the_next_tick_though_the_node_never_rests(
    end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as busy:
        busy.setattr(end.commits, "rest", lambda: None)
        first = end.tick()
        assert end.kept(BlockKind.RESULT) == []
    second = end.tick()
    blocks = [(b.kind, b.tick_end_ns) for b in JournalReader(end.folder / "journal").read()]
    assert blocks == [
        (kind, tick)
        for tick in (first, second)
        for kind in (BlockKind.TICK, BlockKind.TOLD, BlockKind.RESULT)
    ]


def test_the_gate_has_what_is_told_once_the_journal_has_and_a_kill_there_loses_nothing(
    end: End,
) -> None:
    shown: list[Delivery] = []

    class Killed(BaseException):
        """Nothing catches it."""

    def on_due() -> None:
        shown.extend(end.outbox.due(0, 10))
        (segment,) = end.disk.on_disk.values()
        assert segment[:16] == FILE_HEADER
        assert segment.count(b"TBLK") == len(end.kept(BlockKind.TICK)) * 2
        raise Killed

    end.commits.on_due = on_due
    with pytest.raises(Killed):
        end.tick()
    assert len(shown) == end.raised == 1
    assert end.outbox.due(0, 10) == []
    end.commits.on_due = lambda: None
    ((tick, has_result, told),) = journalled(
        end.folder / "journal", 1, logging.getLogger("test"), before=end.journal.next_sequence
    )
    assert not has_result
    assert [batch.schema.name for batch in told] == ["alarm"]
    # A newer Tocsin would find another alarm in that tick: what people were told counts.
    world = AlarmWorld()
    other = world.batches([world.silence(world.series("exporter", exporter="203.0.113.9"))])
    again = Outcome(tick.tick_end_ns, alarms=[b for b in other if b.schema.name == "alarm"])
    end.commits.keep(again, told=told, is_done=end.outbox.is_done(tick.tick_end_ns))
    assert [(d.number, d.key, d.body) for d in end.outbox.due(0, 10)] == [
        (d.number, d.key, d.body) for d in shown
    ]


def test_of_a_tick_that_was_told_in_part_the_rest_is_as_it_comes_today(end: End) -> None:
    def row(number: int, title: str) -> dict[str, Any]:
        return {
            "incident_id": number,
            "title": title,
            "state": "raised",
            "explain": "{}",
            "symptoms": "[]",
        }

    told = batch_from_rows(INCIDENT, [row(1, "as told"), row(2, "as told")])
    today = [batch_from_rows(INCIDENT, [row(n, "today") for n in part]) for part in ((1, 3), (2,))]
    alarms = [batch_from_rows(ALARM, [{"state": "raised", "severity": "major", "explain": "{}"}])]
    again = Outcome(7)
    again.follow(iter(alarms), iter(today))
    end.commits.keep(again, told=[told])
    assert again.alarms == alarms
    texts = [
        (n, t)
        for b in again.incidents
        for n, t in zip(b["incident_id"], b.texts("title"), strict=True)
    ]
    assert texts == [(1, "as told"), (2, "as told"), (3, "today")]


def test_what_the_journal_does_not_get_leaves_after_the_commit(end: End) -> None:
    shown: list[bool] = []
    end.commits.on_due = lambda: shown.append(end.outbox._shown.going)
    first = end.tick()
    assert shown == [True, False], "in the middle of the commit, and once more behind it"
    keep = end.commits._keep

    def refused(*given: Any, **named: Any) -> None:
        end.disk.refusals = 1_000
        keep(*given, **named)

    end.commits._keep = refused  # type: ignore[method-assign]
    second = end.tick()
    assert shown == [True, False, False], "answered before what the gate gets was anywhere"
    assert end.outbox.is_done(second)
    assert len(end.outbox.due(0, 10)) == 2
    assert end.kept(BlockKind.TOLD) == [first]
    end.disk.refusals = 0
    end.commits.retry()
    end.commits.rest()
    assert end.kept(BlockKind.TOLD) == end.kept(BlockKind.RESULT) == [first, second]


def test_without_sinks_nothing_is_told_first(tmp_path: Path, end: End) -> None:
    end.outbox._settings = AlertingSettings()
    end.tick()
    assert end.kept(BlockKind.TOLD) == []
    assert end.kept(BlockKind.RESULT) != []


def test_while_the_disk_refuses_nothing_is_told_and_then_all_of_it_in_order(end: End) -> None:
    first, told = end.tick(), end.told()
    end.disk.refusals = 1_000
    later = [end.tick() for _ in range(3)]
    assert end.answered == [first]
    assert end.told() == told < end.raised
    assert not any(end.outbox.is_done(tick) for tick in later)
    assert end.kept(BlockKind.RESULT) == [first]
    assert end.commits.on_disk_ns(later[-1]) == later[0] - 1
    assert "Input/output error" in end.commits.trouble
    end.disk.refusals = 0
    end.commits.retry()
    end.commits.rest()
    assert end.answered == [first, *later] == end.kept(BlockKind.TICK) == end.kept(BlockKind.RESULT)
    assert all(end.outbox.is_done(tick) for tick in later)
    assert end.told() == end.raised
    assert end.commits.trouble == ""
    assert end.commits.on_disk_ns(later[-1]) == later[-1]


def test_an_outbox_that_cannot_be_written_tells_nobody_before_it_can(end: End) -> None:
    db = end.outbox._db
    assert db is not None
    db.execute(f"pragma max_page_count = {db.execute('pragma page_count').fetchone()[0]}")
    while not end.outbox.trouble:
        end.tick()
    told = end.told()
    assert len(end.outbox.changes(limit=1_000)) == told
    end.tick()
    assert end.told() == told < end.raised
    assert end.kept(BlockKind.TICK) == end.answered, "the journal goes on"
    db.execute("pragma max_page_count = 100000")
    end.commits.retry()
    assert end.told() == len(end.outbox.changes(limit=1_000)) == end.raised


def test_an_offer_the_disk_refused_counts_once_when_it_is_repeated(end: End) -> None:
    before = end.offer("1")
    end.tick()
    assert isinstance(before, Said)
    assert before.words == ["ok"]
    said = end.offer("2")
    assert isinstance(said, Said)
    end.disk.refusals = 1_000
    end.tick()
    assert said.words == []
    end.offers.refuse(end.journal.health())
    assert said.words == ["error"]
    assert "Input/output error" in str(end.offer("2")), "taken while it cannot be kept"
    assert "Input/output error" in str(end.offer("1"))
    kept = Snapshot()
    end.offers.snapshot(kept)
    restarted = Offers(end.give, trouble=lambda: "")
    restarted.restore(kept)
    assert [*restarted._tokens] == [("s", "1")], "what is not on disk is known"
    end.disk.refusals = 0
    end.commits.retry()
    assert (end.offer("2"), end.offer("1")) == ("ok", "ok")
    assert said.words == ["error"], "answered twice"
    end.tick()
    assert end.journalled_offers() == ["1", "2"]


def test_an_offer_repeated_as_soon_as_the_disk_is_well_joins_the_first(end: End) -> None:
    said = end.offer("1")
    again = end.offer("1")
    end.disk.refusals = 2  # once in the tick, once more in a segment of its own
    end.tick()
    assert isinstance(said, Said)
    assert isinstance(again, Said)
    assert said.words == again.words == []
    end.commits.retry()
    assert said.words == again.words == ["ok"]
    assert end.offer("1") == "ok"
    assert end.journalled_offers() == ["1"]


def test_a_start_makes_no_more_while_what_waits_for_the_disk_fills_memory(
    end: End, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("test")
    monkeypatch.setattr("runtime.journal_writer.WAITING_BYTES_MAX", 2_000)
    end.commits.make_room(lambda: False, log)
    assert not caplog.records
    end.disk.refusals = 1_000
    ticks = [end.tick() for _ in range(3)]
    assert end.commits.full
    with pytest.raises(TransientError, match="ended before it was ready"):
        end.commits.make_room(lambda: False, log)

    def mended() -> bool:
        end.disk.refusals = 0
        return True

    end.commits.make_room(mended, log)
    assert not end.commits.full
    assert end.answered == ticks
    said = {record.levelname for record in caplog.records}
    assert said - {"INFO"} == {"ERROR"}, "that it writes again is told to who asks for it"


def test_what_is_appended_while_a_journal_is_taken_back_is_not_read_again(end: End) -> None:
    ticks = [end.tick() for _ in range(3)]
    found = []
    for tick, has_result, _ in journalled(
        end.folder / "journal", 1, logging.getLogger("test"), before=end.journal.next_sequence
    ):
        found.append((tick.tick_end_ns, has_result))
        end.tick()
    assert found == [(tick, True) for tick in ticks]


def test_a_journal_is_taken_back_tick_by_tick_and_a_tick_that_cannot_be_read_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two gigabytes of it must not lie in memory, and one bad tick must not end the node."""

    def block(sequence: int, kind: BlockKind, size: int = 1_000_000) -> Block:
        return Block(sequence, kind, sequence // 2, (control_row("gap", 0, {"x": "y" * size}),))

    kinds = (BlockKind.TICK, BlockKind.RESULT)
    blocks = [block(n, kinds[n % 2], 10 if n % 2 else 1_000_000) for n in range(2, 42)]
    write_segment(tmp_path, blocks[:20])
    write_segment(tmp_path, blocks[20:-1])  # the last tick was not scored
    segment = max(tmp_path.iterdir())
    data = bytearray(segment.read_bytes())
    at = data.index(b"TBLK", 100)  # the payload of a tick that a newer Tocsin wrote
    at = data.index(b"TBLK", at + 4)
    size = int.from_bytes(data[at + 12 : at + 16], "little")
    payload = b"\xff" * size
    crc = zlib.crc32(data[at + 4 : at + 5] + data[at + 12 : at + 32] + payload)
    data[at + 8 : at + 12] = crc.to_bytes(4, "little")
    data[at + 32 : at + 32 + size] = payload
    segment.write_bytes(data)
    tracemalloc.start()
    found = []
    for tick, has_result, _ in journalled(tmp_path, 2, logging.getLogger("test"), before=41):
        found.append((tick.tick_end_ns, has_result))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(n, n != 20) for n in range(1, 21) if n != 12]
    assert peak < 10_000_000
    assert len(caplog.records) == 1
