"""What the demo's routers say, read by programs that are not ours."""

import asyncio
import json
import socket
import struct
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from collectors.snmp.devices import PollOptions
from collectors.snmp.poll import SnmpPoller
from tests.support.frames_on_wire import ethernet, ipv4, pcap, udp
from tests.support.source_world import MemoryNode
from tocsin.demo.alarm_list import PATH, AlarmList, AlarmListServer
from tocsin.demo.bmp_speaker import BmpSpeaker
from tocsin.demo.conditions import STEP_NS, Conditions
from tocsin.demo.happenings import SECOND, Happening, Happenings
from tocsin.demo.network import DemoNetwork, load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.snmp_speaker import COMMUNITY, Agents, Counters, TrapSpeaker
from tocsin.demo.syslog_lines import SyslogLines
from tocsin.demo.traffic import SAMPLING_RATE, Fault, TrafficModel
from tocsin.testing import make_context

START_NS = 1_790_000_000 * SECOND
BOOT_NS = START_NS - 1000 * SECOND


@pytest.fixture(scope="module")
def network() -> DemoNetwork:
    return load_demo_network()


@pytest.fixture(scope="module")
def cut(network: DemoNetwork) -> Fault:
    return Fault("link-cut", "ams1-fra2", START_NS + 2 * SECOND, START_NS + 5 * SECOND)


@pytest.fixture(scope="module")
def said(network: DemoNetwork, cut: Fault) -> list[Happening]:
    return Happenings(network, [cut], seed=3).between(START_NS, START_NS + 20 * SECOND)


def tshark(path: Path, port: str, show: str, *fields: str) -> Iterator[list[str]]:
    words = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-r", str(path), "-d", port, "-Y", show, "-T", "fields", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        yield line.split("\t")


def datagrams(path: Path, port: int, payloads: Sequence[bytes]) -> None:
    path.write_bytes(pcap([ethernet(0x0800, ipv4(udp(40_000, port, one))) for one in payloads]))


