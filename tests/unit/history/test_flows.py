"""Raw flow records: thinned by conversation, bounded on their way, in the table once."""

import errno
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from history.chdb_store import ChdbStore
from history.config import HistorySettings
from history.flow_loader import FlowLoader
from history.flow_spool import ROWS_PER_FILE, FlowSpool, read_spooled, spooled
from history.retention import Retention
from history.store import Connection, migrate
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import TransientError
from telemetry.identity import address_pair
from telemetry.schemas import FLOW
from tocsin.testing import make_context

SECOND = 10**9
START_NS = 1_795_478_400 * SECOND


def flows(rows: int, *, at_ns: int = START_NS, seed: int = 1) -> Batch:
    """Return records of random conversations, every second one the way back of the one before."""
    random = np.random.default_rng(seed)
    columns: dict[str, np.ndarray[Any, Any]] = {
        field.name: np.zeros(rows, field.dtype) for field in FLOW.fields
    }
    columns["arrival_ns"][:] = at_ns
    columns["source_address_low"][:] = 0xFFFF_0A000000 + random.integers(0, 1 << 24, rows)
    columns["destination_address_low"][:] = 0xFFFF_0B000000 + random.integers(0, 1 << 24, rows)
    columns["source_port"][:] = random.integers(1024, 65535, rows)
    columns["destination_port"][:] = 443
    columns["protocol"][:] = 6
    for name in ("address_low", "port"):
        for one, two in (("source", "destination"), ("destination", "source")):
            columns[f"{one}_{name}"][1::2] = columns[f"{two}_{name}"][0 : rows - 1 : 2]
    columns["octets"][:] = random.integers(40, 1500, rows)
    high, low = address_pair("192.0.2.1")
    columns["exporter_address_high"][:], columns["exporter_address_low"][:] = high, low
    return Batch(FLOW, columns, source="test")


def spool(folder: Path, context: Context, *, rate: int = 10**6, room: int = 10**9) -> FlowSpool:
    made = FlowSpool(folder, context, rows_per_second_max=rate, waiting_bytes_max=room)
    made.start()
    return made


def ends(batch: Batch) -> set[tuple[int, ...]]:
    """Return the conversations of a batch, without direction."""
    return {
        tuple(sorted(pair))
        for pair in zip(
            batch["source_address_low"].tolist(),
            batch["destination_address_low"].tolist(),
            strict=True,
        )
    }


def test_the_rate_is_kept_by_leaving_out_whole_conversations(tmp_path: Path) -> None:
    context = make_context("spool")
    made = spool(tmp_path, context, rate=2_000)
    for second in range(6):
        made.write(flows(10_000, at_ns=START_NS + second * SECOND, seed=second))
    made.stop()
    batches = [b for path in spooled(tmp_path) for b in read_spooled(path)]
    whole, *thinned = batches
    assert whole.rows == 10_000  # the first second is not known yet
    assert float(whole["kept_share"][0]) == 1.0
    for batch in thinned:
        assert 1_800 < batch.rows < 2_200
        assert float(batch["kept_share"][0]) == pytest.approx(0.2)
        assert len(ends(batch)) == batch.rows / 2, "each way there has its way back"
    kept = sum(batch.rows for batch in batches)
    assert context.metrics.value("flow_spool_rows_total", result="kept") == kept
    assert context.metrics.value("flow_spool_rows_total", result="thinned") == 60_000 - kept


def test_a_desk_that_is_away_costs_the_oldest_files_and_they_are_counted(tmp_path: Path) -> None:
    context = make_context("spool")
    made = spool(tmp_path, context, room=2_000_000)
    for second in range(0, 60, 6):
        made.write(flows(2_000, at_ns=START_NS + second * SECOND))
        made.tidy(START_NS + (second + 5) * SECOND)
    files = spooled(tmp_path)
    assert sum(path.stat().st_size for path in files) <= 2_000_000
    shed = context.metrics.value("flow_spool_shed_total", reason="backlog")
    assert shed == 10 - len(files) > 0
    newest = max(int(b["arrival_ns"].max()) for b in read_spooled(files[-1]))
    assert newest == START_NS + 54 * SECOND


