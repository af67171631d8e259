"""The journal: order, torn tails, damaged middles, full disks, cursors, trimming."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from runtime.journal import (
    BlockKind,
    Cursor,
    JournalReader,
    Sheet,
    segments,
)
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import DecodeError
from telemetry.schemas import CONTROL
from tests.support.failing_disk import FailingDisk
from tocsin.testing import make_context


def control(number: int) -> Batch:
    return batch_from_rows(CONTROL, [{"tick_start_ns": number, "kind": "gap", "payload": "{}"}])


def writer(folder: Path, **limits: float) -> JournalWriter:
    made = JournalWriter(folder, make_context("journal"), **limits)  # type: ignore[arg-type]
    made.start()
    return made


def fill(folder: Path, blocks: int, **limits: float) -> JournalWriter:
    made = writer(folder, **limits)
    for number in range(1, blocks + 1):
        made.append(BlockKind.TICK, number * 10**9, [control(number)], sync=True)
    return made


def sequences(folder: Path, start: int = 1) -> list[int]:
    return [block.sequence for block in JournalReader(folder, next_sequence=start).read()]


def test_blocks_come_back_in_order_with_their_batches(tmp_path: Path) -> None:
    fill(tmp_path, 3).stop()
    blocks = list(JournalReader(tmp_path).read())
    assert [block.sequence for block in blocks] == [1, 2, 3]
    assert [block.batches[0]["tick_start_ns"][0] for block in blocks] == [1, 2, 3]
    assert blocks[0].kind is BlockKind.TICK


def test_a_restart_goes_on_with_the_next_number(tmp_path: Path) -> None:
    fill(tmp_path, 3).stop()
    again = writer(tmp_path)
    assert again.append(BlockKind.RESULT, 4 * 10**9, [control(4)], sync=False) == 4
    again.stop()
    assert sequences(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("cut", [1, 31, 33, 200], ids=lambda cut: f"{cut}-bytes-missing")
def test_a_torn_tail_is_set_aside_and_said(tmp_path: Path, cut: int) -> None:
    fill(tmp_path, 3).stop()
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size - cut)
    context = make_context("journal")
    again = JournalWriter(tmp_path, context)
    again.start()
    assert again.append(BlockKind.TICK, 9, [control(9)], sync=True) == 3
    assert context.metrics.value("journal_dropped_total", reason="damaged_tail") == 1
    assert list(tmp_path.glob("*.damaged-3"))
    assert sequences(tmp_path) == [1, 2, 3]


def test_an_empty_segment_left_by_a_crash_keeps_the_numbering_and_the_time(tmp_path: Path) -> None:
    fill(tmp_path, 3).stop()
    (tmp_path / f"{4:016d}.arrows").write_bytes(b"")
    again = writer(tmp_path)
    assert (again.next_sequence, again.newest_tick_ns) == (4, 3 * 10**9)


def test_damage_in_the_middle_is_told_and_can_be_skipped(tmp_path: Path) -> None:
    fill(tmp_path, 6, segment_seconds=2.5).stop()
    first, *later = segments(tmp_path)
    data = bytearray(first.read_bytes())
    data[60] ^= 0xFF
    first.write_bytes(data)
    reader = JournalReader(tmp_path)
    with pytest.raises(DecodeError, match="is damaged at byte 16"):
        list(reader.read())
    reader.skip()
    assert [block.sequence for block in reader.read()] == list(range(int(later[0].stem), 7))
    assert reader.gap_blocks == int(later[0].stem) - 1


def test_a_reader_follows_the_writer_over_segments(tmp_path: Path) -> None:
    journal = writer(tmp_path, segment_seconds=1.5)
    reader = JournalReader(tmp_path)
    seen: list[int] = []
    for number in range(1, 8):
        journal.append(BlockKind.TICK, number * 10**9, [control(number)], sync=False)
        seen += [block.sequence for block in reader.read()]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert len(segments(tmp_path)) > 2


def test_what_was_appended_just_before_the_next_file_was_begun_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = fill(tmp_path, 3, segment_seconds=9.0)
    reader = JournalReader(tmp_path)
    assert len(list(reader.read())) == 3

    def meanwhile(folder: Path) -> list[Path]:  # the reader saw the end, and lists the folder now
        monkeypatch.undo()
        journal.append(BlockKind.TICK, 8 * 10**9, [control(8)], sync=True)
        journal.append(BlockKind.TICK, 20 * 10**9, [control(20)], sync=True)
        return segments(folder)

    monkeypatch.setattr("runtime.journal.segments", meanwhile)
    assert [block.sequence for block in reader.read()] == [4, 5]
    assert len(segments(tmp_path)) == 2
    journal.stop()


def test_a_file_that_is_trimmed_as_it_is_left_is_a_gap_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 6, segment_seconds=2.5).stop()
    first, second, *_ = segments(tmp_path)
    reader = JournalReader(tmp_path)
    assert len(list(reader.read(limit=1))) == 1
    second_begins = int(second.stem)
    os.truncate(first, reader._offset)  # nothing behind the first block

    def meanwhile(folder: Path) -> list[Path]:
        monkeypatch.undo()
        found = segments(folder)
        first.unlink()
        return found

    monkeypatch.setattr("runtime.journal.segments", meanwhile)
    assert [block.sequence for block in reader.read()] == list(range(second_begins, 7))
    assert reader.gap_blocks == second_begins - 2


@pytest.mark.parametrize("newest", [True, False])
def test_a_block_that_holds_no_batches_of_ours_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest: bool
) -> None:
    journal = fill(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr("runtime.journal.wire.write", lambda _, out: out.write(b"no batch"))
        journal.append(BlockKind.TICK, 2, [control(2)], sync=True)
    journal.append(BlockKind.TICK, 3, [control(3)], sync=True)
    if not newest:
        journal.append(BlockKind.TICK, 10**15, [control(4)], sync=True)
    journal.stop()
    reader = JournalReader(tmp_path)
    with pytest.raises(DecodeError, match="corrupt"):
        list(reader.read())
    reader.skip()
    assert [block.sequence for block in reader.read()] == ([3] if newest else [3, 4])
    assert reader.gap_blocks == 1


def test_a_full_disk_keeps_blocks_and_writes_them_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = fill(tmp_path, 1)
    real = os.pwrite

    def full(fd: int, data: bytes, at: int) -> int:
        real(fd, data[:7], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    journal.append(BlockKind.TICK, 2, [control(2)], sync=True)
    assert "No space left on device; 1 blocks wait in memory" in journal.health()
    assert sequences(tmp_path) == [1]
    monkeypatch.setattr(os, "pwrite", real)
    journal.append(BlockKind.TICK, 3, [control(3)], sync=True)
    assert journal.health() == ""
    assert sequences(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("behind", [False, True])
def test_what_a_failed_sync_was_for_is_written_again_to_another_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    journal, disk = fill(tmp_path, 2), FailingDisk(monkeypatch)
    (first,) = segments(tmp_path)
    before = first.stat().st_size
    disk.refusals = 2  # the retry fails as well
    journal.append(BlockKind.TICK, 3, [control(3)], sync=True, behind=behind)
    journal.settle()
    if not behind:
        assert (journal.on_disk, "Input/output error" in journal.health()) == (2, True)
    journal.retry()
    journal.retry()
    assert (journal.on_disk, journal.health()) == (3, "")
    assert first.stat().st_size == before, "the place that failed is trusted"
    assert sequences(tmp_path) == [1, 2, 3]
    newest = segments(tmp_path)[-1]
    assert newest.name == f"{3:016d}.arrows"
    assert disk.on_disk[newest] == newest.read_bytes()


def test_a_sync_that_succeeds_after_one_that_failed_proves_nothing_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, disk = fill(tmp_path, 1), FailingDisk(monkeypatch)
    disk.refusals = 1
    journal.append(BlockKind.TICK, 2, [control(2)], sync=True)
    assert journal.on_disk == 1
    journal.append(BlockKind.TICK, 3, [control(3)], sync=True)
    assert journal.on_disk == 3
    assert journal.health() == ""
    # Had the kernel dropped what the first sync was for, both blocks would be there all the same.
    after = tmp_path / "after"
    after.mkdir()
    for path, data in disk.on_disk.items():
        (after / path.name).write_bytes(data)
    assert sequences(after, 2) == [2, 3]


def test_results_without_a_sync_of_their_own_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, disk = fill(tmp_path, 1), FailingDisk(monkeypatch)
    journal.append(BlockKind.RESULT, 1, [control(1)], sync=False)
    assert journal.on_disk == 1
    disk.refusals = 1
    journal.append(BlockKind.TICK, 2, [control(2)], sync=True, behind=True)
    journal._disk.submit(int).result()  # it was written, and its sync failed
    reader = JournalReader(tmp_path)
    assert [block.sequence for block in reader.read()] == [1, 2, 3]
    journal.settle()  # and again, in a segment of its own, where the reader goes on
    assert journal.on_disk == 3
    journal.append(BlockKind.RESULT, 2, [control(2)], sync=False)
    assert [block.sequence for block in reader.read()] == [4]
    assert sequences(tmp_path) == [1, 2, 3, 4]


def test_a_journal_that_holds_all_it_may_says_so_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.journal_writer.WAITING_BYTES_MAX", 2_000)
    journal, disk = fill(tmp_path, 1), FailingDisk(monkeypatch)
    disk.refusals = 1_000
    last = 1
    while not journal.full:
        last += 1
        journal.append(BlockKind.TICK, last, [control(last)], sync=True)
    assert 3 <= last <= 20
    disk.refusals = 0
    journal.retry()
    assert (journal.full, journal.on_disk) == (False, last)
    assert sequences(tmp_path) == list(range(1, last + 1))


def test_within_the_budget_everything_stays(tmp_path: Path) -> None:
    journal = fill(tmp_path, 6, segment_seconds=1.5)
    files = segments(tmp_path)
    journal.trim([], keep_sequence=6)
    assert segments(tmp_path) == files


def test_what_everybody_passed_goes_without_a_word(tmp_path: Path) -> None:
    context = make_context("journal")
    journal = JournalWriter(tmp_path, context, segment_seconds=1.5, budget_bytes=1500)
    journal.start()
    for number in range(1, 7):
        journal.append(BlockKind.TICK, number * 10**9, [control(number)], sync=False)
    cursor = Cursor(tmp_path / "cursors", "history")
    cursor.commit(7)
    before = len(segments(tmp_path))
    journal.trim([cursor], keep_sequence=7)
    assert len(segments(tmp_path)) < before
    assert context.metrics.value("journal_dropped_total") == 0


def test_beyond_the_budget_the_oldest_goes_and_is_counted(tmp_path: Path) -> None:
    context = make_context("journal")
    journal = JournalWriter(tmp_path, context, segment_seconds=1.5, budget_bytes=1500)
    journal.start()
    for number in range(1, 7):
        journal.append(BlockKind.TICK, number * 10**9, [control(number)], sync=False)
    before = len(segments(tmp_path))
    journal.trim([Cursor(tmp_path / "c", "slow")], keep_sequence=1)
    dropped = context.metrics.value("journal_dropped_total", reason="segment_over_budget")
    assert dropped == before - len(segments(tmp_path)) > 0
    reader = JournalReader(tmp_path)
    assert next(iter(reader.read())).sequence == reader.gap_blocks + 1


def test_a_cursor_survives(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path, "history")
    cursor.commit(41)
    again = Cursor(tmp_path, "history")
    again.load()
    assert again.next_sequence == 41


@pytest.mark.parametrize(
    "damage", [b'{"next_sequence": 42, "crc32": 1}', b"\xff\xfe\x00{", b"[" * 9_000, b"", b"[]"]
)
def test_a_damaged_cursor_is_told_and_reading_begins_at_the_beginning(
    tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / "history").write_bytes(damage)
    cursor = Cursor(tmp_path, "history")
    with pytest.raises(DecodeError, match="history"):
        cursor.load()
    assert cursor.next_sequence == 1
    assert (tmp_path / "history").exists(), "who asks where another reader stands moves nothing"


def test_a_sheet_grows_is_used_again_and_keeps_no_large_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.journal.SHEET_BYTES", 8)
    monkeypatch.setattr("runtime.journal.SHEET_BYTES_MAX", 100)
    sheet = Sheet()
    for size, kept in ((6, 8), (20, 20), (40, 40), (3, 40), (300, 300), (3, 8)):
        sheet.clear()
        data = bytes(range(size % 256)) + bytes(size - size % 256)
        assert sheet.write(data[:5]) + sheet.write(np.frombuffer(data, np.uint8)[5:]) == size
        assert (sheet.view(), len(sheet._data)) == (data, max(kept, size))
