"""Receiving datagrams: poll and recvmmsg inside a kernel, so that the interpreter lock is not held.

The kernel fills slots until a block is full or the time is over, then the used bytes are packed
into one array. Kernel receive times (SO_TIMESTAMPNS) and the socket's drop counter (SO_RXQ_OVFL)
come with each datagram.

Source: recvmmsg(2), socket(7), cmsg(3); layouts of struct mmsghdr and cmsghdr on 64-bit Linux.
"""

import socket
import sys

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from runtime.clock import Clock
from runtime.kernels import external, inline, kernel, subroutine

SLOT_BYTES = 9216  # a jumbo frame; longer datagrams arrive cut and are counted
NAME_BYTES = 28  # struct sockaddr_in6
CONTROL_BYTES = 96
HEADER_BYTES = 64  # struct mmsghdr
GATHER_MS = 100  # blocks are gathered for so long at most, never past a tick's deadline
ROUND_MS = 10  # between two drains of the socket while gathering
# What one of 1,500 bytes takes of a receive buffer (sk_buff's truesize).
DATAGRAM_TRUESIZE_MAX = 4352
SO_TIMESTAMPNS = 35
SO_RXQ_OVFL = 40
SO_MEMINFO = 55  # nine u32 about the socket's memory; the last counts its drops

_recvmmsg = external("recvmmsg", "i4(i4, u8, u4, i4, u8)")
_poll = external("poll", "i4(u8, u8, i4)")


@inline
def _i64(data, at):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for i in range(8):
        value |= np.int64(data[at + i]) << np.int64(8 * i)
    return value


@inline
def _i32(data, at):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for i in range(4):
        value |= np.int64(data[at + i]) << np.int64(8 * i)
    return value


@inline
def _put(data, at, value, width):  # type: ignore[no-untyped-def]
    for i in range(width):
        data[at + i] = np.uint8((value >> (8 * i)) & 255)


@inline
def _big_u64(data, at):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(8):
        value = (value << np.uint64(8)) | np.uint64(data[at + i])
    return value


@subroutine
def _drain(  # type: ignore[no-untyped-def]
    fd, first, count_max, headers_address, headers, names, controls,
    out_length, out_high, out_low, out_port, out_arrival_ns, out_state,
):  # fmt: skip
    got = first
    out_state[1] = 0
    while got < count_max:
        n = _recvmmsg(fd, headers_address + got * 64, count_max - got, 0x40, 0)
        if n <= 0:
            out_state[1] = 1
            break
        for i in range(got, got + n):
            head = i * 64
            flags = _i32(headers, head + 48)
            size = _i32(headers, head + 56)
            out_length[i] = -min(size, 9216) if flags & 0x20 else size
            name = i * 28
            family = np.int64(names[name]) | (np.int64(names[name + 1]) << 8)
            out_port[i] = (np.uint16(names[name + 2]) << np.uint16(8)) | np.uint16(names[name + 3])
            if family == 2:
                out_high[i] = np.uint64(0)
                out_low[i] = (
                    (np.uint64(0xFFFF) << np.uint64(32))
                    | (np.uint64(names[name + 4]) << np.uint64(24))
                    | (np.uint64(names[name + 5]) << np.uint64(16))
                    | (np.uint64(names[name + 6]) << np.uint64(8))
                    | np.uint64(names[name + 7])
                )
            else:
                out_high[i] = _big_u64(names, name + 8)
                out_low[i] = _big_u64(names, name + 16)
            out_arrival_ns[i] = 0
            at = i * 96
            end = at + min(_i64(headers, head + 40), 96)
            while at + 16 <= end:
                cmsg_bytes = _i64(controls, at)
                if cmsg_bytes < 16 or at + cmsg_bytes > end:
                    break
                level = _i32(controls, at + 8)
                kind = _i32(controls, at + 12)
                if level == 1 and kind == 35 and cmsg_bytes >= 32:
                    seconds = _i64(controls, at + 16)
                    out_arrival_ns[i] = seconds * 1000000000 + _i64(controls, at + 24)
                elif level == 1 and kind == 40 and cmsg_bytes >= 20:
                    out_state[0] = _i32(controls, at + 16)
                at += (cmsg_bytes + 7) // 8 * 8
            # recvmmsg has put here how much it used: make the slot as good as new.
            _put(headers, head + 8, 28, 4)
            _put(headers, head + 40, 96, 8)
        got += n
    return got


