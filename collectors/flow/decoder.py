"""The flow decoder: NetFlow v5, v9 and IPFIX, told apart by their version field."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings, ListenerSettings
from collectors.flow import netflow5, streams, templated, templated_finish
from collectors.flow.columns import FlowMemory, seal
from collectors.flow.ledger import ledger_batch, ledger_gauge, shed_counter, show
from collectors.flow.reference import ReferenceTables
from collectors.flow.sampling import SamplingRates
from collectors.flow.shedding import raise_rates, thin
from collectors.flow.stream_table import Streams
from collectors.flow.streams import Fate
from collectors.flow.template_sets import VERSIONS
from collectors.flow.templated_decoder import SetSeen, TemplatedDecoder
from collectors.flow.templates import TemplateStore
from collectors.flow.work import (
    CallPart,
    FlowBatches,
    FlowBlock,
    Late,
    Located,
)  # fmt: skip
from runtime.component import Context
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch
from telemetry.schema import Schema
from telemetry.schemas import FLOW, LEDGER, OPTION


class FlowDecoder:
    """Turn export datagrams into `flow`, `option` and `ledger` batches. Owns no socket.

    Rows keep the order of arrival for each protocol family. Counts stand as exported, the sampling
    rate beside them. Bounded: templates, held sets and streams have limits; what does not fit is
    counted by reason.
    """

    emits: tuple[Schema, ...] = (FLOW, OPTION, LEDGER)

    def __init__(self, settings: FlowDecoderSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._streams = Streams(
            streams_max=settings.streams_max, per_exporter_max=settings.streams_per_exporter_max
        )
        self._second_max = settings.datagrams_per_second_max
        self._expiry_ns = round(settings.template_expiry_seconds * 1e9)
        self._sampling = SamplingRates(
            settings.sampling_override, samplers_max=settings.samplers_max
        )
        self.reference = ReferenceTables(
            names_max=settings.names_max, per_exporter_max=settings.names_per_exporter_max
        )
        metrics = context.metrics
        self._verdict5 = metrics.counter(
            "collector_netflow5_datagrams_total",
            "NetFlow v5 datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in netflow5.Verdict),
        )
        self._batches = FlowBatches(metrics)
        self._templated = TemplatedDecoder(
            settings, metrics, self._batches, self._streams, self._sampling, self.reference
        )
        self._shed = shed_counter(metrics)
        self._resets = metrics.counter(
            "collector_sequence_resets_total", "sequence numbers that jumped: an exporter restarted"
        )
        self._ledger = ledger_gauge(metrics)

    @property
    def templates(self) -> TemplateStore:
        """The templates of v9 and IPFIX."""
        return self._templated.templates

    def for_people(self) -> list[SetSeen]:
        """Note each decoded set in the list returned, in the order of the rows that `decode` returns.

        Ways back become no rows (ADR 0009): they stay what a record says. For `tocsin decode`.
        """
        self._templated.reverse_rows = False
        self._templated.sets_seen = []
        return self._templated.sets_seen

    # ---- decoding

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all datagrams; see the class."""
        self._streams.kernel_drops += block.kernel_drops
        count = block.datagrams
        if not count:
            return []
        self.templates.drop_unused_plans()
        located = self._locate(block)
        work = FlowBlock(block, located, count)
        kind = located.kind
        thinned = self._thin(work) if self._second_max > 0 else 0
        batches: list[Batch] = []
        first = int(kind[0])
        if not thinned and first in (5, 9, 10) and bool((kind == first).all()):  # the usual block
            every = np.arange(count)
            batches = (
                self._decode5(work, every) if first == 5 else self._templated.decode(work, every)
            )
        else:
            taken = located.weight > 0
            five = np.flatnonzero((kind == 5) & taken)
            if five.size:
                batches += self._decode5(work, five)
            other = np.flatnonzero((kind != 5) & taken)
            if other.size:
                batches += self._templated.decode(work, other)
        self._account(work)
        return batches

    def _account(self, work: "FlowBlock") -> None:
        """Tell the ledger of a block's datagrams in order, and of waiting sets when they were read.

        A template says what an earlier datagram held; until then the ledger must not know it, or a
        block that holds both would count otherwise than two blocks that hold one each.
        """
        done, judged = 0, 0
        for late in (*work.late, Late(work.block.datagrams)):
            while judged < len(work.messages) and work.messages[judged][0] < late.at:
                work.judge(*work.messages[judged])
                judged += 1
            if late.at > done:
                self._compare(work, done, late.at)
                done = late.at
            if late.message is not None:
                late.message.sets -= 1
                if late.stream_row:
                    self._templated.found_later(
                        late.stream_row, late.message, late.records, late.rows
                    )

    def _compare(self, work: "FlowBlock", start: int, stop: int) -> None:
        located, part = work.located, slice(start, stop)
        self._resets.array[0] += np.uint64(
            streams.account(
                located.stream[part],
                located.sequence[part],
                work.units[part],
                work.fate[part],
                work.unsure[part],
                work.rows[part],
                located.booted_ms[part],
                self._streams.key,
                self._streams.state,
                self._streams.counts,
                self._streams.gaps,
            )
        )

    def _thin(self, work: "FlowBlock") -> int:
        """Take a sample of what streams send beyond the limit; return how many were shed."""
        located, block = work.located, work.block
        sheddable = np.empty(block.datagrams, np.uint8)
        templated.find_sheddable(
            block.payload,
            block.offset,
            block.length,
            located.kind,
            block.exporter_high,
            block.exporter_low,
            block.exporter_port,
            self.templates.table_key,
            self.templates.table_plan,
            sheddable,
        )
        shed = thin(
            located.stream,
            block.arrival_ns,
            sheddable,
            self._second_max,
            self._streams.key,
            self._streams.pace,
            located.weight,
        )
        if shed:
            self._shed.array[0] += np.uint64(shed)
            work.shed()
        return shed

    def _locate(self, block: DatagramBlock) -> "Located":
        made = Located.room(block.datagrams)
        known = self._streams
        before = known.rows
        known.rows = streams.locate(
            block.payload,
            block.offset,
            block.length,
            block.exporter_high,
            block.exporter_low,
            block.exporter_port,
            block.arrival_ns,
            self._templated.tolerance_ns,
            known.table,
            known.key,
            known.state,
            known.counts,
            known.rows,
            made.stream,
            made.kind,
            made.export_ns,
            made.offset_ns,
            made.sequence,
            made.uptime_ms,
            made.drift,
            made.booted_ms,
        )
        for row in range(before, known.rows):
            self._welcome(row)
        return made

    def _welcome(self, row: int) -> None:
        """Tell a new stream what options data of its exporter said under another one."""
        known = self._streams
        key = known.key_of(row)
        self._sampling.refresh(known, row, np.array([row]))
        same = known.same_exporter(key)
        booted = same[known.boot[same, templated_finish.BOOT_NS] > 0]
        if booted.size:
            known.boot[row, templated_finish.BOOT_NS] = known.boot[
                booted[0], templated_finish.BOOT_NS
            ]

    def _decode5(self, work: "FlowBlock", chosen: NDArray[np.int64]) -> list[Batch]:
        part = CallPart(work, chosen)
        memory = FlowMemory.room(int(part.length.clip(0).sum()) // netflow5.RECORD_BYTES + 1)
        verdict = np.empty(chosen.size, np.uint8)
        records = np.empty(chosen.size, np.int32)
        rows = netflow5.decode_v5(
            part.payload,
            part.offset,
            part.length,
            self._streams.key[part.stream, 3].astype(np.uint16),
            part.export_ns,
            part.arrival_ns,
            part.uptime_ms,
            part.drift,
            part.exporter_high,
            part.exporter_low,
            netflow5.PRESENT,
            memory.wide,
            memory.words,
            memory.halves,
            memory.octets,
            records,
            verdict,
        )
        self._verdict5.array += np.bincount(verdict, minlength=len(netflow5.Verdict)).astype("u8")
        work.rows[chosen] = records
        work.units[chosen, 0] = work.units[chosen, 2] = records
        work.units[chosen, 1] = 1
        if bool((verdict == netflow5.Verdict.TRUNCATED).any()):
            for d in np.flatnonzero(verdict == netflow5.Verdict.TRUNCATED).tolist():
                # Cut: its count says how many flows it had, where it can be.
                said = part.count(d)
                work.fate[chosen[d]] = Fate.MALFORMED
                said = said if said <= netflow5.RECORDS_PER_DATAGRAM_MAX else 0
                work.units[chosen[d]] = (said, 1, said)
        if not rows:
            return []
        overrides = self._sampling.has_overrides
        columns = memory.columns(netflow5.FILLED, rows, sealed=not (overrides or part.thinned))
        if overrides or part.thinned:
            of_rows = np.repeat(np.arange(chosen.size), records)
            if overrides and bool((columns["sampling_rate"] == 0).any()):
                self._sampling.fill(columns, *part.exporters(of_rows))
            raise_rates(columns, part.weight[of_rows])
            seal(columns)
        return [self._batches.made(columns, rows, work.block, "netflow5")]

    # ---- time and state

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Expire templates and held sets; return the ledger, and what is new of exporters."""
        self._templated.advance(frontier_ns)
        self.reference.expire(frontier_ns - self._expiry_ns)
        batch = ledger_batch(self._streams, VERSIONS, frontier_ns)
        show(self._streams, self._ledger)
        self._streams.make_room(frontier_ns)
        return [*([batch] if batch.rows else []), *self._templated.facts(frontier_ns)]

    def waiting_sets(self) -> list[tuple[str, int, int]]:
        """Return (stream as people read it, set id, sets) of what waits for a template."""
        return self._templated.waiting_sets()

    def waiting_bytes(self) -> int:
        """Return how many bytes of data sets wait for a template."""
        return self._templated.waiting_bytes

    def snapshot(self, out: Any) -> None:
        """Write templates, streams, sampling rates and the sets that wait."""
        self._streams.snapshot(out, "streams")
        self._templated.snapshot(out)
        self._sampling.snapshot(out)
        self.reference.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take back what `snapshot` wrote."""
        if not self._streams.restore(state, "streams"):
            return
        self._templated.restore(state)
        self._sampling.restore(state)
        self.reference.restore(state)


def _make(settings: ListenerSettings, options: NoOptions, context: Context) -> FlowDecoder:  # noqa: ARG001
    return FlowDecoder(settings.decoder, context)


COLLECTOR = Part(
    "NetFlow v5, v9 and IPFIX over UDP",
    _make,
    sheds="records of a stream over datagrams_per_second_max: a sample is taken and its rates raised;"
    " templates and options data never",
    decoder=FlowDecoderSettings,
)
