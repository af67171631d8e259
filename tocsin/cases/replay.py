"""Replay: the whole chain on a capture, a case or a journal, in event time, at any speed.

The chain is the one of the node; only where blocks come from differs. The end of a file closes
nothing unless asked to (`flush`); what a flush raises is marked partial.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerting.words.alerts import alerts_of
from collectors.block import DatagramBlock, choose, silence
from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from collectors.capture.tcp import TcpStreams
from collectors.config import ListenerSettings
from collectors.datagram import DATAGRAMS_PER_BLOCK, Datagram, pack
from collectors.listen.udp import shard_of
from collectors.reading import Readings
from collectors.registry import make_decoder
from runtime.checkpoint import read_checkpoint
from runtime.clock import Clock, ManualClock
from runtime.journal import BlockKind, JournalReader
from runtime.metrics import Metrics
from telemetry.errors import DecodeError
from tocsin.chain.assembly import make_back
from tocsin.chain.back import Back
from tocsin.chain.front import Front
from tocsin.chain.intake import make_context, make_front
from tocsin.chain.ticks import Closing, Outcome, Tick
from tocsin.config import Config

_ENCODER = msgspec.json.Encoder(order="sorted")


@dataclass(slots=True)
class Summary:
    """What a replay went through."""

    packets: int = 0
    datagrams: int = 0
    records: int = 0
    ticks: int = 0
    alerts: int = 0
    damage: list[str] = field(default_factory=list)


class Replay:
    """One replay. `lines` yields each alert as canonical JSON bytes."""

    def __init__(self, config: Config, *, shards: int = 1) -> None:
        # One listener of each kind, whatever ports the configuration names; those that are no flows
        # are added when the capture has them.
        self._given = config
        self._seed = config.node.seed
        self._readings = Readings()
        self._names = ["flow", "sflow"]
        self._config = msgspec.structs.replace(
            config,
            collectors={
                "flow": ListenerSettings(kind="flow", listen="udp://127.0.0.1:0"),
                "sflow": ListenerSettings(kind="sflow", listen="udp://127.0.0.1:0"),
            },
        )
        self._shards = shards
        self.metrics = Metrics("replay")
        self._clock = ManualClock()
        self.back: Back = make_back(self._config, self._clock, self.metrics, shards=shards)
        self.summary = Summary()

    # ---- captures

    def captures(
        self,
        paths: list[Path],
        *,
        flush: bool = False,
        pace: Callable[[int], None] = lambda arrival_ns: None,
        cut: Callable[[DatagramBlock], Iterator[DatagramBlock]] = lambda block: iter((block,)),
    ) -> Iterator[bytes]:
        """Replay capture files one after the other; `cut` may split blocks, which changes nothing."""
        fronts = [
            make_front(self._config, self._clock, self.metrics, shard=shard)
            for shard in range(self._shards)
        ]
        newest_ns = 0
        for path in paths:
            report = CaptureReport()
            datagrams = read_capture(path, report, TcpStreams())
            while some := list(islice(datagrams, DATAGRAMS_PER_BLOCK)):
                whole, kinds = pack(some, newest_ns), self._kinds(some)
                newest_ns = int(whole.arrival_ns[-1])
                at = 0
                for block in cut(whole):
                    pace(int(block.arrival_ns[-1]) if block.datagrams else 0)
                    yield from self._feed(fronts, block, kinds[at : at + block.datagrams])
                    at += block.datagrams
            self.summary.packets += report.packets
            if report.damage:
                self.summary.damage.append(f"{path}: {report.damage}")
            self.summary.damage += [f"{path}: {n} {what}" for what, n in report.undecoded.items()]
        if flush:
            closings = [closing for front in fronts for closing in front.flush()]
            for closing in sorted(closings, key=lambda one: one.frontier_ns):
                yield from self._take(closing, partial=True)
            yield from self._settle(
                max((one.frontier_ns for one in closings), default=0), partial=True
            )
        self.summary.records = sum(front.records for front in fronts)
        self.summary.datagrams = sum(front.datagrams for front in fronts)

    def _kinds(self, datagrams: Sequence[Datagram]) -> NDArray[np.str_]:
        """Return for each datagram the name of the decoder it is for, "" for none."""
        return np.array([self._kind(one) for one in datagrams])

    def _kind(self, one: Datagram) -> str:
        if not one.stream:
            if one.payload[:4] == b"\x00\x00\x00\x05":
                return "sflow"
            if one.payload[:2] in (b"\x00\x05", b"\x00\x09", b"\x00\x0a"):
                return "flow"
        kind = self._readings.by_port(one)
        return f"{kind} over TCP" if kind and one.stream else kind

    def _add(self, fronts: list[Front], name: str) -> None:
        """Add a decoder that the capture turns out to need; options as the configuration has them."""
        kind, _, stream = name.partition(" over ")
        settings = self._readings.settings(kind, stream=bool(stream))
        for one in self._given.collectors.values():
            if one.kind == kind and one.listen.startswith("udp:") != bool(stream):
                settings = msgspec.structs.replace(one, listen=settings.listen)
                break
        for front in fronts:
            context = make_context(f"collectors.{name}", self._clock, self.metrics, self._seed)
            front.add(name, make_decoder(settings, context))
        self._names.append(name)

    def _feed(
        self, fronts: list[Front], block: DatagramBlock, kinds: NDArray[np.str_]
    ) -> Iterator[bytes]:
        owner = self._owners(block)
        for name in np.unique(kinds).tolist():
            if name and name not in self._names:
                self._add(fronts, name)
        for number, front in enumerate(fronts):
            for name in self._names:
                rows = np.flatnonzero((kinds == name) & (owner == number))
                front.feed(name, choose(block, rows) if rows.size else silence(block.frontier_ns))
        if block.datagrams:
            for front in fronts:
                front.open(int(block.arrival_ns[0]))
        # As the barrier gives them: in the order of (frontier, shard).
        closings = [closing for front in fronts for closing in front.step()]
        for closing in sorted(closings, key=lambda one: one.frontier_ns):
            yield from self._take(closing)
        yield from self._settle(min(front.frontier_ns for front in fronts))

    def _owners(self, block: DatagramBlock) -> NDArray[np.int64]:
        if self._shards == 1:
            return np.zeros(block.datagrams, np.int64)
        pairs = zip(block.exporter_low.tolist(), block.exporter_high.tolist(), strict=True)
        return np.array([shard_of(low, high, self._shards) for low, high in pairs], np.int64)

    def _take(self, closing: Closing, *, partial: bool = False) -> Iterator[bytes]:
        for outcome in self.back.take(closing):
            yield from self._lines(outcome, partial=partial)

    def _settle(self, frontier_ns: int, *, partial: bool = False) -> Iterator[bytes]:
        for outcome in self.back.settle(frontier_ns):
            yield from self._lines(outcome, partial=partial)

    # ---- journals and cases

    def journal(self, folder: Path, *, first: int = 1, last: int = 1 << 62) -> Iterator[bytes]:
        """Replay a journal's ticks from sequence `first` to `last`."""
        reader = JournalReader(folder, next_sequence=first)
        while True:
            try:
                for block in reader.read():
                    if block.sequence > last:
                        return
                    if block.kind is BlockKind.TICK:
                        outcome = self.back.absorb(Tick(block.tick_end_ns, block.batches))
                        yield from self._lines(outcome)
                return
            except DecodeError as error:
                self.summary.damage.append(str(error))
                reader.skip()

    def checkpoint(self, path: Path) -> int:
        """Start from a checkpoint; return the journal sequence to go on with."""
        sequence, _, snapshot = read_checkpoint(path)
        self.back.restore(snapshot.scoped("back"))
        return sequence + 1

    def case(self, folder: Path) -> Iterator[bytes]:
        """Replay an unpacked case: its checkpoint, then its ticks."""
        checkpoints = sorted((folder / "checkpoint").glob("*.checkpoint"))
        first = self.checkpoint(checkpoints[-1]) if checkpoints else 1
        yield from self.journal(folder / "journal", first=first)

    def _lines(self, outcome: Outcome, *, partial: bool = False) -> Iterator[bytes]:
        self.summary.ticks += 1
        for batch in outcome.alarms:
            for alert in alerts_of(batch):
                self.summary.alerts += 1
                fields: dict[str, Any] = msgspec.to_builtins(alert)
                if partial:
                    fields["partial"] = True
                yield _ENCODER.encode(fields)


def pace(clock: Clock, speed: float) -> Callable[[int], None]:
    """Return a function that waits so that arrival times pass at `speed` times real time."""
    began: list[tuple[int, int]] = []

    def wait(arrival_ns: int) -> None:
        if not arrival_ns:
            return
        now_ns = clock.monotonic_ns()
        if not began:
            began.append((arrival_ns, now_ns))
        due = began[0][1] + (arrival_ns - began[0][0]) / speed
        if due > now_ns:
            clock.sleep((due - now_ns) / 1e9)

    return wait
