"""Series in CSV files: a time column and one or more value columns, as people have them.

The time column is the first named `timestamp`, `time`, `date`, `datetime` or `ts`: seconds, ms, µs
or ns since 1970, or text such as 2026-11-28 10:00:00 (UTC unless it says otherwise). Columns named
as labels are left out, and so are those without a single number. A field that is no number is a
missing value; a time that cannot be read is that of the row before.
"""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from telemetry.errors import ConfigError

TIMES = ("timestamp", "time", "date", "datetime", "ts")
LABELS = ("label", "labels", "is_anomaly", "anomaly", "changepoint")
ENDINGS = (".csv", ".csv.gz")
ROW_SECONDS = 60  # where a file has no times, its rows are taken as minutes


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """One file's columns; texts are kept as they stood, so that they can be written back."""

    times: list[str]
    time_s: NDArray[np.int64]
    columns: dict[str, tuple[list[str], NDArray[np.float64]]]
    times_unreadable: int
    notes: list[str]


def find_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each CSV file below the paths, and its name below the output folder without ending."""
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in found:
            ending = next((end for end in reversed(ENDINGS) if file.name.endswith(end)), "")
            if not ending and file is not path:
                continue
            name = file.name.removesuffix(ending)
            below = file.relative_to(path).parent if path.is_dir() else Path()
            yield file, below / name


def read_series(path: Path) -> SeriesFile:
    """Read a file, or raise ConfigError that says what is wrong with it."""
    try:
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    rows = list(csv.reader(io.StringIO(text, newline="")))
    rows = [row for row in rows if row]
    if not rows:
        raise ConfigError(f"{path}: is empty; a header and at least one row are needed")
    head, body = [name.strip() for name in rows[0]], rows[1:]
    lower = [name.lower() for name in head]
    place = next((lower.index(name) for name in TIMES if name in lower), None)
    notes: list[str] = []
    if place is None:
        notes.append(f"no column {', '.join(TIMES)}: rows are taken as {ROW_SECONDS} s apart")
        times = [str(ROW_SECONDS * n) for n in range(len(body))]
    else:
        times = [row[place] if place < len(row) else "" for row in body]
    time_s, unreadable = parse_times(times)
    columns = {}
    for k, name in enumerate(head):
        if k == place or lower[k] in LABELS:
            continue
        texts = [row[k] if k < len(row) else "" for row in body]
        value = np.array([_number(text) for text in texts], np.float64)
        if texts and np.isnan(value).all() and name != "value":
            notes.append(f"column {name!r} holds no number and is left out")
            continue
        columns[name or f"column{k + 1}"] = (texts, value)
    if not columns:
        raise ConfigError(f"{path}: no column of numbers beside the time; found {', '.join(head)}")
    return SeriesFile(times, time_s, columns, unreadable, notes)


def parse_times(texts: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Return seconds since 1970, and how many texts could not be read."""
    made = np.zeros(len(texts), np.int64)
    unreadable, before = 0, 0
    for n, text in enumerate(texts):
        found = _seconds(text.strip())
        if found is None:
            unreadable += 1
        else:
            before = found
        made[n] = before
    return made, unreadable


def _seconds(text: str) -> int | None:
    number = _number(text)
    if np.isfinite(number):
        size = abs(number)
        # Times of this century: which unit the number is in shows in its size.
        for limit, unit in ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9)):
            if size < limit:
                return int(number // unit)
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
