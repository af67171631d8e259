"""sFlow v5: sampled packets as flow records, interface counters as samples, port names as options.

A record is one sampled packet: octets is the frame's length, packets 1, and the sampling rate stands
beside them. Unknown samples and records are skipped by their length. The agent's address is the
exporter: datagrams may be relayed.

Source: sFlow version 5 (sflow.org, July 2004), sections 5 and appendix; discarded packets: sFlow
dropped packet notification structures, format 5.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings, ListenerSettings
from collectors.flow import packet, streams
from collectors.flow.columns import FlowMemory, bits, seal, stride
from collectors.flow.ledger import ledger_batch, ledger_gauge, shed_counter, show
from collectors.flow.reference import NAME_BYTES_MAX, ReferenceTables
from collectors.flow.sampling import SamplingRates
from collectors.flow.sflow_kernels import (
    COUNTER_ROWS,
    FILLED,
    FLOW_ROWS,
    ROWS_PER_BYTES,
    Verdict,
    count_drops,
    decode_sflow,
    find_agents,
    finish_sflow,
)
from collectors.flow.shedding import raise_rates, thin
from collectors.flow.stream_table import Streams
from runtime.component import Context
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_text
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schema import Schema
from telemetry.schemas import FLOW, LEDGER, OPTION, SAMPLE, SERIES

_IP = bits("source_address", "destination_address", "protocol", "ip_class_of_service")
_PORTS = bits("source_port", "destination_port")
# In the order in which `finish_sflow` wants them.
_MASKS = np.array(
    [
        bits(
            "export_ns",
            "arrival_ns",
            "exporter_address",
            "observation_domain_id",
            "ingress_interface",
            "egress_interface",
            "packets",
            "sampling_rate",
        ),
        # What the header parser found: IP, ports, TCP flags, VLAN, label.
        _IP,
        _PORTS,
        bits("tcp_flags"),
        bits("vlan_id"),
        bits("mpls_top_label"),
        # What the sample had: switch, router, gateway, dropped, length.
        bits("vlan_id"),
        bits("next_hop_address", "source_prefix_length", "destination_prefix_length"),
        bits("next_hop_address", "source_as", "destination_as"),
        bits("forwarding_status"),
        bits("octets"),
        _IP | _PORTS | bits("tcp_flags"),
    ],
    np.uint64,
)
_COUNTED = COUNTER_ROWS[3:]
_OCTETS = np.array([name.endswith("octets") for name in _COUNTED])  # 64 bits; the others 32
_ALL_ONES = np.where(_OCTETS, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFFFFFFFF))
_UNITS = ["By" if octets else "{packet}" for octets in _OCTETS]
_DROP_SOURCES = 1 << 16  # places of the table of drop counters; half of them may be taken
_NAMES = {5: "sflow5"}


class SflowDecoder:
    """Turn sFlow datagrams into `flow`, `sample`, `series`, `option` and `ledger` batches.

    Owns no socket.

    Rows keep the order of arrival. Blind to what agents did not sample; what an agent dropped
    before sending is in `collector_sflow5_agent_drops_total`.
    """

    emits: tuple[Schema, ...] = (FLOW, SAMPLE, SERIES, OPTION, LEDGER)

    def __init__(self, settings: FlowDecoderSettings, context: Context) -> None:
        self._tunnels = packet.TUNNELS_MAX if settings.tunnels == "inner" else 0
        self._overrides = SamplingRates(settings.sampling_override)
        self._agents = Streams(
            streams_max=settings.streams_max, per_exporter_max=settings.streams_per_exporter_max
        )
        self._second_max = settings.datagrams_per_second_max
        self._names_ns = round(settings.template_expiry_seconds * 1e9)
        self._names = SeriesNames(series_max=settings.counter_series_max)
        # (agent row, source) → drops as last stated.
        self._drop_key = np.zeros(_DROP_SOURCES, np.uint64)
        self._drop_count = np.zeros(_DROP_SOURCES, np.uint64)
        self._drop_used = np.zeros(1, np.int64)
        self.reference = ReferenceTables(
            names_max=settings.names_max, per_exporter_max=settings.names_per_exporter_max
        )
        metrics = context.metrics
        self._verdict = metrics.counter(
            "collector_sflow5_datagrams_total",
            "sFlow datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in Verdict),
        )
        self._unknown = metrics.counter(
            "collector_sflow5_skipped_total",
            "sFlow structures of unknown kinds, skipped by their length",
            label="structure",
            values=("sample", "record"),
        )
        self._agent_drops = metrics.counter(
            "collector_sflow5_agent_drops_total",
            "samples that agents say they dropped for lack of resources",
        )
        self._resets = metrics.counter(
            "collector_sequence_resets_total", "sequence numbers that jumped: an exporter restarted"
        )
        self._records = metrics.counter("collector_records_total", "flow records decoded")
        self._shed = shed_counter(metrics)
        self._ledger = ledger_gauge(metrics)

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all datagrams; see the class."""
        self._agents.kernel_drops += block.kernel_drops
        count = block.datagrams
        if not count:
            return []
        capacity = int(block.length.sum()) // ROWS_PER_BYTES + 1
        flows = np.empty((len(FLOW_ROWS), stride(capacity)), np.uint64)
        counters = np.empty((len(COUNTER_ROWS), stride(capacity)), np.uint64)
        head = np.empty((5, count), np.uint64)
        verdict = np.zeros(count, np.uint8)
        names = np.empty((4, capacity), np.int64)
        tally = np.zeros(4, np.int64)
        rows = decode_sflow(
            block.payload, block.offset, block.length, flows, counters, names, head, verdict, tally
        )
        self._verdict.array += np.bincount(verdict, minlength=len(Verdict)).astype("u8")
        self._unknown.array += tally[1:3].astype("u8")
        datagram = flows[0, :rows].astype(np.int64)
        records = np.bincount(datagram, minlength=count)
        agent, weight = self._account(block, head, verdict, records)
        batches = []
        if rows:
            self._agent_drops.array[0] += np.uint64(
                count_drops(flows, rows, agent, self._drop_key, self._drop_count, self._drop_used)
            )
        of_rows = weight[datagram]
        taken = of_rows > 0
        if not taken.all():
            rows, of_rows = int(taken.sum()), of_rows[taken]
            flows[:, :rows] = flows[:, : taken.size][:, taken]
        self._records.array[0] += np.uint64(rows)
        if rows:
            batches.append(self._flow_batch(block, head, flows, rows, of_rows))
        if tally[0]:
            batches += self._counter_batches(block, head, counters[:, : int(tally[0])])
        if tally[3]:
            batches += self._port_names(block, head, names[:, : int(tally[3])])
        return batches

    def _account(
        self,
        block: DatagramBlock,
        head: NDArray[np.uint64],
        verdict: NDArray[np.uint8],
        records: NDArray[np.int64],
    ) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Keep the ledger: sequence numbers count the datagrams of a sub-agent.

        Return each datagram's agent, and for how many datagrams its packets stand, 0 = shed.
        """
        known = self._agents
        count = verdict.size
        agent = np.zeros(count, np.int32)
        sequence = np.zeros(count, np.int64)
        known.rows = find_agents(head, verdict, known.table, known.key, known.rows, agent, sequence)
        known.state[agent, streams.HEARD_NS] = block.arrival_ns
        # A datagram cut or mangled before its first sample gave nothing.
        bad = (verdict == Verdict.BAD_LENGTH) & (records == 0) & (head[4] > 0)
        fate = np.where(bad, streams.Fate.MALFORMED, streams.Fate.GOOD).astype(np.uint8)
        weight = np.ones(count, np.uint32)
        if self._second_max > 0:  # of packets only: counters and names are no samples
            some = (records > 0).astype(np.uint8)
            shed = thin(
                agent, block.arrival_ns, some, self._second_max, known.key, known.pace, weight
            )
            self._shed.array[0] += np.uint64(shed)
            fate[weight == 0] = streams.Fate.SHED
        self._resets.array[0] += np.uint64(
            streams.account(
                agent,
                sequence,
                np.ones((count, 3), np.int32),
                fate,
                np.zeros(count, np.uint8),
                np.where(weight > 0, records, 0).astype(np.int32),
                np.zeros(count, np.int64),
                known.key,
                known.state,
                known.counts,
                known.gaps,
            )
        )
        return agent, weight

    def _flow_batch(
        self,
        block: DatagramBlock,
        head: NDArray[np.uint64],
        flows: NDArray[np.uint64],
        rows: int,
        weight: NDArray[np.uint32],
    ) -> Batch:
        parsed = np.empty((len(packet.FIELDS), flows.shape[1]), np.uint64)
        packet.parse_headers(
            block.payload,
            flows[1, :rows].astype(np.int64),
            flows[2, :rows].astype(np.int32),
            flows[3, :rows].astype(np.int32),
            self._tunnels,
            parsed,
        )
        memory = FlowMemory.room(rows)
        without = finish_sflow(
            flows,
            parsed,
            rows,
            head,
            block.arrival_ns,
            _MASKS,
            memory.wide,
            memory.words,
            memory.halves,
            memory.octets,
        )
        overridden = bool(without) and self._overrides.has_overrides
        thinned = bool((weight > 1).any())
        columns = memory.columns(FILLED, rows, sealed=not (overridden or thinned))
        if overridden:
            self._fill_override(columns["sampling_rate"], head, flows[0, :rows].astype(np.int64))
        if overridden or thinned:
            raise_rates(columns, weight)
            seal(columns)
        newest = int(block.arrival_ns[-1])
        return Batch.unchecked(
            FLOW, columns, source="sflow5", arrival_ns=newest, frontier_ns=block.frontier_ns
        )

    def _fill_override(
        self, rate: NDArray[np.uint32], head: NDArray[np.uint64], d: NDArray[np.int64]
    ) -> None:
        unknown = rate == 0
        for high, low in np.unique(head[:2, d[unknown]], axis=1).T.tolist():
            same = unknown & (head[0, d] == high) & (head[1, d] == low)
            rate[same] = self._overrides.override(high, low)

    def _port_names(
        self, block: DatagramBlock, head: NDArray[np.uint64], names: NDArray[np.int64]
    ) -> list[Batch]:
        """Return names of interfaces as options data would give them, each once until it changes."""
        found = []
        for d, index, at, size in names.T.tolist():
            high, low = int(head[0, d]), int(head[1, d])
            text = block.payload[at : at + min(size, NAME_BYTES_MAX)].tobytes().rstrip(b"\0")
            name = text.decode("utf-8", "replace")
            if not name:
                continue
            known = self.reference.name(high, low, "interface", index) == name
            now_ns = int(block.arrival_ns[d])
            if not self.reference.learn(high, low, "interface", index, name, now_ns) or known:
                continue
            found.append(
                {
                    "arrival_ns": now_ns,
                    "exporter_address_high": high,
                    "exporter_address_low": low,
                    "observation_domain_id": int(head[2, d]),
                    "table": "interface",
                    "key": index,
                    "name": name,
                }
            )
        newest = int(block.arrival_ns[-1])
        return [batch_from_rows(OPTION, found, source="sflow5", arrival_ns=newest)] if found else []

    def _counter_batches(
        self, block: DatagramBlock, head: NDArray[np.uint64], counters: NDArray[np.uint64]
    ) -> list[Batch]:
        """Return what interfaces counted, as series of the view `sample`."""
        value = counters[3:].T
        kept = value != _ALL_ONES  # else the agent does not keep this counter
        ids = np.zeros(value.shape, np.uint64)
        for c, (d, index) in enumerate(counters[:2].T.tolist()):
            agent = address_text(int(head[0, d]), int(head[1, d]))
            port = {"interface": str(index)}
            for k in np.flatnonzero(kept[c]).tolist():
                ids[c, k] = self._names.id(agent, _COUNTED[k], port, unit=_UNITS[k])
        time_ns = np.repeat(block.arrival_ns[counters[0].astype(np.int64)], kept.sum(axis=1))
        samples = Batch(
            SAMPLE,
            {
                "time_ns": time_ns,
                "arrival_ns": time_ns,
                "series_id": ids[kept],
                "value": value[kept].astype(np.float64),
                "kind": np.full(time_ns.size, SampleKind.COUNTER, np.uint8),
            },
            source="sflow5",
            arrival_ns=int(block.arrival_ns[-1]),
        )
        new = self._names.new()
        return [samples] if new is None else [new, samples]

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return a ledger row for each sub-agent heard of since the last call."""
        self.reference.expire(frontier_ns - self._names_ns)
        batch = ledger_batch(self._agents, _NAMES, frontier_ns)
        show(self._agents, self._ledger)
        if self._agents.make_room(frontier_ns):
            self._drop_key[:] = 0  # they are by row; the next sample states the count anew
            self._drop_used[:] = 0
        return [batch] if batch.rows else []

    def snapshot(self, out: Any) -> None:
        """Write the sequence state. Series are announced again after a restart."""
        self._agents.snapshot(out, "agents")

    def restore(self, state: Any) -> None:
        """Take it back."""
        self._agents.restore(state, "agents")


def _make(settings: ListenerSettings, options: NoOptions, context: Context) -> SflowDecoder:  # noqa: ARG001
    return SflowDecoder(settings.decoder, context)


COLLECTOR = Part(
    "sFlow v5 over UDP",
    _make,
    sheds="packets of an agent over datagrams_per_second_max: a sample is taken and its rates raised;"
    " counters and names of ports never",
    decoder=FlowDecoderSettings,
)
