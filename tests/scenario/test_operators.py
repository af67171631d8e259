"""What operators do reaches a running node: the command, the journal, the next second, the alarm."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from runtime.bus import RequestClient
from runtime.clock import SystemClock
from tests.support.live_node import LiveNode, write_config
from tocsin import verbs
from tocsin.cli.alarm import alarm as command

SYSLOG = """
[collectors.lines]
kind = "syslog"
listen = "udp://127.0.0.1:{port}"
"""
DOWN = b"<187>1: *Nov 28 10:00:00.000: %LINK-3-UPDOWN: Interface Gi0/1, changed state to down"
CLOCK = SystemClock()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(ask: Callable[[], Any], fits: Callable[[Any], bool]) -> Any:
    """Ask until the answer fits; the last one after half a minute."""
    deadline = CLOCK.monotonic_ns() + 30_000_000_000
    while not fits(answer := ask()) and CLOCK.monotonic_ns() < deadline:
        CLOCK.sleep(0.1)
    return answer


def test_an_alarm_is_acknowledged_shelved_and_says_so_also_after_a_restart(tmp_path: Path) -> None:
    flow, sflow, lines = free_ports(3)
    config = write_config(
        tmp_path, port=flow, sflow_port=sflow, extra=SYSLOG.format(port=lines)
    )  # fmt: skip
    state = tmp_path / "state"
    node = LiveNode(config, state).start()
    client = RequestClient(f"ipc://{state}/node.sock")

    def alarms() -> list[dict[str, Any]]:
        return client.ask("alarms", verbs.AlarmsRequest(), verbs.Alarms, timeout_seconds=5.0).alarms

    try:
        node.ask()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(DOWN, ("127.0.0.1", lines))
        (raised,) = until(alarms, bool)
        acted = CliRunner().invoke(
            command, ["ack", raised["id"], "--by", "ann", "--state", str(state)]
        )
        assert acted.exit_code == 0, acted.output
        (acked,) = until(alarms, lambda found: found[0]["operator_state"] == "acknowledged")
        assert (acked["operator_state"], acked["operator"]) == ("acknowledged", "ann")
        acted = CliRunner().invoke(
            command, ["shelve", raised["id"], "--for", "600s", "--state", str(state)]
        )
        node.kill()  # the moment it was answered
        assert acted.exit_code == 0, acted.output
        node = LiveNode(config, state).start()
        node.ask()
        (shelved,) = until(alarms, lambda found: found[0]["operator_state"] == "shelved")
        assert shelved["suppressed"] == "shelved"
        listed = CliRunner().invoke(command, ["windows", "--state", str(state)])
        assert "shelved" in listed.output
        refused = CliRunner().invoke(command, ["ack", "zz", "--state", str(state)])
        assert "is no id" in str(refused.exception)
    finally:
        client.close()
        node.stop()
