"""Questions to the node, asked from the desk's event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from runtime.bus import RequestClient
from telemetry.errors import TransientError
from tocsin.verbs import JOURNALLED_SECONDS

T = TypeVar("T")
WAITING_MAX = 32
TIMEOUT_SECONDS = 2.0


class NodeClient:
    """Questions, answered at once, and actions, answered when the journal has them: a line for each."""

    def __init__(self, address: str) -> None:
        self._questions = _Line(address, TIMEOUT_SECONDS)
        self._actions = _Line(address, JOURNALLED_SECONDS)

    async def ask(self, verb: str, body: Any, answer: type[T]) -> T:
        """Return the node's answer, or raise TransientError where none comes within 2 s."""
        return await self._questions.ask(verb, body, answer)

    async def act(self, verb: str, body: Any, answer: type[T]) -> T:
        """Return the node's answer to something that it journals first."""
        return await self._actions.ask(verb, body, answer)

    def stop(self) -> None:
        """Close both once their running questions are over."""
        self._questions.stop()
        self._actions.stop()


class _Line:
    """One request socket, used by one thread; a few questions may wait their turn."""

    def __init__(self, address: str, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._client = RequestClient(address)
        self._pool = ThreadPoolExecutor(1, "node-client")
        self._waiting = 0

    async def ask(self, verb: str, body: Any, answer: type[T]) -> T:
        """Return the node's answer, or raise TransientError where none comes in time."""
        if self._waiting >= WAITING_MAX:
            raise TransientError(f"{self._waiting} questions to the node wait already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, self._ask, verb, body, answer
            )
        finally:
            self._waiting -= 1

    def _ask(self, verb: str, body: Any, answer: type[T]) -> T:
        return self._client.ask(verb, body, answer, timeout_seconds=self._timeout_seconds)

    def stop(self) -> None:
        """Close the socket once the running question is over."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()
