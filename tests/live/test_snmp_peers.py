"""Net-SNMP as the peer: snmptrap and snmpinform against a real node, our poller against a real snmpd."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collectors.snmp.devices import PollOptions
from collectors.snmp.poll import SnmpPoller
from runtime.bus import RequestClient
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.errors import TransientError
from telemetry.snmp import message, usm
from tests.support import processes
from tests.support.live_node import LiveNode, write_config
from tests.support.snmp_agent import SMALL, Agent, AgentServer
from tests.support.source_world import MemoryNode
from tocsin import verbs
from tocsin.testing import make_context

pytestmark = pytest.mark.live
LINK_DOWN, LINK_UP = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.4"
INDEX, ADMIN = "1.3.6.1.2.1.2.2.1.1", "1.3.6.1.2.1.2.2.1.7"
COLLECTOR = """
[collectors.traps]
kind = "snmp-trap"
listen = "udp://127.0.0.1:{port}"
[collectors.traps.options]
communities = ["noc"]
engine_id = "8000000001020304"
"""
USER = """
[collectors.traps.options.users.{name}]
auth = "{auth}"
auth_password_file = "{folder}/auth"
priv = "{priv}"
priv_password_file = "{folder}/priv"
"""
USERS = [("sha256aes", "sha256", "aes"), ("md5des", "md5", "des"), ("sha512aes", "sha512", "aes")]
NAMES = {
    "md5": "MD5", "sha": "SHA", "sha224": "SHA-224", "sha256": "SHA-256", "sha384": "SHA-384",
    "sha512": "SHA-512", "des": "DES", "aes": "AES", "aes192": "AES-192", "aes256": "AES-256",
    "aes192c": "AES-192-C", "aes256c": "AES-256-C",
}  # fmt: skip


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def security(name: str, auth: str, priv: str) -> list[str]:
    return [
        "-v3", "-u", name, "-l", "authPriv", "-a", NAMES[auth], "-A", "authpass1",
        "-x", NAMES[priv], "-X", "privpass1",
    ]  # fmt: skip


def tell(
    program: str, how: list[str], port: int, trap: str, index: int
) -> subprocess.CompletedProcess[str]:
    """Run snmptrap or snmpinform."""
    bindings = [f"{INDEX}.{index}", "i", str(index), f"{ADMIN}.{index}", "i", "1"]
    return subprocess.run(
        [program, *how, "-t", "1", "-r", "8", f"127.0.0.1:{port}", "", trap, *bindings],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "MIBS": ""},
    )  # fmt: skip


@pytest.mark.parametrize("auth", usm.AUTH_PROTOCOLS)
@pytest.mark.parametrize("priv", usm.PRIV_PROTOCOLS)
def test_every_pair_of_algorithms_is_that_of_net_snmp(
    auth: str, priv: str, needs: Callable[..., None]
) -> None:
    needs("snmptrap")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        port = int(sock.getsockname()[1])
        how = ["-v3", "-e", "0x8000000001020304", "-u", "u", "-l", "authPriv", "-a", NAMES[auth],
               "-A", "authpass1", "-x", NAMES[priv], "-X", "privpass1"]  # fmt: skip
        answer = tell("snmptrap", how, port, LINK_DOWN, 7)
        assert not answer.returncode, answer.stderr
        data = sock.recv(65535)
    user = usm.User("u", auth, "authpass1", priv, "privpass1")
    scoped = usm.read_scoped(usm.open_message(user, usm.read_secured(data), data))
    pdu = message.read_pdu(scoped.pdu, 0, len(scoped.pdu))
    assert message.notification_of(pdu).trap_oid == LINK_DOWN


class Traps:
    """A node that takes traps."""

    def __init__(self, folder: Path, workers: int) -> None:
        (folder / "auth").write_text("authpass1")
        (folder / "priv").write_text("privpass1")
        self.port = free_port()
        extra = COLLECTOR.format(port=self.port) + "".join(
            USER.format(name=name, auth=auth, priv=priv, folder=folder)
            for name, auth, priv in USERS
        )
        config = write_config(folder, port=free_port(), sflow_port=free_port(), extra=extra)
        text = config.read_text("utf-8").replace("[node]\n", f"[node]\nworkers = {workers}\n")
        config.write_text(text, "utf-8")
        self.node = LiveNode(config, folder / "state").start()
        self.node.ask()

    def alarms(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Return the node's alarms once there are enough, 20 s at most."""
        client = RequestClient(f"ipc://{self.node.state}/node.sock")
        found: list[dict[str, Any]] | None = None
        until = time.monotonic() + 20
        try:
            while time.monotonic() < until and (found is None or not enough(found)):
                try:
                    ask = verbs.AlarmsRequest(limit=100)
                    answer = client.ask("alarms", ask, verbs.Alarms, timeout_seconds=2.0)
                    found = [dict(one) for one in answer.alarms if one["kind"] != "exporter-down"]
                except TransientError:
                    pass
                time.sleep(0.2)
        finally:
            client.close()
        assert found is not None, "the node does not answer"
        return found


