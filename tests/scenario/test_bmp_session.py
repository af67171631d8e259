"""A router's BMP session through a real node: what FRRouting said of its peer reaches a sink."""

import json
import socket
from pathlib import Path

import pytest

from tests.support.bmp_messages import monitoring, prefix, update, usual
from tests.support.frr import until
from tests.support.live_node import CLOCK, LiveNode, write_config
from tocsin.demo.settings import free_port

pytestmark = pytest.mark.timeout(180)
RECORDED = Path(__file__).parents[1] / "captures/frr.bmp"


def alerts(path: Path) -> list[tuple[str, str, str]]:
    """Return (kind, entity, state) of every alert in the file."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [(a["kind"], a["entity"], a["state"]) for a in map(json.loads, lines)]


def test_a_peer_and_a_session_that_go_are_told(tmp_path: Path) -> None:
    """The recorded session over TCP: its peer ends down; then the connection goes."""
    ports = [free_port(20_500 + 100 * n, socket.SOCK_DGRAM) for n in range(2)]
    bmp, metrics = free_port(21_019, socket.SOCK_STREAM), free_port(18_470, socket.SOCK_STREAM)
    extra = (
        f'[api]\nmetrics_listen = "127.0.0.1:{metrics}"\n'
        f'[collectors.core]\nkind = "bmp"\nlisten = "tcp://127.0.0.1:{bmp}"\n'
        '[detection.routes.own_prefixes]\n"198.51.100.0/24" = [64500]\n'
    )
    config = write_config(tmp_path, port=ports[0], sflow_port=ports[1], extra="\n" + extra)
    state, told = tmp_path / "state", tmp_path / "alerts.jsonl"
    state.mkdir()
    node = LiveNode(config, state).start()
    gate = LiveNode(config, state, role="gate")
    try:
        node.ask()
        gate.start()
        with socket.create_connection(("127.0.0.1", bmp), timeout=20) as router:
            stolen = monitoring(update(usual((64501, 64666)), prefix("198.51.100.0/25")))
            router.sendall(RECORDED.read_bytes() + stolen)
            for _ in until():
                if any(kind == "bgpBackwardTransition" for kind, _, _ in alerts(told)):
                    break
                CLOCK.sleep(0.1)
        for _ in until():
            if any(kind == "bmpSessionDown" for kind, _, _ in alerts(told)):
                break
            CLOCK.sleep(0.1)
        found = alerts(told)
        assert ("bmpSessionDown", "a1", "raised") in found
        assert ("subprefix-hijack", "198.51.100.0/24", "raised") in found
        peers = [alert for alert in found if alert[0] == "bgpBackwardTransition"]
        assert peers[-1] == ("bgpBackwardTransition", "a1:10.255.2.2", "raised")
    finally:
        if gate.process is not None:
            gate.stop()
        node.stop()
