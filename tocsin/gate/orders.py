"""What other systems want of alarms, on its way from the gate to the node.

The node answers when its journal has it, at the end of an event tick: too long for deliveries to wait.
"""

import threading
from collections.abc import Callable, Sequence

from alerting.words.delivery import Order
from runtime.bus import RequestClient
from runtime.clock import Clock
from telemetry.errors import TransientError
from tocsin import verbs

ORDERS_MAX = 10_000  # that wait; beyond it sinks are asked again later
REPEAT_SECONDS = 0.5


class OrderLine:
    """Gives orders to the node from a thread of its own, each until it is answered."""

    def __init__(
        self, address: str, clock: Clock, *, journalled: Callable[[Sequence[Order]], None]
    ) -> None:
        """`journalled` is told, by that thread, which orders the node has on disk."""
        self._clock = clock
        self._journalled = journalled
        self._client = RequestClient(address)
        self._waiting: list[Order] = []
        self._some = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)
        self._thread.start()

    def put(self, orders: Sequence[Order]) -> None:
        """Take orders, or raise TransientError where too many wait."""
        with self._some:
            if len(self._waiting) >= ORDERS_MAX:
                raise TransientError(f"{len(self._waiting)} orders wait for the node already")
            self._waiting += orders
            self._some.notify()

    def stop(self) -> None:
        """End once the running question is answered, or soon; what waits is heard again later."""
        with self._some:
            self._ended = True
            self._some.notify()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            with self._some:
                self._some.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    break
                orders = self._waiting[:]
            try:  # one that is repeated counts once, by its key
                self._client.ask(
                    "orders", orders, verbs.Nothing, timeout_seconds=verbs.JOURNALLED_SECONDS
                )
            except TransientError:
                self._clock.sleep(REPEAT_SECONDS)
                continue
            self._journalled(orders)
            with self._some:
                del self._waiting[: len(orders)]
        self._client.close()
