"""The flow decoder: NetFlow v5, v9 and IPFIX, told apart by their version field."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings, ListenerSettings
from collectors.flow import netflow5, sections, streams, templated, templated_finish
from collectors.flow.columns import ROWS_MAX, FlowMemory, seal
from collectors.flow.elements import RAW, SLOT_CLASS, SLOT_ROW
from collectors.flow.exporter_facts import ExporterFacts
from collectors.flow.held import Held, HeldSets, Message
from collectors.flow.ledger import ledger_batch, ledger_gauge, shed_counter, show
from collectors.flow.options import OptionReader
from collectors.flow.reference import ReferenceTables
from collectors.flow.sampling import SamplingRates
from collectors.flow.shedding import raise_rates, thin
from collectors.flow.stream_table import Streams
from collectors.flow.streams import Fate
from collectors.flow.template_sets import VERSIONS, Malformed, describe, read_templates
from collectors.flow.templates import StreamKey, Template, TemplateStore
from collectors.flow.work import (
    Buffers,
    CallPart,
    FlowBlock,
    Late,
    Located,
    block_of,
    message_of,
)  # fmt: skip
from runtime.component import Context
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch, batch_from_rows
from telemetry.schema import Schema
from telemetry.schemas import FLOW, LEDGER, OPTION

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
        exported = settings.clock == "exported"
        self._tolerance_ns = -1 if exported else round(settings.clock_tolerance_seconds * 1e9)
        self._second_max = settings.datagrams_per_second_max
        self._held_ns = round(settings.held_seconds * 1e9)
        # For people (`tocsin decode`): where a list is put here, each decoded set is noted in it,
        # in the order of the rows that `decode` returns. None on the data path.
        self.sets_seen: list[SetSeen] | None = None
        # For people again: whether ways back become rows (ADR 0009), or stay what a record says.
        self.reverse_rows = True
        self.templates = TemplateStore(per_exporter_max=settings.templates_per_exporter_max)
        self._facts = ExporterFacts(self.templates)
        self._sampling = SamplingRates(
            settings.sampling_override, samplers_max=settings.samplers_max
        )
        self.reference = ReferenceTables(
            names_max=settings.names_max, per_exporter_max=settings.names_per_exporter_max
        )
        self._options = OptionReader(self._sampling, self.reference)
        self._tunnels = settings.tunnels
        metrics = context.metrics
        self._verdict5 = metrics.counter(
            "collector_netflow5_datagrams_total",
            "NetFlow v5 datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in netflow5.Verdict),
        )
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
        self._records = metrics.counter("collector_records_total", "flow records decoded")
        self._shed = shed_counter(metrics)
        self._resets = metrics.counter(
            "collector_sequence_resets_total", "sequence numbers that jumped: an exporter restarted"
        )
        self._ledger = ledger_gauge(metrics)
        self._held = HeldSets(
            bytes_max=settings.held_bytes_max,
            per_exporter_max=settings.held_bytes_per_exporter_max,
            count=self._sets.add,
        )

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
            batches = self._decode5(work, every) if first == 5 else self._walk_all(work, every)
        else:
            taken = located.weight > 0
            five = np.flatnonzero((kind == 5) & taken)
            if five.size:
                batches += self._decode5(work, five)
            other = np.flatnonzero((kind != 5) & taken)
            if other.size:
                batches += self._walk_all(work, other)
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
                    self._found_later(late.stream_row, late.message, late.records, late.rows)

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
            self._tolerance_ns,
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
        return [self._flow_batch(columns, rows, work.block, "netflow5")]

    def _walk_all(
        self, work: "FlowBlock", chosen: NDArray[np.int64], *, again: bool = False
    ) -> list[Batch]:
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
            if stop in (templated.Stop.END, templated.Stop.FULL):
                batches += self._finish(part, buffers, cursor, first_segment)
                if stop == templated.Stop.END:
                    break
                cursor[templated.ROWS] = cursor[templated.SEGMENTS] = first_segment = 0
                buffers = self._buffers(part)
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
                    cursor[templated.ROWS] = cursor[templated.SEGMENTS] = first_segment = 0
                    buffers = self._buffers(part)
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

    def _buffers(self, part: "CallPart") -> "Buffers":
        plans = self.templates.plans
        # Room for all of the block, or for as much as one batch takes: more than any one set.
        room = min(part.bytes // plans.least + 1, ROWS_MAX)
        active, wide_active = plans.active()
        segments = min(SEGMENTS_PER_CALL, part.bytes // 4 + 1)
        return Buffers(
            FlowMemory.room(room, extra=len(RAW)),
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
            self._tolerance_ns,
            buffers.rate,
            self._sampling.table_key,
            self._sampling.table_rate,
            plans.present,
            plans.schema,
            memory.wide,
            memory.words,
            memory.halves,
        )
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
        made = [self._flow_batch(columns, rows, part.work.block, source)]
        if view is not None and left & templated_finish.HAS_REVERSE:
            back = sections.reverse_flows(view, columns)
            if back is not None:
                seal(back)
                count = len(back["octets"])
                made.append(self._flow_batch(back, count, part.work.block, source + REVERSE))
        return made

    def _note(self, part: "CallPart", d: int, set_id: int, at: int, data: bytes, rows: int) -> None:
        if self.sets_seen is None:
            return
        template = self.templates.get(part.stream_key(d), set_id)
        assert template is not None  # its set was decoded a moment ago
        place = at - int(part.offset[d])
        self.sets_seen.append(SetSeen(template, data, place, part.arrival(d), rows))

    def _flow_batch(
        self, columns: dict[str, NDArray[Any]], rows: int, block: DatagramBlock, source: str
    ) -> Batch:
        self._records.array[0] += np.uint64(rows)
        newest = int(block.arrival_ns[-1]) if block.datagrams else 0
        return Batch.unchecked(
            FLOW, columns, source=source, arrival_ns=newest, frontier_ns=block.frontier_ns
        )

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
        batches = self._walk_all(alone, np.zeros(1, np.int64), again=True)
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

    def _found_later(self, row: int, message: Message, records: int, rows: int) -> None:
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

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Expire templates and held sets; return the ledger, and what is new of exporters."""
        horizon = frontier_ns - round(self._settings.template_expiry_seconds * 1e9)
        expired = self.templates.expire(horizon)
        if expired:
            self._templates_seen.add("expired", expired)
        self.reference.expire(horizon)
        self._held.expire(frontier_ns - self._held_ns)
        self._waiting.set(self._held.bytes)
        batch = ledger_batch(self._streams, VERSIONS, frontier_ns)
        show(self._streams, self._ledger)
        self._streams.make_room(frontier_ns)
        made = [batch] if batch.rows else []
        facts = self._facts.rows(frontier_ns)
        if facts:
            made.append(batch_from_rows(OPTION, facts, source="options", arrival_ns=frontier_ns))
        return made

    def waiting_sets(self) -> list[tuple[str, int, int]]:
        """Return (stream as people read it, set id, sets) of what waits for a template."""
        return [(describe(key[0]), key[1], sets) for key, sets in self._held.waiting()]

    def waiting_bytes(self) -> int:
        """Return how many bytes of data sets wait for a template."""
        return self._held.bytes

    def snapshot(self, out: Any) -> None:
        """Write templates, streams, sampling rates and the sets that wait."""
        self._streams.snapshot(out, "streams")
        self.templates.snapshot(out)
        self._sampling.snapshot(out)
        self.reference.snapshot(out)
        self._held.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take back what `snapshot` wrote."""
        if not self._streams.restore(state, "streams"):
            return
        self.templates.restore(state)
        for template in self.templates.all():
            self._facts.learned(template.stream)
        self._sampling.restore(state)
        self.reference.restore(state)
        self._held.restore(state)


def _make(settings: ListenerSettings, options: NoOptions, context: Context) -> FlowDecoder:  # noqa: ARG001
    return FlowDecoder(settings.decoder, context)


COLLECTOR = Part(
    "NetFlow v5, v9 and IPFIX over UDP",
    _make,
    sheds="records of a stream over datagrams_per_second_max: a sample is taken and its rates raised;"
    " templates and options data never",
    decoder=FlowDecoderSettings,
)
