"""The head of a log message: priority, time, host, program, message id, and where the text begins.

One kernel for RFC 5424, RFC 3164 and what routers make of it (Cisco IOS, IOS-XR, NX-OS, ASA; Juniper;
Huawei and H3C; Nokia SR OS; Arista). Nothing is required: what is missing is marked, and the rest is
still found. A word is taken for a host only behind a time, or before one.

Source: RFC 5424 section 6, RFC 3164 section 4 and 5; the vendors' system message guides.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, subroutine
from telemetry.zones import ZONES

# Rows of the kernel's answer, int64[ROWS, M]; a `*_START` is followed by the size.
(
    FACILITY, SEVERITY, HOST_START, HOST_SIZE, APP_START, APP_SIZE, PROCESS_START, PROCESS_SIZE,
    ID_START, ID_SIZE, DATA_START, DATA_SIZE, TEXT_START, TEXT_SIZE, CLOCK_NS, ZONE_MINUTES, FLAGS,
) = range(17)  # fmt: skip
ROWS = 17
NO_ZONE = 1 << 20  # in ZONE_MINUTES: the message does not say
# Bits of FLAGS.
NO_PRIORITY, RFC5424, NO_HOST, NO_TIME, NO_YEAR, UNSYNCHRONISED, BAD_DATA, UPTIME = (
    1, 2, 4, 8, 16, 32, 64, 128,
)  # fmt: skip

DAY_NS = 86_400_000_000_000
_HOST_MAX, _WORD_MAX = 255, 64
# Of a zone that means several the common one; a sender whose clock is then off by whole half hours is
# corrected all the same.
ZONE_NAMES = np.array(
    [int.from_bytes(name.encode().ljust(8, b"\0"), "big") for name in ZONES], np.uint64
)
ZONE_OFFSETS = np.array(list(ZONES.values()), np.int64)


@inline
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return byte >= 48 and byte <= 57


@inline
def _is_letter(byte):  # type: ignore[no-untyped-def]
    return (byte >= 65 and byte <= 90) or (byte >= 97 and byte <= 122)


@subroutine
def _number(b, at, end, digits_max):  # type: ignore[no-untyped-def]
    """Return (value, digits) of the decimal number at `at`."""
    value = np.int64(0)
    digits = 0
    while at + digits < end and digits < digits_max and _is_digit(b[at + digits]):
        value = value * 10 + np.int64(b[at + digits]) - 48
        digits += 1
    return value, digits


@subroutine
def _month(b, at, end):  # type: ignore[no-untyped-def]
    """Return 1-12 for an English month's first three letters in any case, else 0."""
    if at + 3 > end:
        return 0
    word = (
        (np.int64(b[at]) | 32) << 16 | (np.int64(b[at + 1]) | 32) << 8 | (np.int64(b[at + 2]) | 32)
    )
    for month, name in enumerate(
        (
            0x6A616E, 0x666562, 0x6D6172, 0x617072, 0x6D6179, 0x6A756E, 0x6A756C, 0x617567,
            0x736570, 0x6F6374, 0x6E6F76, 0x646563,
        )
    ):  # fmt: skip
        if word == name:
            return month + 1
    return 0


@subroutine
def _days(year, month, day):  # type: ignore[no-untyped-def]
    """Return days since 1970-01-01 of a date of the Gregorian calendar."""
    y = year - (1 if month <= 2 else 0)
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@subroutine
def _year_of(time_ns):  # type: ignore[no-untyped-def]
    """Return the year that a time lies in."""
    days = time_ns // DAY_NS + 719468
    era = days // 146097
    of_era = days - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return year + era * 400 + (1 if month >= 10 else 0)


@subroutine
def _month_days(year, month):  # type: ignore[no-untyped-def]
    """Return how many days a month has, 0 for one that is none; year 0 may be a leap year."""
    if month < 1 or month > 12:
        return 0
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if leap else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@subroutine
def _is_weekday(b, at):  # type: ignore[no-untyped-def]
    """Return whether an English day of the week stands at `at`, three letters in any case."""
    word = (
        (np.int64(b[at]) | 32) << 16 | (np.int64(b[at + 1]) | 32) << 8 | (np.int64(b[at + 2]) | 32)
    )
    return (
        word == 0x6D6F6E or word == 0x747565 or word == 0x776564 or word == 0x746875
        or word == 0x667269 or word == 0x736174 or word == 0x73756E
    )  # fmt: skip


