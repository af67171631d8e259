"""The v9 and IPFIX half of the flow decoder: sets by their templates, and the templates themselves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.config import FlowDecoderSettings
from collectors.flow import sections, streams, templated, templated_finish
from collectors.flow.columns import ROWS_MAX, FlowMemory, seal
from collectors.flow.elements import RAW, SLOT_CLASS, SLOT_ROW
from collectors.flow.exporter_facts import ExporterFacts
from collectors.flow.held import Held, HeldSets, Message
from collectors.flow.options import OptionReader
from collectors.flow.reference import ReferenceTables
from collectors.flow.sampling import SamplingRates
from collectors.flow.shedding import raise_rates
from collectors.flow.stream_table import Streams
from collectors.flow.template_sets import VERSIONS, Malformed, describe, read_templates
from collectors.flow.templates import StreamKey, Template, TemplateStore
from collectors.flow.work import (
    Buffers,
    CallPart,
    FlowBatches,
    FlowBlock,
    Late,
    block_of,
    message_of,
)
from runtime.metrics import Metrics
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import OPTION

SEGMENTS_PER_CALL = 16_384
REVERSE = "-reverse"  # ends the source of batches that hold ways back, behind their ways there
_SLOT_KIND = np.array(SLOT_CLASS, np.uint8)
_SLOT_ROW = np.array(SLOT_ROW, np.int32)


@dataclass(frozen=True, slots=True)
class SetSeen:
    """A decoded set, for people: its template, its bytes, where they lie, how many rows it gave."""

    template: Template
    data: bytes
    offset: int  # of `data` in its datagram
    arrival_ns: int
    rows: int  # flow rows; 0 for options data


class TemplatedDecoder:
    """Owns the templates, and the sets that wait for one.

    The streams, sampling rates and names that options data tell of are shared with the rest of the decoder.
    """

    def __init__(
        self,
        settings: FlowDecoderSettings,
        metrics: Metrics,
        batches: FlowBatches,
        known: Streams,
        sampling: SamplingRates,
        reference: ReferenceTables,
    ) -> None:
        self._batches = batches
        self._streams = known
        self._sampling = sampling
        self._options = OptionReader(sampling, reference)
        self._tunnels = settings.tunnels
        exported = settings.clock == "exported"
        self.tolerance_ns = -1 if exported else round(settings.clock_tolerance_seconds * 1e9)
        self._held_ns = round(settings.held_seconds * 1e9)
        self._expiry_ns = round(settings.template_expiry_seconds * 1e9)
        self.sets_seen: list[SetSeen] | None = None  # see FlowDecoder
        self.reverse_rows = True
        self.templates = TemplateStore(per_exporter_max=settings.templates_per_exporter_max)
        self._facts = ExporterFacts(self.templates)
        self._verdict = metrics.counter(
            "collector_templated_datagrams_total",
            "v9 and IPFIX datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in templated.Verdict),
        )
        self._templates_seen = metrics.counter(
            "collector_templates_total",
            "template announcements by what became of them",
            label="result",
            values=("new", "same", "changed", "refused", "withdrawn", "expired", "malformed"),
        )
        self._sets = metrics.counter(
            "collector_sets_total",
            "sets that were not decoded at once, by reason; held = decoded_later + held_dropped"
            " + held_expired + those that wait",
            label="reason",
            values=("held", "decoded_later", "held_dropped", "held_expired", "reserved_id"),
        )
        self._waiting = metrics.gauge(
            "collector_sets_waiting_bytes", "data sets that wait for their template, in bytes"
        )
        self._held = HeldSets(
            bytes_max=settings.held_bytes_max,
            per_exporter_max=settings.held_bytes_per_exporter_max,
            count=self._sets.add,
        )

    def decode(
        self, work: "FlowBlock", chosen: NDArray[np.int64], *, again: bool = False
    ) -> list[Batch]:
        """Decode these datagrams of a block; `again`: a set that waited for its template."""
        part = CallPart(work, chosen)
        cursor = np.zeros(templated.CURSOR_SIZE, np.int64)
        verdict = np.zeros(chosen.size, np.uint8)
        records = np.zeros(chosen.size, np.int32)
        batches: list[Batch] = []
        options: list[dict[str, Any]] = []
        buffers = self._buffers(part)
        first_segment = 0  # segments before it already have their sampling rate
        while True:
            stop = self._walk(part, buffers, cursor, verdict, records)
            if stop == templated.Stop.END:
                batches += self._finish(part, buffers, cursor, first_segment)
                break
            if stop == templated.Stop.FULL:
                batches += self._finish(part, buffers, cursor, first_segment)
                buffers, first_segment = self._next_buffers(part, buffers, cursor), 0
                continue
            d = int(cursor[templated.AT_DATAGRAM])
            at, end = int(cursor[templated.SET_AT]), int(cursor[templated.SET_END])
            data = part.payload[at:end].tobytes()
            stream = part.stream_key(d)
            if stop == templated.Stop.UNKNOWN_TEMPLATE:
                self._hold(part, d, int(cursor[templated.SET_ID]), data, stream)
            elif stop == templated.Stop.OPTIONS_DATA:
                # A rate counts from here on: rows before it keep the one that held then.
                self._rates(part, buffers, cursor, first_segment)
                first_segment = int(cursor[templated.SEGMENTS])
                set_id = int(cursor[templated.SET_ID])
                count = self._read_options(part, d, set_id, data, stream, options)
                records[d] += count
                work.rows[part.chosen[d]] -= count
                self._note(part, d, set_id, at, data, 0)
            else:
                announced, ready = self._learn(
                    data, stream, stop == templated.Stop.OPTIONS_TEMPLATE_SET, part.arrival(d)
                )
                if part.kind[d] == 10:  # some count templates in IPFIX's sequence
                    work.units[part.chosen[d], 2] += announced
                noting = self.sets_seen is not None  # a set is noted under the template it had
                if noting or ready or buffers.plans != self.templates.plans.first.size:
                    # The new plan may fill columns that earlier rows never wrote: close them first.
                    batches += self._finish(part, buffers, cursor, first_segment)
                    buffers, first_segment = self._next_buffers(part, buffers, cursor), 0
                for held in ready:
                    batches += self._decode_held(work, held, int(part.chosen[d]))
        if options:
            batches.append(self._options.batch(options))
        if cursor[templated.RESERVED_SETS]:
            self._sets.add("reserved_id", int(cursor[templated.RESERVED_SETS]))
        if again:  # a set that waited: its datagram was counted when it came
            work.units[:, 0] = records
            work.rows += records
            return batches
        templated.tally(
            part.kind,
            chosen,
            verdict,
            records,
            work.units,
            work.rows,
            work.fate,
            work.unsure,
            self._verdict.array,
        )
        return batches

    def _next_buffers(
        self, part: "CallPart", buffers: "Buffers", cursor: NDArray[np.int64]
    ) -> "Buffers":
        """Return buffers for what follows a batch: its memory again, if it was copied for being sparse."""
        spare = buffers.memory.is_sparse(int(cursor[templated.ROWS]))
        cursor[templated.ROWS] = cursor[templated.SEGMENTS] = 0
        return self._buffers(part, buffers.memory if spare else None)

    def _buffers(self, part: "CallPart", spare: FlowMemory | None = None) -> "Buffers":
        plans = self.templates.plans
        # Room for all of the block, or for as much as one batch takes: more than any one set.
        room = min(part.bytes // plans.least + 1, ROWS_MAX)
        if spare is not None and spare.rows_max < room:
            spare = None
        active, wide_active = plans.active()
        segments = min(SEGMENTS_PER_CALL, part.bytes // 4 + 1)
        return Buffers(
            spare or FlowMemory.room(room, extra=len(RAW)),
            np.empty((segments, 6), np.int32),
            active,
            wide_active,
            plans.first.size,
            plans.high,
            np.zeros(segments, np.uint32),
        )

    def _walk(
        self,
        part: "CallPart",
        buffers: "Buffers",
        cursor: NDArray[np.int64],
        verdict: NDArray[np.uint8],
        records: NDArray[np.int32],
    ) -> int:
        plans, memory = self.templates.plans, buffers.memory
        return templated.walk(
            part.payload,
            part.offset,
            part.length,
            part.exporter_high,
            part.exporter_low,
            part.exporter_port,
            self.templates.table_key,
            self.templates.table_plan,
            plans.first,
            plans.count,
            plans.record_bytes,
            plans.present,
            plans.width,
            plans.kind,
            plans.row,
            plans.convert,
            buffers.active,
            buffers.wide_active,
            _SLOT_KIND,
            _SLOT_ROW,
            memory.wide,
            memory.words,
            memory.halves,
            memory.octets,
            buffers.segment,
            cursor,
            verdict,
            records,
        )

    def _rates(
        self, part: "CallPart", buffers: "Buffers", cursor: NDArray[np.int64], first: int
    ) -> None:
        """Fix the stream-wide sampling rate of the segments since `first`."""
        last = int(cursor[templated.SEGMENTS])
        row = part.stream[buffers.segment[first:last, 0]]
        buffers.rate[first:last] = self._streams.rate[row]

    def _finish(
        self, part: "CallPart", buffers: "Buffers", cursor: NDArray[np.int64], first: int
    ) -> list[Batch]:
        rows, segments = int(cursor[templated.ROWS]), int(cursor[templated.SEGMENTS])
        if not rows:
            return []
        self._rates(part, buffers, cursor, first)
        segment = buffers.segment[:segments]
        if self.sets_seen is not None:
            for d0, _, _, count, at, end in segment.tolist():
                set_id = int.from_bytes(part.payload[at - 4 : at - 2].tobytes(), "big")
                self._note(part, d0, set_id, at, part.payload[at:end].tobytes(), count)
        memory, plans = buffers.memory, self.templates.plans
        left = templated_finish.finish(
            segment,
            segments,
            part.export_ns,
            part.arrival_ns,
            part.offset_ns,
            part.uptime_ms,
            part.drift,
            part.exporter_high,
            part.exporter_low,
            part.stream,
            self._streams.key,
            self._streams.boot,
            self.tolerance_ns,
            buffers.rate,
            self._sampling.table_key,
            self._sampling.table_rate,
            plans.present,
            plans.schema,
            memory.wide,
            memory.words,
            memory.halves,
        )
        if memory.is_sparse(rows):
            memory = memory.compact(rows)
        overridden = left & templated_finish.RATE_UNKNOWN and self._sampling.has_overrides
        if not self.reverse_rows:
            left &= ~templated_finish.HAS_REVERSE
        more = left & (templated_finish.HAS_FRAMES | templated_finish.HAS_REVERSE)
        filled = buffers.filled(icmp=bool(left & templated_finish.HAS_ICMP))
        rewritten = bool(overridden or more or part.thinned)
        columns = memory.columns(filled, rows, sealed=not rewritten)
        version = int(part.kind[segment[0, 0]])
        source = VERSIONS.get(version, "ipfix")
        of_rows = np.repeat(segment[:, 0], segment[:, 3]) if overridden or part.thinned else None
        if of_rows is not None:
            if overridden:
                self._sampling.fill(columns, *part.exporters(of_rows))
            raise_rates(columns, part.weight[of_rows])
        masks = np.repeat(plans.present[segment[:, 1]], segment[:, 3]) if more else None
        view = None if masks is None else sections.Raw(memory.wide, masks)
        if view is not None and left & templated_finish.HAS_FRAMES:
            sections.read_packets(view, columns, part.payload, inner=self._tunnels == "inner")
        if rewritten:
            seal(columns)
        made = [self._batches.made(columns, rows, part.work.block, source)]
        if view is not None and left & templated_finish.HAS_REVERSE:
            back = sections.reverse_flows(view, columns)
            if back is not None:
                seal(back)
                count = len(back["octets"])
                made.append(self._batches.made(back, count, part.work.block, source + REVERSE))
        return made

    def _note(self, part: "CallPart", d: int, set_id: int, at: int, data: bytes, rows: int) -> None:
        if self.sets_seen is None:
            return
        template = self.templates.get(part.stream_key(d), set_id)
        assert template is not None  # its set was decoded a moment ago
        place = at - int(part.offset[d])
        self.sets_seen.append(SetSeen(template, data, place, part.arrival(d), rows))

    # ---- what is rare: templates, options, sets that wait

    def _learn(
        self, data: bytes, stream: StreamKey, options: bool, arrival_ns: int
    ) -> tuple[int, list[Held]]:
        """Learn the templates of a set; return how many, and the sets that waited for them."""
        ready: list[Held] = []
        oldest_ns = arrival_ns - self._held_ns
        version = stream[2] >> 16
        found = read_templates(data, stream, version, options, arrival_ns)
        for template in found:
            if isinstance(template, Malformed):
                # Data of that id has a layout that we do not know: the old one would invent values.
                self._templates_seen.add("malformed")
                if template.template_id >= templated.FIRST_DATA_ID:
                    self.templates.withdraw(stream, template.template_id)
            elif not template.fields:
                gone = self.templates.withdraw(stream, template.template_id)
                self._templates_seen.add("withdrawn", max(gone, 1))
            else:
                result = self.templates.put(template)
                self._templates_seen.add(result)
                if result in ("new", "changed"):
                    self._facts.learned(stream)
                if result != "refused":
                    ready += self._held.take((stream, template.template_id), oldest_ns)
        self._waiting.set(self._held.bytes)
        return len(found), ready

    def _hold(self, part: "CallPart", d: int, set_id: int, data: bytes, stream: StreamKey) -> None:
        at = int(part.chosen[d])
        work = part.work
        if not work.messages or work.messages[-1][0] != at:
            work.messages.append((at, Message(stream, int(work.located.sequence[at]))))
        message = work.messages[-1][1]
        held = Held(
            message_of(part.header(d), set_id, data),
            part.arrival(d),
            int(part.export_ns[d]),
            int(part.offset_ns[d]),
            int(part.uptime_ms[d]),
            int(part.drift[d]),
            int(part.weight[d]),
            message,
        )
        message.sets += 1
        self._held.put((stream, set_id), held)
        self._waiting.set(self._held.bytes)

    def _decode_held(self, work: "FlowBlock", held: Held, at: int) -> list[Batch]:
        """Decode a set whose template has come in datagram `at`; its rows keep their own times."""
        message = held.message
        row = self._streams.find(message.stream)
        alone = block_of(held, row, work.block.frontier_ns)
        batches = self.decode(alone, np.zeros(1, np.int64), again=True)
        records = int(alone.units[0, 0])
        rows = int(alone.rows[0])
        if work.messages and work.messages[-1] == (at, message):  # both came in one datagram
            message.sets -= 1
            work.rows[at] += rows
            nine = work.located.kind[at] == 9
            work.units[at] += (0, records, 0) if nine else (records, 0, records)
        else:
            work.late.append(Late(at, row, message, records, rows))
        return batches

    def found_later(self, row: int, message: Message, records: int, rows: int) -> None:
        """Tell the ledger what a set of an earlier datagram held, now that it is decoded."""
        self._streams.counts[row, streams.RECORDS] += rows
        nine = message.stream[2] >> 16 == 9
        by_datagram = nine == (self._streams.state[row, streams.MODE] != 1)
        if not by_datagram:
            if not nine:
                last = message.sets == 0
                self._streams.found_later(row, message.sequence, records, last=last)
        elif message.undecodable:
            message.undecodable = False
            self._streams.counts[row, streams.DECODED] += 1
            self._streams.counts[row, streams.NO_TEMPLATE] -= 1

    def _read_options(
        self,
        part: "CallPart",
        d: int,
        set_id: int,
        data: bytes,
        stream: StreamKey,
        found: list[dict[str, Any]],
    ) -> int:
        template = self.templates.get(stream, set_id)
        assert template is not None  # the kernel found it a moment ago
        records, rows = self._options.read(template, data, part.arrival(d))
        found += rows
        for one in rows:
            if one["table"] == "sampler":
                self._facts.sampled(stream, one["value"])
        row = int(part.stream[d])
        boot_ms = self._options.boot_ms
        if boot_ms:
            # By the options' domain; data may come under another stream of the same exporter.
            same = self._streams.same_exporter(stream)
            boot = self._streams.boot
            changed = same[boot[same, templated_finish.BOOT_NS] != boot_ms * 1_000_000]
            boot[changed] = (boot_ms * 1_000_000, 0, 0, 0)
        self._sampling.refresh(self._streams, row, self._streams.same_domain(stream))
        return records

    # ---- time and state

    def advance(self, frontier_ns: int) -> None:
        """Expire templates and the sets that wait."""
        expired = self.templates.expire(frontier_ns - self._expiry_ns)
        if expired:
            self._templates_seen.add("expired", expired)
        self._held.expire(frontier_ns - self._held_ns)
        self._waiting.set(self._held.bytes)

    def facts(self, frontier_ns: int) -> list[Batch]:
        """Return what is new of exporters."""
        rows = self._facts.rows(frontier_ns)
        if not rows:
            return []
        return [batch_from_rows(OPTION, rows, source="options", arrival_ns=frontier_ns)]

    def waiting_sets(self) -> list[tuple[str, int, int]]:
        """Return (stream as people read it, set id, sets) of what waits for a template."""
        return [(describe(key[0]), key[1], sets) for key, sets in self._held.waiting()]

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of data sets wait for a template."""
        return self._held.bytes

    def snapshot(self, out: Any) -> None:
        """Write templates and the sets that wait."""
        self.templates.snapshot(out)
        self._held.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take them back."""
        self.templates.restore(state)
        for template in self.templates.all():
            self._facts.learned(template.stream)
        self._held.restore(state)
