"""History: rows stored a second, a 15-minute aggregate, and panels that ask while rows come in.

Blocks of 100,000 rows with fsync, as the desk inserts them, beside a plain chDB insert of the same block
as an Arrow file (by turns, in one run, same table). A panel is one measure of 20 series over 30 minutes
through the reader, while a second thread inserts 100,000 rows four times a second. Memory is that
of this process with nothing but the engine, numpy and pyarrow in it; the desk's is in `footprint`.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

sys.path.insert(0, str(Path(__file__).parents[1]))

from history.chdb_store import ChdbConnection, ChdbStore
from history.reader import HistoryReader
from history.store import DATABASE, migrate
from perf.measure import report, row

START_S = 1_795_478_400
TICK_S = 5
ROWS = 100_000
BLOCKS = 25  # of each way in: 5 M rows in the end
WORDS = {"view": ["interface"], "measure": ["octets", "packets", "flows", "entropy"]}
PANELS = 200
INSERT_EVERY_S = 0.25


def block(tick: int, random: np.random.Generator) -> dict[str, Any]:
    """Return one tick of 25,000 series with four measures."""
    series = np.arange(ROWS // 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value = random.poisson(1000, ROWS).astype(np.float64)
    return {
        "tick_end_ns": np.full(ROWS, (START_S + (tick + 1) * TICK_S) * 10**9, np.int64),
        "tick_seconds": np.full(ROWS, TICK_S, np.float32),
        "view": np.zeros(ROWS, np.uint16),
        "measure": np.repeat(np.arange(4, dtype=np.uint16), ROWS // 4),
        "series_id": np.tile(series, 4),
        "value": value,
        "expected": (value * 0.99).astype(np.float32),
        "lower": (value * 0.9).astype(np.float32),
        "upper": (value * 1.1).astype(np.float32),
        "score": random.random(ROWS).astype(np.float32),
        "flags": np.zeros(ROWS, np.uint8),
        "lost_share": np.zeros(ROWS, np.float32),
    }


def insert_ours(db: ChdbConnection, columns: dict[str, Any], token: str) -> None:
    """Insert as the writer does."""
    db.insert(f"{DATABASE}.frames", columns, token=token, words=WORDS)


def insert_arrow(db: ChdbConnection, columns: dict[str, Any], token: str) -> None:
    """Insert as chDB's users do: an Arrow file, read by the engine."""
    del token
    batch = pa.record_batch(
        {
            name: pa.DictionaryArray.from_arrays(column, pa.array(WORDS[name]))
            if name in WORDS
            else column
            for name, column in columns.items()
        }
    )
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".arrow") as file:
        with pyarrow.ipc.new_stream(file.name, batch.schema) as out:
            out.write_batch(batch)
        names = ", ".join(columns)
        db.run(
            f"insert into {DATABASE}.frames ({names})"
            f" select {names} from file('{file.name}', 'ArrowStream')"
        )


def resident_mb() -> float:
    """Return this process's resident memory."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def timed(call: Callable[[], object]) -> float:
    """Return the seconds a call took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def panels_while_inserting(
    db: ChdbConnection, reader: HistoryReader, ids: list[int], random: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Return seconds of each panel and of each insert beside them."""
    ended, inserts = threading.Event(), list[float]()

    def insert() -> None:
        tick = 2 * BLOCKS
        while not ended.is_set():
            columns = block(tick, random)
            took = timed(lambda: insert_ours(db, columns, f"panel-{tick}"))
            inserts.append(took)
            tick += 1
            ended.wait(max(INSERT_EVERY_S - took, 0))

    thread = threading.Thread(target=insert)
    thread.start()
    panels = []
    for first in range(PANELS):
        chosen = ", ".join(str(ids[(first * 20 + i) % len(ids)]) for i in range(20))
        sql = (
            "select intDiv(tick_end_ns - 1, 10000000000) as t, series_id, avg(value) from frames"
            f" where view = 'interface' and measure = 'octets' and series_id in ({chosen})"
            f" and tick_end_ns > {START_S}000000000 and tick_end_ns <= {START_S + 1800}000000000"
            " group by t, series_id order by t, series_id"
        )
        panels.append(timed(lambda: reader.sql(sql)))
    ended.set()
    thread.join()
    return panels, inserts


def measure(folder: Path) -> list[dict[str, object]]:
    """Fill a store and return the table."""
    store = ChdbStore(folder, memory_bytes_max=400 * 1024**2)
    db = store.connect()
    migrate(db)
    before_mb = resident_mb()
    random = np.random.default_rng(7)
    took: dict[str, list[float]] = {"ours": [], "arrow": []}
    cpu: dict[str, float] = {"ours": 0.0, "arrow": 0.0}
    highest_mb = 0.0
    for tick in range(BLOCKS):
        for place, (name, insert) in enumerate((("ours", insert_ours), ("arrow", insert_arrow))):
            columns = block(2 * tick + place, random)
            began = time.process_time()
            took[name].append(timed(lambda: insert(db, columns, f"{name}-{tick}")))
            cpu[name] += time.process_time() - began
        highest_mb = max(highest_mb, resident_mb())
    stored = db.rows(f"select count() as n from {DATABASE}.frames")[0]["n"]
    if int(stored) != 2 * BLOCKS * ROWS:
        raise SystemExit(f"{stored} rows are stored, {2 * BLOCKS * ROWS} were inserted")
    aggregate = [
        timed(
            lambda: db.text(
                "select intDiv(tick_end_ns - 1, 900000000000) as bucket, view, measure, count(),"
                " avg(value), min(value), max(value), stddevPop(value)"
                f" from {DATABASE}.frames group by bucket, view, measure",
                "CSV",
            )
        )
        for _ in range(5)
    ]
    reader = HistoryReader(store.connect(read_only=True, seconds_max=20, rows_max=100_000))
    ids = [int(v) for v in block(0, random)["series_id"][: ROWS // 4]]
    panels, inserts = panels_while_inserting(db, reader, ids, random)
    speed = {name: ROWS / float(np.median(values)) / 1e6 for name, values in took.items()}
    return [
        row("insert, blocks of 100,000 rows, median", speed["ours"], "M rows/s", 1),
        row("plain chDB insert of an Arrow file, median", speed["arrow"], "M rows/s"),
        row("ours / plain", speed["ours"] / speed["arrow"], "times", 1),
        row("insert", cpu["ours"] / BLOCKS / ROWS * 1e6, "CPU s / M rows", None, "lower"),
        row("plain insert", cpu["arrow"] / BLOCKS / ROWS * 1e6, "CPU s / M rows", None, "lower"),
        row("15-minute aggregate of 5 M rows, median", float(np.median(aggregate)), "s", 0.5, "lower"),
        row("panel while inserting, p50", float(np.median(panels)) * 1e3, "ms", None, "lower"),
        row("panel while inserting, p95", float(np.percentile(panels, 95)) * 1e3, "ms", 100, "lower"),
        row("insert beside panels, p95", float(np.percentile(inserts, 95)) * 1e3, "ms", None, "lower"),
        row("memory before the first insert", before_mb, "MB", None, "lower"),
        row("memory, highest while inserting", highest_mb, "MB", 250, "lower"),
        row("memory at the end", resident_mb(), "MB", 250, "lower"),
    ]  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        report("history", measure(Path(name)))