@subroutine
def _epoch(b, at, end):  # type: ignore[no-untyped-def]
    """Return (place behind, ns since 1970) of `1790000000.123 `, place -1 where there is none (Meraki)."""
    value, digits = _number(b, at, end, 10)
    p = at + digits
    if digits != 10 or p + 1 >= end or b[p] != 46:
        return -1, np.int64(0)
    fraction, places = _number(b, p + 1, end, 9)
    p += 1 + places
    if places == 0 or p >= end or b[p] != 32:
        return -1, np.int64(0)
    for _ in range(9 - places):
        fraction *= 10
    return p, value * 1000000000 + fraction


@subroutine
def _sequence(b, at, end):  # type: ignore[no-untyped-def]
    """Return the place behind a sequence number `521: ` and its blanks, `at` where there is none."""
    _, digits = _number(b, at, end, 12)
    p = at + digits
    if p + 1 >= end or b[p] != 58 or b[p + 1] != 32:
        return at
    p += 2
    while p < end and b[p] == 32:
        p += 1
    return p


@subroutine
def _clock(b, at, end):  # type: ignore[no-untyped-def]
    """Return (place behind, ns of the day) of `HH:MM:SS[.fraction]`, (-1, 0) where there is none.

    -1 ns where no clock says that: `24:00:00`.
    """
    if at + 8 > end or b[at + 2] != 58 or b[at + 5] != 58:
        return -1, 0
    hour, a = _number(b, at, end, 2)
    minute, c = _number(b, at + 3, end, 2)
    second, d = _number(b, at + 6, end, 2)
    if a != 2 or c != 2 or d != 2:
        return -1, 0
    p = at + 8
    fraction = np.int64(0)
    if p + 1 < end and (b[p] == 46 or b[p] == 44) and _is_digit(b[p + 1]):
        fraction, digits = _number(b, p + 1, end, 9)
        for _ in range(9 - digits):
            fraction *= 10
        p += 1 + digits
        while p < end and _is_digit(b[p]):
            p += 1
    if hour > 23 or minute > 59 or second > 60:
        return p, -1
    return p, ((hour * 60 + minute) * 60 + second) * 1000000000 + fraction


@subroutine
def _zone(b, at, end, names, minutes):  # type: ignore[no-untyped-def]
    """Return (place behind, minutes ahead of UTC) of a zone at `at`, (at, NO_ZONE) where none is.

    `Z`, `+02:00`, `-0500`, ` +02:00`, ` CEST` with a blank or a colon behind it, ` CEST:` also where
    the name is not known (the zone is then not known, but it is not the host).
    """
    p = at
    if p < end and b[p] == 32:
        p += 1
    if p >= end:
        return at, NO_ZONE
    if b[p] == 43 or b[p] == 45:
        hours, a = _number(b, p + 1, end, 2)
        q = p + 1 + a
        rest = np.int64(0)
        if q < end and b[q] == 58:
            rest, c = _number(b, q + 1, end, 2)
            q += 1 + c
        else:
            rest, c = _number(b, q, end, 2)
            q += c
        if a != 2 or (c != 2 and c != 0) or hours > 14 or rest > 59:
            return at, NO_ZONE
        total = hours * 60 + rest
        return q, (total if b[p] == 43 else -total)
    if b[p] == 122 and p == at and (p + 1 == end or b[p + 1] == 32):
        return p + 1, 0  # RFC 3339 lets `z` be small, RFC 5424 does not
    letters = 0
    word = np.uint64(0)
    while p + letters < end and letters < 6 and _is_letter(b[p + letters]):
        if b[p + letters] > 90:
            return at, NO_ZONE
        word |= np.uint64(b[p + letters]) << np.uint64(56 - 8 * letters)
        letters += 1
    if letters == 0 or letters > 5:
        return at, NO_ZONE
    q = p + letters
    colon = q < end and b[q] == 58
    if q < end and b[q] != 32 and not colon:
        return at, NO_ZONE
    for i in range(names.size):
        if names[i] == word:
            return q, minutes[i]
    if colon and p > at and letters > 1 and (q + 1 >= end or b[q + 1] == 32):
        # ` XYZ: %` is an unknown zone; ` XYZ: text` a program. Only Cisco writes the first.
        if q + 2 < end and b[q + 2] == 37:
            return q, NO_ZONE
    return at, NO_ZONE


