"""Where one log message ends and the next begins: datagrams, and byte streams of TCP and TLS.

Source: RFC 5426 section 3.1 (one message a datagram), RFC 6587 section 3.4.1 (octet counting) and
3.4.2 (non-transparent framing); both may stand in one connection, told apart frame by frame.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock, choose
from runtime.kernels import inline, kernel

COUNT_DIGITS_MAX = 6  # a longer octet count is text: nobody sends a megabyte of log
SLACK = 16  # bytes of a frame's head that may wait beside a whole message


class Frame(IntEnum):
    """What happened while streams were cut into messages; the lower-case name is a metric label."""

    OCTET_COUNTED = 0
    LINE = 1
    DATAGRAM = 2
    CUT = 3  # longer than message_bytes_max: its end was left out
    UNFINISHED = 4  # the connection ended before all the octets that were counted out
    EMPTY = 5


# Columns of a connection's state.
WAITING, SKIP = 0, 1  # octets that wait; octets to leave out, -1 = up to a LF
STATE = 2


@inline
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return byte >= 48 and byte <= 57


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const i4[::1], i8, i8, u1[:,::1], i8[:,::1],"
    " u1[::1], i8[::1], i4[::1], i4[::1], u1[::1], u8[::1])"
)
def cut_streams(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    connection: NDArray[np.int32],
    limit: int,
    multi_line: int,
    carry: NDArray[np.uint8],
    state: NDArray[np.int64],
    work: NDArray[np.uint8],
    out_start: NDArray[np.int64],
    out_size: NDArray[np.int32],
    out_datagram: NDArray[np.int32],
    out_cut: NDArray[np.uint8],
    tally: NDArray[np.uint64],
) -> int:
    """Cut D chunks of byte streams into messages and return how many there are.

    In      D chunks as in DatagramBlock; a chunk of length 0 ends its connection. connection int32[D];
            limit: octets of a message, more are left out; multi_line: a LF ends a message only where
            `<` and a digit follow.
    Inout   carry uint8[C, limit + 16], state int64[C, 2]: what each connection has not finished.
    Out     work uint8[N], N >= what waits + twice the octets of all chunks + limit + 16: the
            messages lie there; out_* with N // 2 + D places: where, how long, of which chunk, and
            whether cut; tally uint64[6] grows, see Frame.
    Source  RFC 6587 section 3.4: `MSG-LEN SP SYSLOG-MSG` or `SYSLOG-MSG LF`.
    """
    rows = 0
    top = 0
    for d in range(length.size):
        c = connection[d]
        begin = top
        for i in range(state[c, 0]):
            work[top] = carry[c, i]
            top += 1
        for i in range(offset[d], offset[d] + length[d]):
            work[top] = payload[i]
            top += 1
        ended = length[d] == 0
        before = rows
        at = begin
        skip = state[c, 1]
        while at < top:
            if skip > 0:
                gone = min(skip, top - at)
                at += gone
                skip -= gone
                continue
            if skip < 0:
                while at < top and work[at] != 10:
                    at += 1
                if at < top and multi_line != 0 and not ended:
                    # The message that was cut goes on until another begins.
                    if at + 2 >= top:
                        break
                    begins = work[at + 1] == 60 and _is_digit(work[at + 2])
                    at += 1
                    skip = np.int64(0) if begins else skip
                elif at < top:
                    at += 1
                    skip = np.int64(0)
                continue
            byte = work[at]
            if byte == 10 or byte == 13 or byte == 0:  # some end a counted frame with a LF too
                at += 1
                continue
            # An octet count: one to six digits that begin with no 0, a space, `<`.
            digits = 0
            count = np.int64(0)
            counted = False
            if byte >= 49 and byte <= 57:
                while (
                    at + digits < top
                    and digits <= COUNT_DIGITS_MAX
                    and _is_digit(work[at + digits])
                ):
                    count = count * 10 + np.int64(work[at + digits]) - 48
                    digits += 1
                if digits <= COUNT_DIGITS_MAX:
                    beyond = at + digits
                    if beyond + 1 < top:
                        counted = work[beyond] == 32 and work[beyond + 1] == 60
                    elif not ended and (beyond == top or work[beyond] == 32):
                        break  # which of both it is shows with the next octet
            if counted:
                body = at + digits + 1
                if top - body >= count:
                    octets = count if count < limit else np.int64(limit)
                    out_cut[rows] = 1 if count > limit else 0
                    at = body + int(count)
                elif top - body >= limit or ended:
                    octets = np.int64(top - body) if top - body < limit else np.int64(limit)
                    out_cut[rows] = 1
                    skip = count - octets
                    at = body + int(octets)
                    if ended:
                        skip = np.int64(0)
                        tally[4] += np.uint64(1)
                else:
                    break
                out_start[rows] = body
                out_size[rows] = octets
                out_datagram[rows] = d
                tally[0] += np.uint64(1)
                tally[3] += np.uint64(1 if count > limit else 0)
                rows += 1
                continue
            end = at
            found = False
            waits = False
            while end < top and end - at < limit:
                if work[end] == 10:
                    if multi_line == 0 or (ended and end + 2 >= top):
                        found = True
                    elif end + 2 >= top:
                        # Whether this LF ends the message shows with the octets behind it.
                        waits = end + 1 >= top or work[end + 1] == 60
                        found = False
                    else:
                        found = work[end + 1] == 60 and _is_digit(work[end + 2])
                    if found or waits:
                        break
                end += 1
            if waits:
                break
            if not found and top - at <= limit and not ended:
                break
            out_start[rows] = at
            out_size[rows] = end - at
            out_datagram[rows] = d
            out_cut[rows] = 0
            tally[1] += np.uint64(1)
            if found:
                at = end + 1
            elif end - at >= limit:
                at = end
                skip = np.int64(-1)
                if at < top and work[at] == 10:  # it fits exactly
                    at += 1
                    skip = np.int64(0)
                else:
                    out_cut[rows] = 1
                    tally[3] += np.uint64(1)
            else:
                at = end
            rows += 1
        left = top - at
        for i in range(left):
            carry[c, i] = work[at + i]
        state[c, 0] = left
        state[c, 1] = skip
        if ended:
            state[c, 0] = 0
            state[c, 1] = 0
        if rows == before:
            top = begin  # nothing lies there
    return rows


@kernel("i8(const u1[::1], i8[::1], i4[::1], i8)")
def trim(
    work: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int32], rows: int
) -> int:
    """Take blanks, line ends and NULs off the end of each message; return how many are empty."""
    empty = 0
    for r in range(rows):
        at = start[r]
        end = at + size[r]
        while end > at and (work[end - 1] <= 32):
            end -= 1
        size[r] = end - at
        if end == at:
            empty += 1
    return empty


class Messages:
    """M messages: message m is work[start[m] : start[m] + size[m]], of datagram or chunk datagram[m]."""

    __slots__ = ("cut", "datagram", "size", "start", "work")

    def __init__(
        self,
        work: NDArray[np.uint8],
        start: NDArray[np.int64],
        size: NDArray[np.int32],
        datagram: NDArray[np.int32],
        cut: NDArray[np.uint8],
    ) -> None:
        self.work, self.start, self.size, self.datagram, self.cut = work, start, size, datagram, cut


def of_datagrams(block: DatagramBlock, limit: int, tally: NDArray[np.uint64]) -> Messages:
    """Return one message a datagram; what is beyond `limit` is left out and counted."""
    long = block.length > limit
    size = np.minimum(block.length, limit).astype(np.int32)
    start = block.offset.astype(np.int64)
    empty = trim(block.payload, start, size, size.size)
    tally[Frame.EMPTY] += np.uint64(empty)
    tally[Frame.CUT] += np.uint64(np.count_nonzero(long))
    tally[Frame.DATAGRAM] += np.uint64(size.size)
    kept = np.flatnonzero(size)
    return Messages(
        block.payload, start[kept], size[kept], kept.astype(np.int32), long[kept].astype(np.uint8)
    )


class Connections:
    """What open connections have not finished: at most so many, each at most one message long."""

    def __init__(self, connections_max: int, limit: int) -> None:
        self._limit = limit
        self._rows: dict[tuple[int, int, int], int] = {}
        self._free = list(range(connections_max - 1, -1, -1))
        # Pages that nobody touches cost nothing: a connection costs what it leaves unfinished.
        self._carry = np.zeros((connections_max, limit + SLACK), np.uint8)
        self._state = np.zeros((connections_max, STATE), np.int64)
        self._heard_ns = np.zeros(connections_max, np.int64)
        self.refused = 0

    @property
    def open(self) -> int:
        """How many connections have sent something and not ended."""
        return len(self._rows)

    def cut(self, block: DatagramBlock, *, multi_line: bool, tally: NDArray[np.uint64]) -> Messages:
        """Return the messages that a block's chunks finish, in the order of the chunks."""
        connection = self._locate(block)
        use = np.flatnonzero(connection >= 0)
        if use.size < connection.size:
            chosen = choose(block, use)
            messages = self._cut(chosen, connection[use], multi_line, tally)
            messages.datagram = use[messages.datagram].astype(np.int32)
        else:
            messages = self._cut(block, connection, multi_line, tally)
        return messages

    def _cut(
        self,
        block: DatagramBlock,
        connection: NDArray[np.int32],
        multi_line: bool,
        tally: NDArray[np.uint64],
    ) -> Messages:
        waiting = int(self._state[np.unique(connection), WAITING].sum())
        room = waiting + 2 * int(block.length.sum()) + self._limit + SLACK
        work = np.empty(room, np.uint8)
        places = room // 2 + block.datagrams
        start, size = np.empty(places, np.int64), np.empty(places, np.int32)
        datagram, cut = np.empty(places, np.int32), np.empty(places, np.uint8)
        rows = cut_streams(
            block.payload, block.offset, block.length, connection, self._limit, int(multi_line),
            self._carry, self._state, work, start, size, datagram, cut, tally,
        )  # fmt: skip
        tally[Frame.EMPTY] += np.uint64(trim(work, start, size, rows))
        kept = np.flatnonzero(size[:rows])
        return Messages(work, start[kept], size[kept], datagram[kept], cut[kept])

    def _locate(self, block: DatagramBlock) -> NDArray[np.int32]:
        """Return each chunk's connection, -1 where no more are taken; one that ends frees its row.

        Where a row is freed and taken again within a block, the kernel has emptied it in between.
        """
        found = np.full(block.datagrams, -1, np.int32)
        keys = zip(
            block.exporter_high.tolist(),
            block.exporter_low.tolist(),
            block.exporter_port.tolist(),
            block.length.tolist(),
            strict=True,
        )
        for d, (high, low, port, octets) in enumerate(keys):
            key = (high, low, port)
            row = self._rows.get(key)
            if row is None:
                if not octets:
                    continue  # it ended before it said anything
                if not self._free:
                    self.refused += 1
                    continue
                row = self._rows[key] = self._free.pop()
            found[d] = row
            self._heard_ns[row] = block.arrival_ns[d]
            if not octets:
                del self._rows[key]
                self._free.append(row)
        return found

    def overdue(self, before_ns: int) -> DatagramBlock | None:
        """Return the ends of connections that wait behind a line end since `before_ns`, or None."""
        keys = []
        for key, row in self._rows.items():
            waiting = int(self._state[row, WAITING])
            if waiting and self._heard_ns[row] < before_ns and self._carry[row, waiting - 1] == 10:
                keys.append((*key, int(self._heard_ns[row])))
        if not keys:
            return None
        high, low, port, heard_ns = np.array(sorted(keys, key=lambda one: one[3]), np.uint64).T
        none = np.zeros(len(keys), np.int64)
        return DatagramBlock(
            np.zeros(0, np.uint8), none, none.astype(np.int32), high.copy(), low.copy(),
            port.astype(np.uint16), heard_ns.astype(np.int64),
        )  # fmt: skip
