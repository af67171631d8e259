"""FRRouting in network namespaces: two routers that speak BGP, one of which tells us by BMP.

Nothing leaves the machine: two namespaces joined by a veth pair, and one from the monitored router to
here. Source: FRRouting User Guide, BMP (`bgpd -M bmp`).
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from collectors.bmp.decoder import BmpDecoder
from telemetry.batch import Batch
from telemetry.identity import address_text
from tests.support import processes
from tests.support.bmp_messages import chunks
from tocsin.testing.rows import rows_of

BGPD = Path("/usr/lib/frr/bgpd")
HERE, MONITORED = "10.255.1.1", "10.255.1.2"
PEER_A, PEER_B = "10.255.2.1", "10.255.2.2"
PREFIXES = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/25")
PREFIXES6 = ("2001:db8:1::/48", "2001:db8:2::/48")
AS_A, AS_B = 64500, 4200000001
DEADLINE_SECONDS = 60.0


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class FrrPair:
    """Router `a` (monitored, AS 64500) and router `b` (AS 4200000001), both bgpd alone, without zebra."""

    def __init__(self) -> None:
        number = os.getpid() % 10_000
        self.a, self.b = f"tocsin-a{number}", f"tocsin-b{number}"
        self._folder = Path(tempfile.mkdtemp(prefix="tocsin-frr-"))
        self._folder.chmod(0o755)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._link = f"tb{number}"
        self.port = 0
        try:
            self._wire()
        except BaseException:
            self.close()
            raise

    def _wire(self) -> None:
        for name in (self.a, self.b):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run(
            "ip", "link", "add", self._link, "type", "veth", "peer", "name", "mon", "netns", self.a
        )
        _run("ip", "addr", "add", f"{HERE}/30", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        _run("ip", "-n", self.a, "addr", "add", f"{MONITORED}/30", "dev", "mon")
        _run("ip", "-n", self.a, "link", "set", "mon", "up")
        _run(
            "ip",
            "-n",
            self.a,
            "link",
            "add",
            "ab",
            "type",
            "veth",
            "peer",
            "name",
            "ba",
            "netns",
            self.b,
        )
        for name, face, address in ((self.a, "ab", PEER_A), (self.b, "ba", PEER_B)):
            _run("ip", "-n", name, "addr", "add", f"{address}/30", "dev", face)
            _run("ip", "-n", name, "link", "set", face, "up")

    def start(self, port: int) -> None:
        """Start both; `a` connects to us at `port`."""
        self.port = port
        a = f"""
            router bgp {AS_A}
             bgp router-id {MONITORED}
             no bgp ebgp-requires-policy
             no bgp network import-check
             neighbor {PEER_B} remote-as {AS_B}
             neighbor {PEER_B} timers 3 9
             neighbor {PEER_B} timers connect 1
             bmp targets here
              bmp stats interval 1000
              bmp monitor ipv4 unicast pre-policy
              bmp monitor ipv4 unicast post-policy
              bmp monitor ipv6 unicast pre-policy
              bmp connect {HERE} port {port} min-retry 100 max-retry 500
             exit
             address-family ipv4 unicast
              neighbor {PEER_B} soft-reconfiguration inbound
             exit-address-family
             address-family ipv6 unicast
              neighbor {PEER_B} activate
              neighbor {PEER_B} soft-reconfiguration inbound
             exit-address-family
        """  # without inbound storage FRR tells of every route before policy as withdrawn
        networks = "".join(f"  network {prefix}\n" for prefix in PREFIXES)
        networks6 = "".join(f"  network {prefix}\n" for prefix in PREFIXES6)
        b = f"""
            router bgp {AS_B}
             bgp router-id {PEER_B}
             no bgp ebgp-requires-policy
             no bgp network import-check
             neighbor {PEER_A} remote-as {AS_A}
             neighbor {PEER_A} timers 3 9
             neighbor {PEER_A} timers connect 1
             address-family ipv4 unicast
            {networks}
             exit-address-family
             address-family ipv6 unicast
              neighbor {PEER_A} activate
            {networks6}
             exit-address-family
        """
        self._daemon(self.b, b)
        self._daemon(self.a, a, "-M", "bmp")

    def _daemon(self, name: str, configuration: str, *more: str) -> None:
        folder = self._folder / name
        folder.mkdir()
        config = folder / "bgpd.conf"
        lines = [line.strip() for line in configuration.splitlines() if line.strip()]
        config.write_text(f"hostname {name.split('-')[1][0]}1\n" + "\n".join(lines) + "\n")
        for path in (folder, config):
            shutil.chown(path, "frr", "frr")
        self._daemons[name] = processes.start(
            [
                "ip", "netns", "exec", name, str(BGPD), "-f", str(config), "-n", "-Z", "-S",
                "-i", str(folder / "pid"), "--vty_socket", str(folder), "-P", "0",
                "-z", str(folder / "zserv"), "--log", f"file:{folder}/log", *more,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def tell(self, name: str, *commands: str) -> str:
        """Give commands to a router's vty."""
        arguments = [part for command in commands for part in ("-c", command)]
        return _run("vtysh", "--vty_socket", str(self._folder / name), "-d", "bgpd", *arguments)

    def configure(self, name: str, *commands: str) -> None:
        """Change a router's BGP configuration."""
        number = AS_A if name == self.a else AS_B
        self.tell(name, "configure terminal", f"router bgp {number}", *commands)

    def close(self) -> None:
        """End both routers and take the wires away."""
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            processes.stop(daemon, seconds=5.0)
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def frr_pair() -> Iterator[FrrPair]:
    """Give a pair and take it away."""
    pair = FrrPair()
    try:
        yield pair
    finally:
        pair.close()


