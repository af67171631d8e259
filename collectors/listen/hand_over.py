"""The queue between a listener's thread and who decodes: bounded; full means that receiving waits."""

import contextlib
import queue
import threading
from collections.abc import Callable

from collectors.block import DatagramBlock


class BlockQueue:
    """Blocks in order, a way to end, and what ended the thread. `on_block` is called by the thread."""

    def __init__(self, name: str, blocks_max: int, on_block: Callable[[], None]) -> None:
        self._name = name
        self._queue: queue.Queue[DatagramBlock] = queue.Queue(blocks_max)
        self._on_block = on_block
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self.ended = threading.Event()
        self.trouble = ""  # why nothing is received

    @property
    def waiting(self) -> int:
        """Blocks that wait to be decoded."""
        return self._queue.qsize()

    def take(self) -> DatagramBlock | None:
        """Return the next block, or None where nothing waits; raise what ended the thread."""
        if self._failure is not None:
            raise self._failure
        with contextlib.suppress(queue.Empty):
            return self._queue.get_nowait()
        return None

    def put(self, block: DatagramBlock, *, full: str) -> None:
        """Wait for room: meanwhile the kernel keeps what comes. `full` says so to people."""
        if not block.datagrams and not block.kernel_drops and self._queue.qsize() > 1:
            return  # its frontier is behind that of blocks still to come
        while not self.ended.is_set():
            try:
                self._queue.put(block, timeout=0.2)
                self.trouble = ""
                self._on_block()
                return
            except queue.Full:
                self.trouble = f"{self._name}: {full}"

    def run(self, receive: Callable[[], None]) -> None:
        """Start the thread. What it raises, `take` raises again: else time would stand still unseen."""

        def work() -> None:
            try:
                receive()
            except Exception as error:  # noqa: BLE001  # a thread's edge
                self._failure = error
                self._on_block()

        self._thread = threading.Thread(target=work, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; calling it again does nothing."""
        self.ended.set()
        if self._thread is not None:
            self._thread.join(2.0)
