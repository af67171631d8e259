"""Tracing an alert back through the journal, the raw ring and the outbox."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime.journal import JournalReader
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import address_text, id_text
from tocsin.raw_ring import read_ring
from tocsin.times import moment_of

LOOK_BACK_NS = 600_000_000_000


def list_alerts(state: Path, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest alarms of a state folder."""
    with _open(state) as db:
        rows = db.execute(
            "select body from alarm order by changed_ns desc limit ?", (limit,)
        ).fetchall()
    return [json.loads(row[0]) for row in rows]


def trace_alert(state: Path, alert: str) -> Iterator[dict[str, Any]]:
    """Yield the steps behind an alert, in the order of the chain."""
    around_ns = moment_of(alert, state)
    with _open(state) as db:
        body = db.execute(
            "select body from change where id like ? || '%' and changed_ns = ?", (alert, around_ns)
        ).fetchone()
        deliveries = db.execute(
            "select key, sink, state, attempts, answer from delivery where alarm like ? || '%'",
            (alert,),
        ).fetchall()
    if body is None:
        raise ConfigError(f"{alert!r} is not the id of an alert; `tocsin trace --list` shows them")
    record = json.loads(body[0])
    wanted = {int(text, 16) for text in record["explain"].get("series", [])}
    names: dict[int, str] = {}
    exporters: set[str] = set()
    for block in JournalReader(state / "journal").read():
        if block.tick_end_ns > around_ns:
            break
        recent = block.tick_end_ns > around_ns - LOOK_BACK_NS
        for batch in block.batches:
            if batch.schema.name == "series":
                keys = batch.texts("key")
                for i, series_id in enumerate(batch["series_id"].tolist()):
                    if series_id in wanted:
                        names[series_id] = keys[i]
                        parts = dict(part.split("=", 1) for part in keys[i].split(","))
                        exporters |= {parts["exporter"]} if "exporter" in parts else set()
            elif recent and batch.schema.name in ("frame", "anomaly"):
                yield from _rows(block.sequence, block.kind.name, batch, wanted, names)
    yield from _datagrams(state, around_ns, exporters)
    yield {"step": "alarm", "record": record}
    for key, sink, result, attempts, answer in deliveries:
        yield {"step": "delivery", "key": key, "sink": sink, "state": result,
               "attempts": attempts, "answer": answer}  # fmt: skip


def _rows(
    sequence: int, kind: str, batch: Batch, wanted: set[int], names: dict[int, str]
) -> Iterator[dict[str, Any]]:
    hits = np.flatnonzero(np.isin(batch["series_id"], np.array(sorted(wanted), np.uint64)))
    texts = {f.name: batch.texts(f.name) for f in batch.schema.fields if f.kind != "plain"}
    for row in hits.tolist():
        fields: dict[str, Any] = {
            spec.name: texts[spec.name][row] if spec.name in texts else batch[spec.name][row].item()
            for spec in batch.schema.fields
        }
        series_id = fields.pop("series_id")
        yield {
            "step": "frame" if batch.schema.name == "frame" and kind == "TICK" else (
                "scores" if batch.schema.name == "frame" else "anomaly"
            ),
            "journal_sequence": sequence,
            "series": id_text(series_id),
            "key": names.get(series_id, ""),
            **fields,
        }  # fmt: skip


def _datagrams(state: Path, around_ns: int, exporters: set[str]) -> Iterator[dict[str, Any]]:
    counts: dict[tuple[str, str], int] = {}
    since_ns = around_ns - 60_000_000_000
    for listener, block in read_ring(state / "ring", since_ns=since_ns, until_ns=around_ns):
        for high, low in zip(
            block.exporter_high.tolist(), block.exporter_low.tolist(), strict=True
        ):
            key = (listener, address_text(high, low))
            if not exporters or key[1] in exporters:
                counts[key] = counts.get(key, 0) + 1
    for (listener, exporter), count in sorted(counts.items()):
        yield {"step": "datagrams", "listener": listener, "exporter": exporter,
               "in_the_minute_before": count}  # fmt: skip


def _open(state: Path) -> sqlite3.Connection:
    path = state / "node.sqlite"
    if not path.exists():
        raise ConfigError(f"{path}: no such file; --state names the folder of the instance")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