def test_a_restart_goes_on_with_higher_numbers_and_drops_what_was_torn(tmp_path: Path) -> None:
    context = make_context("spool")
    made = spool(tmp_path, context)
    made.write(flows(10))
    made.roll()
    (before,) = spooled(tmp_path)
    (tmp_path / f"{int(before.stem) + 1024:020d}.part").write_bytes(b"torn by a kill")
    again = spool(tmp_path, context)
    again.write(flows(10, at_ns=START_NS - 3600 * SECOND))  # and the clock went back
    again.stop()
    assert [path.stem > before.stem for path in spooled(tmp_path)] == [False, True]
    assert not list(tmp_path.glob("*.part"))


def test_a_disk_that_refuses_is_counted_and_nothing_else_happens(tmp_path: Path) -> None:
    context = make_context("spool")
    made = spool(tmp_path / "flows", context)
    (tmp_path / "flows").rmdir()
    made.write(flows(10))
    assert context.metrics.value("flow_spool_shed_total", reason="disk") == 1
    (tmp_path / "flows").mkdir()
    made.write(flows(10))
    made.stop()
    assert len(spooled(tmp_path / "flows")) == 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Connection]:
    connection = ChdbStore(tmp_path / "history", memory_bytes_max=400 * 1024**2).connect()
    migrate(connection)
    yield connection
    connection.close()


def filled(folder: Path, *, files: int = 3, rows: int = 1_000) -> int:
    """Write files of flows and return the sum of their octets."""
    made, octets = spool(folder, make_context("spool")), 0
    for number in range(files):
        batch = flows(rows, at_ns=START_NS + number * 7 * SECOND, seed=number)
        octets += int(batch["octets"].sum())
        made.write(batch)
        made.roll()
    return octets


def one(store: Connection, sql: str) -> Any:
    (row,) = store.rows(sql)
    (value,) = row.values()
    return value


def test_files_become_rows_and_are_gone(tmp_path: Path, store: Connection) -> None:
    octets = filled(tmp_path / "flows")
    loader = FlowLoader(tmp_path / "flows", store, make_context("history"))
    assert loader.step() == 3
    assert loader.step() == 0
    assert one(store, "select sum(octets) as n from flows") == octets
    assert one(store, "select any(toString(exporter)) as n from flows") == "::ffff:192.0.2.1"
    assert str(one(store, "select toString(min(time)) as n from flows")).startswith("2026-11")


