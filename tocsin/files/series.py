"""Series in CSV files: a time column and one or more value columns, as people have them.

Fields are separated by commas, semicolons, tabs or bars. A number may have a decimal comma where semicolons
separate, or where the first rows of its column show it (`12,5`). The time column is the first named
`timestamp`, `time`, `date`, `datetime` or `ts`, or else the first that holds times as text, or else such
numbers below a name that says so: seconds, ms, µs or ns since 1970, ISO 8601 (UTC unless it says otherwise),
20260320102640, dates of the usual orders or the day numbers of spreadsheets (tocsin.files.times). Columns
`date` and `time` are one time together. A file without a header has its time first, if it has one. Columns
named as labels are left out, and so are those without a single number and row numbers without a name. A field
that is no number is a missing value; a time that cannot be read is that of the row before, at the head of
a file of the first that can.

Where most times come more than once and a column of names (host, metric) tells their rows apart, each
name is a series of its own: the long format of data frames and databases.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from telemetry.errors import ConfigError
from tocsin.files.long_format import IDS, names_in, times_repeat
from tocsin.files.rows import UNREADABLE, delimiter_of, text_of
from tocsin.files.times import (
    SECOND_NS,
    SERIAL_LEAST,
    SERIAL_MOST,
    reader_of,
    serial_ns,
    zoned,
)

TIMES = ("timestamp", "time", "date", "datetime", "ts")
# As columns of times are named.
NAMED = re.compile(r"time|date|stamp|epoch|unix|(^|[^a-z])(ts|ds|t)([^a-z]|$)")
LABELS = (
    "label", "labels", "is_anomaly", "anomaly", "anomaly_label", "is_outlier", "outlier", "ground_truth",
    "changepoint",
)  # fmt: skip
COUNTERS = ("", "index", "unnamed: 0")  # of rows, as data frames write them
STDIN = Path("/dev/stdin")  # what `-` means
ENDINGS = (".csv", ".csv.gz")
ROW_SECONDS = 60  # where a file has no times, its rows are taken as minutes
ROWS_TELLING = 50  # that tell what a column is
BACK_SHARE = 0.1  # of the rows out of order: the file is not in the order of time
EPOCH_LEAST = 1e8  # a smaller number at the head of a file without a header is no time
WORDS = {
    "true": 1.0,
    "yes": 1.0,
    "on": 1.0,
    "up": 1.0,
    "false": 0.0,
    "no": 0.0,
    "off": 0.0,
    "down": 0.0,
}
MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
STAMP = re.compile(r"(?:19|20)\d{6}(?:\d{4}(?:\d\d)?)?")  # 20260320, 202603201026, 20260320102640
CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[AaPp][Mm])?")  # a time without its date
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")  # 1,234.5
GAPS = " \u00a0\u2009\u202f'\u2019"  # between thousands: spaces of several widths, apostrophes
SPACED = re.compile(rf"[+-]?[1-9]\d{{0,2}}([{GAPS}]\d{{3}})+([.,]\d*)?")  # 1 234,5 and 1'234.5
DECIMAL = re.compile(rf"[+-]?\d+([{GAPS}]\d{{3}})*,\d+ ?%?")  # 12,5


@dataclass(frozen=True, slots=True)
class Column:
    """One series; texts are kept as they stood, so that they can be written back."""

    times: list[str]
    time_s: NDArray[np.float64]
    texts: list[str]
    value: NDArray[np.float64]
    times_unreadable: int


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """The series of one file by name, and what its form leaves open."""

    columns: dict[str, Column]
    notes: list[str]


def find_files(paths: Sequence[Path], output: Path | None = None) -> dict[Path, Path]:
    """Return each CSV file below the paths, with its name below the output folder without ending.

    `-` is what is piped in. Files of one name keep the folders that tell them apart.
    What lies below `output` is no input.
    """
    # Whole name without ending, and how much of it is shown.
    found: dict[Path, tuple[Path, int]] = {}
    known: set[Path] = set()
    for given in paths:
        path = STDIN if given == Path("-") else given
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        if path.is_dir() and output is not None and path.resolve() == output.resolve():
            raise ConfigError(
                f"{output}: is the folder of the input, whose files would be written over; "
                "--output must name another folder"
            )
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            whole = file.resolve() if file.is_file() else file.absolute()
            ending = next((end for end in reversed(ENDINGS) if file.name.lower().endswith(end)), "")
            if whole in known or (file is not path and not (ending and file.is_file())):
                continue
            if file is not path and output is not None and output.resolve() in whole.parents:
                continue
            known.add(whole)
            shown = len(file.relative_to(path).parts) if path.is_dir() else 1
            found[file] = file.parent.resolve() / file.name[: len(file.name) - len(ending)], shown
    return _told_apart(found)


def _told_apart(found: dict[Path, tuple[Path, int]]) -> dict[Path, Path]:
    """Return as much of each file's name as no other has."""
    names = {file: Path(*whole.parts[-shown:]) for file, (whole, shown) in found.items()}
    for more in range(1, max((len(whole.parts) for whole, _ in found.values()), default=0)):
        often = Counter(name for name, _ in {(names[file], found[file][0]) for file in found})
        for file, (whole, shown) in found.items():
            if often[names[file]] > 1:
                names[file] = Path(*whole.parts[1:][-shown - more :])
    return names


