"""The traffic model: who talks to whom, how much, when, and what each fault does to it.

Gravity between prefixes, a daily and weekly shape, wander of whole routers, Poisson numbers of flows
and heavy-tailed sizes. The figures are fitted by tests/support/fit_demo_traffic.py, which prints:

day       GEANT matrices, two harmonics: 0.28 with its peak at 15:00 UTC and 0.077 with peaks at 11:15
          and 23:15; peak to trough 1.9 (Abilene 1.6, one subscriber address of CESNET 8)
week      weekend over workday 0.77 (Abilene), 0.83 (Germany50); here 0.80
pairs     log of matrix over gravity model, weighted by volume: sd 0.50 (Abilene), 0.90 (GEANT); here 0.50
wander    log of a node's egress around its two-hour mean: sd 0.087 (Abilene), 0.064 (GEANT) at steps of
          5 and 15 minutes; here 0.07, with a new value every 5 minutes
octets    TCP holds 0.745 of them and a packet has 971 (CESNET); here 0.72 and 860
sizes     log-normal, sd of the log 1.9 for whole flows (captured IPFIX of 3,979 flows). Here a record is
          a slice of a flow (active timeout 5 s), which cuts the tail of long flows: 1.0

Random numbers depend on (seed, tick) alone: any tick can be made without those before it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Batch
from telemetry.identity import address_pair
from telemetry.schemas import FLOW, FLOW_FIELD_BIT
from tocsin.demo import attacks
from tocsin.demo.attacks import VECTORS
from tocsin.demo.network import HOPS_MAX, DemoNetwork, speaks

SAMPLING_RATE = 100
DAY_NS = 86_400_000_000_000
SIZE_SIGMA = 1.0
PAIR_SIGMA = 0.5
WANDER_SIGMA = 0.07
WANDER_STEP_NS = 300_000_000_000
DAY_HARMONICS = ((1, 0.28, 15.0), (2, 0.077, 11.25))  # number, amplitude, hour of a peak, UTC
WEEKEND = 0.80
# Hour of the week from Monday 00:00: the change to the weekend and back takes four hours.
_WEEK = ((0.0, 2.0, 118.0, 122.0, 166.0, 168.0),
         ((1 + WEEKEND) / 2, 1.0, 1.0, WEEKEND, WEEKEND, (1 + WEEKEND) / 2))  # fmt: skip
QUESTION_OCTETS = 74  # of DNS: its answers are what SERVICES says
SIZE_MEAN = 60_000.0  # octets of a record as exported
# (protocol, port, share of flows, size factor, octets a packet)
SERVICES = (
    (6, 443, 0.46, 1.25, 900), (17, 443, 0.20, 1.30, 1100), (6, 80, 0.07, 0.9, 850),
    (17, 53, 0.09, 0.05, 120), (6, 22, 0.02, 0.4, 200), (6, 25, 0.02, 0.5, 500),
    (6, 993, 0.02, 0.5, 500), (17, 123, 0.01, 0.02, 76), (17, 4500, 0.02, 1.0, 700),
    (6, 8443, 0.02, 0.8, 700), (17, 3478, 0.03, 0.9, 400), (6, 0, 0.03, 1.2, 1000), (1, 0, 0.01, 0.02, 84),
)  # fmt: skip
_PRESENT = np.uint64(
    sum(
        1 << FLOW_FIELD_BIT[name]
        for name in FLOW.names()
        if not name.startswith(("post_nat", "next_hop", "nat_", "mpls", "vlan", "forwarding"))
    )
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens to the network. Times in ns since 1970 UTC."""

    kind: str  # as alarm kinds; flash-crowd is no fault
    entity: str
    start_ns: int
    end_ns: int
    affects: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    def active(self, at_ns: int) -> bool:
        """Whether it goes on at this time."""
        return self.start_ns <= at_ns < self.end_ns


