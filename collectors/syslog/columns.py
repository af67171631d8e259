"""Texts of log messages as columns: UTF-8 whatever came, and variables as JSON lists.

What is not UTF-8 is taken for ISO 8859-1, octet by octet; control characters become blanks, for
terminals obey them. A line end within a message stays.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import kernel, subroutine

Text = tuple[NDArray[np.int32], NDArray[np.uint8]]


@subroutine
def _sequence(b, at, end):  # type: ignore[no-untyped-def]
    """Return the octets of the UTF-8 sequence at `at`, 0 where it is none.

    Source: RFC 3629 section 4; no overlong forms, no surrogates.
    """
    first = b[at]
    if first >= 194 and first <= 223:
        return 2 if at + 1 < end and b[at + 1] & 192 == 128 else 0
    if first >= 224 and first <= 239:
        if at + 2 >= end or b[at + 1] & 192 != 128 or b[at + 2] & 192 != 128:
            return 0
        if (first == 224 and b[at + 1] < 160) or (first == 237 and b[at + 1] > 159):
            return 0
        return 3
    if first >= 240 and first <= 244:
        if at + 3 >= end or b[at + 1] & 192 != 128 or b[at + 2] & 192 != 128:
            return 0
        if b[at + 3] & 192 != 128 or (first == 240 and b[at + 1] < 144):
            return 0
        return 0 if first == 244 and b[at + 1] > 143 else 4
    return 0


@subroutine
def _append(b, at, end, out, top, quoted):  # type: ignore[no-untyped-def]
    """Append a text as UTF-8, `quoted` as the inside of a JSON string; return the place behind."""
    while at < end:
        byte = b[at]
        if byte < 128:
            if byte < 32 or byte == 127:
                if quoted == 0 and (byte == 10 or byte == 9):
                    out[top] = byte
                elif quoted and (byte == 10 or byte == 9):
                    out[top] = 92
                    top += 1
                    out[top] = 110 if byte == 10 else 116
                else:
                    out[top] = 32
            else:
                if quoted and (byte == 34 or byte == 92):
                    out[top] = 92
                    top += 1
                out[top] = byte
            top += 1
            at += 1
            continue
        octets = _sequence(b, at, end)
        if octets == 0:
            out[top] = 192 | byte >> 6
            out[top + 1] = 128 | (byte & 63)
            top += 2
            at += 1
        else:
            for i in range(octets):
                out[top + i] = b[at + i]
            top += octets
            at += octets
    return top


@kernel("i8(const u1[::1], const i8[::1], const i8[::1], i4[::1], u1[::1])")
def copy_texts(
    work: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    out_offset: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> int:
    """Copy M texts one behind the other as UTF-8; return how many octets they have.

    In      texts work[start : start + size].
    Out     out uint8[N], N >= twice the sum of sizes; out_offset int32[M + 1].
    """
    top = 0
    out_offset[0] = 0
    for m in range(size.size):
        top = _append(work, start[m], start[m] + size[m], out, top, 0)
        out_offset[m + 1] = top
    return top


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[:,::1], const i4[:,::1], const i4[::1], const i8[::1],"
    " i4[::1], u1[::1])"
)
def list_variables(
    work: NDArray[np.uint8],
    text: NDArray[np.int64],
    start: NDArray[np.int32],
    size: NDArray[np.int32],
    variables: NDArray[np.int32],
    chosen: NDArray[np.int64],
    out_offset: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> int:
    """Write the variables of the M chosen texts as JSON lists; return how many octets they have.

    In      text int64[T], places of texts in work; start, size int32[32, T] relative to them;
            variables int32[T]; chosen int64[M].
    Out     out uint8[N], N >= twice the octets of all variables + 3 for each + 2 for each text;
            out_offset int32[M + 1].
    """
    top = 0
    out_offset[0] = 0
    for m in range(chosen.size):
        t = chosen[m]
        out[top] = 91
        top += 1
        for i in range(variables[t]):
            if i > 0:
                out[top] = 44
                top += 1
            out[top] = 34
            top += 1
            at = text[t] + start[i, t]
            top = _append(work, at, at + size[i, t], out, top, 1)
            out[top] = 34
            top += 1
        out[top] = 93
        top += 1
        out_offset[m + 1] = top
    return top


def texts(work: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64]) -> Text:
    """Return texts that lie in `work` as a text column."""
    offset = np.empty(size.size + 1, np.int32)
    out = np.empty(2 * int(size.sum()) + 1, np.uint8)
    return offset, out[: copy_texts(work, start, size, offset, out)]


def plain_text(data: bytes) -> str:
    """Return one text as `texts` makes it, without line ends kept apart: for names and rare rows."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.translate(_BLANKS)


_BLANKS = {code: " " for code in (*range(32), 127) if code not in (9, 10)}
