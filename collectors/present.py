"""Batches for people and files: rows as plain values, the contract of `tocsin decode`.

One row is one dictionary: `schema`, then the schema's fields under their names. The two halves of an
address are one text; times are integer ns, counts integers; what was not exported is None.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from telemetry.batch import Batch
from telemetry.identity import address_text
from telemetry.schema import Kind

Row = dict[str, Any]
_OPTIONAL = ("names", "reverse", "elements")  # columns that only some rows have
TABLE_ROWS_MEASURED = 1000  # widths are taken from so many rows; later ones may stick out

# What a person looks at first; the other columns are in jsonl and csv.
_TABLE = {
    "flow": (
        "export_ns",
        "exporter_address",
        "source_address",
        "source_port",
        "destination_address",
        "destination_port",
        "protocol",
        "ingress_interface",
        "egress_interface",
        "packets",
        "octets",
        "sampling_rate",
    ),
    "sample": ("time_ns", "entity", "metric", "value"),
    "log": ("time_ns", "host", "severity", "app", "message_id", "event", "message"),
    "alarm": (
        "changed_ns",
        "state",
        "severity",
        "entity",
        "specific_problem",
        "probable_cause",
        "additional_text",
    ),
    "route": (
        "time_ns",
        "exporter_address",
        "peer_address",
        "peer_as",
        "rib",
        "withdrawn",
        "prefix",
        "prefix_length",
        "next_hop_address",
        "origin_as",
        "as_path_length",
        "flow_rule",
        "flow_actions",
    ),
}
# What would break a line, or move a terminal's cursor: a sender chose it.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def rows(batch: Batch) -> Iterator[Row]:
    """Yield the rows of a batch of any schema as plain values.

    `fields_present` of flows is not a column of the result: a field whose bit is not set is None.
    """
    columns: list[tuple[str, list[Any], int]] = []  # name, values, bit in fields_present or -1
    names = batch.schema.names()
    for place, spec in enumerate(batch.schema.fields):
        name = spec.name
        if name == "fields_present" or (
            name.endswith("_low") and name.removesuffix("_low") + "_high" in names
        ):
            continue
        if name.endswith("_high") and name.removesuffix("_high") + "_low" in names:
            name = name.removesuffix("_high")
            pairs = zip(batch[f"{name}_high"].tolist(), batch[f"{name}_low"].tolist(), strict=True)
            columns.append((name, [address_text(high, low) for high, low in pairs], place))
        elif spec.kind is Kind.PLAIN:
            columns.append((name, [_plain(value) for value in batch[name].tolist()], place))
        else:
            columns.append((name, list(batch.texts(name)), place))
    present = batch["fields_present"].tolist() if "fields_present" in names else None
    for r in range(batch.rows):
        row: Row = {"schema": batch.schema.name}
        for name, values, bit in columns:
            there = present is None or present[r] >> bit & 1
            row[name] = values[r] if there else None
        yield row


def _plain(value: Any) -> Any:
    """Return a JSON value: NaN is None, a whole float an integer."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    return value


def json_line(row: Any) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def csv_lines(made: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield CSV lines; a header line where the schema changes, its first column is `schema`."""
    header: tuple[str, ...] = ()
    schema = ""
    for row in made:
        if row["schema"] != schema:
            schema = row["schema"]
            header = tuple(name for name in row if name not in _OPTIONAL)
            header += _OPTIONAL if schema == "flow" else ()
            yield _csv(header)
        yield _csv([_cell(row.get(name)) for name in header])


def _csv(values: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json_line(value) if isinstance(value, (dict, list)) else str(value)


def table_lines(made: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield lines of aligned columns, the few that a person looks at first, times in UTC."""
    waiting: list[Mapping[str, Any]] = []
    for row in made:
        if waiting and (
            row["schema"] != waiting[0]["schema"] or len(waiting) >= TABLE_ROWS_MEASURED
        ):
            yield from _table(waiting)
            waiting = []
        waiting.append(row)
    if waiting:
        yield from _table(waiting)


def _table(made: list[Mapping[str, Any]]) -> Iterator[str]:
    schema = made[0]["schema"]
    names = _TABLE.get(schema) or tuple(name for name in made[0] if name != "schema")
    cells = [[_seen(name, row.get(name)) for name in names] for row in made]
    heads = [name.removesuffix("_ns") for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in [heads, *cells]:
        yield "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()


def _seen(name: str, value: Any) -> str:
    if name.endswith("_ns") and isinstance(value, int):
        return f"{np.datetime64(value // 1000, 'us')}Z" if value else ""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", _cell(value))
