"""SNMP of the demo's routers: traps about links and sessions, and agents whose counters follow the flows.

Source: RFC 3418 (SNMPv2-MIB), RFC 2863 (IF-MIB), RFC 4273 (BGP4-MIB), RFC 2790 (HOST-RESOURCES-MIB), Juniper's
JUNIPER-DOM-MIB (light), RFC 3416 section 4.2 (operations).
"""

import bisect
import contextlib
import selectors
import socket
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.snmp import ber
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import (
    SNMP_TRAP_OID,
    SYS_UP_TIME,
    Pdu,
    read_envelope,
    read_pdu,
    write_message,
    write_pdu,
    write_varbind,
)
from tocsin.demo.conditions import DISK, DISK_BYTES, STEP_NS, Conditions
from tocsin.demo.happenings import Happening
from tocsin.demo.network import DemoNetwork
from tocsin.demo.syslog_lines import session_address
from tocsin.demo.traffic import SAMPLING_RATE

COMMUNITY = b"demo"
LINK_DOWN, LINK_UP = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.4"
BGP_ESTABLISHED, BGP_BACKWARD = "1.3.6.1.2.1.15.0.1", "1.3.6.1.2.1.15.0.2"
IF_ENTRY, IF_X_ENTRY, BGP_PEER_ENTRY = (
    "1.3.6.1.2.1.2.2.1",
    "1.3.6.1.2.1.31.1.1.1",
    "1.3.6.1.2.1.15.3.1",
)
SYSTEM = "1.3.6.1.2.1.1"
STORAGE_ENTRY = "1.3.6.1.2.1.25.2.3.1"
STORAGE_UNIT = 4096  # octets
DOM_RECEIVED = "1.3.6.1.4.1.2636.3.60.1.1.1.1.5"  # jnxDomCurrentRxLaserPower, hundredths of a dBm
SYS_OBJECT_ID = "1.3.6.1.4.1.2636.1.1.1.2.29"  # jnxProductNameMX960
UP, DOWN = 1, 2
REPETITIONS_MAX = 50
RECENT = 0.2  # weight of a slice in the rate by which a router that exports nothing goes on

Oid = tuple[int, ...]


class TrapSpeaker:
    """SNMPv2c traps of all routers."""

    def __init__(self, network: DemoNetwork, boot_ns: int) -> None:
        self._network = network
        self._boot_ns = boot_ns
        self._request = 0

    def trap(self, one: Happening) -> bytes | None:
        """Return the datagram by which a router reports this; None where it is worth no trap."""
        state = ber.number(UP if one.up else DOWN)
        if one.kind == "link":
            kind, at = LINK_UP if one.up else LINK_DOWN, one.index
            said = [
                (f"{IF_ENTRY}.1.{at}", ber.number(at)),
                (f"{IF_ENTRY}.7.{at}", ber.number(UP)),
                (f"{IF_ENTRY}.8.{at}", state),
                (f"{IF_X_ENTRY}.1.{at}", ber.octets(one.interface.encode())),
            ]
        elif one.kind == "session":
            kind = BGP_ESTABLISHED if one.up else BGP_BACKWARD
            row = self._network.row
            far = session_address(row[one.router], row[one.peer])
            said = [
                (f"{BGP_PEER_ENTRY}.7.{far}", ber.element(Tag.IP_ADDRESS, socket.inet_aton(far))),
                (f"{BGP_PEER_ENTRY}.14.{far}", ber.octets(bytes((4, 0)))),  # hold timer expired
                (f"{BGP_PEER_ENTRY}.2.{far}", ber.number(6 if one.up else 1)),
            ]
        else:
            return None
        uptime = (one.time_ns - self._boot_ns) // 10_000_000 & 0xFFFFFFFF
        head = [
            (SYS_UP_TIME, ber.number(uptime, Tag.TIME_TICKS)),
            (SNMP_TRAP_OID + ".0", ber.oid(kind)),
        ]
        self._request += 1
        varbinds = b"".join(write_varbind(name, value) for name, value in head + said)
        return write_message(1, COMMUNITY, write_pdu(Tag.TRAP_V2, self._request, varbinds))