@kernel("i8(i8, u1[::1], i8)")
def wait(poll_address: int, poll_fd: NDArray[np.uint8], wait_ms: int) -> int:
    """Wait up to wait_ms for a datagram; return 1 when one is there.

    In      poll_fd uint8[8], a struct pollfd for POLLIN, and its address.
    """
    poll_fd[6] = 0
    poll_fd[7] = 0
    return 1 if _poll(poll_address, 1, wait_ms) > 0 else 0


@kernel(
    "i8(i4, i8, i8, i8, i8, i8, i8, i8, u1[::1], u1[::1], u1[::1], i4[::1], u8[::1], u8[::1],"
    " u2[::1], i8[::1], i8[::1])"
)
def receive(
    fd: int,
    first: int,
    count_max: int,
    rounds: int,
    round_ms: int,
    busy_datagrams: int,
    headers_address: int,
    poll_address: int,
    headers: NDArray[np.uint8],
    names: NDArray[np.uint8],
    controls: NDArray[np.uint8],
    out_length: NDArray[np.int32],
    out_high: NDArray[np.uint64],
    out_low: NDArray[np.uint64],
    out_port: NDArray[np.uint16],
    out_arrival_ns: NDArray[np.int64],
    out_state: NDArray[np.int64],
) -> int:
    """Fill slots [first, count_max) from the socket; return the number of slots then in use.

    Drains what is there, then pauses round_ms and drains again, `rounds` times or until the slots
    are full: a block of a few datagrams costs more in the interpreter than in the kernel, and
    datagrams wait better here than in the socket's buffer. A drain of `busy_datagrams` or more says
    that this buffer fills quickly: the next one follows without a pause.

    In      fd, a UDP socket; the addresses of `headers` and of a struct pollfd; headers
            uint8[N * 64], each pointing at its name, slot and control bytes.
    Out     per datagram: out_length int32[N] (negative: it was longer than its slot and is cut to
            it), sender's address and port, out_arrival_ns int64[N] by the kernel, 0 = not stated.
            out_state int64[2]: the socket's drop counter as last seen, 1 if the socket was then
            read empty.
    Errors  none raised; a failing call ends the drain.
    """
    got = first
    left = rounds
    while True:
        before = got
        got = _drain(
            fd,
            got,
            count_max,
            headers_address,
            headers,
            names,
            controls,
            out_length,
            out_high,
            out_low,
            out_port,
            out_arrival_ns,
            out_state,
        )
        if left <= 0 or got >= count_max:
            return int(got)
        if got - before < busy_datagrams:
            _poll(poll_address, 0, round_ms)  # no descriptor: a plain wait
            left -= 1


@kernel("i8(const u1[::1], const i4[::1], i8, u1[::1], i8[::1])")
def pack(
    slots: NDArray[np.uint8],
    length: NDArray[np.int32],
    count: int,
    out: NDArray[np.uint8],
    out_offset: NDArray[np.int64],
) -> int:
    """Copy the used bytes of `count` slots one behind the other; return the bytes written.

    In      slots uint8[N * 9216]; length int32[N], each at most 9216.
    Out     out, as long as the lengths' sum; out_offset int64[count].
    """
    at = 0
    for i in range(count):
        out_offset[i] = at
        start = i * 9216
        for k in range(length[i]):
            out[at + k] = slots[start + k]
        at += length[i]
    return at


