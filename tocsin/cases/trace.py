"""Tracing an alert back through the raw ring, the journal and the outbox, in the order of the chain."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alerting.outbox.file import read_only
from correlator.tables.network_map import load_network
from runtime.journal import Block, BlockKind, JournalReader
from telemetry.batch import Batch
from telemetry.errors import ConfigError, DecodeError
from telemetry.identity import address_text, id_text
from tocsin.chain.raw_ring import read_ring
from tocsin.config import kept_config
from tocsin.times import moment_of

LOOK_BACK_NS = 600_000_000_000
DATAGRAMS_NS = 60_000_000_000
Step = dict[str, Any]


def list_alerts(state: Path, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest alarms of a state folder."""
    with read_only(state / "node.sqlite") as db:
        rows = db.execute(
            "select text from alarm join body on number = body order by changed_ns desc limit ?",
            (limit,),
        ).fetchall()
    return [json.loads(row[0]) for row in rows]


def trace_alert(state: Path, alert: str) -> Iterator[Step]:
    """Yield the steps behind an alert's last raise: each with what went in and what came out.

    `datagrams` of its exporters in the minute before; `join`: what tables said of its keys, and how
    old they were; `frame` rows and `scores` (expected, spread, p-value) of its series in the ten
    minutes before; `finding` of each detector with its p-value and what the budget decided;
    `suppression`: what became of findings beside it; `alarm`: each change; `delivery`: each sink's
    answer.
    """
    around_ns = moment_of(alert, state, now_ns=0)
    with read_only(state / "node.sqlite") as db:
        body = db.execute(
            "select text from change join body on number = body"
            " where id like ? || '%' and changed_ns = ?", (alert, around_ns),
        ).fetchone()  # fmt: skip
        if body is None:
            raise ConfigError(
                f"{alert!r} is not the id of an alert; `tocsin trace --list` shows them"
            )
        record = json.loads(body[0])
        changes = db.execute(
            "select text from change join body on number = body where id = ?"
            " order by changed_ns, key", (record["id"],),
        ).fetchall()  # fmt: skip
        deliveries = db.execute(
            "select key, sink, state, attempts, answer from delivery where alarm = ?"
            " order by number",
            (record["id"],),
        ).fetchall()
    found = _Journal(state / "journal", record, around_ns)
    yield from _datagrams(state, around_ns, found.exporters)
    yield from _joins(state, found, around_ns)
    yield from found.rows
    yield {
        "step": "suppression",
        "attached_to_this_alarm": record["explain"].get("explains", []),
        "attached_count": record["explain"].get("explains_count", 0),
        "in_the_digest_that_tick": found.digest,
    }
    for change in changes:
        yield {"step": "alarm", "record": json.loads(change[0])}
    for key, sink, result, attempts, answer in deliveries:
        yield {"step": "delivery", "key": key, "sink": sink, "state": result,
               "attempts": attempts, "answer": answer}  # fmt: skip