@subroutine
def _stamp(b, at, end, names, minutes):  # type: ignore[no-untyped-def]
    """Return (place behind, year, month, day, ns of the day, zone) of a time; place -1 = none.

    Year 0 = not said; day 0 = what is written is no time: a 30th of February, 24 o'clock. `Mmm dd [yyyy]
    HH:MM:SS`, `yyyy Mmm dd HH:MM:SS`, `yyyy-mm-dd[T ]HH:MM:SS`, `yyyy/mm/dd HH:MM:SS`, `yyyy-Mmm-dd
    HH:MM:SS`; each with fraction and zone, `Mmm dd` also behind the day of the week.
    """
    year = np.int64(0)
    month = np.int64(0)
    day = np.int64(0)
    p = at
    if at + 14 > end:
        return -1, year, month, day, np.int64(0), NO_ZONE
    if _is_digit(b[p]):
        year, digits = _number(b, p, end, 4)
        if digits != 4 or year < 1970 or year > 2200:
            return -1, year, month, day, np.int64(0), NO_ZONE
        p += 4
        mark = b[p]
        if mark == 32 or (mark == 45 and _is_letter(b[p + 1])):
            month = np.int64(_month(b, p + 1, end))
            p += 4
            if month == 0:
                return -1, year, month, day, np.int64(0), NO_ZONE
        elif mark == 45 or mark == 47:
            month, digits = _number(b, p + 1, end, 2)
            if digits == 0:
                return -1, year, month, day, np.int64(0), NO_ZONE
            p += 1 + digits
        if p >= end or b[p] != mark:
            return -1, year, month, day, np.int64(0), NO_ZONE
        p += 1
    else:
        month = np.int64(_month(b, p, end))
        if month == 0 and b[p + 3] == 32 and _is_weekday(b, p):
            p += 4
            month = np.int64(_month(b, p, end))
        if month == 0 or b[p + 3] != 32:
            return -1, year, month, day, np.int64(0), NO_ZONE
        p += 4
    while p < end and b[p] == 32:
        p += 1
    day, digits = _number(b, p, end, 2)
    p += digits
    if digits == 0 or p >= end or (b[p] != 32 and b[p] | 32 != 116):  # `T`, RFC 3339 also `t`
        return -1, year, month, day, np.int64(0), NO_ZONE
    p += 1
    if year == 0 and p + 5 < end and b[p + 4] == 32:
        said, digits = _number(b, p, end, 4)
        if digits == 4 and said >= 1970 and said <= 2200:
            year = said
            p += 5
    behind, of_day = _clock(b, p, end)
    if behind < 0:
        return -1, year, month, day, np.int64(0), NO_ZONE
    p, zone = _zone(b, behind, end, names, minutes)
    if year == 0 and p + 5 <= end and b[p] == 32 and (b[p + 1] == 49 or b[p + 1] == 50):
        said, digits = _number(b, p + 1, end, 5)  # `Aug 24 05:34:00 CST 1987`
        closed = p + 5 == end or b[p + 5] == 32
        if not closed and b[p + 5] == 58:  # `1987: `, but not the host 2001:db8::7
            closed = p + 6 == end or b[p + 6] == 32
        if digits == 4 and said >= 1970 and closed:
            year = said
            p += 5
    if zone == NO_ZONE:
        p, zone = _zone(b, p, end, names, minutes)
    if zone != NO_ZONE and p + 4 <= end and b[p] == 32 and b[p + 1] == 68 and b[p + 2] == 83:
        if b[p + 3] == 84:
            p += 4  # Huawei: ` DST`, the offset has it in
    if of_day < 0 or day > _month_days(year, month):
        day = np.int64(0)
    return p, year, month, day, of_day, zone


@subroutine
def _word(b, at, end):  # type: ignore[no-untyped-def]
    """Return the place behind the word at `at`: the next blank, or the end."""
    p = at
    while p < end and b[p] > 32:
        p += 1
    return p


