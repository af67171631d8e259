"""Threads that wait for the database, so that the event loop does not."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from history.store import Connection
from telemetry.errors import TransientError

T = TypeVar("T")


class BusyError(TransientError):
    """Too many statements run or wait."""


class Workers:
    """A few threads with a connection each, and a short queue before them.

    `run` raises TransientError where the queue is full: a dashboard that asks faster than the engine
    answers is told so, and does not take the desk's memory.
    """

    def __init__(
        self, connect: Callable[[], Connection], *, threads: int = 3, waiting_max: int = 64
    ) -> None:
        self._connect = connect
        self._local = threading.local()
        self._made: list[Connection] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, "sql")
        self._room = threads + waiting_max
        self._inside = 0

    async def run(self, call: Callable[[Connection], T]) -> T:
        """Return what `call` makes of a connection, in one of the threads."""
        if self._inside >= self._room:
            raise BusyError(f"{self._inside} statements run or wait already; ask again later")
        self._inside += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._call, call)
        finally:
            self._inside -= 1

    def _call(self, call: Callable[[Connection], T]) -> T:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            with self._lock:
                self._made.append(connection)
        return call(connection)

    def stop(self) -> None:
        """Wait for what runs (it has a time limit) and close the connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._made:
            connection.close()
        self._made.clear()
