"""Real exporters watch real traffic; what we decode must agree with the interfaces' own counters.

Source of truth: the kernel's interface statistics, read before and after. Tolerance: 1 %.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from collectors.config import FlowDecoderSettings, ListenerSettings
from collectors.flow.decoder import FlowDecoder
from collectors.flow.sflow5 import SflowDecoder
from collectors.listen.udp import UdpListener
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.batch import Batch
from tests.support.exporters import ETHERNET_BYTES, Stop, Wire
from tocsin.testing import make_context

pytestmark = pytest.mark.live


@dataclass
class Heard:
    """What our listener and decoder made of an exporter."""

    flows: list[Batch] = field(default_factory=list)
    samples: list[Batch] = field(default_factory=list)
    ledger: list[Batch] = field(default_factory=list)
    datagrams: int = 0
    kernel_drops: int = 0

    def total(self, name: str) -> int:
        return sum(
            int((b[name] * np.maximum(b["sampling_rate"], 1).astype("u8")).sum())
            for b in self.flows
        )

    def column(self, name: str) -> list[int]:
        return [value for batch in self.flows for value in batch[name].tolist()]


def hear(
    wire: Wire, begin: Callable[[], Stop], kind: str, *, megabits: int = 16
) -> tuple[Heard, int, int]:
    """Run one exporter over some traffic; return what was heard, and the wire's packets and bytes."""
    base = make_context()
    context = Context("live", SystemClock(), base.metrics, base.log, base.seed)
    (sock,) = wire.sockets()
    settings = ListenerSettings(kind="flow", listen="udp://127.0.0.1:2055")
    listener = UdpListener(settings, context, sock)
    decoder = (SflowDecoder if kind == "sflow" else FlowDecoder)(FlowDecoderSettings(), context)
    heard = Heard()

    def drain(silent_seconds: float) -> None:
        until = time.monotonic() + silent_seconds
        while time.monotonic() < until:
            block = listener.take()
            if block is None:
                time.sleep(0.02)
                continue
            heard.datagrams += block.datagrams
            for batch in decoder.decode(block):
                if batch.schema.name == "flow":
                    heard.flows.append(batch)
                elif batch.schema.name == "sample":
                    heard.samples.append(batch)
            if block.datagrams:  # however long a cold kernel took to compile
                until = time.monotonic() + silent_seconds

    listener.start()
    try:
        stop = begin()
        packets, octets = wire.counters()
        wire.traffic(megabits=megabits)
        after_packets, after_octets = wire.counters()
        time.sleep(1.5)  # packet capture hands over in batches
        stop()
        drain(1.0)
        heard.ledger = decoder.advance(SystemClock().now_ns())
        heard.kernel_drops = listener.kernel_drops
    finally:
        listener.stop()
    return heard, after_packets - packets, after_octets - octets


def check_totals(
    heard: Heard, packets: int, octets: int, *, lost: tuple[int, int] = (0, 0)
) -> None:
    assert heard.kernel_drops == 0
    assert packets > 1000, "no traffic went over the wire"
    assert heard.total("packets") == pytest.approx(packets, rel=0.01)
    assert heard.total("octets") == pytest.approx(octets, rel=0.01)
    iperf = {5201} & set(heard.column("destination_port"))
    assert iperf, "the flows of iperf3 are not among the records"
    ledgers = [batch for batch in heard.ledger if batch.schema.name == "ledger"]
    assert ledgers
    for batch in ledgers:
        gap = batch["lost_wire"]
        assert lost[0] <= gap.sum() <= lost[1], "sequence numbers say that exports are missing"
        parts = batch["decoded"] + batch["lost_kernel"] + batch["undecodable"] + batch["shed"]
        assert (parts + gap.astype("u8") == batch["sent"]).all()


def _only(batch: Batch, rows: NDArray[np.bool_]) -> Batch:
    columns = {name: batch[name][rows] for name in batch.schema.names()}
    return batch.with_columns(batch.schema, columns)


@pytest.fixture
def wire(needs: Callable[..., None]) -> Iterator[Wire]:
    needs("ip", "iperf3", root=True)
    made = Wire(switch=False)
    yield made
    made.close()


@pytest.fixture
def switched(needs: Callable[..., None]) -> Iterator[Wire]:
    needs("ip", "iperf3", "ovs-vswitchd", "ovsdb-server", "ovs-vsctl", root=True)
    made = Wire(switch=True)
    yield made
    made.close()


@pytest.mark.parametrize("version", [5, 9, 10])
def test_softflowd(wire: Wire, needs: Callable[..., None], version: int) -> None:
    needs("softflowd", "softflowctl")
    # softflowd reads from libpcap without a timeout: up to one buffer block of packets (about 200)
    # stays unread, so there must be many more than that.
    heard, packets, octets = hear(wire, lambda: wire.softflowd(version), "flow", megabits=200)
    check_totals(heard, packets, octets - packets * ETHERNET_BYTES)
    now = SystemClock().now_ns()
    ends = heard.column("flow_end_ns")
    assert all(now - 60e9 < end <= now + 1e9 for end in ends), "flow times are off"


@pytest.mark.parametrize("version", [5, 9, 10])
def test_pmacct_nfprobe(wire: Wire, needs: Callable[..., None], version: int) -> None:
    needs("pmacctd")
    heard, packets, octets = hear(wire, lambda: wire.pmacct("nfprobe", version), "flow")
    check_totals(heard, packets, octets - packets * ETHERNET_BYTES)


def test_pmacct_sfprobe(wire: Wire, needs: Callable[..., None]) -> None:
    needs("pmacctd")
    heard, packets, octets = hear(wire, lambda: wire.pmacct("sfprobe"), "sflow")
    check_totals(heard, packets, octets)
    assert set(heard.column("observation_domain_id")) == {7}


def test_openvswitch_sflow(switched: Wire) -> None:
    heard, packets, octets = hear(switched, lambda: switched.openvswitch("sflow"), "sflow")
    check_totals(heard, packets, octets)
    assert heard.samples, "counter samples are sent every second"


def test_openvswitch_netflow(switched: Wire) -> None:
    heard, packets, octets = hear(switched, lambda: switched.openvswitch("netflow"), "flow")
    # It states the last record's number where v5 wants the first one's: learned, and no loss.
    check_totals(heard, packets, octets)


def test_openvswitch_ipfix(switched: Wire) -> None:
    heard, packets, octets = hear(switched, lambda: switched.openvswitch("ipfix"), "flow")
    # A packet is reported twice, going in and going out, and `direction` says which.
    assert set(heard.column("direction")) == {0, 1}
    heard.flows = [_only(batch, batch["direction"] == 0) for batch in heard.flows]
    # It counts one sequence over all its domains (RFC 7011 section 3.1: one for each), so the
    # options record of domain 0 looks lost in domain 7.
    check_totals(heard, packets, octets - packets * ETHERNET_BYTES, lost=(0, 2))
    assert set(heard.column("observation_domain_id")) == {7}
