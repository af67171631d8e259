"""Emulated SNMP agents: a process that answers for many addresses from snmprec data, and misbehaves on demand.

`python -m tests.support.snmp_agent PORT FILE...` answers on every 127.2.x.y of PORT, device n with
file n modulo their number; a line on stdin `silent|well ADDRESS` changes one of them. Counters
go up with time. The agent's half of the protocol is written here, on the BER that the tests check
against others; the client under test is gufo_snmp.
"""

import bz2
import socket
import sys
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from telemetry.errors import DecodeError
from telemetry.snmp import ber, message
from telemetry.snmp.ber import Tag

IP_PKTINFO = 8
_TYPES = {2: Tag.INTEGER, 65: Tag.COUNTER32, 66: Tag.GAUGE32, 67: Tag.TIME_TICKS, 70: Tag.COUNTER64}
Key = tuple[int, ...]
SMALL = {
    "1.3.6.1.2.1.1.2.0": ber.oid("1.3.6.1.4.1.2636.1.1.1.2.21"),
    "1.3.6.1.2.1.1.3.0": ber.number(360_000, Tag.TIME_TICKS),
    "1.3.6.1.2.1.1.5.0": ber.octets(b"ams1"),
    "1.3.6.1.2.1.31.1.1.1.1.7": ber.octets(b"et-0/0/3"),
    "1.3.6.1.2.1.31.1.1.1.6.7": ber.number(10**12, Tag.COUNTER64),
    "1.3.6.1.2.1.2.2.1.8.7": ber.number(1),
}


def key_of(oid: str) -> Key:
    return tuple(int(part) for part in oid.split("."))


def element_of(kind: str, text: str) -> bytes:
    """Return the value of a line of snmprec: `tag` or `tagx` (hex), with variation modules ignored."""
    kind = kind.partition(":")[0]
    is_hex, tag = kind.endswith("x"), int(kind.rstrip("x"))
    data = bytes.fromhex(text) if is_hex else text.encode("latin-1", "replace")
    if tag in _TYPES:
        if is_hex:
            return ber.element(tag, data)
        bits = 64 if tag == Tag.COUNTER64 else 32
        value = int(text)
        return ber.number(value if tag == Tag.INTEGER else value % (1 << bits), tag)
    if tag == Tag.OID:
        return ber.oid(text)
    if tag == Tag.IP_ADDRESS:
        return ber.element(tag, data if is_hex else bytes(map(int, text.split("."))))
    return ber.element(Tag.NULL) if tag == Tag.NULL else ber.element(tag, data)


def read_snmprec(path: Path) -> dict[str, bytes]:
    """Return the values of a file by OID."""
    raw = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    found: dict[str, bytes] = {}
    for line in raw.decode("utf-8", "replace").splitlines():
        oid, _, rest = line.partition("|")
        kind, _, text = rest.partition("|")
        if oid[:1].isdigit() and kind:
            try:
                found[oid] = element_of(kind, text)
            except ValueError:
                continue
    return found


@dataclass
class Agent:
    """One emulated device."""

    values: dict[str, bytes]
    community: bytes = b"public"
    silent: bool = False
    garbage: bool = False
    asked: int = 0
    keys: list[Key] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        pairs = sorted((key_of(oid), oid) for oid in self.values)
        self.keys = [key for key, _ in pairs]
        self.names = [oid for _, oid in pairs]

    def put(self, oid: str, element: bytes) -> None:
        self.values[oid] = element
        self.__post_init__()

    def value(self, oid: str) -> bytes:
        return self.values.get(oid, bytes((Tag.NO_SUCH_INSTANCE, 0)))

    def after(self, oid: str) -> tuple[str, bytes]:
        place = bisect_right(self.keys, key_of(oid))
        if place == len(self.names):
            return oid, bytes((Tag.END_OF_VIEW, 0))
        return self.names[place], self.values[self.names[place]]

    def answer(self, data: bytes) -> bytes | None:
        """Return the response to a v1 or v2c request, None where there is none."""
        self.asked += 1
        if self.silent:
            return None
        if self.garbage:
            return b"\x30\x03nonsense"
        try:
            envelope = message.read_envelope(data)
            pdu = message.read_pdu(data, envelope.start, envelope.stop)
        except DecodeError:
            return None
        if envelope.community != self.community:
            return None
        oids = [one.oid for one in pdu.varbinds]
        if pdu.tag == Tag.GET:
            found = [(oid, self.value(oid)) for oid in oids]
        elif pdu.tag == Tag.GET_NEXT:
            found = [self.after(oid) for oid in oids]
        else:
            found = [self.after(oid) for oid in oids[: pdu.error_status]]
            places = oids[pdu.error_status :]
            size = 0
            for _ in range(pdu.error_index):
                row = [self.after(oid) for oid in places]
                found += row
                places = [oid for oid, _ in row]
                size += sum(len(value) + 20 for _, value in row)
                if size > 1300 or all(value[0] == Tag.END_OF_VIEW for _, value in row):
                    break
        body = b"".join(message.write_varbind(oid, value) for oid, value in found)
        response = message.write_pdu(Tag.RESPONSE, pdu.request_id, body)
        return message.write_message(envelope.version, envelope.community, response)


