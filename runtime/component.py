"""What every part of Tocsin looks like from outside, and what it may ask of the others."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from logging import Logger
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runtime.clock import Clock
from runtime.metrics import Metrics

if TYPE_CHECKING:  # supervisor and gate carry no numpy
    import numpy as np
    from numpy.typing import NDArray

    from telemetry.batch import Batch
    from telemetry.schema import Schema


# No dataclass: a supervisor and a watchdog do without `inspect`, 1 MB each.
class _Services(NamedTuple):
    name: str  # "collectors.edge-netflow": prefix of its logs, label of its metrics
    clock: Clock
    metrics: Metrics  # scoped to `name`
    log: Logger
    seed: tuple[int, ...]  # of `random`, from (run seed, name): same seed, same run


class Context(_Services):
    """The services each component is given. Nothing is reached through a global."""

    @cached_property
    def random(self) -> np.random.Generator:
        """This component's own source of chance."""
        import numpy as np

        return np.random.default_rng(self.seed)


class Component(Protocol):
    """Owns a socket, a file or a thread. Built inert, started once, stopped once."""

    def start(self) -> None:
        """Start or raise ConfigError."""
        ...

    def stop(self) -> None:
        """Stop within bounded time; calling it again does nothing."""
        ...

    def health(self) -> str:
        """Return "" when well, else one sentence an operator can act on."""
        ...


class SnapshotWriter(Protocol):
    """Takes state as named arrays, a block of rows at a time, between ticks."""

    def write(self, name: str, first_row: int, block: NDArray[Any]) -> None:
        """Keep rows [first_row, first_row + len(block)) of array `name`."""
        ...


class SnapshotReader(Protocol):
    """Gives the blocks back in the order in which they were written."""

    def read(self, name: str) -> Iterable[tuple[int, NDArray[Any]]]:
        """Yield (first_row, block) of array `name`; nothing where it was never written."""
        ...


class Stage(Protocol):
    """Batches in, batches out; no sockets, no files, no clock of its own. Replay = live.

    Rows in = rows out + rows dropped by reason. A stage passes on batches of schemas that it does
    not change only if it says so in its docstring.
    """

    accepts: tuple[Schema, ...]
    emits: tuple[Schema, ...]

    def process(self, batch: Batch) -> Iterable[Batch]:
        """Take one batch."""
        ...

    def advance(self, frontier_ns: int) -> Iterable[Batch]:
        """All that arrived before `frontier_ns` is decoded: close ticks, fire timers in order."""
        ...

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Series were evicted: clear what is kept for these dense rows."""
        ...

    def snapshot(self, out: SnapshotWriter) -> None:
        """Write all state, in blocks of at most 4,096 rows."""
        ...

    def restore(self, state: SnapshotReader) -> None:
        """Continue bit for bit where `snapshot` was taken."""
        ...
