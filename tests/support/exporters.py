"""Real exporters in network namespaces: a client and a server, and who watches the wire between them.

Used by the live tests and by tests/captures/record.py. Everything it starts is stopped by `close`,
by process id; everything it makes carries the prefix of its own process.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support import processes

CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
CHECKSUM_OFF = (0x17, 0x25)  # ETHTOOL_STXCSUM, ETHTOOL_SGSO: packets must be whole on the wire
PORT = 2055
ETHERNET_BYTES = 14
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Let this thread make its sockets in a namespace; others stay where they are."""
    with (
        Path("/proc/thread-self/ns/net").open() as home,
        Path("/run/netns", namespace).open() as there,
    ):
        if _libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        try:
            yield
        finally:
            _libc.setns(home.fileno(), CLONE_NEWNET)


class Wire:
    """Two hosts and, between them, a plain wire or a switch of Open vSwitch."""

    def __init__(self, *, switch: bool) -> None:
        self._prefix = f"tx{os.getpid() % 100000}"
        self.client, self.server = f"{self._prefix}a", f"{self._prefix}b"
        self.watch = f"{self._prefix}s" if switch else self.server  # where the exporter runs
        self._namespaces = {self.client, self.server, self.watch}
        self._started: list[subprocess.Popen[bytes]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="tocsin-exporter-"))
        self.log = (self.folder / "log").open("wb")
        try:
            self._build(switch)
        except BaseException:
            self.close()
            raise

    def _build(self, switch: bool) -> None:
        for name in sorted(self._namespaces):
            self.ip("netns", "add", name)
            self.run(name, "ip", "link", "set", "lo", "up")
        if not switch:
            self._link(self.client, "va", self.server, "vb")
            self.ports = ("vb",)
        else:
            self._link(self.client, "va", self.watch, "pa")
            self._link(self.server, "vb", self.watch, "pb")
            self.ports = ("pa", "pb")
        self.run(self.client, "ip", "addr", "add", "10.77.0.1/24", "dev", "va")
        self.run(self.server, "ip", "addr", "add", "10.77.0.2/24", "dev", "vb")

    def _link(self, one: str, one_name: str, two: str, two_name: str) -> None:
        self.ip(
            "link",
            "add",
            one_name,
            "netns",
            one,
            "type",
            "veth",
            "peer",
            "name",
            two_name,
            "netns",
            two,
        )
        for namespace, name in ((one, one_name), (two, two_name)):
            # No IPv6: router solicitations would blur the totals.
            self.run(namespace, "sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
            with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for command in CHECKSUM_OFF:
                    value = ctypes.create_string_buffer(struct.pack("II", command, 0))
                    request = struct.pack("16sP", name.encode(), ctypes.addressof(value))
                    with suppress(OSError):
                        fcntl.ioctl(sock, SIOCETHTOOL, request)
            self.run(namespace, "ip", "link", "set", name, "up")

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=10, stdout=self.log, stderr=self.log)

    def run(self, namespace: str, *command: str, **extra: object) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command],
            check=True,
            timeout=20,
            stdout=subprocess.PIPE,
            stderr=self.log,
            **extra,
        )  # type: ignore[call-overload]
        return str(done.stdout.decode())

    def start(self, namespace: str, *command: str) -> subprocess.Popen[bytes]:
        made = processes.start(
            ["ip", "netns", "exec", namespace, *command],
            stdout=self.log,
            stderr=self.log,
            cwd=self.folder,
        )
        self._started.append(made)
        return made

    def sockets(self) -> list[socket.socket]:
        """Return our listener's socket, bound where the exporter runs."""
        from collectors.listen.udp import bind

        with inside(self.watch):
            return bind(f"udp://127.0.0.1:{PORT}", shards=1, receive_buffer_bytes=8 << 20)

    def counters(self) -> tuple[int, int]:
        """Return (packets, bytes) that the watched interfaces have carried: in, and out of one."""
        packets = octets = 0
        for port in self.ports:
            for way in ("rx", "tx") if len(self.ports) == 1 else ("rx",):
                path = f"/sys/class/net/{port}/statistics/{way}"
                packets += int(self.run(self.watch, "cat", f"{path}_packets"))
                octets += int(self.run(self.watch, "cat", f"{path}_bytes"))
        return packets, octets

    def traffic(self, *, seconds: int = 2, megabits: int = 16) -> None:
        """Send UDP by iperf3, with its TCP control connection beside it."""
        server = self.start(self.server, "iperf3", "-s", "-1")
        for _ in range(50):
            with suppress(subprocess.CalledProcessError):
                if ":1451" in self.run(self.server, "cat", "/proc/net/tcp6", "/proc/net/tcp"):
                    break
            time.sleep(0.1)
        self.run(
            self.client,
            "iperf3",
            "-c",
            "10.77.0.2",
            "-u",
            "-b",
            f"{megabits}M",
            "-l",
            "1200",
            "-t",
            str(seconds),
        )
        server.wait(10)

    # ---- exporters: each returns what to call so that everything it knows is exported

    def softflowd(self, version: int) -> "Stop":
        control = str(self.folder / "softflowd.ctl")
        process = self.start(
            self.watch,
            "softflowd",
            "-d",
            "-i",
            "vb",
            "-v",
            str(version),
            "-n",
            f"127.0.0.1:{PORT}",
            "-p",
            str(self.folder / "softflowd.pid"),
            "-c",
            control,
        )
        self.wait_for(Path(control))
        return Stop(
            lambda: subprocess.run(
                ["softflowctl", "-c", control, "shutdown"],
                check=True,
                timeout=10,
                stdout=self.log,
                stderr=self.log,
            ),
            process,
        )

    def pmacct(self, plugin: str, version: int = 10) -> "Stop":
        lines = [
            "daemonize: false",
            "pcap_interface: vb",
            f"plugins: {plugin}",
            "aggregate: src_host, dst_host, src_port, dst_port, proto, tos, tcpflags",
        ]
        if plugin == "nfprobe":
            lines += [f"nfprobe_receiver: 127.0.0.1:{PORT}", f"nfprobe_version: {version}"]
        else:
            lines += [
                f"sfprobe_receiver: 127.0.0.1:{PORT}",
                "sampling_rate: 1",
                "sfprobe_agentip: 127.0.0.1",
                "sfprobe_agentsubid: 7",
            ]
        config = self.folder / "pmacctd.conf"
        config.write_text("\n".join(lines) + "\n")
        process = self.start(self.watch, "pmacctd", "-f", str(config))
        time.sleep(2)  # it says nothing when it begins to listen
        return Stop(lambda: process.send_signal(signal.SIGINT), process)

    def openvswitch(self, kind: str) -> "Stop":
        """Start a userspace datapath that exports by `kind`: sflow, netflow or ipfix."""
        rundir = str(self.folder)
        env = {**os.environ, "OVS_RUNDIR": rundir, "OVS_DBDIR": rundir, "OVS_LOGDIR": rundir}
        schema = "/usr/share/openvswitch/vswitch.ovsschema"
        subprocess.run(
            ["ovsdb-tool", "create", f"{rundir}/conf.db", schema],
            check=True,
            timeout=10,
            env=env,
            stdout=self.log,
            stderr=self.log,
        )
        database = f"unix:{rundir}/db.sock"

        def daemon(*command: str) -> subprocess.Popen[bytes]:
            made = processes.start(
                ["ip", "netns", "exec", self.watch, *command],
                env=env,
                stdout=self.log,
                stderr=self.log,
                cwd=rundir,
            )
            self._started.append(made)
            return made

        def vsctl(*command: str) -> None:
            subprocess.run(
                ["ovs-vsctl", f"--db={database}", "--timeout=10", *command],
                check=True,
                timeout=15,
                env=env,
                stdout=self.log,
                stderr=self.log,
            )

        daemon(
            "ovsdb-server",
            f"{rundir}/conf.db",
            f"--remote=punix:{rundir}/db.sock",
            "--no-chdir",
            f"--pidfile={rundir}/ovsdb.pid",
        )
        self.wait_for(Path(rundir, "db.sock"))
        vsctl("--no-wait", "init")
        process = daemon("ovs-vswitchd", database, "--no-chdir", f"--pidfile={rundir}/vswitchd.pid")
        vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        vsctl("add-port", "br0", "pa", "--", "add-port", "br0", "pb")
        target = f'"127.0.0.1:{PORT}"'
        table = {
            "sflow": (
                "sflow",
                "agent=lo",
                f"target={target}",
                "sampling=1",
                "polling=1",
                "header=128",
            ),
            "netflow": ("netflow", f"targets={target}", "active_timeout=1"),
            "ipfix": (
                "ipfix",
                f"targets={target}",
                "sampling=1",
                "obs_domain_id=7",
                "cache_active_timeout=1",
                "cache_max_flows=1000",
            ),
        }[kind]
        vsctl("set", "bridge", "br0", f"{kind}=@new", "--", "--id=@new", "create", *table)
        time.sleep(1)  # the datapath takes the setting up at its next round

        def stop() -> None:
            time.sleep(6)  # active timeout and the idle flow's end
            vsctl("clear", "bridge", "br0", kind)  # closing the exporter flushes what it holds
            time.sleep(0.5)

        return Stop(stop, None if kind else process)

    def wait_for(self, path: Path) -> None:
        for _ in range(100):
            if path.exists():
                return
            time.sleep(0.05)
        raise TimeoutError(f"{path} did not appear: {(self.folder / 'log').read_text()[-800:]}")

    def close(self) -> None:
        for process in reversed(self._started):
            processes.stop(process, seconds=3.0)
        for name in sorted(self._namespaces):
            subprocess.run(
                ["ip", "netns", "del", name],
                check=False,
                timeout=10,
                stdout=self.log,
                stderr=self.log,
            )
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Stop:
    """Makes an exporter send what it holds, and waits until it is through."""

    def __init__(self, act: object, process: subprocess.Popen[bytes] | None) -> None:
        self._act = act
        self._process = process

    def __call__(self) -> None:
        self._act()  # type: ignore[operator]
        if self._process is not None:
            self._process.wait(10)