def day_shape(at_ns: int) -> float:
    """Return the factor of the hour and day of week; 1 on the average of a workday."""
    hour = at_ns % DAY_NS / 3.6e12
    week_hour = (at_ns // DAY_NS + 3) % 7 * 24 + hour  # 1970-01-01 was a Thursday
    swing = sum(
        amplitude * math.cos(2 * math.pi * number * (hour - peak) / 24)
        for number, amplitude, peak in DAY_HARMONICS
    )
    return float(np.interp(week_hour, *_WEEK)) * (1.0 + swing)


def sampled_packet(
    octets: NDArray[np.uint64], packets: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return (octets of the frame, rate) of the one sampled packet that stands for each flow."""
    frame = np.clip(octets // packets, 64, 9000)
    rate = np.clip(octets * np.uint64(SAMPLING_RATE) // frame, 1, 0xFFFF_FFFF)
    return frame, rate


class _Drawn:
    """Which of N a number drawn from [0, 1) picks, by their cumulative shares: np.searchsorted.

    A table of equal steps knows the answer for almost all numbers, three times faster than a search
    that misses the cache at each of its sixteen steps.
    """

    def __init__(self, cumulative: NDArray[np.float64]) -> None:
        self._cumulative = cumulative
        self._steps = 1 << max(8, (4 * cumulative.size).bit_length())
        self._guide = np.searchsorted(cumulative, np.arange(self._steps + 1) / self._steps)

    def of(self, drawn: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the places, int64[len(drawn)]; what rounding leaves over is the last one's."""
        step = (drawn * self._steps).astype(np.int64)
        place = self._guide[step]
        unsure = np.flatnonzero(place != self._guide[step + 1])
        place[unsure] = np.searchsorted(self._cumulative, drawn[unsure])
        made: NDArray[np.int64] = np.minimum(place, self._cumulative.size - 1)
        return made


class TrafficModel:
    """Records of any tick, with the faults that go on in it."""

    def __init__(
        self,
        network: DemoNetwork,
        *,
        seed: int,
        records_per_second: float = 2400.0,
        faults: tuple[Fault, ...] = (),
    ) -> None:
        self.network = network
        self.faults = faults
        self._seed = seed
        weight = network.prefix_weight
        gravity = np.outer(weight, weight)
        gravity[network.prefix_router[:, None] == network.prefix_router[None, :]] = 0.0
        # Not pure gravity: pairs differ by a log-normal factor, fixed for the network's life.
        fixed = np.random.Generator(np.random.Philox(key=[seed, 2**63]))
        gravity *= fixed.lognormal(0.0, PAIR_SIGMA, gravity.shape)
        self._pair_share = (gravity / gravity.sum()).ravel()
        self._to_prefix = self._pair_share.reshape(gravity.shape).sum(axis=0)
        self._pairs = _Drawn(np.cumsum(self._pair_share))
        self._services = _Drawn(np.cumsum([s[2] for s in SERVICES]))
        self._service = np.array([(s[0], s[1], s[4]) for s in SERVICES], np.int64)
        self._service_size = np.array([s[3] for s in SERVICES])
        low = [
            network.address_low[row] for row in range(len(network.names)) if speaks(row) == "sflow"
        ]
        self._samplers = np.array(low, np.uint64)
        hops = self._mean_hops()
        self._flows_per_second = records_per_second / hops

    def _mean_hops(self) -> float:
        count = len(self.network.names)
        hops = self.network.paths().hops
        prefixes = len(self.network.prefix_router)
        a = np.repeat(self.network.prefix_router, prefixes)
        b = np.tile(self.network.prefix_router, prefixes)
        return float((hops[a * count + b] * self._pair_share).sum())

    def records(self, start_ns: int, tick_ns: int) -> Batch:
        """Return the flow records exported in [start, start + tick), by export time.

        Every router on a flow's path exports it. Exporter times and ours agree here; arrival is the
        export time.
        """
        random = np.random.Generator(np.random.Philox(key=[self._seed, start_ns]))
        active = [fault for fault in self.faults if fault.active(start_ns)]
        parts = [self._normal(random, start_ns, tick_ns)]
        for fault in active:
            made = self._extra(fault, random, start_ns, tick_ns)
            if made is not None:
                parts.append(made)
        flows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        down = [fault.entity for fault in active if fault.kind == "link-cut"]
        silent = [fault.entity for fault in active if fault.kind == "exporter-down"]
        return self._export(flows, random, start_ns, tick_ns, down, silent)

    def exported(self, start_ns: int, tick_ns: int) -> Batch:
        """Return `records` as a collector gets them: of sFlow a packet each, without times of the flow."""
        batch = self.records(start_ns, tick_ns)
        rows = np.flatnonzero(np.isin(batch["exporter_address_low"], self._samplers))
        names = ("octets", "packets", "sampling_rate", "flow_start_ns", "flow_end_ns")
        changed = {name: batch[name].copy() for name in names}
        frame, rate = sampled_packet(batch["octets"][rows], batch["packets"][rows])
        for name, values in zip(names, (frame, 1, rate, 0, 0), strict=True):
            changed[name][rows] = values
        return batch.with_columns(batch.schema, {**batch.columns, **changed})

    # ---- flows, one row each

    def _normal(
        self, random: np.random.Generator, start_ns: int, tick_ns: int
    ) -> dict[str, NDArray[Any]]:
        # Drawn for the router that wanders highest, then thinned for the others.
        wander = self.wander(start_ns)
        highest = float(wander.max())
        mean = self._flows_per_second * day_shape(start_ns) * highest * tick_ns / 1e9
        n = int(random.poisson(mean))
        pair = self._pairs.of(random.random(n))
        prefixes = len(self.network.prefix_router)
        router = self.network.prefix_router[pair // prefixes]
        pair = pair[random.random(n) * highest < wander[router]]
        return self._flows(random, pair // prefixes, pair % prefixes)

    def wander(self, at_ns: int) -> NDArray[np.float64]:
        """Return the factor, float64[routers], by which each router's own traffic is off its shape now.

        Independent values every five minutes, mixed so that the variance between them is the same.
        """
        step, within = divmod(at_ns, WANDER_STEP_NS)
        angle = math.pi / 2 * within / WANDER_STEP_NS
        knots = [
            np.random.Generator(
                np.random.Philox(key=[self._seed, 2**62 + step + k])
            ).standard_normal(len(self.network.names))
            for k in (0, 1)
        ]
        mixed = math.cos(angle) * knots[0] + math.sin(angle) * knots[1]
        return np.exp(WANDER_SIGMA * mixed - WANDER_SIGMA**2 / 2)

    def _flows(
        self, random: np.random.Generator, source: NDArray[Any], destination: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        n = len(source)
        service = self._services.of(random.random(n))
        # The mean is one: sigma changes the tail, not the volume.
        size = random.lognormal(-(SIZE_SIGMA**2) / 2, SIZE_SIGMA, n) * SIZE_MEAN
        octets = np.maximum(size * self._service_size[service], 40.0).astype(np.uint64)
        protocol, port = self._service[service, 0], self._service[service, 1]
        ephemeral = random.integers(32768, 60999, n)
        port = np.where(port == 0, random.integers(1024, 60999, n), port)
        from_server = random.random(n) < 0.62  # downloads: the server's side sends more
        question = (port == 53) & ~from_server
        each = np.where(question, QUESTION_OCTETS, self._service[service, 2]).astype(np.uint64)
        packets = np.maximum(octets // each, 1)
        transport = protocol != 1
        # Popular hosts: a few addresses of a prefix carry most.
        hosts = (random.random((2, n)) ** 3 * 250).astype(np.uint64) + np.uint64(1)
        return {
            "source": source,
            "destination": destination,
            "source_low": self.network.prefix_low[source] + hosts[0],
            "destination_low": self.network.prefix_low[destination] + hosts[1],
            "source_port": np.where(from_server, port, ephemeral) * transport,
            "destination_port": np.where(from_server, ephemeral, port) * transport,
            "protocol": protocol,
            "tcp_flags": np.where(protocol == 6, 0x1B, 0),
            "octets": octets,
            "packets": packets.astype(np.uint64),
        }

    def _extra(
        self, fault: Fault, random: np.random.Generator, start_ns: int, tick_ns: int
    ) -> dict[str, NDArray[Any]] | None:
        seconds = tick_ns / 1e9
        detail = fault.detail
        if "class" in detail:
            return attacks.flows(
                self.network, detail, random,
                since_ns=fault.start_ns, start_ns=start_ns, tick_ns=tick_ns,
            )  # fmt: skip
        if fault.kind == "volumetric-attack":
            n = int(random.poisson(detail["flows_per_second"] * seconds))
            return self._attack(fault, random, n)
        if fault.kind == "port-scan":
            n = int(random.poisson(detail["flows_per_second"] * seconds))
            return self._scan(fault, random, n)
        if fault.kind == "slow-leak":
            done = (start_ns - fault.start_ns) / max(fault.end_ns - fault.start_ns, 1)
            grown = detail["factor_at_end"] * done
            prefix = self._prefix(fault.entity)
            own = float(self._pair_share.reshape(len(self.network.prefix_text), -1)[prefix].sum())
            n = int(random.poisson(self._flows_per_second * own * grown * seconds))
            made = self._flows(random, np.full(n, prefix), np.full(n, self._prefix(detail["to"])))
            made["destination_low"][:] = address_pair(detail["to_host"])[1]
            made["protocol"][:], made["tcp_flags"][:] = 6, 0x18
            made["destination_port"][:] = 443
            return made
        if fault.kind in ("flash-crowd", "capacity-breach"):
            age = (start_ns - fault.start_ns) / 1e9
            left = (fault.end_ns - start_ns) / 1e9
            prefix = self._prefix(detail.get("prefix", fault.entity))
            if fault.kind == "capacity-breach":
                more = age / (age + left) * self._room(prefix, detail["share_at_end"])
            else:
                ramp = min(age / 300.0, left / 300.0, 1.0)
                own = float(self._to_prefix[prefix])
                more = self._flows_per_second * own * detail["factor"] * ramp
            n = int(random.poisson(more * seconds))
            weight = self.network.prefix_weight.copy()
            weight[self.network.prefix_router == self.network.prefix_router[prefix]] = 0.0
            source = random.choice(len(weight), n, p=weight / weight.sum())
            made = self._flows(random, source, np.full(n, prefix))
            made["protocol"][:], made["tcp_flags"][:] = 6, 0x1B
            made["destination_port"][:], made["source_port"][:] = (
                443,
                random.integers(32768, 60999, n),
            )
            return made
        return None

    def _room(self, prefix: int, share: float) -> float:
        """Return the flows a second that fill a customer's interface to this share of its speed."""
        network = self.network
        face = network.customer_face(network.prefix_text[prefix])
        mine = (network.prefix_router == network.prefix_router[prefix]) & (
            network.prefix_interface == face.index
        )
        octets = SIZE_MEAN * float(sum(s[2] * s[3] for s in SERVICES)) * SAMPLING_RATE
        usual = self._flows_per_second * float(self._to_prefix[mine].sum())
        return max(share * face.speed / 8 / octets - usual, 0.0)

    def _prefix(self, text: str) -> int:
        return self.network.prefix_text.index(text)

    def _attack(self, fault: Fault, random: np.random.Generator, n: int) -> dict[str, NDArray[Any]]:
        protocol, source_port, flags, packet, packets = VECTORS[fault.detail["vector"]]
        target = self._prefix(fault.entity)
        others = np.flatnonzero(self.network.prefix_router != self.network.prefix_router[target])
        entry = random.choice(others, n)
        sources = random.integers(0x0B000000, 0xDFFFFFFF, n).astype(np.uint64) | np.uint64(
            0xFFFF << 32
        )
        count = np.maximum(random.poisson(packets, n), 1).astype(np.uint64)
        return {
            "source": entry,
            "destination": np.full(n, target),
            "source_low": sources,
            "destination_low": np.full(
                n, self.network.prefix_low[target] + np.uint64(fault.detail["host"]), np.uint64
            ),
            "source_port": np.full(n, source_port)
            if source_port
            else random.integers(1024, 65535, n),
            "destination_port": np.full(n, 443) if flags else random.integers(1024, 65535, n),
            "protocol": np.full(n, protocol),
            "tcp_flags": np.full(n, flags),
            "octets": count * np.uint64(packet),
            "packets": count,
        }

    def _scan(self, fault: Fault, random: np.random.Generator, n: int) -> dict[str, NDArray[Any]]:
        source = self._prefix(fault.entity)
        vertical = fault.detail["vertical"]
        others = np.flatnonzero(self.network.prefix_router != self.network.prefix_router[source])
        target = (
            np.full(n, int(others[fault.detail["host"] % len(others)]))
            if vertical
            else (random.choice(others, n))
        )
        hosts = np.full(n, 7) if vertical else random.integers(1, 255, n)
        return {
            "source": np.full(n, source),
            "destination": target,
            "source_low": np.full(
                n, self.network.prefix_low[source] + np.uint64(fault.detail["host"]), np.uint64
            ),
            "destination_low": self.network.prefix_low[target] + hosts.astype(np.uint64),
            "source_port": random.integers(32768, 60999, n),
            "destination_port": random.integers(1, 65535, n) if vertical else np.full(n, 22),
            "protocol": np.full(n, 6),
            "tcp_flags": np.full(n, 0x02),
            "octets": np.full(n, 44, np.uint64),
            "packets": np.full(n, 1, np.uint64),
        }

    # ---- records: every router on the path exports its view of the flow

    def _export(
        self,
        flows: dict[str, NDArray[Any]],
        random: np.random.Generator,
        start_ns: int,
        tick_ns: int,
        down: list[str],
        silent: list[str],
    ) -> Batch:
        network = self.network
        n = len(flows["source"])
        first = network.prefix_router[flows["source"]]
        last = network.prefix_router[flows["destination"]]
        pair = first * len(network.names) + last
        paths = network.paths(down)
        # One record a hop: record r is of flow `flow[r]` and stands at place `at[r]` of all hops.
        hops = paths.hops[pair]
        flow = np.repeat(np.arange(n), hops)
        ends = np.cumsum(hops)
        at = np.arange(len(flow)) + np.repeat(HOPS_MAX * pair - ends + hops, hops)
        node, ingress, egress = (
            table.ravel()[at] for table in (paths.router, paths.ingress, paths.egress)
        )
        some = hops > 0
        ingress[(ends - hops)[some]] = network.prefix_interface[flows["source"][some]]
        egress[ends[some] - 1] = network.prefix_interface[flows["destination"][some]]
        for name in silent:
            heard = node != network.row[name]
            flow, node, ingress, egress = flow[heard], node[heard], ingress[heard], egress[heard]
        export = start_ns + np.sort(random.integers(0, tick_ns, n))  # flows end all over the tick
        export_ns = export[flow]  # in order, as `flow` is
        rows = len(flow)
        nothing = {kind: np.zeros(rows, kind) for kind in {spec.dtype for spec in FLOW.fields}}
        v4 = nothing[np.dtype(np.uint64)]
        duration = np.minimum(flows["packets"].astype(np.int64) * 20_000_000, 4_500_000_000)[flow]
        columns: dict[str, NDArray[Any]] = {
            "flow_start_ns": export_ns - duration,
            "flow_end_ns": export_ns,
            "export_ns": export_ns,
            "arrival_ns": export_ns,
            "exporter_address_high": v4,
            "exporter_address_low": network.address_low[node],
            "source_address_high": v4,
            "source_address_low": flows["source_low"][flow],
            "destination_address_high": v4,
            "destination_address_low": flows["destination_low"][flow],
            "ingress_interface": ingress.astype(np.uint32),
            "egress_interface": egress.astype(np.uint32),
            "sampling_rate": np.full(rows, SAMPLING_RATE, np.uint32),
            "fields_present": np.full(rows, _PRESENT, np.uint64),
        }
        for name in (
            "source_port",
            "destination_port",
            "protocol",
            "tcp_flags",
            "octets",
            "packets",
        ):
            columns[name] = flows[name].astype(FLOW.by_name[name].dtype)[flow]
        for spec in FLOW.fields:
            if spec.name not in columns:
                columns[spec.name] = nothing[spec.dtype]
        return Batch(FLOW, columns, {}, {}, "demo", start_ns + tick_ns - 1, start_ns + tick_ns)
