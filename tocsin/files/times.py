"""Times as files have them: numbers of any unit, ISO 8601, RFC 2822, and dates of several orders."""

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice

from collectors.foreign_text import datetime_ns, iso_ns

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
