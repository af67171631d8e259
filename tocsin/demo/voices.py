"""Everything the demo carrier says beside its flows, over real sockets: syslog, traps, SNMP, BMP, alarms.

Runs in the exporters' process and moves with their slices of time.
"""

import contextlib
import socket
from collections.abc import Sequence

import msgspec

from telemetry.batch import Batch
from tocsin.demo.alarm_list import AlarmList, AlarmListServer
from tocsin.demo.bmp_speaker import SPEAKERS, BmpSpeaker
from tocsin.demo.conditions import Conditions
from tocsin.demo.faults import HIJACK
from tocsin.demo.happenings import UP_AGAIN_NS, Happenings
from tocsin.demo.network import DemoNetwork
from tocsin.demo.snmp_speaker import Agents, Counters, TrapSpeaker
from tocsin.demo.syslog_lines import SyslogLines
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000


class VoicePorts(msgspec.Struct, frozen=True, kw_only=True):
    """Where each stream goes, or is asked for; 0 = this voice is silent."""

    syslog: int = 0  # udp, to the node
    trap: int = 0  # udp, to the node
    bmp: int = 0  # tcp, to the node
    snmp: int = 0  # udp, on every router's address: the gate polls
    alarms: int = 0  # tcp, on loopback: the gate polls


class Voices:
    """All voices of one demo; `step` is called with each slice of traffic."""

    def __init__(
        self,
        network: DemoNetwork,
        faults: Sequence[Fault],
        ports: VoicePorts,
        *,
        host: str,
        boot_ns: int,
        seed: int,
    ) -> None:
        self._network = network
        self._faults = faults
        self._ports = ports
        self._host = host
        self._happenings = Happenings(network, faults, seed=seed)
        self._lines = SyslogLines(network)
        self._traps = TrapSpeaker(network, boot_ns)
        self._counters = Counters(network)
        conditions = Conditions(network, faults, seed=seed)
        self._agents = Agents(network, self._counters, conditions, boot_ns, ports.snmp)
        self._speakers = [BmpSpeaker(network, name) for name in SPEAKERS]
        self._sessions: dict[str, socket.socket] = {}
        self._down: frozenset[str] = frozenset()
        self._sockets: dict[str, socket.socket] = {}
        self._told_ns = 0
        self._alarms: AlarmListServer | None = None

    def start(self, now_ns: int) -> None:
        """Open every socket."""
        self._told_ns = now_ns // SECOND * SECOND
        for name, address in zip(self._network.names, self._network.addresses, strict=True):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((address, 0))
            self._sockets[name] = sock
        if self._ports.snmp:
            self._agents.start()
        if self._ports.alarms:
            self._alarms = AlarmListServer(AlarmList(self._faults), self._ports.alarms)
            self._alarms.start()

    def step(self, batch: Batch, now_ns: int) -> None:
        """Say what happened up to now, and let agents and lists know the time."""
        links = [fault for fault in self._faults if fault.kind == "link-cut"]
        cut = frozenset(fault.entity for fault in links if fault.active(now_ns))
        closed = frozenset(f.entity for f in links if f.start_ns <= now_ns < f.end_ns + UP_AGAIN_NS)
        if self._ports.snmp:
            self._agents.step(now_ns, cut, batch, self._counters)
        if self._alarms is not None:
            self._alarms.step(now_ns)
        if self._ports.bmp:
            self._speak_bmp(closed, now_ns)
        until_ns = now_ns // SECOND * SECOND
        for one in self._happenings.between(self._told_ns, until_ns):
            sock = self._sockets[one.router]
            with contextlib.suppress(OSError):
                if self._ports.syslog:
                    sock.sendto(self._lines.line(one), (self._host, self._ports.syslog))
                trap = self._traps.trap(one) if self._ports.trap else None
                if trap is not None:
                    sock.sendto(trap, (self._host, self._ports.trap))
        self._told_ns = until_ns

    def _speak_bmp(self, down: frozenset[str], now_ns: int) -> None:
        changed, self._down = down != self._down, down
        stolen = [
            (fault.detail["part"], fault.detail["origin"])
            for fault in self._faults
            if fault.kind == HIJACK and fault.active(now_ns)
        ]
        for speaker in self._speakers:
            session = self._sessions.get(speaker.router)
            try:
                if session is None:
                    session = self._connect(speaker)
                    for message in speaker.begin(now_ns):
                        session.sendall(message)
                    self._sessions[speaker.router] = session
                    changed = True
                if changed:
                    for message in speaker.state(down, now_ns):
                        session.sendall(message)
                for message in speaker.hijacks(stolen, now_ns):
                    session.sendall(message)
            except OSError:  # the collector is away: everything again when it is back
                lost = self._sessions.pop(speaker.router, None)
                if lost is not None:
                    lost.close()

    def _connect(self, speaker: BmpSpeaker) -> socket.socket:
        row = self._network.row[speaker.router]
        return socket.create_connection(
            (self._host, self._ports.bmp),
            timeout=2,
            source_address=(self._network.addresses[row], 0),
        )

    def stop(self) -> None:
        """Close everything."""
        if self._ports.snmp:
            self._agents.stop()
        if self._alarms is not None:
            self._alarms.stop()
        for sock in (*self._sockets.values(), *self._sessions.values()):
            sock.close()