def read_series(path: Path) -> SeriesFile:
    """Read a file, or raise ConfigError that says what is wrong with it."""
    head, body, comma = _table(path)
    place = _time_column(head, body)
    notes: list[str] = []
    day: int | None = None
    times = [str(ROW_SECONDS * n) for n in range(len(body))]
    if place is not None:
        times = _column(body, place)
        day = _day_column(head, place, times)
        if day is not None:
            times = [f"{one} {clock}" for one, clock in zip(_column(body, day), times, strict=True)]
    time_s, unread = _times(head, place, times, notes, comma=comma)
    texts_of = {
        k: _column(body, k)
        for k, name in enumerate(head)
        if k not in (place, day) and name.lower() not in LABELS
    }
    value_of = {
        k: numbers(texts, comma=comma or _decimal_comma(texts)) for k, texts in texts_of.items()
    }
    keys, groups = _series_of(head, time_s, texts_of, value_of, notes)
    back = sum(int((np.diff(time_s[rows]) < 0).sum()) for rows in groups.values())
    if back > BACK_SHARE * len(body):
        notes.append(
            f"{back} rows are older than the one before: they are judged as they stand; sort the file by "
            "time to have them judged as they happened"
        )
    kept = [k for k in texts_of if k not in keys and _is_series(head, k, texts_of, value_of, notes)]
    if not kept:
        raise ConfigError(f"{path}: no column of numbers beside the time; found {', '.join(head)}")
    columns: dict[str, Column] = {}
    for group, rows in groups.items():
        for k in kept:
            texts, value = [texts_of[k][n] for n in rows.tolist()], value_of[k][rows]
            if group and len(kept) > 1 and np.isnan(value).all():
                continue
            name = head[k] or f"column{k + 1}"
            key = f"{group} {name}" if group and len(kept) > 1 else group or name
            columns[key if key not in columns else f"{key}-{k + 1}"] = Column(
                [times[n] for n in rows.tolist()],
                time_s[rows],
                texts,
                value,
                int(unread[rows].sum()),
            )
    return SeriesFile(columns, notes)