class _Journal:
    """What the journal says of an alert's series up to a moment."""

    def __init__(self, folder: Path, record: dict[str, Any], around_ns: int) -> None:
        self.wanted = {int(text, 16) for text in record["explain"].get("series", [])}
        self.keys: dict[int, str] = {}
        self.exporters: set[str] = set()
        self.rows: list[Step] = []
        self.digest = 0
        self.options_ns: dict[str, int] = {}  # exporter: arrival of its newest options data
        reader = JournalReader(folder)
        while True:
            try:
                for block in reader.read():
                    if block.tick_end_ns > around_ns:
                        return
                    self._take(block, around_ns)
                return
            except DecodeError as error:
                self.rows.append({"step": "damage", "said": str(error)})
                reader.skip()

    def _take(self, block: Block, around_ns: int) -> None:
        recent = block.tick_end_ns > around_ns - LOOK_BACK_NS
        for batch in block.batches:
            name = batch.schema.name
            if name == "series":
                self._learn(batch)
            elif name == "option":
                for high, low, at_ns in zip(
                    batch["exporter_address_high"].tolist(),
                    batch["exporter_address_low"].tolist(),
                    batch["arrival_ns"].tolist(),
                    strict=True,
                ):
                    self.options_ns[address_text(high, low)] = at_ns
            elif name == "digest" and block.tick_end_ns == around_ns:
                self.digest += batch.rows
            elif recent and name in ("frame", "anomaly"):
                self.rows.extend(self._hits(block, batch))

    def _learn(self, series: Batch) -> None:
        keys = series.texts("key")
        for i, series_id in enumerate(series["series_id"].tolist()):
            if series_id in self.wanted:
                self.keys[series_id] = keys[i]
                parts = dict(part.split("=", 1) for part in keys[i].split(","))
                if "exporter" in parts:
                    self.exporters.add(parts["exporter"])

    def _hits(self, block: Block, batch: Batch) -> Iterator[Step]:
        wanted = np.array(sorted(self.wanted), np.uint64)
        hits = np.flatnonzero(np.isin(batch["series_id"], wanted))
        if not hits.size:
            return
        texts = {f.name: batch.texts(f.name) for f in batch.schema.fields if f.kind != "plain"}
        if batch.schema.name == "anomaly":
            step = "finding"
        else:
            step = "frame" if block.kind is BlockKind.TICK else "scores"
        for row in hits.tolist():
            fields: Step = {
                f.name: texts[f.name][row] if f.name in texts else batch[f.name][row].item()
                for f in batch.schema.fields
            }
            series_id = fields.pop("series_id")
            yield {
                "step": step,
                "journal_sequence": block.sequence,
                "series": id_text(series_id),
                "key": self.keys.get(series_id, ""),
                **fields,
            }


def _datagrams(state: Path, around_ns: int, exporters: set[str]) -> Iterator[Step]:
    counts: dict[tuple[str, str], list[int]] = {}
    since_ns = around_ns - DATAGRAMS_NS
    for listener, block in read_ring(state / "ring", since_ns=since_ns, until_ns=around_ns):
        for high, low, octets, at_ns in zip(
            block.exporter_high.tolist(),
            block.exporter_low.tolist(),
            block.length.tolist(),
            block.arrival_ns.tolist(),
            strict=True,
        ):
            key = (listener, address_text(high, low))
            if not exporters or key[1] in exporters:
                seen = counts.setdefault(key, [0, 0, 0])
                seen[0] += 1
                seen[1] += octets
                seen[2] = max(seen[2], at_ns)
    for (listener, exporter), (count, octets, last_ns) in sorted(counts.items()):
        yield {"step": "datagrams", "listener": listener, "exporter": exporter, "datagrams": count,
               "octets": octets, "last_arrival_ns": last_ns, "since_ns": since_ns}  # fmt: skip


def _joins(state: Path, found: _Journal, around_ns: int) -> Iterator[Step]:
    config = kept_config(state)
    path = Path(config.network.map) if config is not None and config.network.map else None
    if path is not None and not path.exists():
        yield {"step": "join", "table": "network map", "said": f"{path} is gone"}
        path = None
    network = load_network(path)
    age = round((around_ns - path.stat().st_mtime_ns) / 1e9, 3) if path is not None else None
    for series_id, text in sorted(found.keys.items()):
        key = dict(part.split("=", 1) for part in text.split(","))
        step: Step = {"step": "join", "table": "network map", "series": id_text(series_id),
                      "key": text, "age_seconds": age}  # fmt: skip
        if exporter := key.get("exporter"):
            step["router"] = network.router_of(exporter)
            known = network.interface(exporter, int(key.get("interface", 0)))
            if known is not None:
                step |= {"interface": known.name, "link": known.link, "customer": known.customer}
            if exporter in found.options_ns:
                told_ns = found.options_ns[exporter]
                step["options_age_seconds"] = round((around_ns - told_ns) / 1e9, 3)
        for name in ("source_prefix", "destination_prefix"):
            if name in key:
                step["owner"] = network.owner_of_prefix(key[name])
        yield step