class Counters:
    """Octets and packets of every interface since boot, from the flows that cross them."""

    def __init__(self, network: DemoNetwork) -> None:
        self._network = network
        self._width = 1 + max(face.index for face in network.file.interface)
        shape = (len(network.names), self._width)
        self.octets = np.zeros((2, *shape))  # in, out
        self.packets = np.zeros((2, *shape))
        self._recent = np.zeros((4, *shape))

    def add(self, batch: Batch) -> None:
        """Take a slice of flows. A router that exports nothing of it goes on as before."""
        low = batch["exporter_address_low"]
        order = np.argsort(self._network.address_low)
        row = order[np.searchsorted(self._network.address_low[order], low)]
        spoke = np.zeros(len(self._network.names), bool)
        spoke[np.unique(row)] = True
        grown = np.empty_like(self._recent)
        for way, face in enumerate(("ingress_interface", "egress_interface")):
            cell = row * self._width + batch[face].astype(np.int64)
            for place, column in ((way, "octets"), (2 + way, "packets")):
                grown[place] = self._sum(cell, batch[column].astype(np.float64) * SAMPLING_RATE)
        grown[:, ~spoke] = self._recent[:, ~spoke]
        self._recent += RECENT * (grown - self._recent)
        self.octets += grown[:2]
        self.packets += grown[2:]

    def _sum(self, cell: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        count = len(self._network.names) * self._width
        made = np.bincount(cell, weight, minlength=count).astype(np.float64)
        return made.reshape(-1, self._width)


class Agent:
    """What one router answers, as of now: system, ifTable, ifXTable, light of its link ends, its disk."""

    def __init__(self, network: DemoNetwork, router: str, counters: Counters) -> None:
        self._row = network.row[router]
        self._counters = counters
        self._faces = [face for face in network.file.interface if face.router == router]
        self.name = router
        self.down: frozenset[str] = frozenset()  # links that are cut
        self.light_dbm: Mapping[str, float] = {}  # by name of interface
        self.used_bytes = 0.0

    def objects(self, uptime: int) -> dict[Oid, bytes]:
        """Return every object as an element, by its OID."""
        system = {
            1: ber.octets(b"Juniper Networks, Inc. mx960, demo carrier"),
            2: ber.oid(SYS_OBJECT_ID),
            3: ber.number(uptime, Tag.TIME_TICKS),
            5: ber.octets(self.name.encode()),
        }
        made = {(*_oid(SYSTEM), column, 0): value for column, value in system.items()}
        disk = {
            1: ber.number(1), 3: ber.octets(DISK.encode()), 4: ber.number(STORAGE_UNIT),
            5: ber.number(int(DISK_BYTES) // STORAGE_UNIT),
            6: ber.number(int(self.used_bytes) // STORAGE_UNIT),
        }  # fmt: skip
        made |= {(*_oid(STORAGE_ENTRY), column, 1): value for column, value in disk.items()}
        for face in self._faces:
            if face.name in self.light_dbm:
                light = ber.number(round(100 * self.light_dbm[face.name]))
                made[(*_oid(DOM_RECEIVED), face.index)] = light
            at, status = face.index, DOWN if face.link in self.down and face.link else UP
            name = ber.octets(face.name.encode())
            count = [self._counters.octets, self._counters.packets]
            (octets_in, octets_out), (packets_in, packets_out) = (
                (int(one[0, self._row, at]), int(one[1, self._row, at])) for one in count
            )
            columns = {
                IF_ENTRY: {
                    1: ber.number(at), 2: name, 3: ber.number(6),  # ethernetCsmacd
                    5: ber.number(min(face.speed, 0xFFFF_FFFF), Tag.GAUGE32),
                    7: ber.number(UP), 8: ber.number(status),
                    13: ber.number(0, Tag.COUNTER32), 14: ber.number(0, Tag.COUNTER32),
                    19: ber.number(0, Tag.COUNTER32), 20: ber.number(0, Tag.COUNTER32),
                },
                IF_X_ENTRY: {
                    1: name,
                    6: ber.number(octets_in, Tag.COUNTER64), 7: ber.number(packets_in, Tag.COUNTER64),
                    10: ber.number(octets_out, Tag.COUNTER64), 11: ber.number(packets_out, Tag.COUNTER64),
                    15: ber.number(face.speed // 10**6, Tag.GAUGE32),
                    18: ber.octets((face.link or face.customer).encode()),
                },
            }  # fmt: skip
            for entry, values in columns.items():
                for column, value in values.items():
                    made[(*_oid(entry), column, at)] = value
        return made

    def answer(self, request: bytes, uptime: int) -> bytes | None:
        """Return the response to a v2c request; None where it is none, or not for us."""
        try:
            envelope = read_envelope(request)
            pdu = read_pdu(request, envelope.start, envelope.stop)
        except DecodeError:
            return None
        if envelope.community != COMMUNITY or pdu.tag not in (Tag.GET, Tag.GET_NEXT, Tag.GET_BULK):
            return None
        objects = self.objects(uptime)
        names = sorted(objects)
        varbinds = b"".join(
            write_varbind(".".join(map(str, name)), value)
            for name, value in _asked(pdu, objects, names)
        )
        return write_message(1, COMMUNITY, write_pdu(Tag.RESPONSE, pdu.request_id, varbinds))


def _oid(text: str) -> Oid:
    return tuple(int(part) for part in text.split("."))


def _asked(pdu: Pdu, objects: Mapping[Oid, bytes], names: Sequence[Oid]) -> list[tuple[Oid, bytes]]:
    wanted = [_oid(varbind.oid) for varbind in pdu.varbinds]
    if pdu.tag == Tag.GET:
        nothing = ber.element(Tag.NO_SUCH_INSTANCE)
        return [(name, objects.get(name, nothing)) for name in wanted]
    bulk = pdu.tag == Tag.GET_BULK
    once = pdu.error_status if bulk else len(wanted)  # non-repeaters stand where errors do
    made = []
    for name in wanted[:once]:
        made.append(_next(name, objects, names))
    repeated = wanted[once:]
    for _ in range(min(pdu.error_index, REPETITIONS_MAX) if bulk else 0):
        found = [_next(name, objects, names) for name in repeated]
        made += found
        repeated = [name for name, _ in found]
    return made


def _next(name: Oid, objects: Mapping[Oid, bytes], names: Sequence[Oid]) -> tuple[Oid, bytes]:
    place = bisect.bisect_right(names, name)
    if place == len(names):
        return name, ber.element(Tag.END_OF_VIEW)
    return names[place], objects[names[place]]


class Agents:
    """All routers' agents, each on its own address, answering from one thread."""

    def __init__(
        self,
        network: DemoNetwork,
        counters: Counters,
        conditions: Conditions,
        boot_ns: int,
        port: int,
    ) -> None:
        self._conditions = conditions
        self.agents = [Agent(network, name, counters) for name in network.names]
        self._addresses = network.addresses
        self._boot_ns = boot_ns
        self._now_ns = boot_ns
        self._port = port
        self._ended = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Bind every agent and begin to answer."""
        self._selector = selectors.DefaultSelector()
        for agent, address in zip(self.agents, self._addresses, strict=True):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((address, self._port))
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, agent)
        self._thread.start()

    def step(self, now_ns: int, down: frozenset[str], batch: Batch, counters: Counters) -> None:
        """Let a slice of traffic pass."""
        with self._lock:
            counters.add(batch)
            if now_ns // STEP_NS != self._now_ns // STEP_NS or not self.agents[0].used_bytes:
                self._measure(now_ns // STEP_NS * STEP_NS)
            self._now_ns = now_ns
            for agent in self.agents:
                agent.down = down

    def _measure(self, at_ns: int) -> None:
        """Let every agent know its light and its disk, new each minute."""
        light, used = self._conditions.light_of(at_ns), self._conditions.used(at_ns).tolist()
        for agent, used_bytes in zip(self.agents, used, strict=True):
            agent.light_dbm, agent.used_bytes = light[agent.name], used_bytes

    def _serve(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.2):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                with contextlib.suppress(OSError):
                    data, sender = sock.recvfrom(65_535)
                    with self._lock:
                        uptime = (self._now_ns - self._boot_ns) // 10_000_000 & 0xFFFFFFFF
                        answer = key.data.answer(data, uptime)
                    if answer is not None:
                        sock.sendto(answer, sender)

    def stop(self) -> None:
        """End the thread and close every socket."""
        self._ended = True
        self._thread.join(2)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