def test_log_lines_are_syslog(
    network: DemoNetwork, said: list[Happening], tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("tshark")
    lines = SyslogLines(network)
    datagrams(tmp_path / "syslog.pcap", 5514, [lines.line(one) for one in said])
    rows = [
        *tshark(tmp_path / "syslog.pcap", "udp.port==5514,syslog", "syslog", "syslog.level",
                "syslog.hostname", "syslog.msg")
    ]  # fmt: skip
    assert len(rows) == len(said) > 100
    assert all(int(level) <= 6 for level, _, _ in rows)
    downs = [one for one in said if one.kind == "link" and not one.up]
    assert sorted(one.router for one in downs) == ["ams1", "fra2"]
    assert sum("SNMP_TRAP_LINK_DOWN" in row[2] for row in rows) == 2
    assert sum("SNMP_TRAP_LINK_UP" in row[2] for row in rows) == 2
    assert sum("from Established to Idle" in row[2] for row in rows) == 2


def test_traps_are_snmp(
    network: DemoNetwork, said: list[Happening], tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("tshark")
    speaker = TrapSpeaker(network, BOOT_NS)
    made = [trap for one in said if (trap := speaker.trap(one)) is not None]
    datagrams(tmp_path / "traps.pcap", 162, made)
    kinds: Counter[str] = Counter()
    for community, oids in tshark(
        tmp_path / "traps.pcap", "udp.port==162,snmp", "snmp", "snmp.community", "snmp.value.oid"
    ):
        assert community == COMMUNITY.decode()
        kinds[oids.split(",")[0]] += 1
    assert kinds == {
        "1.3.6.1.6.3.1.1.5.3": 2, "1.3.6.1.6.3.1.1.5.4": 2,
        "1.3.6.1.2.1.15.0.2": 2, "1.3.6.1.2.1.15.0.1": 2,
    }  # fmt: skip


def segments(payload: bytes, port: int) -> Iterator[bytes]:
    for at in range(0, len(payload), 1400):
        head = struct.pack("!HHIIBBHHH", 40_000, port, 1 + at, 1, 0x50, 0x18, 65_535, 0, 0)
        yield ethernet(0x0800, ipv4(head + payload[at : at + 1400], protocol=6))


def test_bmp_sessions_are_bmp(
    network: DemoNetwork, cut: Fault, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("tshark")
    speaker = BmpSpeaker(network, "ams1")
    opened = [*speaker.begin(START_NS)]
    lost = [*speaker.state([cut.entity], START_NS)]
    mended = [*speaker.state([], START_NS)]
    stolen = [
        *speaker.hijacks([("100.64.0.0/25", 65_001)], START_NS),
        *speaker.hijacks([], START_NS),
    ]
    assert len(stolen) == 2, "announced, and withdrawn"
    payload = b"".join((*opened, *lost, *mended, *stolen))
    (tmp_path / "bmp.pcap").write_bytes(pcap([*segments(payload, 11_019)]))
    kinds: Counter[str] = Counter()
    prefixes = 0
    for row in tshark(
        tmp_path / "bmp.pcap", "tcp.port==11019,bmp", "bmp", "bmp.type", "_ws.malformed",
        "bgp.nlri_prefix",
    ):  # fmt: skip
        kinds.update(row[0].split(","))
        assert not row[1]
        prefixes += len([one for one in row[2].split(",") if one])
    neighbours = sum("ams1" in (link.a, link.b) for link in network.file.link)
    assert kinds["4"] == 1
    assert kinds["3"] == neighbours + 1, "each peer came up, one twice"
    assert kinds["2"] == 1
    assert kinds["0"] == len(opened) + len(lost) + len(mended) + 2 - neighbours - 3
    assert prefixes > 0


def test_agents_count_what_the_flows_carry(
    network: DemoNetwork, needs: Callable[..., None]
) -> None:
    needs("snmpbulkwalk", "snmpget")
    port = free_port(16_161, socket.SOCK_DGRAM, "127.1.0.1")
    counters = Counters(network)
    fading = Fault(
        "optical-degradation", "ams1 et-0/0/1", START_NS - 50 * SECOND, START_NS + 50 * SECOND,
        detail={"router": "ams1", "interface": "et-0/0/1", "fall_db": 20.0},
    )  # fmt: skip
    conditions = Conditions(network, [fading], seed=5)
    agents = Agents(network, counters, conditions, BOOT_NS, port)
    batch = TrafficModel(network, seed=5).records(START_NS, SECOND)
    agents.start()
    try:
        agents.step(START_NS, frozenset({"ams1-fra2"}), batch, counters)
        walked = subprocess.run(
            ["snmpbulkwalk", "-v2c", "-c", COMMUNITY.decode(), "-On", "-OQ", "-Oe",
             f"127.1.0.1:{port}", "1.3.6.1"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        other = subprocess.run(
            ["snmpget", "-v2c", "-c", "wrong", "-t", "0.2", "-r", "0", f"127.1.0.1:{port}",
             "1.3.6.1.2.1.1.5.0"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        agents.stop()
    assert other.returncode, "another community is not answered"
    lines = [line for line in walked.stdout.splitlines() if "No more variables" not in line]
    found = dict(line.split(" = ", 1) for line in lines if " = " in line)
    faces = [face for face in network.file.interface if face.router == "ams1"]
    for face in faces:
        mine = batch["exporter_address_low"] == network.address_low[network.row["ams1"]]
        into = mine & (batch["ingress_interface"] == face.index)
        octets = int(batch["octets"][into].sum()) * SAMPLING_RATE
        assert int(found[f".1.3.6.1.2.1.31.1.1.1.6.{face.index}"]) == octets
        status = found[f".1.3.6.1.2.1.2.2.1.8.{face.index}"]
        assert status == ("2" if face.link == "ams1-fra2" else "1")
        light = found.get(f".1.3.6.1.4.1.2636.3.60.1.1.1.1.5.{face.index}")
        assert (light is None) == (not face.link)
        if light is not None:
            assert (int(light) < -1300) == (face.name == "et-0/0/1"), "hundredths of a dBm"
    storage = [found[f".1.3.6.1.2.1.25.2.3.1.{column}.1"] for column in (3, 4, 5, 6)]
    assert storage[0] == '"/var"'
    unit, size, used = map(int, storage[1:])
    assert unit * size == pytest.approx(64e9, rel=1e-6)
    assert 0.3 < used / size < 0.65


def test_polling_makes_the_series_of_simulated_days(network: DemoNetwork, tmp_path: Path) -> None:
    pytest.importorskip("gufo.snmp")
    port = free_port(16_361, socket.SOCK_DGRAM, "127.1.0.1")
    counters, conditions = Counters(network), Conditions(network, [], seed=5)
    agents = Agents(network, counters, conditions, BOOT_NS, port)
    community, node = tmp_path / "community", MemoryNode()
    community.write_bytes(COMMUNITY)
    options = {
        "devices": [{"name": "ams1", "address": "127.1.0.1", "port": port}],
        "credentials": {"default": {"community_file": str(community)}},
    }
    context = make_context("sources.poll")
    poller = SnmpPoller("poll", msgspec.convert(options, PollOptions), context, node, tmp_path)
    agents.start()
    try:
        agents.step(START_NS, frozenset(), TrafficModel(network, seed=5).records(START_NS, SECOND),
                    counters)  # fmt: skip
        poller.prepare()
        asyncio.run(poller.poll(poller.devices[0]))
        poller.hand_over()
    finally:
        agents.stop()
    polled = {key: value for key, (value, _) in node.values().items()}
    simulated = conditions.light_of(START_NS // STEP_NS * STEP_NS)["ams1"]
    for name, power in simulated.items():
        key = f"entity=ams1,metric=optical_rx_power,interface={name}"
        assert polled[key] == pytest.approx(power, abs=0.01)
    assert polled["entity=ams1,metric=storage_size,storage=/var"] == pytest.approx(64e9)
    assert polled["entity=ams1,metric=storage_used,storage=/var"] == pytest.approx(
        float(conditions.used(START_NS // STEP_NS * STEP_NS)[network.row["ams1"]]), rel=1e-6
    )


def test_the_alarm_list_follows_the_cut(cut: Fault) -> None:
    port = free_port(18_642, socket.SOCK_STREAM)
    server = AlarmListServer(AlarmList([cut]), port)
    server.start()
    seen = []
    try:
        for seconds in (0, 4, 8):
            server.step(START_NS + seconds * SECOND)
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}{PATH}?limit=10", timeout=10
            ) as answer:
                seen.append(json.load(answer))
    finally:
        server.stop()
    assert seen[0] == []
    assert [one["state"] for one in seen[1]] == ["raised"]
    assert [(one["state"], one["id"]) for one in seen[2]] == [("cleared", seen[1][0]["id"])]
