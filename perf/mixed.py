"""All streams at once on a small box: profile `sensor` with one CPU and 1 GB, ten minutes.

50,000 flow records/s, 5,000 log lines/s, 500 traps/s, 500 SNMP devices polled every 60 s, a BMP table of
100,000 routes with churn, and a PM file a minute. The load is made in a process of its own on another
core; Tocsin lies in a control group where this machine allows that, else it is pinned to one core.

    python perf/mixed.py [--seconds 600]
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from correlator.tables.network_map import InterfaceEntry, NetworkFile, RouterEntry
from perf.exporters import Exporters
from perf.footprint import children_of, environment_of, memory_of
from perf.measure import report, row
from perf.programs import Program
from runtime.bus import RequestClient
from telemetry.errors import TransientError
from tests.support.bmp_messages import initiation, monitoring, peer_up, update, usual
from tocsin import verbs
from tocsin.demo.happenings import Happening
from tocsin.demo.network import DemoNetwork
from tocsin.demo.settings import free_port
from tocsin.demo.snmp_speaker import COMMUNITY, Agents, Counters, TrapSpeaker

RECORDS_PER_SECOND, LINES_PER_SECOND, TRAPS_PER_SECOND = 50_000, 5_000, 500
DEVICES, ROUTES, SERIES = 500, 100_000, 10_000
CHURN_PER_SECOND = 5  # updates of a hundred routes each
FACES = 8  # of a device
WARM_SECONDS = 60.0
SLICE_SECONDS = 0.05
MEMORY_BYTES = 1 << 30
TICK_SECONDS = 10.0
CONFIG = """
[node]
profile = "sensor"
log_level = "error"
[collectors.netflow]
kind = "flow"
listen = "udp://127.0.0.1:{flow}"
[collectors.syslog]
kind = "syslog"
listen = "udp://127.0.0.1:{syslog}"
[collectors.traps]
kind = "snmp-trap"
listen = "udp://127.0.0.1:{trap}"
[collectors.bmp]
kind = "bmp"
listen = "tcp://127.0.0.1:{bmp}"
[sources.polling]
kind = "snmp-poll"
[sources.polling.options]
devices_file = "{folder}/devices.toml"
[sources.polling.options.credentials.default]
community_file = "{folder}/community"
[sources.pm]
kind = "pm-files"
options = {{ folder = "{folder}/pm", poll_seconds = 5.0 }}
[views]
tick_seconds = {tick}
lateness_seconds = 2.0
[api]
metrics_listen = "127.0.0.1:{api}"
[alerting.sinks.file]
kind = "file"
path = "{folder}/alerts.jsonl"
"""


def devices() -> NetworkFile:
    """Return the polled network: 500 devices of 8 interfaces on loopback addresses of their own."""
    routers, faces = [], []
    for n in range(DEVICES):
        name = f"dev{n}"
        routers.append(RouterEntry(name=name, address=f"127.3.{n // 250}.{1 + n % 250}"))
        faces += [
            InterfaceEntry(router=name, index=1 + i, name=f"xe-0/0/{i}", speed=10**10)
            for i in range(FACES)
        ]
    return NetworkFile(router=routers, interface=faces)


def pm_file(number: int) -> bytes:
    """Return a PM file of one minute: 100 cells with ten counters each (TS 32.435, 4.1)."""
    end = time.strftime("%Y-%m-%dT%H:%M:00+00:00", time.gmtime())
    types = " ".join(f"Counter{k}" for k in range(10))
    values = "".join(
        f'<measValue measObjLdn="Cell={cell}"><measResults>'
        f"{' '.join(str(number * 7 + cell + k) for k in range(10))}</measResults></measValue>"
        for cell in range(100)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<measCollecFile xmlns="http://www.3gpp.org/ftp/specs/archive/32_series/32.435#measCollec">'
        f'<fileHeader fileFormatVersion="32.435 V10.0"><measCollec beginTime="{end}"/></fileHeader>'
        f'<measData><managedElement localDn="gnb1"/><measInfo><granPeriod duration="PT60S"'
        f' endTime="{end}"/><measTypes>{types}</measTypes>{values}</measInfo></measData>'
        f'<fileFooter><measCollec endTime="{end}"/></fileFooter></measCollecFile>'
    ).encode()


@dataclass(slots=True)
class Sent:
    """What the load has sent, by stream; shared with the measuring process."""

    counts: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, count: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + count


class Load:
    """All senders. `run` sends in slices until told to end, and reports what it sent."""

    def __init__(self, ports: dict[str, int], folder: Path) -> None:
        self._ports, self._folder = ports, folder
        self._exporters = Exporters(SERIES, port=ports["flow"])
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        network = DemoNetwork(devices())
        self._counters = Counters(network)
        boot_ns = time.time_ns() - 10**14
        self._agents = Agents(network, self._counters, boot_ns, ports["snmp"])
        self._traps = TrapSpeaker(network, boot_ns)
        self._sent = Sent()
        self._line = self._trap = 0

    def lines(self, count: int) -> Iterator[bytes]:
        """Yield log lines of 200 hosts in a dozen patterns."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        texts = (
            "sshd 2057 - - Accepted publickey for ops from 10.0.{}.{} port {} ssh2",
            "rpd 1638 - - bgp_hold_timeout_check: {} peers checked in {} ms, {} late",
            "firewall 99 - - DROP IN=eth{} SRC=10.1.{}.7 DPT={} PROTO=TCP",
            "cron 12 - - (root) CMD (newsyslog {} {} {})",
        )
        for _ in range(count):
            n = self._line = self._line + 1
            text = texts[n % 4].format(n % 4, n % 251, n % 50_000)
            severity = 134 + n % 3  # local0, informational to debug
            yield f"<{severity}>1 {stamp}.{n % 1000:03d}Z r{n % 200} {text}".encode()

    def traps(self, count: int, now_ns: int) -> Iterator[bytes]:
        """Yield traps of a hundred interfaces that flap for ever; once a second another one goes down."""
        for _ in range(count):
            n = self._trap = self._trap + 1
            up, index = bool(n // 100 % 2), n % 100
            if n % TRAPS_PER_SECOND == 0:
                up, index = False, 1000 + n // TRAPS_PER_SECOND
            one = Happening(now_ns, "dev1", "link", up=up, interface=f"ge-{index}", index=index)
            trap = self._traps.trap(one)
            assert trap is not None
            yield trap

    def routes(self, first: int, count: int, path: Sequence[int]) -> bytes:
        """Return an update of /32 routes."""
        prefixes = b"".join(
            b"\x20" + struct.pack("!I", 0x0B000000 + first + k) for k in range(count)
        )
        return monitoring(update(usual(path), prefixes))

    def run(self, connection: "multiprocessing.connection.Connection") -> None:  # type: ignore[name-defined]
        """Send until something comes over the connection; answer with the counts."""
        self._agents.start()
        bmp = socket.create_connection(("127.0.0.1", self._ports["bmp"]))
        table = b"".join(self.routes(at, 100, (64500, 64501)) for at in range(0, ROUTES, 100))
        threading.Thread(
            target=bmp.sendall, args=(initiation() + peer_up() + table,), daemon=True
        ).start()
        self._sent.add("routes", ROUTES)
        each = self._exporters.records_per_datagram
        began, done = time.monotonic(), 0.0
        due = dict.fromkeys(("datagrams", "lines", "traps", "updates", "files"), 0)
        while not connection.poll():
            done = time.monotonic() - began
            now_ns = time.time_ns()
            self._send("datagrams", done * RECORDS_PER_SECOND / each, due, now_ns, bmp)
            self._send("lines", done * LINES_PER_SECOND, due, now_ns, bmp)
            self._send("traps", done * TRAPS_PER_SECOND, due, now_ns, bmp)
            self._send("updates", done * CHURN_PER_SECOND if done > 10 else 0, due, now_ns, bmp)
            self._send("files", done / 60, due, now_ns, bmp)
            time.sleep(SLICE_SECONDS)
        bmp.close()
        self._agents.stop()
        self._exporters.close()
        self._sent.add("records", round(self._sent.counts["datagrams"] * each))
        connection.send({**self._sent.counts, "seconds": done})

    def _send(
        self, what: str, until: float, due: dict[str, int], now_ns: int, bmp: socket.socket
    ) -> None:
        count = int(until) - due[what]
        if count <= 0:
            return
        due[what] += count
        self._sent.add(what, count)
        if what == "datagrams":
            self._exporters.send(count, now_ns)
        elif what == "lines":
            for line in self.lines(count):
                self._udp.sendto(line, ("127.0.0.1", self._ports["syslog"]))
        elif what == "traps":
            for trap in self.traps(count, now_ns):
                self._udp.sendto(trap, ("127.0.0.1", self._ports["trap"]))
        elif what == "updates":
            for n in range(count):
                at = (due[what] + n) * 100 % ROUTES
                bmp.sendall(self.routes(at, 100, (64500, 64502 + due[what] % 7)))
        else:
            path = self._folder / "pm" / f"A{due[what]}.xml"
            path.with_suffix(".part").write_bytes(pm_file(due[what]))
            path.with_suffix(".part").rename(path)


def load_main(connection: object, ports: dict[str, int], folder: str) -> None:
    """The load's process, on the last core."""
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    Load(ports, Path(folder)).run(connection)  # type: ignore[arg-type]


class Box:
    """One CPU and 1 GB for a process and its children: cgroup v1 where we may, else one core."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self.kind = "pinned to one core"
        for controller, name, value in (
            ("cpu", "cpu.cfs_quota_us", 100_000),
            ("memory", "memory.limit_in_bytes", MEMORY_BYTES),
        ):
            folder = Path("/sys/fs/cgroup") / controller / f"tocsin-perf-{os.getpid()}"
            try:
                folder.mkdir()
                (folder / name).write_text(str(value))
                if controller == "cpu":  # it has this CPU, whoever else works on the machine
                    (folder / "cpu.shares").write_text("262144")
            except OSError:
                continue
            self._folders.append(folder)
        if len(self._folders) == 2:
            self.kind = "control group of 1 CPU, 1 GB"

    def take(self, pid: int) -> None:
        """Put a process in that has just begun; its children follow."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))
        os.sched_setaffinity(pid, {0})

    def close(self) -> None:
        """Give the groups back."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def listen(state: Path, delays: list[float], ended: threading.Event) -> None:
    """Note how long after its tick each alert was published."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    watcher = context.socket(zmq.SUB)
    watcher.setsockopt(zmq.LINGER, 0)
    watcher.subscribe(b"alerts")
    watcher.connect(f"ipc://{state}/frames.sock")
    while not ended.is_set():
        if watcher.poll(200):
            alert = json.loads(watcher.recv_multipart()[2])
            delays.append(time.time() - alert["changed_ns"] / 1e9)
    watcher.close()
    context.term()


def counters(text: str) -> dict[str, float]:
    """Return the numbers of a metrics page by name and labels."""
    return {
        match[1]: float(match[2])
        for match in re.finditer(r"^(tocsin_[^ ]+) ([0-9.e+-]+)$", text, re.MULTILINE)
    }


def ask(state: Path) -> tuple[verbs.Status, dict[str, float]]:
    """Return the node's status and its counters."""
    client = RequestClient(f"ipc://{state}/node.sock")
    try:
        status = client.ask("status", verbs.Nothing(), verbs.Status, timeout_seconds=20.0)
        page = client.ask("metrics", verbs.Nothing(), verbs.MetricsText, timeout_seconds=20.0)
    finally:
        client.close()
    return status, counters(page.text)


def measure(folder: Path, seconds: float) -> list[dict[str, object]]:
    """Run everything once and return the rows."""
    datagram, stream = socket.SOCK_DGRAM, socket.SOCK_STREAM
    ports = {
        "flow": free_port(43055, datagram), "syslog": free_port(45514, datagram),
        "trap": free_port(45162, datagram), "bmp": free_port(41019, stream),
        "snmp": free_port(41161, datagram), "api": free_port(48470, stream),
    }  # fmt: skip
    (folder / "pm").mkdir()
    (folder / "community").write_text(COMMUNITY.decode() + "\n")
    (folder / "community").chmod(0o600)
    (folder / "devices.toml").write_text(
        "".join(
            f'[[device]]\naddress = "{one.address}"\nname = "{one.name}"\nport = {ports["snmp"]}\n'
            for one in devices().router
        )
    )
    config, state = folder / "tocsin.toml", folder / "state"
    config.write_text(CONFIG.format(folder=folder, tick=TICK_SECONDS, **ports))
    box = Box()
    program = Program(
        [sys.executable, "-m", "tocsin", "run", "-c", str(config), "--state", str(state)],
        folder, name="tocsin run", environment=environment_of("library", folder),
    )  # fmt: skip
    box.take(program.pid)
    delays: list[float] = []
    ended = threading.Event()
    watcher = threading.Thread(target=listen, args=(state, delays, ended), daemon=True)
    ours, theirs = multiprocessing.Pipe()
    load = multiprocessing.get_context("spawn").Process(
        target=load_main, args=(theirs, ports, str(folder)), daemon=True
    )
    try:
        _wait_for(state, program)
        watcher.start()
        load.start()
        theirs.close()  # so that an end of the load is heard
        time.sleep(WARM_SECONDS)
        delays.clear()
        memory: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(min(10.0, seconds / 10))
            program.must_run()
            pids = [program.pid, *children_of(program.pid)]
            memory.append(sum(one.resident for pid in pids if (one := memory_of(pid))) / 1e6)
        ours.send("end")
        sent = ours.recv()
        time.sleep(2 * TICK_SECONDS)
        status, found = ask(state)
    finally:
        ended.set()
        load.join(10)
        program.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(30)
        program.kill()
        box.close()
    print(f"box: {box.kind}")
    return rows_of(sent, status, found, memory, delays)


def _wait_for(state: Path, program: Program) -> None:
    for _ in range(600):
        program.must_run()
        with contextlib.suppress(TransientError):
            if (state / "node.sock").exists():
                ask(state)
                return
        time.sleep(0.1)
    raise SystemExit("the node did not come up")


def rows_of(
    sent: dict[str, float],
    status: verbs.Status,
    found: dict[str, float],
    memory: Sequence[float],
    delays: Sequence[float],
) -> list[dict[str, object]]:
    """Return the table: rates sent, what was lost, memory, delays."""
    seconds = sent["seconds"]
    drops = {one.name: one.kernel_drops for one in status.listeners}
    rows = [
        row("flow records sent", sent["records"] / seconds, "records/s"),
        row("flow records decoded", 100 * status.records / sent["records"], "%", 99.9),
        row("log lines sent", sent["lines"] / seconds, "lines/s"),
        row("traps sent", sent["traps"] / seconds, "traps/s"),
        row("routes sent", sent["routes"] + 100 * sent.get("updates", 0), "routes"),
        row("PM files dropped in", sent.get("files", 0), "files"),
    ]
    for name, count in sorted(drops.items()):
        rows.append(row(f"lost in the kernel, {name}", count, "datagrams", 0, "lower"))
    for name, value in sorted(found.items()):
        if value and re.search(r"(shed|dropped|refused|undecodable|rejected|too_many)", name):
            rows.append(row(name.removeprefix("tocsin_"), value, "", None, "lower"))
    rows.append(row("RSS, all processes, highest", max(memory), "MB", MEMORY_BYTES / 1e6, "lower"))
    rows.append(row("RSS, all processes, median", statistics.median(memory), "MB"))
    if delays:
        ordered = sorted(delays)
        rows.append(
            row("alert after its tick, p50", ordered[len(ordered) // 2], "s", None, "lower")
        )
        rows.append(
            row("alert after its tick, p99", ordered[int(0.99 * len(ordered))], "s", 1.0, "lower")
        )
    rows.append(row("alerts", len(delays), "", None, "lower"))
    rows.append(row("series", status.series, ""))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report("mixed", measure(Path(name), arguments.seconds))
