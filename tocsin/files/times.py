"""Times as files have them: numbers of any unit, ISO 8601, RFC 2822, dates of several orders, of spreadsheets."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice

from collectors.foreign_text import datetime_ns, iso_ns
from telemetry.zones import ZONES

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS  # of files that count from 0
RELATIVE_SECONDS = 400_000_000  # what is less is a time since the file began, not since 1970
_UNITS = ((10**11, SECOND_NS), (10**14, 1_000_000), (10**17, 1_000), (10**19, 1))
# Day before month: where every date of a file can be read both ways, most of the world means that.
FORMS = (
    *(f"%d{mark}%m{mark}%Y" for mark in "./-"),
    *(f"%m{mark}%d{mark}%Y" for mark in "/-"),
    "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y-%m", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%b %d %Y", "%d-%b-%y",
)  # fmt: skip
CLOCKS = (" %H:%M:%S", " %H:%M:%S.%f", " %H:%M", " %I:%M:%S %p", " %I:%M %p", "T%H:%M:%S", "")
FIRST = 200  # times that are tried in every way
PLAIN_LEAST = 0.5  # of them, for a file of plain times
Reader = Callable[[str], int]
_ZONED = re.compile(r"(.*\d:\d\d.*?) *(?:([A-Z]{1,4})|(?:UTC|GMT)?([+-])(\d\d):?(\d\d)?)")
SERIAL_FIRST_NS = -25_569 * 86_400 * SECOND_NS  # 1899-12-30: day 0 of spreadsheets
SERIAL_LEAST, SERIAL_MOST = 25_569.0, 73_051.0  # 1970 to 2100


def time_ns(text: str) -> int:
    """Return a number or an ISO time as ns since 1970; a small number counts from START_NS.

    Raises ValueError for what is neither.

    >>> time_ns("1774000000.5"), time_ns("2026-03-20T10:26:40Z"), time_ns("90") - START_NS
    (1774000000500000000, 1774002400000000000, 90000000000)
    """
    if len(text) == 14 and text.isdigit():
        return _by_form("%Y%m%d%H%M%S")(text)
    try:
        number: int | float = int(text) if text.isdigit() else float(text)
    except ValueError:
        try:
            return iso_ns(text.removesuffix(" UTC"))
        except ValueError:
            raise ValueError(f"{text!r} is no time") from None
    if number < RELATIVE_SECONDS:
        return START_NS + round(number * SECOND_NS)
    for limit, unit in _UNITS:
        if number < limit:
            return round(number * unit)
    raise ValueError(f"{text!r} is no time")


def zoned(text: str) -> tuple[str, int]:
    """Return a time without the zone behind it, and how many ns that is east of UTC.

    >>> zoned("20.03.2026 10:00 CET"), zoned("2026-03-20 10:00:00 +01"), zoned("10:00 AM")
    (('20.03.2026 10:00', 3600000000000), ('2026-03-20 10:00:00', 3600000000000), ('10:00 AM', 0))
    """
    found = _ZONED.fullmatch(text)
    if found is None or (found[2] is not None and found[2] not in ZONES):
        return text, 0
    if found[2] is not None:
        return found[1], ZONES[found[2]] * 60 * SECOND_NS
    minutes = int(found[4]) * 60 + int(found[5] or 0)
    return found[1], (minutes if found[3] == "+" else -minutes) * 60 * SECOND_NS


def serial_ns(number: float) -> int:
    """Return the time of a spreadsheet's day number, to the second: its digits say no more.

    >>> serial_ns(45000.5) // SECOND_NS  # 2023-03-15 12:00
    1678881600
    """
    return SERIAL_FIRST_NS + round(number * 86_400) * SECOND_NS


def reader_of(texts: Iterable[str]) -> Reader:
    """Return what reads most times of a file: plain ones, or else the first fitting order of dates."""
    each = (text for text in texts if text)
    first = list(islice(each, FIRST))
    if not first or sum(_reads(time_ns, text) for text in first) >= PLAIN_LEAST * len(first):
        return time_ns
    forms = (_by_form(form + clock) for form in FORMS for clock in CLOCKS)
    fits = [(sum(_reads(reader, text) for text in first), reader) for reader in forms]
    most = max(count for count, _ in fits)
    readers = [reader for count, reader in fits if count and count == most]
    if len(readers) < 2:
        return readers[0] if readers else time_ns
    counts = [0] * len(readers)
    for text in each:  # 01/02 may be either: a later 13 tells
        for i, reader in enumerate(readers):
            counts[i] += _reads(reader, text)
    return readers[counts.index(max(counts))]


def _by_form(form: str) -> Reader:
    def read(text: str) -> int:
        return datetime_ns(datetime.strptime(f"{text} +0000", f"{form} %z"))

    return read


def _reads(reader: Reader, text: str) -> bool:
    try:
        reader(text)
    except (ValueError, OverflowError):
        return False
    return True