class Receiver:
    """Slots and headers for one socket. Used by one thread."""

    def __init__(
        self, sock: socket.socket, clock: Clock, *, datagrams_max: int, drops_before: int = 0
    ) -> None:
        """`drops_before`: what is known of the socket's drop counter, where it is no new socket."""
        self._sock = sock
        self._clock = clock
        self._max = datagrams_max
        n = datagrams_max
        self._slots = np.zeros(n * SLOT_BYTES, np.uint8)
        self._names = np.zeros(n * NAME_BYTES, np.uint8)
        self._controls = np.zeros(n * CONTROL_BYTES, np.uint8)
        self._iovecs = np.zeros((n, 2), np.uint64)
        self._iovecs[:, 0] = self._slots.ctypes.data + np.arange(n, dtype=np.uint64) * SLOT_BYTES
        self._iovecs[:, 1] = SLOT_BYTES
        head = np.zeros((n, 8), np.uint64)
        order = np.arange(n, dtype=np.uint64)
        head[:, 0] = self._names.ctypes.data + order * NAME_BYTES
        head[:, 1] = NAME_BYTES
        head[:, 2] = self._iovecs.ctypes.data + order * 16
        head[:, 3] = 1
        head[:, 4] = self._controls.ctypes.data + order * CONTROL_BYTES
        head[:, 5] = CONTROL_BYTES
        self._headers = head.view(np.uint8).reshape(-1)
        self._poll = np.zeros(8, np.uint8)
        self._poll[:4] = np.frombuffer(np.int32(sock.fileno()).tobytes(), np.uint8)
        self._poll[4] = 1  # POLLIN
        self._headers_address = self._headers.ctypes.data
        self._poll_address = self._poll.ctypes.data
        self._length = np.zeros(n, np.int32)
        self._high = np.zeros(n, np.uint64)
        self._low = np.zeros(n, np.uint64)
        self._port = np.zeros(n, np.uint16)
        self._arrival = np.zeros(n, np.int64)
        self._state = np.zeros(2, np.int64)
        self._state[0] = drops_before
        # A drain of a quarter of the buffer: it may be the system's small one, so no pause.
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._busy_datagrams = max(8, granted // (4 * DATAGRAM_TRUESIZE_MAX))
        self._drops = drops_before
        self._last_ns = 0
        self.cut = 0  # datagrams longer than a slot, since the start

    @property
    def drops(self) -> int:
        """The socket's drop counter as last read, modulo 2**32."""
        return self._drops

    def receive(self, *, wait_ms: int, until_ns: int = 0) -> DatagramBlock:
        """Return what came, waiting at most wait_ms; perhaps nothing, with its frontier.

        Once a datagram is there, others are gathered, but not past `until_ns` (the deadline of a
        tick; 0 = none). The frontier moves to now only when the socket was read empty after now
        (design section 5); else it stands at the newest arrival.
        """
        now_ns = self._clock.now_ns()
        if until_ns > now_ns:
            wait_ms = min(wait_ms, _ms_up(until_ns - now_ns))
        count = 0
        if wait(self._poll_address, self._poll, wait_ms):
            now_ns = self._clock.now_ns()
            gather_ms = GATHER_MS
            if until_ns > now_ns:
                gather_ms = min(gather_ms, _ms_up(until_ns - now_ns))
            round_ms = min(ROUND_MS, gather_ms)
            count = self._fill(0, gather_ms // round_ms, round_ms)
        now_ns = self._clock.now_ns()
        if count < self._max:
            count = self._fill(count, 0, 0)
        length = self._length[:count]
        cut = length < 0
        if cut.any():
            self.cut += int(cut.sum())
            np.abs(length, out=length)
        arrival = self._arrival[:count].copy()
        if count:  # never falling and never ahead of our time, whatever the system's clock does
            ahead_ns = self._clock.ahead_ns
            arrival[arrival == 0] = now_ns - ahead_ns
            arrival += ahead_ns
            np.minimum(arrival, self._clock.now_ns(), out=arrival)
            arrival[0] = max(int(arrival[0]), self._last_ns)
            np.maximum.accumulate(arrival, out=arrival)
            self._last_ns = int(arrival[-1])
        if self._state[1]:
            self._last_ns = max(self._last_ns, now_ns)
        seen = self._dropped()
        drops = (seen - self._drops) & 0xFFFFFFFF
        self._drops = seen
        payload = np.empty(int(length.sum()), np.uint8)
        offset = np.empty(count, np.int64)
        pack(self._slots, self._length, count, payload, offset)
        return DatagramBlock(
            payload,
            offset,
            length.copy(),
            self._high[:count].copy(),
            self._low[:count].copy(),
            self._port[:count].copy(),
            arrival,
            drops,
            self._last_ns,
        )

    def _fill(self, first: int, rounds: int, round_ms: int) -> int:
        return receive(
            self._sock.fileno(),
            first,
            self._max,
            rounds,
            round_ms,
            self._busy_datagrams,
            self._headers_address,
            self._poll_address,
            self._headers,
            self._names,
            self._controls,
            self._length,
            self._high,
            self._low,
            self._port,
            self._arrival,
            self._state,
        )

    def _dropped(self) -> int:
        """Return the socket's drop counter.

        With each datagram comes what the counter was when that datagram was queued (SO_RXQ_OVFL): a
        burst's last losses would be told only with the next burst. SO_MEMINFO says it now.
        """
        try:
            about = self._sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
        except OSError:  # Linux before 4.12
            return int(self._state[0])
        return int.from_bytes(about[32:36], sys.byteorder)


def _ms_up(ns: int) -> int:
    return -(-ns // 1_000_000)