@subroutine
def _tag(b, at, end):  # type: ignore[no-untyped-def]
    """Return (end of the program's name, process start, process end, place behind the colon).

    `name:`, `name[123]:`, `name[123]` before a blank; place -1 where there is none. At most 64 octets.
    """
    p = at
    while p < end and p - at < _WORD_MAX:
        byte = b[p]
        if byte == 58 or byte == 91 or byte <= 32:
            break
        if byte == 34 or byte == 60 or byte == 61 or byte == 44 or byte == 123 or byte == 37:
            return at, at, at, -1
        p += 1
    if p == at or p >= end:
        return at, at, at, -1
    name_end = p
    if b[p] == 91:
        first = p + 1
        q = first
        while q < end and q - first < _WORD_MAX and b[q] != 93 and b[q] > 32:
            q += 1
        if q >= end or b[q] != 93:
            return at, at, at, -1
        if q + 1 < end and b[q + 1] == 58:
            return name_end, first, q, q + 2
        if q + 1 < end and b[q + 1] == 32 and _is_digit(b[first]):
            return name_end, first, q, q + 1
        return at, at, at, -1
    if b[p] == 58 and (p + 1 >= end or b[p + 1] == 32 or b[p + 1] == 37):
        return name_end, p, p, p + 1
    return at, at, at, -1


@subroutine
def _message_id(b, at, end):  # type: ignore[no-untyped-def]
    """Return (start, end, place behind, severity or -1) of a vendor's message id; place -1 = none.

    `%LINEPROTO-5-UPDOWN:`, `%%01IFNET/4/LINK_STATE(l)[12]:`, `SNMP_TRAP_LINK_DOWN:`.
    """
    p = at
    if p < end and b[p] == 37:
        p += 1
        if p < end and b[p] == 37:
            p += 1
            while p < end and _is_digit(b[p]):
                p += 1
        start = p
        severity = np.int64(-1)
        while p < end and p - start < _WORD_MAX:
            byte = b[p]
            if byte <= 32 or byte == 58 or byte == 40 or byte == 91:
                break
            if (byte == 45 or byte == 47) and p > start and p + 2 < end and severity < 0:
                if b[p + 1] >= 48 and b[p + 1] <= 55 and b[p + 2] == byte:
                    severity = np.int64(b[p + 1]) - 48
            p += 1
        if severity < 0 or p == start:
            return at, at, -1, np.int64(-1)
        stop = p
        while p < end and b[p] != 58 and p - stop < 24:
            p += 1
        if p >= end or b[p] != 58:
            p = stop - 1
        return start, stop, p + 1, severity
    joined = False
    while p < end and p - at < _WORD_MAX:
        byte = b[p]
        if byte == 95:
            joined = True
        elif not ((byte >= 65 and byte <= 90) or _is_digit(byte)):
            break
        p += 1
    if joined and p + 1 < end and b[p] == 58 and b[p + 1] == 32 and not _is_digit(b[at]):
        return at, p, p + 1, np.int64(-1)
    return at, at, -1, np.int64(-1)


@subroutine
def _structured(b, at, end):  # type: ignore[no-untyped-def]
    """Return the place behind RFC 5424 structured data at `at`, -1 where it is broken.

    Source: RFC 5424 section 6.3: `"`, `\\` and `]` are escaped within a value.
    """
    p = at
    while p < end and b[p] == 91:
        quoted = False
        p += 1
        while p < end:
            byte = b[p]
            if quoted and byte == 92:
                p += 1
            elif byte == 34:
                quoted = not quoted
            elif byte == 93 and not quoted:
                break
            p += 1
        if p >= end:
            return -1
        p += 1
    return p if p > at else -1


