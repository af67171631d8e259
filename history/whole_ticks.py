"""Blocks of the journal as whole ticks: a TICK and the RESULT of it, in order, each once.

A RESULT follows its TICK, but not always at once: behind a disk that refused, and when a node starts
again, other ticks come between. Results come in the order of their ticks, so one that is passed over
never comes (a damaged block, history made without scoring); of most event ticks there is none.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.journal import Block, BlockKind
from telemetry.batch import Batch

HELD_ROWS_MAX = 200_000  # of ticks whose results have not come; then the oldest is given without
_KEPT = frozenset(("series", "option", "log", "route"))


@dataclass(frozen=True, slots=True)
class WholeTick:
    """What the history keeps of one tick; `sequence`: of the first block that it is of."""

    tick_end_ns: int
    batches: tuple[Batch, ...]
    sequence: int


class WholeTicks:
    """Holds ticks of views until their results are there."""

    def __init__(self) -> None:
        self._held: deque[Block] = deque()
        self._given_ns = 0  # the newest tick given

    @property
    def first_held(self) -> int:
        """The sequence number of the oldest block that is held, 0 for none."""
        return self._held[0].sequence if self._held else 0

    def take(self, block: Block) -> Iterator[WholeTick]:
        """Take the next block; yield every tick that is whole by that."""
        if block.kind is BlockKind.TICK:
            self._held.append(block)
        elif block.kind is BlockKind.TOLD:
            return  # its result says it again
        elif any(held.tick_end_ns == block.tick_end_ns for held in self._held):
            while self._held[0].tick_end_ns != block.tick_end_ns:
                yield self._alone(self._held.popleft())
            yield self._with(self._held.popleft(), block)
        else:  # its tick was given already, or is lost: of the journal's damage or age
            batches = block.batches
            if block.tick_end_ns <= self._given_ns:
                batches = tuple(batch for batch in batches if batch.schema.name != "frame")
            yield WholeTick(block.tick_end_ns, batches, block.sequence)
        while self._held and (not _has_frames(self._held[0]) or self._rows() > HELD_ROWS_MAX):
            yield self._alone(self._held.popleft())

    def _rows(self) -> int:
        if len(self._held) == 1:  # the one whose result is about to come, however large
            return 0
        return sum(batch.rows for block in self._held for batch in block.batches)

    def _alone(self, tick: Block) -> WholeTick:
        self._given_ns = tick.tick_end_ns
        return WholeTick(tick.tick_end_ns, _kept(tick, frames=True), tick.sequence)

    def _with(self, tick: Block, result: Block) -> WholeTick:
        self._given_ns = tick.tick_end_ns
        batches = (*_kept(tick, frames=not _has_frames(result)), *result.batches)
        return WholeTick(tick.tick_end_ns, batches, tick.sequence)


def _has_frames(block: Block) -> bool:
    return any(batch.schema.name == "frame" for batch in block.batches)


def _kept(tick: Block, *, frames: bool) -> tuple[Batch, ...]:
    """Return what the history keeps of a TICK block; its frames only where no RESULT has them."""
    return tuple(
        batch
        for batch in tick.batches
        if batch.schema.name in _KEPT or (frames and batch.schema.name == "frame")
    )