@pytest.fixture(params=[1, 2], ids=["alone", "shards"])
def traps(
    request: pytest.FixtureRequest, tmp_path: Path, needs: Callable[..., None]
) -> Iterator[Traps]:
    needs("snmptrap", "snmpinform")
    made = Traps(tmp_path, request.param)
    yield made
    made.node.stop()


def test_traps_and_informs_of_net_snmp_become_alarms_and_informs_are_answered(traps: Traps) -> None:
    port = traps.port
    v2c = ["-v2c", "-c", "noc"]
    assert tell("snmptrap", v2c, port, LINK_DOWN, 1).returncode == 0
    v1 = ["-v1", "-c", "noc"]
    subprocess.run(
        ["snmptrap", *v1, f"127.0.0.1:{port}", "1.3.6.1.4.1.9.1.1", "127.0.0.1", "2", "0", "100",
         f"{INDEX}.2", "i", "2"], check=True, env={**os.environ, "MIBS": ""}, timeout=30,
    )  # fmt: skip
    engine = ["-e", "0x80001f8880aabbccdd"]
    for place, (name, auth, priv) in enumerate(USERS):
        done = tell("snmptrap", [*engine, *security(name, auth, priv)], port, LINK_DOWN, 10 + place)
        assert done.returncode == 0, done.stderr
    # Informs: the exit code says that they were answered.
    done = tell("snmpinform", v2c, port, LINK_DOWN, 20)
    assert done.returncode == 0, done.stderr
    for place, (name, auth, priv) in enumerate(USERS):
        done = tell("snmpinform", security(name, auth, priv), port, LINK_DOWN, 30 + place)
        assert done.returncode == 0, done.stderr
    indexes = [1, 2, 10, 11, 12, 20, 30, 31, 32]
    found = traps.alarms(lambda alarms: len(alarms) >= len(indexes))
    entities = {alarm["entity"] for alarm in found}
    assert entities == {f"127.0.0.1:interface {index}" for index in indexes}
    # Refused: no answer, no alarm.
    wrong = subprocess.run(
        ["snmpinform", "-v2c", "-c", "other", "-t", "1", "-r", "0", f"127.0.0.1:{port}", "", LINK_DOWN],
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "MIBS": ""},
    )  # fmt: skip
    assert wrong.returncode != 0
    # And the clears.
    for index in indexes:
        assert tell("snmptrap", v2c, port, LINK_UP, index).returncode == 0
    assert traps.alarms(lambda alarms: not alarms) == []


# ---- polling

SNMPD = """
agentAddress udp:127.0.0.1:{port}
rocommunity noc 127.0.0.1
createUser tocsin SHA-256 authpass1 AES privpass1
rouser tocsin authPriv
sysName box1
"""


@pytest.fixture
def snmpd(tmp_path: Path, needs: Callable[..., None]) -> Iterator[int]:
    needs("snmpd", root=True)
    port = free_port()
    config = tmp_path / "snmpd.conf"
    config.write_text(SNMPD.format(port=port))
    (tmp_path / "persistent").mkdir()
    env = {**os.environ, "SNMP_PERSISTENT_DIR": str(tmp_path / "persistent"), "MIBS": ""}
    process = processes.start(
        [
            "snmpd",
            "-f",
            "-Lf",
            str(tmp_path / "log"),
            "-C",
            "-c",
            str(config),
            "-p",
            str(tmp_path / "pid"),
        ],
        env=env,
    )
    until = time.monotonic() + 20
    while time.monotonic() < until:
        done = subprocess.run(
            ["snmpget", "-v2c", "-c", "noc", "-t", "1", "-r", "0", f"127.0.0.1:{port}", "1.3.6.1.2.1.1.5.0"],
            capture_output=True, check=False, env=env, timeout=20,
        )  # fmt: skip
        if done.returncode == 0:
            break
    yield port
    processes.stop(process)


class Polling:
    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        base = make_context("sources.poll")
        self.context = Context("sources.poll", SystemClock(), base.metrics, base.log, base.seed)
        self.node = MemoryNode()
        read = msgspec.convert(options, PollOptions)
        self.poller = SnmpPoller("poll", read, self.context, self.node, folder / "poll")
        self.poller.prepare()

    def step(self) -> dict[str, tuple[float, int]]:
        async def everything() -> None:
            await asyncio.gather(*(self.poller.poll(one) for one in self.poller.devices))

        asyncio.run(everything())
        self.poller.hand_over()
        return self.node.values()


