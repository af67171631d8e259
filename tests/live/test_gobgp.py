"""GoBGP takes BGP-LS and FlowSpec from us as a BGP peer and tells them on by BMP: it comes back as we stated it."""

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.bmp.link_state import read_update
from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from tests.support import processes
from tests.support.bmp_messages import (
    as_path,
    attribute,
    bgp,
    chunks,
    make_decoder,
    open_message,
    reach,
    unreach,
    update,
)
from tests.support.frr import BmpPeer, until
from tests.support.link_state_messages import (
    OSPF,
    address,
    bandwidth,
    link_nlri,
    node_nlri,
    over,
    prefix_nlri,
    stated,
    tlv,
    withdrawn,
)
from tocsin.testing.rows import rows_of

A, B = "1921.6800.1001", "1921.6800.1002"
pytestmark = pytest.mark.live

DEADLINE_SECONDS = 30.0
CONFIG = """
[global.config]
  as = 65001
  router-id = "10.0.0.2"
  port = {bgp}
  local-address-list = ["127.9.0.2"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "127.9.0.1"
    peer-as = 64500
  [neighbors.transport.config]
    passive-mode = true
    local-address = "127.9.0.2"
  [neighbors.ebgp-multihop.config]
    enabled = true
    multihop-ttl = 5
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ls"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-flowspec"
[[mrt-dump]]
  [mrt-dump.config]
    dump-type = "updates"
    file-name = "dump"  # digits of a path would be read as a time
[[bmp-servers]]
  [bmp-servers.config]
    address = "127.9.0.3"
    port = {bmp}
    route-monitoring-policy = "pre-policy"
"""
LINK_STATE = b"\x01\x04" + struct.pack("!HBB", 16388, 0, 71)  # the capabilities
FLOW_RULES = b"\x01\x04" + struct.pack("!HBB", 1, 0, 133)
THERE = over("192.0.2.0", "192.0.2.1")
PSEUDONODE = "10.0.0.2:192.0.2.9"
STATED = (
    stated(node_nlri(A), tlv(1026, b"ams1"), tlv(1028, address("10.0.0.1"))),
    stated(link_nlri(A, B, THERE), bandwidth(1089, 10e9)),
    stated(prefix_nlri(A, "198.51.100.0/25"), tlv(1155, struct.pack("!I", 10))),
    stated(link_nlri("10.0.0.1", PSEUDONODE, protocol=OSPF, area=1)),
)


@contextlib.contextmanager
def gobgp(folder: Path, bmp_port: int) -> Iterator[socket.socket]:
    """Run GoBGP and yield our BGP session with it."""
    with socket.create_server(("127.9.0.2", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "gobgpd.toml"
    config.write_text(CONFIG.format(bgp=port, bmp=bmp_port))
    daemon = processes.start(
        ["gobgpd", "-f", str(config), "--api-hosts", "127.9.0.2:0", "--pprof-disable"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    try:
        for _ in until():  # it listens, and then closes what comes before it wants a peer
            with contextlib.ExitStack() as closing, contextlib.suppress(ConnectionError):
                us = socket.create_connection(("127.9.0.2", port), source_address=("127.9.0.1", 0))
                closing.enter_context(us)
                us.sendall(open_message(64500, LINK_STATE, FLOW_RULES) + bgp(4, b""))
                if us.recv(4096):
                    closing.pop_all()
                    break
        with us:
            yield us
    finally:
        processes.kill(daemon)


def dumped(path: Path) -> list[dict[str, Any]]:
    """Return what an MRT dump has of an IGP, in its order."""
    decoder, rows = make_decoder(), []
    for one in read_capture(path, CaptureReport()) if path.exists() and path.stat().st_size else ():
        rows += rows_of(decoder.decode(chunks([one.payload])), "option")
    return [json.loads(row["name"]) for row in rows if row["table"] == "link-state"]


def test_what_gobgp_tells_of_an_igp_is_what_it_was_told(
    needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("gobgpd")
    listening = socket.create_server(("127.9.0.3", 0))
    listening.settimeout(DEADLINE_SECONDS)
    with gobgp(tmp_path, listening.getsockname()[1]) as us:
        peer = BmpPeer(listening, make_decoder())

        def said(table: str) -> list[dict[str, Any]]:
            rows = [row for row in peer.rows("option") if row["table"] == table]
            return [json.loads(row["name"]) for row in rows]

        try:
            peer.hear(lambda: len(said("bgp-session")) == 1)
            us.sendall(b"".join(STATED))
            peer.hear(lambda: len(said("link-state")) == len(STATED))
            us.sendall(withdrawn(link_nlri(A, B, THERE)))
            peer.hear(lambda: len(said("link-state")) > len(STATED))
            for _ in until():  # its dump says the same
                if dumped(tmp_path / "dump") == said("link-state"):
                    break
        finally:
            peer.close()
    everything = [one.fields for message in STATED for one in read_update(message) or []]
    link = next(one for one in everything if one.get("interface"))
    gone = {name: value for name, value in link.items() if name != "bits_per_second"}
    assert said("link-state") == [*everything, gone | {"withdrawn": True}]
    (session,) = said("bgp-session")
    assert (session["local"], session["peer"]) == ("127.9.0.2", "127.9.0.1")


def test_what_gobgp_tells_of_rules_is_what_it_was_told(
    needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("gobgpd")
    listening = socket.create_server(("127.9.0.3", 0))
    listening.settimeout(DEADLINE_SECONDS)
    rule = b"\x0c\1\x20\xc6\x33\x64\7\3\x81\x11\6\x81\x35"
    limit = attribute(
        16, b"\x80\6\0\0" + struct.pack("!f", 125_000) + b"\x80\x09" + bytes(5) + b"\x08"
    )
    path = attribute(1, b"\0") + attribute(2, as_path(64500))
    with gobgp(tmp_path, listening.getsockname()[1]) as us:
        peer = BmpPeer(listening, make_decoder())

        def said() -> list[tuple[Any, ...]]:
            names = ("flow_rule", "flow_actions", "withdrawn", "change")
            rows = [row for row in peer.rows("route") if row["safi"] == 133]
            return [tuple(row[name] for name in names) for row in rows]

        try:
            us.sendall(update(path + limit + reach(1, 133, b"", rule)))
            peer.hear(lambda: len(said()) == 1)
            us.sendall(update(unreach(1, 133, rule)))
            peer.hear(lambda: len(said()) == 2)
        finally:
            peer.close()
    text = "destination 198.51.100.7/32; protocol udp; source-port =53"
    assert said() == [(text, "mark 8; rate-limit 125000", 0, 1), (text, "", 1, 5)]
