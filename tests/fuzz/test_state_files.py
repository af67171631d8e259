"""Each state file, damaged byte by byte: the start goes on, and what is damaged is set aside and named."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerting.outbox.file import VERSION_MAX
from alerting.outbox.tables import VERSION
from collectors.mapped.ingest import TakenChunks
from history.flow_spool import FlowSpool, read_spooled, spooled
from runtime.checkpoint import Checkpoints, read_array, write_array
from runtime.component import Context
from runtime.damaged import set_aside
from runtime.journal import BlockKind, Cursor, JournalReader
from runtime.journal_writer import JournalWriter
from runtime.kept_file import KeptFile
from telemetry.errors import ConfigError, DecodeError
from tests.unit.alerting.test_outbox import Ticks, filled, opened
from tests.unit.history.test_flows import flows
from tests.unit.runtime.test_journal import control
from tests.unit.tocsin.test_raw_ring import block, payloads
from tocsin.cases.trace import list_alerts
from tocsin.chain.raw_ring import RawRing, read_ring
from tocsin.testing import make_context
from tocsin.times import moment_of

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
REGIONS, REGIONS_DEEP = 12, 1_200  # of a file, besides each byte of its first 64
HEAD_BYTES = 64


def damaged(data: bytes, *, deep: bool, head_step: int = 1) -> Iterator[bytes]:
    """Yield a file with a byte flipped, and with a region zeroed, overwritten or cut off, one after the other."""
    random = np.random.default_rng(5)
    for at in range(0, min(HEAD_BYTES, len(data)), 1 if deep else head_step):
        yield data[:at] + bytes([data[at] ^ 1 << int(random.integers(8))]) + data[at + 1 :]
    step = max(len(data) // (REGIONS_DEEP if deep else REGIONS), 1)
    for at in range(0, len(data), step):
        size = len(data[at : at + step])
        for instead in (bytes(size), b"\xff" * size, random.bytes(size)):
            yield data[:at] + instead + data[at + size :]
        yield data[: at + 1]


def checkpoints(folder: Path, context: Context) -> Any:
    class Stage:
        def snapshot(self, out: Any) -> None:
            write_array(out, "values", np.arange(5_000))
            write_array(out, "empty", np.zeros(0, [("id", "u8"), ("level", "f4")]))

    kept = Checkpoints(folder, context)
    if not folder.exists():
        kept.save(1, 10, {"a": Stage()})
        kept.save(2, 20, {"a": Stage()})
    loaded = kept.load()
    assert loaded is not None, "the one before it is there"
    values = read_array(loaded[2].scoped("a"), "values")
    assert values is not None
    assert values.tolist() == list(range(5_000))
    return loaded[:2]


def kept_file(folder: Path, context: Context) -> Any:
    kept = KeptFile(folder / "contents.state", context)
    if not folder.exists():
        kept.save({"alarms": ["a", "b"], "sequence": 7})
    return kept.load()


def cursor(folder: Path, context: Context) -> Any:
    made = Cursor(folder, "history")
    if not folder.exists():
        made.commit(4_711)
    try:
        made.load()
    except DecodeError as error:
        set_aside(made.path, error, context, kind="cursor")
        assert made.next_sequence == 1
    return made.next_sequence


KEEPERS = [checkpoints, kept_file, cursor]


@pytest.mark.parametrize("use", KEEPERS, ids=lambda use: use.__name__)
def test_what_is_damaged_is_set_aside_and_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    deep: bool,
    use: Callable[[Path, Context], Any],
) -> None:
    whole = tmp_path / "whole"
    said = use(whole, make_context())
    name = max(path.name for path in whole.iterdir())
    found = 0
    for number, data in enumerate(damaged((whole / name).read_bytes(), deep=deep)):
        folder = tmp_path / f"{number}"
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(data)
        caplog.clear()
        again = use(folder, make_context())
        aside = [path for path in folder.iterdir() if ".damaged-" in path.name]
        if aside:
            found += 1
            assert aside[0].name in caplog.text
            assert (folder / aside[0].name).read_bytes() == data
        else:
            assert again == said, f"damage {number} passed for what was kept"
        shutil.rmtree(folder)
    assert found > 60


def test_a_list_of_what_was_taken_is_opened_whatever_its_file_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, deep: bool
) -> None:
    path = tmp_path / "taken.sqlite"
    chunks = TakenChunks(path, make_context(), most=1_000)
    for number in range(200):
        chunks.add(b"%d" % number, number)
    chunks.close()
    found = 0
    for number, data in enumerate(damaged(path.read_bytes(), deep=deep, head_step=3)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / path.name).write_bytes(data)
        caplog.clear()
        chunks = TakenChunks(folder / path.name, make_context(), most=1_000)
        chunks.add(b"new", 7)
        assert chunks.records(b"new") == 7
        chunks.close()
        aside = [one for one in folder.iterdir() if ".damaged-" in one.name]
        assert all(one.name in caplog.text for one in aside)
        found += bool(aside)
    assert found > 30


def test_an_outbox_starts_and_takes_alarms_whatever_its_file_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, deep: bool
) -> None:
    filled(tmp_path / "node.sqlite")
    whole = (tmp_path / "node.sqlite").read_bytes()
    found = 0
    for number, data in enumerate(damaged(whole, deep=deep, head_step=3)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        path = folder / "node.sqlite"
        path.write_bytes(data)
        caplog.clear()
        if VERSION < int.from_bytes(data[60:64]) <= VERSION_MAX:  # as a newer Tocsin's would be
            with pytest.raises(ConfigError, match="upgrade"):
                opened(path)
            assert path.read_bytes() == data
            continue
        outbox = opened(path)
        before = len(outbox.alarms(active_only=False, limit=10))
        ticks = Ticks(outbox)
        ticks.world.now_ns += 3_600 * 10**9
        ticks.commit("198.51.100.1")
        assert not outbox.trouble
        assert len(outbox.alarms(active_only=False, limit=10)) == before + 1
        assert outbox.due(1 << 62, 100)
        found += bool(outbox.damaged)
        assert outbox.damaged in caplog.text
        assert not outbox.damaged or path.with_name(outbox.damaged).read_bytes() == data
        outbox.stop()
        shutil.rmtree(folder)
    assert found > 30


def test_a_table_whose_words_are_no_text_any_more_is_damage(tmp_path: Path) -> None:
    """What SQLite says of it holds the bytes themselves, which are no UTF-8."""
    path = tmp_path / "node.sqlite"
    filled(path)
    data = bytearray(path.read_bytes())
    for at in [match.start() for match in re.finditer(b"(?i)create table", data)]:
        data[at + 13 : at + 15] = b"\xff\xff"
    path.write_bytes(data)
    outbox = opened(path)
    assert path.with_name(outbox.damaged).read_bytes() == data
    outbox.stop()
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be read"):
        list_alerts(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        moment_of("0123456789abcdef", tmp_path, now_ns=0)


def test_a_journal_goes_on_and_gives_back_only_what_was_written(tmp_path: Path, deep: bool) -> None:
    folder = tmp_path / "whole"
    journal = JournalWriter(folder, make_context(), segment_seconds=4.0)
    journal.start()
    for tick in range(1, 7):
        journal.append(BlockKind.TICK, tick * 10**9, [control(tick)], sync=False)
    journal.stop()
    for damaged_file in sorted(folder.iterdir()):
        for number, data in enumerate(damaged(damaged_file.read_bytes(), deep=deep)):
            here = tmp_path / f"{damaged_file.name}-{number}"
            shutil.copytree(folder, here)
            (here / damaged_file.name).write_bytes(data)
            again = JournalWriter(here, make_context())
            again.start()
            again.go_on_from(7)  # what a checkpoint or a cursor has seen
            again.append(BlockKind.TICK, 20 * 10**9, [control(20)], sync=False)
            again.stop()
            reader, ticks = JournalReader(here), []
            while True:
                try:
                    for one in reader.read():
                        assert one.batches[0]["tick_start_ns"][0] * 10**9 == one.tick_end_ns
                        ticks.append(one.tick_end_ns // 10**9)
                    break
                except DecodeError:
                    reader.skip()
            assert ticks == sorted(set(ticks))
            assert ticks[-1] == 20
            assert len(ticks) + reader.gap_blocks >= 7
            shutil.rmtree(here)


def test_a_ring_gives_back_whole_datagrams_or_none(tmp_path: Path, deep: bool) -> None:
    ring = RawRing(tmp_path, make_context(), budget_bytes=1 << 22)
    ring.start()
    for turn in range(3):
        ring.write("flow", block(turn * 10, b"one", b"", b"three" * 40))
    ring.stop()
    (path,) = tmp_path.iterdir()
    for data in damaged(path.read_bytes(), deep=deep):
        path.write_bytes(data)
        for _, found in read_ring(tmp_path, since_ns=-(1 << 63), until_ns=(1 << 63) - 1):
            assert found.length.min() >= 0
            assert int((found.offset + found.length).max()) <= found.payload.size
            payloads(found)
        again = RawRing(tmp_path, make_context(), budget_bytes=1 << 22)
        again.start()
        again.stop()


def test_raw_flows_are_read_or_refused(tmp_path: Path, deep: bool) -> None:
    spool = FlowSpool(tmp_path, make_context(), rows_per_second_max=10**6, waiting_bytes_max=10**9)
    spool.start()
    spool.write(flows(50))
    spool.stop()
    (path,) = spooled(tmp_path)
    whole = path.read_bytes()
    (said,) = read_spooled(path)
    for data in damaged(whole, deep=deep):
        path.write_bytes(data)
        if data == whole:
            continue
        with pytest.raises(DecodeError):
            list(read_spooled(path))
    assert said.rows == 50
