"""Record our own capture of FRRouting's BMP: run as root, `python tests/captures/record_bmp.py`.

One router tells of its peer: the whole table, a route that goes and comes back, a reset, a shutdown.
The file is the byte stream of the connection, as `tocsin decode` reads it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.bmp_messages import make_decoder
from tests.support.frr import PREFIXES, PREFIXES6, BmpPeer, frr_pair, server

FILE = Path(__file__).parent / "frr.bmp"


def record() -> None:
    """Play the session and write what came."""
    with frr_pair() as pair:
        listening = server()
        pair.start(listening.getsockname()[1])
        peer = BmpPeer(listening, make_decoder())
        every = {*PREFIXES, *PREFIXES6}
        peer.hear(lambda: peer.live(0) == every)
        pair.configure(pair.b, "address-family ipv4 unicast", f"no network {PREFIXES[0]}")
        peer.hear(lambda: peer.live(0) == every - {PREFIXES[0]})
        pair.configure(pair.b, "address-family ipv4 unicast", f"network {PREFIXES[0]}")
        peer.hear(lambda: peer.live(0) == every)
        alarms = len(peer.rows("alarm"))
        pair.tell(pair.b, "clear bgp *")
        peer.hear(lambda: len(peer.rows("alarm")) >= alarms + 2 and peer.live(0) == every)
        pair.configure(pair.b, "neighbor 10.255.2.1 shutdown message new line card")
        peer.hear(lambda: peer.live(0) == set())
        FILE.write_bytes(peer.recorded)
        peer.close()
    print(f"{FILE.name}: {len(peer.recorded)} bytes")  # noqa: T201  # a script for people


if __name__ == "__main__":
    record()