def test_a_machine_without_descriptors_gives_up_no_file(
    tmp_path: Path, store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = filled(tmp_path / "flows")
    loader = FlowLoader(tmp_path / "flows", store, make_context("history"))

    def refused(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        with pytest.raises(TransientError, match="Too many open files"):
            loader.step()
    assert loader.step() == 3
    assert one(store, "select sum(octets) as n from flows") == octets


def test_a_file_that_cannot_be_deleted_is_stored_once(
    tmp_path: Path, store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = filled(tmp_path / "flows", files=1)
    later = make_context("history", clock=ManualClock(START_NS))
    loader = FlowLoader(tmp_path / "flows", store, later)

    def refused(path: Path, *, missing_ok: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        with pytest.raises(OSError, match="Read-only"):
            loader.step()
    assert loader.step() == 1
    assert one(store, "select sum(octets) as n from flows") == octets


class KilledError(Exception):
    """The process is killed here."""


@pytest.mark.parametrize("when", ["before", "after", "half"])
def test_a_file_whose_insert_was_cut_off_is_there_once(
    tmp_path: Path, store: Connection, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = filled(tmp_path / "flows", files=2)
    insert = store.insert

    def dying(table: str, columns: dict[str, Any], **more: Any) -> None:
        if when == "half":
            columns = {name: column[:400] for name, column in columns.items()}
        if when != "before":
            insert(table, columns, **more)
        raise KilledError

    loader = FlowLoader(tmp_path / "flows", store, make_context("history"))
    with monkeypatch.context() as patched:
        patched.setattr(store, "insert", dying)
        with pytest.raises(KilledError):
            loader.step()
    later = make_context("history", clock=ManualClock(START_NS))
    FlowLoader(tmp_path / "flows", store, later).step()
    assert one(store, "select sum(octets) as n from flows") == octets
    assert spooled(tmp_path / "flows") == []


def test_a_shards_older_file_that_comes_later_does_not_hide_the_one_in_doubt(
    tmp_path: Path, store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = filled(tmp_path / "flows" / "shard-1", files=1)
    insert = store.insert

    def dying(table: str, columns: dict[str, Any], **more: Any) -> None:
        insert(table, columns, **more)
        raise KilledError

    loader = FlowLoader(tmp_path / "flows", store, make_context("history"))
    with monkeypatch.context() as patched:
        patched.setattr(store, "insert", dying)
        with pytest.raises(KilledError):
            loader.step()
    # While the desk is away, the other shard finishes a file that it had begun earlier.
    made = spool(tmp_path / "flows" / "shard-0", make_context("spool"))
    batch = flows(500, at_ns=START_NS - 60 * SECOND, seed=9)
    made.write(batch)
    made.stop()
    later = make_context("history", clock=ManualClock(START_NS))
    assert FlowLoader(tmp_path / "flows", store, later).step() == 2
    stored = one(store, "select sum(octets) as n from flows")
    assert stored == octets + int(batch["octets"].sum())


def test_a_store_that_refuses_is_asked_again(
    tmp_path: Path, store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = filled(tmp_path / "flows")
    loader = FlowLoader(tmp_path / "flows", store, make_context("history"))

    def refusing(*arguments: Any, **more: Any) -> None:
        raise TransientError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "insert", refusing)
        with pytest.raises(TransientError):
            loader.step()
    assert loader.step() == 3
    assert one(store, "select sum(octets) as n from flows") == octets


def resealed(data: bytes) -> bytes:
    """Return a file of one batch with the checksum that fits."""
    return struct.pack("<II", len(data) - 8, zlib.crc32(data[8:])) + data[8:]


DAMAGE: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data[:-100],
    lambda _: b"",  # what a power cut leaves of a file that was never synced
    lambda data: bytes(len(data)),
    lambda data: data.replace(b"octets", b"octetz"),
    lambda data: resealed(data.replace(b"octets", b"octetz")),  # what another version wrote
    lambda data: b"\xff" * 4 + data[4:],
)


def test_a_damaged_file_is_set_aside_and_the_others_go_in(
    tmp_path: Path, store: Connection
) -> None:
    filled(tmp_path / "flows", files=1 + len(DAMAGE))
    for path, damage in zip(spooled(tmp_path / "flows"), DAMAGE, strict=False):
        path.write_bytes(damage(path.read_bytes()))
    context = make_context("history")
    loader = FlowLoader(tmp_path / "flows", store, context)
    while loader.step():
        pass
    assert one(store, "select count() as n from flows") == 1_000
    assert context.metrics.value("state_set_aside_total", kind="flows") == len(DAMAGE)
    left = [path.name for path in (tmp_path / "flows").iterdir()]
    assert len(left) == len(DAMAGE)
    assert all(".flows.damaged-" in name for name in left)


def test_room_is_made_from_raw_flows_first_but_never_the_newest_hour(
    tmp_path: Path, store: Connection
) -> None:
    made = spool(tmp_path / "flows", make_context("spool"))
    for hour in range(3):
        made.write(flows(5_000, at_ns=START_NS + hour * 3600 * SECOND, seed=hour))
        made.roll()
    FlowLoader(tmp_path / "flows", store, make_context("history")).step()
    now_ns = START_NS + 2 * 3600 * SECOND
    dropped = Retention(store, HistorySettings(disk_bytes_max=1)).trim(now_ns)
    hours = [START_NS // (3600 * SECOND) + n for n in range(3)]
    assert [name for name in dropped if name.startswith("flows")] == [
        f"flows {h}" for h in hours[:2]
    ]
    # By age, all of them go.
    late = Retention(store, HistorySettings(flows_days=1)).trim(now_ns + 4 * 86_400 * SECOND)
    assert late == [f"flows {hours[2]}"]


def test_files_are_bounded_in_rows(tmp_path: Path) -> None:
    made = spool(tmp_path, make_context("spool"))
    for _ in range(3):
        made.write(flows(ROWS_PER_FILE // 2))
    made.stop()
    assert [sum(b.rows for b in read_spooled(p)) for p in spooled(tmp_path)] == [100_000, 50_000]