@subroutine
def _is_host(b, at, end):  # type: ignore[no-untyped-def]
    """Return whether a word may be a host's name or address, and where it ends without its colon."""
    stop = end
    if stop > at and b[stop - 1] == 58:
        stop -= 1
    if stop <= at or stop - at > _HOST_MAX:
        return at
    colons = 0
    for p in range(at, stop):
        byte = b[p]
        if byte == 58:
            colons += 1
        elif byte == 37 and colons > 1:  # the interface of fe80::1%eth0
            continue
        named = _is_letter(byte) or _is_digit(byte) or byte == 45 or byte == 46 or byte == 95
        if not named and byte != 58 and byte < 128:
            return at
    return stop


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const i8[::1], const u8[::1], const i8[::1],"
    " i8[:,::1])"
)
def parse_heads(
    work: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int32],
    arrival_ns: NDArray[np.int64],
    zone_names: NDArray[np.uint64],
    zone_minutes: NDArray[np.int64],
    out: NDArray[np.int64],
) -> int:
    """Find the parts of M messages and return how many are RFC 5424.

    In      messages work[start : start + size], sizes over 0; arrival_ns int64[M], for the year;
            zone names as eight octets big-endian, and minutes ahead of UTC.
    Out     out int64[17, M], see the rows above. CLOCK_NS is the time as written, as if it were UTC;
            the year that is not said is the last one that puts it no later than a day behind arrival.
    Errors  none: a part that is missing has size 0 and a flag; what is no head is text.
    Source  RFC 5424 section 6, RFC 3164 section 4.
    """
    structured = 0
    b = work
    for m in range(size.size):
        at = start[m]
        end = at + size[m]
        for row in range(ROWS):
            out[row, m] = 0
        out[ZONE_MINUTES, m] = NO_ZONE
        flags = 0
        if end - at >= 3 and b[at] == 239 and b[at + 1] == 187 and b[at + 2] == 191:
            at += 3  # a byte order mark
        facility = np.int64(1)
        severity = np.int64(5)
        flags |= NO_PRIORITY
        if at < end and b[at] == 60:
            value, digits = _number(b, at + 1, end, 3)
            close = at + 1 + digits
            if digits > 0 and close < end and b[close] == 62 and value <= 191:
                facility = value >> 3
                severity = value & 7
                flags ^= NO_PRIORITY
                at = close + 1
        year = np.int64(0)
        month = np.int64(0)
        day = np.int64(0)
        of_day = np.int64(0)
        zone = np.int64(NO_ZONE)
        timed = False
        app_set = False
        epoch_ns = np.int64(0)
        p = at
        # RFC 5424: VERSION SP (TIMESTAMP / "-") SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP SD [SP MSG]
        _version, digits = _number(b, at, end, 3)
        is_5424 = False
        if flags & NO_PRIORITY == 0 and digits > 0 and b[at] != 48:
            p = at + digits
            if p >= end:
                is_5424 = True
            elif b[p] == 32:
                p += 1
                if p + 1 <= end and b[p] == 45 and (p + 1 == end or b[p + 1] == 32):
                    is_5424 = True
                    p += 1
                else:
                    behind, year, month, day, of_day, zone = _stamp(
                        b, p, end, zone_names, zone_minutes
                    )
                    if behind > 0 and b[p + 4] == 45 and (behind == end or b[behind] == 32):
                        is_5424 = True
                        timed = True
                        p = behind
        if is_5424:
            structured += 1
            flags |= RFC5424
            field = 0
            while field < 4 and p < end:
                if b[p] == 32:
                    p += 1
                behind = _word(b, p, end)
                if behind > p and not (behind == p + 1 and b[p] == 45):
                    place = (HOST_START, APP_START, PROCESS_START, ID_START)[field]
                    out[place, m] = p
                    out[place + 1, m] = behind - p
                p = behind
                field += 1
            if p < end and b[p] == 32:
                p += 1
            if p < end and b[p] == 45 and (p + 1 == end or b[p + 1] == 32):
                p += 1
            elif p < end and b[p] == 91:
                behind = _structured(b, p, end)
                if behind < 0:
                    flags |= BAD_DATA
                else:
                    out[DATA_START, m] = p
                    out[DATA_SIZE, m] = behind - p
                    p = behind
            elif p < end:
                flags |= BAD_DATA
            if p < end and b[p] == 32:
                p += 1
            if end - p >= 3 and b[p] == 239 and b[p + 1] == 187 and b[p + 2] == 191:
                p += 3
            app_set = out[APP_SIZE, m] > 0
            first, stop, behind, said = _message_id(b, p, end)
            if behind >= 0:
                same = out[ID_SIZE, m] == stop - first
                for i in range(first, stop):
                    same = same and b[i] == b[out[ID_START, m] + i - first]
                if out[ID_SIZE, m] == 0:
                    out[ID_START, m] = first
                    out[ID_SIZE, m] = stop - first
                if same or out[ID_START, m] == first:  # some say their MSGID in the text once more
                    p = behind
                    while p < end and b[p] == 32:
                        p += 1
        else:
            p = at
            while p < end and b[p] == 32:
                p += 1
            # Cisco's sequence numbers: `521: `, also two of them; NX-OS without a host: `: `.
            if p < end and _is_digit(b[p]):
                p = _sequence(b, _sequence(b, p, end), end)
                behind, epoch_ns = _epoch(b, p + 2 if p + 2 < end and b[p + 1] == 32 else p, end)
                if behind > 0:
                    timed = True
                    p = behind
            # The time is here, or behind one or two words: `host: `, `host RP/0/RSP0/CPU0:`.
            base = p
            word_at = p
            colon = False
            for words in range(0 if timed else 3):
                q = word_at
                if q < end and (b[q] == 42 or b[q] == 46 or b[q] == 58):
                    q += 1
                    if q < end and b[q] == 32:
                        q += 1
                behind, year, month, day, of_day, zone = _stamp(b, q, end, zone_names, zone_minutes)
                glued = np.int64(0)
                if behind < 0:
                    # IOS-XR glues the time to the node's name: `LC/0/2/CPU0:Jul  7`.
                    stop = _word(b, word_at, end)
                    glued = word_at
                    while glued < stop and b[glued] != 58:
                        glued += 1
                    if glued + 1 < stop and glued > word_at:
                        q = glued + 1
                        if b[q] == 42 or b[q] == 46:
                            q += 1
                        behind, year, month, day, of_day, zone = _stamp(
                            b, q, end, zone_names, zone_minutes
                        )
                    if behind < 0:
                        glued = np.int64(0)
                if behind > 0:
                    timed = True
                    if q > word_at and (b[q - 1] == 42 or b[q - 1] == 46):
                        flags |= UNSYNCHRONISED
                    if words > 0:
                        stop = _is_host(b, base, _word(b, base, end))
                        if stop > base:
                            out[HOST_START, m] = base
                            out[HOST_SIZE, m] = stop - base
                    if words == 2 and glued == 0:
                        stop = _word(b, word_at - 1, end)
                        first = base
                        while b[first] > 32:
                            first += 1
                        while b[first] == 32:
                            first += 1
                        out[APP_START, m] = first
                        out[APP_SIZE, m] = _word(b, first, end) - first
                        app_set = True
                    p = behind
                    break
                stop = _word(b, word_at, end)
                if stop == word_at or stop - word_at > _HOST_MAX or b[word_at] == 37:
                    break
                if words == 0 and _is_host(b, word_at, stop) == word_at:
                    break
                word_at = stop
                while word_at < end and b[word_at] == 32:
                    word_at += 1
                word_at = _sequence(b, word_at, end)  # `host: 521: `
            if timed:
                while p < end and b[p] == 32:
                    p += 1
                if p < end and b[p] == 58:
                    colon = True
                    p += 1
            else:
                # Uptime instead of a time: `1w2d: %`, `00:01:02: %`; `host: %`.
                p = base
                stop = _word(b, p, end)
                if stop > p + 1 and b[stop - 1] == 58 and stop + 1 < end and b[stop + 1] == 37:
                    if _is_digit(b[p]):
                        flags |= UPTIME
                    else:
                        host_end = _is_host(b, p, stop)
                        if host_end > p:
                            out[HOST_START, m] = p
                            out[HOST_SIZE, m] = host_end - p
                    p = stop
            while p < end and b[p] == 32:
                p += 1
            if timed and not colon and out[HOST_SIZE, m] == 0 and not app_set:
                stop = _word(b, p, end)
                more = stop
                while more < end and b[more] == 32:
                    more += 1
                if stop > p and more < end and b[stop - 1] != 58:
                    host_end = _is_host(b, p, stop)
                    if host_end == stop:
                        out[HOST_START, m] = p
                        out[HOST_SIZE, m] = host_end - p
                        p = more
                        if p + 1 < end and b[p] == 58 and b[p + 1] == 32:
                            p += 2  # `host : %ASA-`
            # Junos' line cards: `fpc3 fpc3 dcpfe:`.
            for _ in range(2):
                if p + 4 < end and b[p] == 102 and b[p + 1] == 112 and b[p + 2] == 99:
                    value, digits = _number(b, p + 3, end, 3)
                    if digits > 0 and p + 3 + digits < end and b[p + 3 + digits] == 32:
                        p += 4 + digits
            if not app_set:
                first, stop, behind, said = _message_id(b, p, end)
                if behind > 0 and said < 0 and behind < end:
                    # Junos: `RT_FLOW: RT_FLOW_SESSION_CLOSE: text`, the program first.
                    _, _, after, again = _message_id(b, behind + 1, end)
                    if after > 0 and again < 0:
                        behind = -1
                if behind < 0:
                    name_end, process, process_end, after = _tag(b, p, end)
                    if after > 0:
                        out[APP_START, m] = p
                        out[APP_SIZE, m] = name_end - p
                        out[PROCESS_START, m] = process
                        out[PROCESS_SIZE, m] = process_end - process
                        p = after
            while p < end and b[p] == 32:
                p += 1
            if p < end and _is_digit(b[p]):
                place = _sequence(b, p, end)
                if place < end and b[place] == 37:
                    p = place  # EOS numbers its messages behind the program
            first, stop, behind, said = _message_id(b, p, end)
            if behind < 0 and app_set:
                # opengear: `host app time TAG: text`
                name_end, process, process_end, after = _tag(b, p, end)
                if after > 0:
                    first = p
                    stop = name_end
                    behind = after
            if behind >= 0:
                out[ID_START, m] = first
                out[ID_SIZE, m] = stop - first
                p = behind
                if said >= 0 and flags & NO_PRIORITY != 0:
                    severity = np.int64(said)
                if out[APP_SIZE, m] == 0 and said >= 0:
                    # The facility before the severity stands for the program.
                    q = first
                    while q + 1 < stop and not (
                        (b[q] == 45 or b[q] == 47) and b[q + 1] >= 48 and b[q + 1] <= 55
                        and q + 2 < stop and b[q + 2] == b[q]
                    ):  # fmt: skip
                        q += 1
                    out[APP_START, m] = first
                    out[APP_SIZE, m] = q - first
            elif (
                out[APP_SIZE, m] == 4
                and b[out[APP_START, m]] == 84
                and b[out[APP_START, m] + 1] == 77
            ):
                # Nokia SR OS: `TMNX: 1234 Base SNMP-WARNING-linkDown-2004 [Interface 1/1/1]:  text`
                q = p
                value, digits = _number(b, q, end, 12)
                if digits > 0 and q + digits < end and b[q + digits] == 32:
                    q = _word(b, q + digits + 1, end) + 1  # the routing context
                    stop = min(_word(b, q, end), q + _WORD_MAX)
                    dashes = 0
                    for i in range(q, stop):
                        if b[i] == 45:
                            dashes += 1
                    if dashes >= 2 and stop < end:
                        out[ID_START, m] = q
                        out[ID_SIZE, m] = stop - q
                        p = stop
            while p < end and b[p] == 32:
                p += 1
        if out[HOST_SIZE, m] == 0:
            flags |= NO_HOST
        elif out[HOST_SIZE, m] > 4:
            # Junos names its routing engine first: the router is the same after a switch-over.
            host = out[HOST_START, m]
            if b[host] == 114 and b[host + 1] == 101 and b[host + 3] == 46:
                if b[host + 2] == 48 or b[host + 2] == 49:
                    out[HOST_START, m] = host + 4
                    out[HOST_SIZE, m] -= 4
        if epoch_ns > 0:
            out[CLOCK_NS, m] = epoch_ns
            out[ZONE_MINUTES, m] = 0
        elif timed and day > 0:
            if year == 0:
                flags |= NO_YEAR
                arrived = _year_of(arrival_ns[m])
                best = _days(arrived - 1, month, day) * DAY_NS + of_day
                for candidate in range(arrived, arrived + 2):
                    made = _days(candidate, month, day) * DAY_NS + of_day
                    if made <= arrival_ns[m] + DAY_NS:  # a day: zones, and clocks that are fast
                        best = made
                out[CLOCK_NS, m] = best
            else:
                out[CLOCK_NS, m] = _days(year, month, day) * DAY_NS + of_day
            out[ZONE_MINUTES, m] = zone
        else:
            flags |= NO_TIME
        out[FACILITY, m] = facility
        out[SEVERITY, m] = severity
        out[TEXT_START, m] = p
        out[TEXT_SIZE, m] = max(end - p, 0)
        out[FLAGS, m] = flags
    return structured
