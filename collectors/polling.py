"""A thread that does one step again and again: never faster than a floor, slower while it fails."""

import threading
from collections.abc import Callable

from runtime.component import Context
from telemetry.errors import TransientError

STOP_SECONDS = 4.0
TROUBLE_MAX = 1000  # characters


class Poller:
    """Runs `step`, which returns the seconds until it wants to run again, from a thread of its own.

    A step that raises TransientError is tried again after a pause that doubles up to
    `pause_seconds_max`. The trouble is logged when it changes and stands in `health` until a step
    succeeds.
    """

    def __init__(
        self,
        context: Context,
        step: Callable[[], float],
        *,
        floor_seconds: float,
        pause_seconds_max: float,
    ) -> None:
        self._context = context
        self._step = step
        self._floor = floor_seconds
        self._pause_max = max(pause_seconds_max, floor_seconds)
        self._pause = 0.0
        self._trouble = ""
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._steps = context.metrics.counter(
            "source_polls_total", "polls by how they ended", label="end", values=("ok", "failed")
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._context.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the current step end, for four seconds at most."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def wake(self) -> None:
        """Run the next step now."""
        self._wake.set()

    def health(self) -> str:
        """Return what keeps the last step from success, "" when it succeeded."""
        return self._trouble

    @property
    def failing(self) -> bool:
        """Whether the last step failed."""
        return bool(self._trouble)

    @property
    def ended(self) -> bool:
        """Whether it was told to stop: a step of many requests ends early."""
        return self._ended.is_set()

    def turn(self) -> float:
        """Run one step and return the seconds to wait after it."""
        try:
            wait = self._step()
        except TransientError as error:
            return self._failed(str(error), getattr(error, "pause_seconds", 0.0))
        except Exception as error:  # the edge of the thread: one bad answer must not end the source
            self._context.log.exception("poll_broken")
            return self._failed(f"our own fault, please report it: {error!r}")
        self._steps.add("ok")
        if self._trouble:
            self._context.log.warning("poll_recovered after=%s", self._trouble)
        self._trouble, self._pause = "", 0.0
        return max(wait, self._floor)

    def _failed(self, said: str, least_seconds: float = 0.0) -> float:
        self._steps.add("failed")
        trouble = " ".join(said.split())[:TROUBLE_MAX]  # a peer may have put line ends into it
        pause = max(self._pause * 2, self._floor, least_seconds)
        self._pause = min(pause, self._pause_max)
        if trouble != self._trouble:
            self._context.log.warning("poll_failed %s; next try in %g s", trouble, self._pause)
        self._trouble = trouble
        return self._pause

    def _run(self) -> None:
        while not self._ended.is_set():
            wait = self.turn()
            self._wake.wait(wait)
            self._wake.clear()
