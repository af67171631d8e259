"""What a component's own tests need, shipped so that plug-in authors can run the same exams."""

import logging

from runtime.clock import ManualClock
from runtime.component import Context
from runtime.metrics import Metrics


def make_context(name: str = "test", *, seed: int = 7, clock: ManualClock | None = None) -> Context:
    """Return a context with a clock that stands still and a seeded generator."""
    log = logging.getLogger(f"tocsin.{name}")
    return Context(name, clock or ManualClock(), Metrics(name), log, (seed,))
