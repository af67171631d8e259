"""SNMP in `perf/collectors.py`: notifications a second beside snmptrapd and pysnmp, polled values beside pysnmp."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from collectors.block import DatagramBlock
from collectors.config import ListenerSettings
from collectors.datagram import Datagram, pack
from collectors.registry import make_decoder
from collectors.snmp.devices import PollOptions
from collectors.snmp.poll import SnmpPoller
from perf.measure import best_seconds, cpu_of, row
from perf.programs import Program
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.snmp import usm
from tests.support.snmp_messages import LINK_DOWN, link, told, trap_v3
from tests.support.source_world import MemoryNode
from tocsin.testing import make_context

Rows = list[dict[str, object]]
SHARED = Path(__file__).parents[2] / "shared"
TRAPS = 20_000
START = 1_790_000_000_000_000_000
ENGINE = (bytes.fromhex("80001f8880aabbccdd"), 4, 1000)
JOE = usm.User("joe", "sha256", "authpass1", "aes", "privpass1")


def _blocks(datagrams: list[bytes], per_second: int) -> list[DatagramBlock]:
    every = 1_000_000_000 // per_second
    parts = [
        Datagram(START + n * every, 0, 0xFFFF_0A00_0001 + n % 50, 4000, 162, data)
        for n, data in enumerate(datagrams)
    ]
    return [pack(parts[first : first + 1024]) for first in range(0, len(parts), 1024)]


def _rate(datagrams: list[bytes], users: dict[str, Any] | None = None) -> float:
    blocks = _blocks(datagrams, TRAPS)
    settings = ListenerSettings(
        kind="snmp-trap", listen="udp://127.0.0.1:5162", options={"users": users or {}}
    )

    def work() -> None:
        decoder = make_decoder(settings, make_context("collectors.traps"))
        for block in blocks:
            decoder.decode(block)
        decoder.advance(START + 10_000_000_000)

    return len(datagrams) / best_seconds(work)


def traps() -> Rows:
    """Storms of few and of many resources, secured ones, and the peers."""
    storm = [link(1 + n % 20, up=False, request_id=n, uptime=n) for n in range(TRAPS)]
    flood = [link(1 + n, up=n % 2 == 0, request_id=n) for n in range(TRAPS)]
    found = [row("snmp-trap: a storm of 1,000 resources", _rate(storm), "traps/s", 20_000)]
    found.append(row("snmp-trap: every trap another resource", _rate(flood), "traps/s"))
    with tempfile.TemporaryDirectory() as name:
        for word, text in (("auth", "authpass1"), ("priv", "privpass1")):
            (Path(name) / word).write_text(text)
        user = {
            "auth": "sha256", "auth_password_file": f"{name}/auth",
            "priv": "aes", "priv_password_file": f"{name}/priv",
        }  # fmt: skip
        pair = told("1.3.6.1.2.1.2.2.1.1.3 i 3; 1.3.6.1.2.1.2.2.1.7.3 i 1")
        secured = [trap_v3(JOE, ENGINE, LINK_DOWN, pair, message_id=n + 1) for n in range(5_000)]
        found.append(row("snmp-trap: v3 authPriv", _rate(secured, {"joe": user}), "traps/s"))
    with contextlib.suppress(FileNotFoundError):
        found.append(row("peer snmptrapd, to a file", _snmptrapd(storm), "traps/s"))
    with contextlib.suppress(ImportError):
        found.append(
            row("peer pysnmp, reading the message alone", _pysnmp_reads(storm[:500]), "traps/s")
        )
    return found


def _snmptrapd(datagrams: list[bytes]) -> float:
    """CPU of snmptrapd for each trap it wrote to a file; it names no resource and pairs nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conf").write_text("disableAuthorization yes\n")
        output = folder / "log"
        process = Program(
            ["snmptrapd", "-f", "-C", "-c", str(folder / "conf"), "-Lf", str(output), "-On", "-m", "",
             "-p", str(folder / "pid"), f"udp:127.0.0.1:{port}"],
            folder, environment={**os.environ, "SNMP_PERSISTENT_DIR": name},
        )  # fmt: skip
        try:
            time.sleep(1.0)
            process.must_run()
            began = cpu_of(process.pid)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for n, data in enumerate(datagrams):
                    sock.sendto(data, ("127.0.0.1", port))
                    if n % 20 == 0:
                        time.sleep(0.002)
            time.sleep(2.0)
            took = output.read_bytes().count(b"1.3.6.1.6.3.1.1.4.1.0")
            return took / (cpu_of(process.pid) - began)
        finally:
            process.terminate()
            process.wait(10)


def _pysnmp_reads(datagrams: list[bytes]) -> float:
    from pyasn1.codec.ber import decoder
    from pysnmp.proto import api

    module = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]

    def work() -> None:
        for data in datagrams:
            message, _ = decoder.decode(data, asn1Spec=module.Message())
            module.apiPDU.get_varbinds(module.apiMessage.get_pdu(message))

    return len(datagrams) / best_seconds(work, repeats=2)


def polling() -> Rows:
    """Our poller and pysnmp walk the same recorded router; the agent is another process."""
    path = SHARED / "captures/snmprec/snmpsim-data/network/router/huawei-s5720.snmprec.bz2"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.snmp_agent", "0", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        said = server.stdout.readline()
        if not said:
            raise SystemExit("the SNMP agent ended; see the lines above")
        port = int(said)
        found = [row("snmp-poll: 100 routers at once", _ours(port), "values/s a core")]
        with contextlib.suppress(ImportError):
            found.append(row("peer pysnmp, one bulk walk", _pysnmp_walks(port), "values/s a core"))
        return found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        server.stdout.close()
        assert server.stdin is not None
        server.stdin.close()


def _ours(port: int) -> float:
    base = make_context("sources.poll")
    context = Context("sources.poll", SystemClock(), base.metrics, base.log, base.seed)
    devices = [
        {"address": f"127.2.0.{n + 1}", "port": port, "profiles": ["interface"]} for n in range(100)
    ]
    with tempfile.TemporaryDirectory() as name:
        options = msgspec.convert({"devices": devices, "timeout_seconds": 20.0}, PollOptions)
        poller = SnmpPoller("poll", options, context, MemoryNode(), Path(name))
        poller.prepare()

        async def everything() -> None:
            gate = asyncio.Semaphore(16)

            async def one(device: Any) -> None:
                async with gate:
                    await poller.poll(device)

            await asyncio.gather(*(one(device) for device in poller.devices))

        asyncio.run(everything())
        poller.hand_over()
        before, began = context.metrics.value("snmp_varbinds_total"), time.process_time()
        asyncio.run(everything())
        poller.hand_over()
        spent = time.process_time() - began
    return (context.metrics.value("snmp_varbinds_total") - before) / spent


def _pysnmp_walks(port: int) -> float:
    from pysnmp.hlapi.v3arch import asyncio as api

    async def walk() -> int:
        count = 0
        target = await api.UdpTransportTarget.create(("127.2.0.1", port), timeout=20)
        walker = api.bulk_walk_cmd(
            api.SnmpEngine(),
            api.CommunityData("public", mpModel=1),
            target,
            api.ContextData(),
            0,
            25,
            api.ObjectType(api.ObjectIdentity("1.3.6.1.2.1.2.2")),
            lexicographicMode=False,
            lookupMib=False,
        )
        async for _, _, _, bindings in walker:
            count += len(bindings)
            if count >= 400:
                break
        return count

    began = time.process_time()
    count = asyncio.run(walk())
    return count / (time.process_time() - began)
