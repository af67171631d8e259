"""Alarm files and topologies of others: CSV, JSON lines, .npy matrices, GraphML, network files."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from correlator.tables.network_map import (
    FileNetworkMap,
    LinkEntry,
    NetworkFile,
    RouterEntry,
    load_network,
)
from telemetry.errors import ConfigError
from telemetry.x733 import CLEARED, SEVERITIES

# What a column may be called, the first that is there counts.
COLUMNS = {
    "kind": ("kind", "alarm_type", "type", "alarm_name", "alarm_id", "probable_cause"),
    "entity": ("entity", "device_id", "device", "node", "managed_object", "ne", "resource"),
    "start": ("start", "start_timestamp", "raised", "raised_time", "time", "timestamp", "time_s"),
    "end": ("end", "end_timestamp", "cleared", "cleared_time"),
    "severity": ("severity", "perceived_severity"),
    "title": ("title", "specific_problem", "text", "summary"),
    "state": ("state",),
    "fault": ("fault", "root", "group"),
}
ROWS_MAX = 5_000_000
START_NS = 1_700_000_000_000_000_000 // 1_000_000_000 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One raise or clear of an alarm file."""

    time_ns: int
    kind: str
    entity: str
    severity: str  # or "cleared"
    title: str
    fault: str = ""  # the true cause, where the file knows it


def read_alarms(path: Path) -> list[Event]:
    """Return the raises and clears of an alarm file in order of time, or raise ConfigError.

    A row with an end that is not its start is a raise and a clear; one with `state` "cleared" or
    severity "cleared" is a clear. Small numbers as times are seconds since the file began.
    """
    made: list[Event] = []
    for number, row in enumerate(_rows(path)):
        if number >= ROWS_MAX:
            raise ConfigError(f"{path}: more than {ROWS_MAX} rows; split the file")
        names = {ours: _column(row, ours) for ours in COLUMNS}
        if number == 0:
            _check(path, row, names)
        try:
            made += _events(row, names)
        except ValueError as error:
            raise ConfigError(f"{path} row {number + 2}: {error}") from error
    # At one moment a clear comes first: what was raised and cleared in it was raised again.
    made.sort(key=lambda event: event.time_ns)
    return made


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix in (".jsonl", ".json"):
                for line in file:
                    if line.strip():
                        yield {str(k): str(v) for k, v in json.loads(line).items()}
            else:
                yield from csv.DictReader(file)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, AttributeError) as error:
        raise ConfigError(f"{path}: neither CSV with a header nor JSON lines: {error}") from error


def _column(row: dict[str, str], ours: str) -> str:
    return next((name for name in COLUMNS[ours] if name in row), "")


def _check(path: Path, row: dict[str, str], names: dict[str, str]) -> None:
    for ours in ("kind", "entity", "start"):
        if not names[ours]:
            raise ConfigError(
                f"{path}: no column for {ours} among {', '.join(row)}; "
                f"it may be called {', '.join(COLUMNS[ours])}"
            )


def _events(row: dict[str, str], names: dict[str, str]) -> Iterator[Event]:
    def value(ours: str) -> str:
        return (row.get(names[ours]) or "").strip() if names[ours] else ""

    severity = value("severity").lower() or "major"
    if severity not in SEVERITIES and severity != CLEARED:
        severity = "indeterminate"
    if value("state").lower() in ("cleared", "clear", "resolved"):
        severity = CLEARED
    kind, entity = value("kind"), value("entity")
    title = value("title") or f"{kind} on {entity}"
    start_ns = _time_ns(value("start"))
    yield Event(start_ns, kind, entity, severity, title, value("fault"))
    end = value("end")
    if end and severity != CLEARED:
        end_ns = _time_ns(end)
        if end_ns >= start_ns:
            yield Event(end_ns, kind, entity, CLEARED, title, value("fault"))


def _time_ns(text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        from datetime import UTC, datetime

        at = datetime.fromisoformat(text)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
    whole_ns = round(seconds * 1_000_000_000)
    return whole_ns + START_NS if whole_ns < START_NS // 2 else whole_ns


def read_topology(path: Path) -> FileNetworkMap:
    """Return the network of a topology file: .npy adjacency, .csv of pairs, .graphml, or .toml."""
    if path.suffix == ".toml":
        return load_network(path)
    if path.suffix == ".npy":
        import numpy as np

        try:
            matrix = np.load(path)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{path}: {error}") from error
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ConfigError(f"{path}: a matrix of {matrix.shape}, must be square")
        found = {(min(a, b), max(a, b)) for a, b in np.argwhere(matrix).tolist() if a != b}
        nodes = [str(node) for node in range(matrix.shape[0])]
        return network_of(sorted((str(a), str(b)) for a, b in found), nodes)
    if path.suffix == ".graphml":
        return network_of(*_graphml(path))
    pairs = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) < 2:
                raise ConfigError(f"{path}: each line must name two nodes, not {row}")
            pairs.append((row[0].strip(), row[1].strip()))
    return network_of(pairs, [])


def _graphml(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    from xml.etree import ElementTree  # a file that the operator names

    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path}: {error}") from error
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    labels = {
        key.get("id"): key.get("attr.name") for key in root.iter(f"{space}key")
    }  # fmt: skip
    names: dict[str, str] = {}
    for node in root.iter(f"{space}node"):
        number = node.get("id") or ""
        label = next(
            (data.text for data in node if labels.get(data.get("key")) == "label" and data.text), ""
        )
        name = str(label or number).replace(" ", "_")
        names[number] = name if name not in names.values() else f"{name}_{number}"
    pairs = [
        (names[edge.get("source") or ""], names[edge.get("target") or ""])
        for edge in root.iter(f"{space}edge")
    ]
    return pairs, list(names.values())


def network_of(pairs: list[tuple[str, str]], nodes: list[str]) -> FileNetworkMap:
    """Return a network map of links between nodes; links are named by their ends."""
    names = dict.fromkeys([*nodes, *(node for pair in pairs for node in pair)])
    free = dict.fromkeys(names, 0)
    links = []
    seen: dict[str, int] = {}
    for a, b in pairs:
        if a == b:
            continue
        name = f"{a}-{b}"
        seen[name] = seen.get(name, 0) + 1
        free[a] += 1
        free[b] += 1
        links.append(
            LinkEntry(
                name=name if seen[name] == 1 else f"{name}#{seen[name]}",
                a=a, a_index=free[a], b=b, b_index=free[b],
            )
        )  # fmt: skip
    routers = [RouterEntry(name=name, address=name) for name in names]
    return FileNetworkMap(NetworkFile(router=routers, link=links))