def _times(
    head: list[str], place: int | None, times: list[str], notes: list[str], *, comma: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return seconds since 1970, and which times could not be read."""
    if place is None:
        notes.append(f"no column {', '.join(TIMES)}: rows are taken as {ROW_SECONDS} s apart")
    elif _are_serials(head[place], times, comma=comma):
        days = numbers(times, comma=comma)
        unread = ~((days >= SERIAL_LEAST) & (days < SERIAL_MOST))
        notes.append(
            f"column {head[place]!r} counts days since 1899-12-30, as spreadsheets do: times are to the second"
        )
        return _filled(
            [
                None if no else serial_ns(d) / SECOND_NS
                for d, no in zip(days.tolist(), unread, strict=True)
            ]
        )
    time_s, unread = parse_times(times)
    if place is not None and len(times) and unread.all():
        notes.append(
            f"no time in column {head[place]!r} can be read, such as {times[0]!r}: rows are taken as "
            f"{ROW_SECONDS} s apart"
        )
        time_s = ROW_SECONDS * np.arange(len(times), dtype=np.float64)
    return time_s, unread


def _are_serials(name: str, times: list[str], *, comma: bool) -> bool:
    """Say whether times are day numbers of a spreadsheet, 1970 to 2100: below `date`, or with a part of a day."""
    days = numbers(times[:ROWS_TELLING], comma=comma or _decimal_comma(times))
    if not NAMED.search(name.lower()) or not len(days):
        return False
    if not ((days >= SERIAL_LEAST) & (days < SERIAL_MOST)).all():
        return False
    return "date" in name.lower() or bool((days != np.floor(days)).any())


def _series_of(
    head: list[str],
    time_s: NDArray[np.float64],
    texts_of: dict[int, list[str]],
    value_of: dict[int, NDArray[np.float64]],
    notes: list[str],
) -> tuple[tuple[int, ...], dict[str, NDArray[np.int64]]]:
    """Return the columns that name series, and the rows of each name; one without a name where none does."""
    everything = {"": np.arange(len(time_s))}
    if not times_repeat(time_s):
        return (), everything
    names = {
        k: texts
        for k, texts in texts_of.items()
        if np.isnan(value_of[k]).mean() > 0.5 or IDS.search(head[k].lower())
    }
    found = names_in(time_s, names) if len(names) < len(texts_of) else None
    if found is None:
        notes.append(
            "most times come more than once, and no column of names tells their rows apart: they are judged as one "
            "series in the order of the file; where they are many, write each into a column or file of its own"
        )
        return (), everything
    keys, groups = found
    notes.append(
        f"{len(groups)} series by {', '.join(repr(head[k]) for k in keys)}: each is judged by itself"
    )
    return keys, groups


def _is_series(
    head: list[str],
    k: int,
    texts_of: dict[int, list[str]],
    value_of: dict[int, NDArray[np.float64]],
    notes: list[str],
) -> bool:
    """Say whether a column is a series; what is left out is noted."""
    name, texts, value = head[k], texts_of[k], value_of[k]
    if texts and np.isnan(value).all():
        if name != "value":
            notes.append(f"column {name!r} holds no number and is left out")
            return False
        notes.append(
            f"no field of column 'value' is a number, such as {texts[0]!r}: all are missing"
        )
    if name.lower() in COUNTERS and len(head) > 1 and _counts_rows(value):
        notes.append(f"column {name!r} numbers the rows and is left out")
        return False
    return True


def parse_times(texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return seconds since 1970, and which texts could not be read: each has the time of its neighbour."""
    found: list[float | None] = []
    other = None
    for text in map(str.strip, texts):
        one = _seconds(text)
        if one is None and text:
            bare, east_ns = zoned(text)
            other = other or reader_of(zoned(one.strip())[0] for one in texts)
            try:
                one = (other(bare) - east_ns) / SECOND_NS
            except (ValueError, OverflowError):
                one = None
        found.append(one)
    return _filled(found)


def _filled(found: list[float | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return times, and where there is none: there it is that of the row before, at the head of the first."""
    unread = np.array([one is None for one in found], bool)
    last = next((one for one in found if one is not None), 0.0)
    made = np.zeros(len(found))
    for n, one in enumerate(found):
        last = last if one is None else one
        made[n] = last
    return made, unread


def _table(path: Path) -> tuple[list[str], list[list[str]], bool]:
    """Return header, rows, and whether numbers may have a decimal comma."""
    try:
        with text_of(path) as file:
            lines = list(file)
        start = next((n for n, line in enumerate(lines) if line.strip() and line[0] != "#"), 0)
        first = lines[start] if lines else ""
        delimiter = delimiter_of(first)
        rows = [row for row in csv.reader(lines[start:], delimiter=delimiter) if row]
    except UNREADABLE as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    if not rows:
        raise ConfigError(f"{path}: is empty; a header and at least one row are needed")
    head, comma = [name.strip() for name in rows[0]], delimiter == ";"
    if _is_header(head, comma=comma):
        return head, rows[1:], comma
    # Without a header: the name of the last column is a number.
    head = [f"column{k + 1}" for k in range(len(head))]
    if _is_time(rows[0][0]):
        head[0] = TIMES[0]
    if len(head) == 1 or (len(head) == 2 and head[0] == TIMES[0]):
        head[-1] = "value"
    return head, rows, comma


def _time_column(head: list[str], body: list[list[str]]) -> int | None:
    """Return which column holds the times."""
    lower = [name.lower() for name in head]
    for name in TIMES:
        if name in lower:
            return lower.index(name)
    parts = [_column(body[:ROWS_TELLING], k) for k in range(len(head))]
    for k, some in enumerate(parts):
        texts = [text for text in some if np.isnan(numbers([text])[0])]
        if len(texts) > len(some) / 2 and parse_times(texts)[1].mean() < 0.5:
            return k
    named = [k for k, name in enumerate(lower) if NAMED.search(name)]
    for k in named:
        if sum(map(_is_time, parts[k])) > len(parts[k]) / 2:
            return k
    for k in named:  # since the file began, or without any row
        value = numbers(parts[k])
        if (np.diff(value) >= 0.0).all() and not np.isnan(value).any():
            return k
    return None


def _day_column(head: list[str], place: int, times: Sequence[str]) -> int | None:
    """Return where the date stands, if the column of times holds clock times alone."""
    lower = [name.lower() for name in head]
    clocks = [text for text in times[:ROWS_TELLING] if text.strip()]
    if "date" not in lower or lower[place] == "date" or not clocks:
        return None
    return lower.index("date") if all(CLOCK.fullmatch(text.strip()) for text in clocks) else None


def _counts_rows(value: NDArray[np.float64]) -> bool:
    return bool(value.size and value[0] in (0.0, 1.0) and (np.diff(value) == 1.0).all())


def _column(body: list[list[str]], k: int) -> list[str]:
    return [row[k] if k < len(row) else "" for row in body]


def _is_header(first: list[str], *, comma: bool) -> bool:
    """Say whether the first row names columns: its last field is no number, or none behind a time."""
    last = first[-1].lower()
    if last in MISSING:
        return not _is_time(first[0])
    comma = comma or _decimal_comma(first[-1:])
    return last in WORDS or bool(np.isnan(numbers(first[-1:], comma=comma)).any())


def _decimal_comma(texts: list[str]) -> bool:
    """Say whether the first numbers of a column have a decimal comma that is no mark of thousands."""
    some = [text.strip() for text in texts[:ROWS_TELLING]]
    return any(DECIMAL.fullmatch(text) and not GROUPED.fullmatch(text) for text in some)


def _is_time(text: str) -> bool:
    if _stamp(text.strip()) is not None:
        return True
    number = numbers([text])[0]
    return bool(number >= EPOCH_LEAST) if number == number else not parse_times([text])[1][0]


def _stamp(text: str) -> int | None:
    """Return the time of digits that are a date: as seconds or ms since 1970 they are no time of today."""
    if not STAMP.fullmatch(text):
        return None
    padded = text.ljust(14, "0")
    try:
        moment = datetime.strptime(f"{padded} +0000", "%Y%m%d%H%M%S %z")
    except ValueError:
        return None
    return int(moment.timestamp())


def _seconds(text: str) -> float | None:
    stamp = _stamp(text)
    if stamp is not None:
        return stamp
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if np.isfinite(number):
        size = abs(number)
        # Times of this century: which unit the number is in shows in its size.
        for limit, unit in ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9)):
            if size < limit:
                return number / unit
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def numbers(texts: Sequence[str], *, comma: bool = False) -> NDArray[np.float64]:
    """Return the numbers of a column: 1e6, 1,234.5, 12 %, true; what is none is missing.

    >>> numbers(["1.5", "1,234", "97 %", "up", "n/a"]).tolist()
    [1.5, 1234.0, 97.0, 1.0, nan]
    >>> numbers(["1.234,5"], comma=True).tolist(), numbers(["1 234,5", "1'234.5"]).tolist()
    ([1234.5], [1234.5, 1234.5])
    """
    made = np.empty(len(texts))
    for n, text in enumerate(texts):
        try:
            made[n] = float(text)
        except ValueError:
            made[n] = _unusual(text.strip(), comma=comma)
    return made


def plain(text: str, number: float) -> str:
    """Return a value as it stood, or in a form that all programs read: 12.5 for `12,5` and for `12.5 %`."""
    try:
        float(text)
    except ValueError:
        return text if np.isnan(number) else f"{number:.15g}"
    return text


def _unusual(text: str, *, comma: bool) -> float:
    text = text.removesuffix("%").rstrip()
    if SPACED.fullmatch(text):
        text = re.sub(f"[{GAPS}]", "", text).replace(",", ".")
    elif comma:
        text = text.replace(".", "").replace(",", ".")
    elif GROUPED.fullmatch(text):
        text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        return WORDS.get(text.lower(), float("nan"))
