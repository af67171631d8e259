"""The live feed: alerts from the node's PUB socket to whoever follows `/api/v1/feed` (SSE).

Source: WHATWG HTML, server-sent events. A follower that does not keep up loses the oldest alerts and is
told how many; the alarm list is the record, the feed is for watching (design section 6, PUB).
"""

import asyncio
import struct
from collections.abc import AsyncIterator

import zmq
import zmq.asyncio

from runtime.component import Context

FOLLOWERS_MAX = 64
ALERTS_KEPT = 256
QUIET_SECONDS = 15.0


class _Follower:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(ALERTS_KEPT)
        self.lost = 0

    def put(self, number: int, body: bytes) -> None:
        if self.queue.full():
            self.queue.get_nowait()
            self.lost += 1
        self.queue.put_nowait((number, body))


class AlertFeed:
    """Listens to the node and hands alerts on."""

    def __init__(self, address: str, context: Context) -> None:
        self._address = address
        self._followers: set[_Follower] = set()
        self._alerts = context.metrics.counter(
            "feed_alerts_total", "alerts seen on the node's feed"
        )
        self._missed = context.metrics.counter(
            "feed_missed_total", "alerts that the node sent and the desk did not see"
        )

    async def run(self) -> None:
        """Listen until cancelled."""
        context = zmq.asyncio.Context()
        listening = context.socket(zmq.SUB)
        listening.setsockopt(zmq.SUBSCRIBE, b"alerts")
        listening.setsockopt(zmq.LINGER, 0)
        listening.connect(self._address)
        last = 0
        try:
            while True:
                _, number, body = await listening.recv_multipart()
                (sequence,) = struct.unpack("<Q", number)
                if last and sequence > last + 1:  # a lower one is a node that started again
                    self._missed.array[0] += sequence - last - 1
                last = sequence
                self._alerts.array[0] += 1
                for follower in self._followers:
                    follower.put(sequence, body)
        finally:
            listening.close()
            context.term()

    @property
    def full(self) -> bool:
        """Whether no more followers are taken."""
        return len(self._followers) >= FOLLOWERS_MAX

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield server-sent events: `alert`, `lost` with a count, and comments while it is quiet."""
        follower = _Follower()
        self._followers.add(follower)
        try:
            yield b": the alerts of this Tocsin from now on\n\n"
            while True:
                try:
                    number, body = await asyncio.wait_for(follower.queue.get(), QUIET_SECONDS)
                except TimeoutError:
                    yield b": quiet\n\n"
                    continue
                if follower.lost:
                    yield b"event: lost\ndata: %d\n\n" % follower.lost
                    follower.lost = 0
                yield b"id: %d\nevent: alert\ndata: %s\n\n" % (number, body)
        finally:
            self._followers.discard(follower)