def server() -> socket.socket:
    """Return a listening socket that the monitored router can reach, and nobody else."""
    made = socket.create_server((HERE, 0))
    made.settimeout(DEADLINE_SECONDS)
    return made


def until(deadline_seconds: float = DEADLINE_SECONDS) -> Iterator[None]:
    """Yield until the deadline; for loops that wait for others."""
    end = time.monotonic() + deadline_seconds
    while time.monotonic() < end:
        yield
    raise AssertionError(f"what was waited for did not come within {deadline_seconds:g} s")


class BmpPeer:
    """Our end of the monitored router's connection, as the stream listener is: chunks to a decoder."""

    def __init__(self, listening: socket.socket, decoder: BmpDecoder) -> None:
        self._listening = listening
        self._decoder = decoder
        self.recorded = b""
        self.batches: list[Batch] = []
        self._connect()

    def _connect(self) -> None:
        self._connection, (_, self._port) = self._listening.accept()
        self._connection.settimeout(0.2)

    def reconnect(self) -> None:
        """Take the router's next connection."""
        self._connection.close()
        self._connect()

    def read(self) -> bool:
        """Decode what is there; return whether the connection is still open."""
        try:
            data = self._connection.recv(65_536)
        except TimeoutError:
            return True
        self.recorded += data
        block = chunks([data], router=MONITORED, port=self._port, start_ns=time.time_ns())
        self.batches += self._decoder.decode(block)
        return bool(data)

    def hear(self, wanted: Callable[[], bool]) -> None:
        """Read until something is so."""
        for _ in until():
            if wanted():
                return
            if not self.read():
                raise AssertionError("the router closed the connection")

    def rows(self, schema: str) -> list[dict[str, Any]]:
        """All rows of a schema so far."""
        return rows_of(self.batches, schema)

    def live(self, rib: int) -> set[str]:
        """Prefixes that stand announced in one table of routes, by the rows so far."""
        found: set[str] = set()
        for row in self.rows("route"):
            text = f"{address_text(row['prefix_high'], row['prefix_low'])}/{row['prefix_length']}"
            if row["withdrawn"] == 2:
                found.clear()
            elif row["rib"] == rib:
                (found.discard if row["withdrawn"] else found.add)(text)
        return found

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self._listening.close()