class AgentServer:
    """Answers for all addresses of one port on loopback, from the address that was asked."""

    def __init__(self, agents: dict[str, Agent], port: int = 0) -> None:
        self.agents = agents
        self.everyone: list[Agent] = []  # shared by addresses of 127.2/16 that are not named
        self.silent: set[str] = set()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._sock.bind(("127.0.0.1" if not port and "127.0.0.1" in agents else "", port))
        self._sock.settimeout(0.2)
        self.port: int = self._sock.getsockname()[1]
        self._ended = threading.Event()
        self._kept: dict[tuple[int, bytes], bytes] = {}
        self._thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "AgentServer":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ended.set()
        self._thread.join(2)
        self._sock.close()

    def agent(self, address: str) -> Agent | None:
        if address in self.agents:
            return self.agents[address]
        if not self.everyone or address in self.silent:
            return None
        parts = [int(part) for part in address.split(".")]
        return self.everyone[(parts[2] * 256 + parts[3]) % len(self.everyone)]

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                data, control, _, sender = self._sock.recvmsg(65535, 256)
            except (TimeoutError, OSError):
                continue
            where = next(cmsg[2] for cmsg in control if cmsg[1] == IP_PKTINFO)
            agent = self.agent(socket.inet_ntoa(where[8:12]))
            made = self._answer(agent, data) if agent else None
            if made is not None:
                info = bytes(4) + where[8:12] + bytes(4)
                self._sock.sendmsg([made], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, sender)

    def _answer(self, agent: Agent, data: bytes) -> bytes | None:
        """Return the answer; those of shared agents are kept but for their request id."""
        if agent not in self.everyone:
            return agent.answer(data)
        try:
            envelope = message.read_envelope(data)
            _, start, stop = ber.header(data, envelope.start, envelope.stop)
            request, behind = ber.integer(data, start, stop)
        except DecodeError:
            return None
        key = (id(agent), data[behind:stop] + data[envelope.start : envelope.start + 1])
        kept = self._kept.get(key)
        if kept is None:
            made = agent.answer(data)
            if made is None:
                return None
            seen = message.read_envelope(made)
            _, inner, end = ber.header(made, seen.start, seen.stop)
            _, after = ber.integer(made, inner, end)
            kept = self._kept[key] = made[after:end]
        pdu = ber.element(Tag.RESPONSE, ber.number(request), kept)
        return message.write_message(envelope.version, envelope.community, pdu)


def main() -> None:
    port, *paths = sys.argv[1:]
    server = AgentServer({}, int(port))
    server.everyone = [Agent(read_snmprec(Path(path))) for path in paths]
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    threading.Thread(target=_listen, args=(server,), daemon=True).start()
    server.run()


def _listen(server: AgentServer) -> None:
    for line in sys.stdin:
        word, _, address = line.strip().partition(" ")
        (server.silent.add if word == "silent" else server.silent.discard)(address)
    server._ended.set()
    time.sleep(0.5)


if __name__ == "__main__":
    main()
