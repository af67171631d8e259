"""A router's BMP session through a real node: what FRRouting said of its peer reaches a sink.

And byte streams in case files: the alert again, and the bytes that it came of, of BMP and of log lines.
"""

import json
import socket
import zipfile
from pathlib import Path
from typing import Any

import click.testing
import pytest

from tests.scenario.test_crash import committed
from tests.support.bmp_messages import monitoring, prefix, update, usual
from tests.support.frr import until
from tests.support.live_node import CLOCK, LiveNode, write_config
from tocsin.cli.capture import capture
from tocsin.cli.decode import decode
from tocsin.cli.replay import replay
from tocsin.demo.settings import free_port

pytestmark = pytest.mark.timeout(180)
DOWN = b"<187>1: *Nov 28 10:00:00.000: %LINK-3-UPDOWN: Interface Gi0/1, changed state to down\n"
RECORDED = Path(__file__).parents[1] / "captures/frr.bmp"


def alerts(path: Path) -> list[tuple[str, str, str]]:
    """Return (kind, entity, state) of every alert in the file."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [(a["kind"], a["entity"], a["state"]) for a in map(json.loads, lines)]


def rows(command: click.Command, *arguments: object) -> list[dict[str, Any]]:
    """Run a command and return the objects it printed."""
    made = click.testing.CliRunner().invoke(command, [str(one) for one in arguments])
    assert made.exit_code in (0, 3), made.output
    return [json.loads(line) for line in made.output.splitlines() if line.startswith("{")]


def test_a_peer_and_a_session_that_go_are_told_and_a_case_holds_their_bytes(tmp_path: Path) -> None:
    """The recorded session over TCP: its peer ends down; then the connection goes."""
    ports = [free_port(20_500 + 100 * n, socket.SOCK_DGRAM) for n in range(2)]
    bmp, metrics = free_port(21_019, socket.SOCK_STREAM), free_port(18_470, socket.SOCK_STREAM)
    lines = free_port(25_714, socket.SOCK_STREAM)
    extra = (
        f'[api]\nmetrics_listen = "127.0.0.1:{metrics}"\n'
        f'[collectors.core]\nkind = "bmp"\nlisten = "tcp://127.0.0.1:{bmp}"\n'
        '[detection.routes.own_prefixes]\n"198.51.100.0/24" = [64500]\n'
        f'[collectors.lines]\nkind = "syslog"\nlisten = "tcp://127.0.0.1:{lines}"\n'
    )
    config = write_config(tmp_path, port=ports[0], sflow_port=ports[1], extra="\n" + extra)
    state, told = tmp_path / "state", tmp_path / "alerts.jsonl"
    state.mkdir()
    node = LiveNode(config, state).start()
    gate = LiveNode(config, state, role="gate")
    try:
        node.ask()
        gate.start()
        with socket.create_connection(("127.0.0.1", lines), timeout=20) as router:
            router.sendall(DOWN)
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
    kept = [json.loads(alert) for alert in committed(state)[0]]
    for kind, schema, text in (
        ("bgpBackwardTransition", "alarm", "a1:10.255.2.2"),
        ("linkDown", "log", "Gi0/1"),
    ):
        alert = next(one for one in kept if one["kind"] == kind and one["state"] == "raised")
        case = tmp_path / f"{kind}.tocsin"
        rows(capture, "--around", alert["id"], "--output", case, "--state", state)
        assert alert in rows(replay, case), "the same alert, byte for byte"
        with zipfile.ZipFile(case) as archive:
            archive.extract("datagrams.pcapng", tmp_path)
        decoded = rows(decode, tmp_path / "datagrams.pcapng", "-o", "jsonl")
        assert any(row["schema"] == schema and text in json.dumps(row) for row in decoded), (
            f"its bytes are not in the case: {decoded[:3]}"
        )