def test_snmpd_is_polled_v2c_and_v3_and_a_counter_goes_up(snmpd: int, tmp_path: Path) -> None:
    (tmp_path / "community").write_text("noc\n")
    (tmp_path / "auth").write_text("authpass1\n")
    (tmp_path / "priv").write_text("privpass1\n")
    v3 = {
        "version": "v3", "user": "tocsin", "auth": "sha256", "priv": "aes",
        "auth_password_file": str(tmp_path / "auth"), "priv_password_file": str(tmp_path / "priv"),
    }  # fmt: skip
    (tmp_path / "wrong").write_text("wrongpass\n")
    credentials = {
        "default": {"community_file": str(tmp_path / "community")},
        "three": v3,
        "wrong": {**v3, "auth_password_file": str(tmp_path / "wrong")},
        "stranger": {**v3, "user": "eve"},
    }

    def made(credential: str) -> Polling:
        device = {"address": "127.0.0.1", "port": snmpd, "name": "box1", "credential": credential}
        return Polling(
            tmp_path, {"devices": [device], "credentials": credentials, "timeout_seconds": 2.0}
        )

    key = "entity=box1,metric=in_octets,interface=lo"
    for credential in ("default", "three"):
        run = made(credential)
        before = run.step()
        assert before[key][1] == 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(200):
                sock.sendto(bytes(1000), ("127.0.0.1", 9))
        time.sleep(3.5)  # snmpd keeps a table of interfaces for three seconds
        after = run.step()
        assert after[key][0] - before[key][0] >= 200 * 1000
        assert any("metric=storage_used" in name for name in after), "profile host"
        assert after["entity=box1,metric=uptime"][0] > 0
        assert run.poller.health() == ""
    for credential, said in (("wrong", "refuses the SNMPv3 user"), ("stranger", "")):
        run = made(credential)
        run.step()
        assert said in run.poller.health()
        assert run.poller.health(), "one sentence an operator can act on"


def test_two_thousand_devices_in_one_process(tmp_path: Path, shared: Path, deep: bool) -> None:
    """Recorded agents of all makes, each many times, all within an interval; some are dead."""
    folder = shared / "captures/snmprec/snmpsim-data"
    files = [
        folder / "network/wifi/ubiquiti-m5.snmprec.bz2",
        folder / "UPS/huawei-gse200m.snmprec.bz2",
    ]
    if deep:
        files = sorted(folder.rglob("*.bz2"))
    count = 2_000 if deep else 400
    server = processes.start(
        [sys.executable, "-m", "tests.support.snmp_agent", "0", *map(str, files)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        addresses = [f"127.2.{n // 250}.{n % 250 + 1}" for n in range(count)]
        dead = addresses[::100]
        for address in dead:
            server.stdin.write(f"silent {address}\n")
        server.stdin.flush()
        devices = [
            {"address": address, "port": port, "profiles": ["interface", "ups"]}
            for address in addresses
        ]
        run = Polling(
            tmp_path, {"devices": devices, "timeout_seconds": 2.0, "tries": 1, "down_after": 1}
        )

        async def everything() -> None:
            gate = asyncio.Semaphore(128)

            async def one(device: Any) -> None:
                async with gate:
                    await run.poller.poll(device)

            await asyncio.gather(*(one(device) for device in run.poller.devices))

        asyncio.run(everything())
        run.poller.hand_over()
        reachable = [
            value for key, (value, _) in run.node.values().items() if "snmp_reachable" in key
        ]
        assert (len(reachable), sum(reachable)) == (count, count - len(dead))
        assert {entity for entity, severity, _ in run.node.alarms() if severity == "major"} == set(
            dead
        )
        ledger = run.node.rows("ledger")
        assert sum(row["lost_wire"] for row in ledger) == len(dead)
        assert all(
            row["sent"] == row["decoded"] + row["lost_wire"] + row["undecodable"] for row in ledger
        )
        rows = len(run.node.values())
        assert rows > 5 * count
    finally:
        processes.stop(server)
        server.stdin.close()
        server.stdout.close()


def test_the_schedule_runs_and_a_slow_device_delays_nobody(tmp_path: Path) -> None:
    agents = {f"127.2.9.{n}": Agent(dict(SMALL)) for n in range(1, 9)}
    agents["127.2.9.1"].silent = True
    with AgentServer(agents) as server:
        devices = [{"address": address, "port": server.port} for address in agents]
        run = Polling(
            tmp_path,
            {"devices": devices, "interval_seconds": 0.5, "timeout_seconds": 3.0, "tries": 1,
             "concurrency_max": 2},
        )  # fmt: skip
        run.poller.start()
        until = time.monotonic() + 20
        enough = threading.Event()
        while time.monotonic() < until and not enough.is_set():
            polls = run.context.metrics.value("snmp_polls_total", end="ok")
            if polls >= 21:
                enough.set()
            time.sleep(0.1)
        run.poller.stop()
        assert enough.is_set(), "seven devices are polled three times beside one that hangs"
        assert json.dumps(sorted(run.node.alarms())) == "[]"
