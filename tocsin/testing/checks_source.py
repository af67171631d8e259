"""The exam of a source: what the gate relies on. The maker's peer must be up and have something to tell."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collectors.sources import Offer, Source
from telemetry.batch import Batch
from telemetry.errors import TransientError

WAIT_SECONDS = 20.0
SCHEMAS = ("series", "sample", "alarm", "log", "route", "option", "ledger")


@dataclass(frozen=True, slots=True)
class Bench:
    """How to make a source on a folder of state, and how to let it have something to tell.

    `provoke` is called once the source runs, again and again until something was offered: it sends
    what is pushed, or does nothing where the source reads by itself.
    """

    make: Callable[[Offer, Path], Source]
    provoke: Callable[[Source], None]
    folder: Path


class Listener:
    """Takes what is offered, or refuses it, and wakes whoever waits for it."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.batches: list[Batch] = []
        self.asked = threading.Event()

    def __call__(self, batches: Sequence[Batch], *, token: str = "") -> None:  # noqa: ARG002
        """Be a node."""
        told = [batch for batch in batches if batch.schema.name != "ledger"]
        if not self.away:
            self.batches += batches
        if told:
            self.asked.set()
        if self.away:
            raise TransientError("the node is away")


def _run(bench: Bench, listener: Listener) -> Source:
    """Start a source and wait until it offered something."""
    source = bench.make(listener, bench.folder)
    source.start()
    for _ in range(200):
        bench.provoke(source)
        if listener.asked.wait(WAIT_SECONDS / 200):
            return source
    source.stop()
    raise AssertionError(f"nothing was offered; health: {source.health()!r}")


def it_is_made_inert(bench: Bench) -> None:
    """Making it starts no thread; stopping what never ran does nothing."""
    before = set(threading.enumerate())
    source = bench.make(Listener(), bench.folder)
    assert set(threading.enumerate()) <= before
    source.stop()
    source.stop()


def it_offers_what_the_node_knows(bench: Bench) -> None:
    """Batches of the schemas a node takes; series before their samples; stopping twice is once."""
    listener = Listener()
    source = _run(bench, listener)
    try:
        named: set[int] = set()
        for batch in listener.batches:
            assert batch.schema.name in SCHEMAS
            assert batch.rows > 0
            if batch.schema.name == "series":
                named |= set(batch["series_id"].tolist())
            if batch.schema.name == "sample":
                assert set(batch["series_id"].tolist()) <= named
        assert "\n" not in source.health()
    finally:
        source.stop()
        source.stop()


def it_stops_while_the_node_is_away(bench: Bench) -> None:
    """A node that refuses ends no thread and holds none up."""
    source = _run(bench, Listener(away=True))
    stopping = threading.Thread(target=source.stop, daemon=True)
    stopping.start()
    stopping.join(WAIT_SECONDS)
    assert not stopping.is_alive()


def what_was_refused_is_offered_again(bench: Bench) -> None:
    """Also by the next process on the same folder."""
    _run(bench, Listener(away=True)).stop()
    listener = Listener()
    _run(bench, listener).stop()
    assert any(batch.schema.name != "ledger" for batch in listener.batches)


def it_starts_again_on_what_it_kept(bench: Bench) -> None:
    """A second run on the folder of the first starts and stops as well."""
    _run(bench, Listener()).stop()
    source = bench.make(Listener(), bench.folder)
    source.start()
    assert isinstance(source.health(), str)
    source.stop()


CHECKS = (
    it_is_made_inert,
    it_offers_what_the_node_knows,
    it_stops_while_the_node_is_away,
    what_was_refused_is_offered_again,
    it_starts_again_on_what_it_kept,
)
