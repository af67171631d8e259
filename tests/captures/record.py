"""Record our own captures from real exporters: run as root, `python tests/captures/record.py`.

Each file holds the datagrams of one exporter that watched a second of iperf3 between two namespaces.
Written with `tocsin`'s own listener and writer; what they hold is judged by tshark in the tests.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from collectors.capture.writer import PcapngWriter, datagrams_of
from collectors.config import ListenerSettings
from collectors.listen.udp import UdpListener
from runtime.clock import SystemClock
from runtime.component import Context
from tests.support.exporters import Stop, Wire
from tocsin.testing import make_context

FOLDER = Path(__file__).parent
BYTES_MAX = 100_000
EXPORTERS: dict[str, tuple[bool, Callable[[Wire], Stop], int]] = {
    "softflowd-v5": (False, lambda wire: wire.softflowd(5), 2055),
    "softflowd-v9": (False, lambda wire: wire.softflowd(9), 2055),
    "softflowd-ipfix": (False, lambda wire: wire.softflowd(10), 4739),
    "pmacct-v9": (False, lambda wire: wire.pmacct("nfprobe", 9), 2055),
    "pmacct-ipfix": (False, lambda wire: wire.pmacct("nfprobe", 10), 4739),
    "pmacct-sflow": (False, lambda wire: wire.pmacct("sfprobe"), 6343),
    "openvswitch-sflow": (True, lambda wire: wire.openvswitch("sflow"), 6343),
    "openvswitch-v5": (True, lambda wire: wire.openvswitch("netflow"), 2055),
    "openvswitch-ipfix": (True, lambda wire: wire.openvswitch("ipfix"), 4739),
}


def record(name: str) -> None:
    switch, begin, port = EXPORTERS[name]
    wire = Wire(switch=switch)
    base = make_context()
    context = Context("record", SystemClock(), base.metrics, base.log, base.seed)
    (sock,) = wire.sockets()
    listener = UdpListener(
        ListenerSettings(kind="flow", listen="udp://127.0.0.1:2055"), context, sock
    )
    listener.start()
    writer = PcapngWriter(FOLDER / f"{name}.pcapng")
    written = 0
    try:
        stop = begin(wire)
        wire.traffic(seconds=1, megabits=2)
        time.sleep(1.5)
        stop()
        time.sleep(0.5)
        while (block := listener.take()) is not None:
            for datagram in datagrams_of(block):
                written += len(datagram.payload) + 80
                if written < BYTES_MAX:
                    writer.write(datagram, destination_port=port)
    finally:
        writer.close()
        listener.stop()
        wire.close()
    print(f"{name}: {writer.datagrams} datagrams")  # noqa: T201  # a script for people


if __name__ == "__main__":
    for one in sys.argv[1:] or EXPORTERS:
        record(one)
