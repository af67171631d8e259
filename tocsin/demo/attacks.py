"""Attacks for the demo carrier, one of each security class, with particulars drawn at random.

What each is, as its exporters show it (rates are of sampled flows, so of what gets through them):

flood               one vector, many sources, one host: 5 to 100 flows a second
horizontal-scan     one host, one port (SYN, UDP or ping) of many hosts: 2 to 60 a second
vertical-scan       one host, many ports of another: 2 to 60 a second
slow-scan           the same at one probe in 20 to 90 seconds
brute-force         short SSH, Telnet or RDP sessions of 8 to 40 packets at one to three hosts: 1 to 20 a second
beacon              a pair, every 1 to 20 minutes with up to a fifth of jitter, 200 to 4,000 octets
dns-tunnel          questions of 140 to 250 octets to one resolver: 1 to 20 a second
unusual-upload      large packets to one place: 1 to 20 records of 20 to 90 kB a second
spoofed-sources     a customer's line sends single packets from random or impossible sources: 5 to 60 a second

What a sampled packet cannot show begins where routers export flows: brute-force, beacon, spoofed-sources.
Sources, targets, ports and times are drawn too. Numbers depend on (seed, tick) alone, as in
`tocsin.demo.traffic`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.identity import V4_MAPPED, address_text
from tocsin.demo.network import DemoNetwork, speaks

# protocol, source port, flags, octets a packet, packets a flow
VECTORS: dict[str, tuple[int, int, int, int, float]] = {
    "dns-amplification": (17, 53, 0, 1400, 28.0),
    "ntp-amplification": (17, 123, 0, 468, 40.0),
    "cldap-amplification": (17, 389, 0, 1450, 30.0),
    "udp-flood": (17, 0, 0, 1000, 35.0),
    "syn-flood": (6, 0, 0x02, 52, 60.0),
    "icmp-flood": (1, 0, 0, 84, 60.0),
    "memcached-amplification": (17, 11211, 0, 1400, 40.0),
    "ssdp-amplification": (17, 1900, 0, 320, 30.0),
    "chargen-amplification": (17, 19, 0, 1020, 20.0),
    "snmp-amplification": (17, 161, 0, 1400, 15.0),
}
# class: (kind of the alarm, least and most seconds it lasts)
CLASSES = {
    "flood": ("volumetric-attack", 240, 720),
    "horizontal-scan": ("port-scan", 240, 720),
    "vertical-scan": ("port-scan", 240, 720),
    "slow-scan": ("port-scan", 11_000, 14_400),
    "brute-force": ("brute-force", 240, 900),
    "beacon": ("beacon", 28_800, 39_600),
    "dns-tunnel": ("dns-tunnel", 240, 900),
    "unusual-upload": ("unusual-upload", 240, 900),
    "spoofed-sources": ("spoofed-sources", 240, 720),
}
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in CLASSES.values()))
OF_FLOWS = ("brute-force", "beacon", "spoofed-sources")  # a sampled packet does not show them
LOGINS = (22, 22, 23, 2323, 3389)
SCANNED = ((6, 22), (6, 23), (6, 445), (6, 3389), (6, 80), (17, 161), (17, 1900), (17, 123), (1, 0))
MARTIANS = ((10 << 24, 24), (192 << 24 | 168 << 16, 16), (240 << 24, 24), (127 << 24, 24))


def draw(
    network: DemoNetwork, name: str, random: np.random.Generator
) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Return (entity that an alarm must name, what else it affects, particulars) of a class."""
    rows = np.arange(len(network.prefix_text))
    if name in OF_FLOWS:
        rows = rows[[speaks(int(router)) != "sflow" for router in network.prefix_router]]
    prefix = int(rows[int(random.integers(len(rows)))])
    text = network.prefix_text[prefix]
    host = int(network.prefix_low[prefix]) + int(random.integers(1, 250))
    outside = V4_MAPPED | int(random.integers(0x0B000000, 0x60000000))
    others = np.flatnonzero(network.prefix_router != network.prefix_router[prefix])
    to = int(others[int(random.integers(len(others)))])

    def rate(least: float, most: float) -> float:
        return float(np.exp(random.uniform(np.log(least), np.log(most))))

    detail: dict[str, Any] = {"class": name, "prefix": prefix, "to": to}
    if name == "flood":
        vector = (*VECTORS,)[int(random.integers(len(VECTORS)))]
        detail |= {"vector": vector, "flows_per_second": rate(5, 100), "host": host}
        return text, (), detail
    face = network.customer_interface(text)
    affects = (network.file.prefix[prefix].customer, face)
    detail |= {"host": host, "outside": outside}
    if name in ("horizontal-scan", "slow-scan"):
        protocol, port = SCANNED[int(random.integers(len(SCANNED)))]
        fast = name == "horizontal-scan"
        detail |= {"protocol": protocol, "port": port,
                   "flows_per_second": rate(2, 60) if fast else 1 / float(random.uniform(20, 90))}  # fmt: skip
        return text, affects, detail
    if name == "vertical-scan":
        return text, affects, detail | {"protocol": 6, "flows_per_second": rate(2, 60)}
    if name == "brute-force":
        detail |= {"port": LOGINS[int(random.integers(len(LOGINS)))], "flows_per_second": rate(1, 20),
                   "targets": int(random.integers(1, 4)), "packets": float(random.uniform(8, 40))}  # fmt: skip
        return address_text(0, host), affects, detail
    if name == "beacon":
        detail |= {"period": rate(60, 1200), "jitter": float(random.uniform(0, 0.2)),
                   "port": int(random.choice([443, 80, 8080, 8443, 4444])),
                   "octets": int(random.integers(200, 4000))}  # fmt: skip
        return address_text(0, outside), (*affects, address_text(0, host)), detail
    if name == "dns-tunnel":
        detail |= {"flows_per_second": rate(1, 20), "octets": int(random.integers(140, 250))}
        return address_text(0, host), affects, detail
    if name == "unusual-upload":
        detail |= {"flows_per_second": rate(1, 20), "octets": float(random.uniform(20e3, 90e3)),
                   "port": int(random.choice([443, 22, 8443, 21]))}  # fmt: skip
        return address_text(0, host), affects, detail
    detail |= {"flows_per_second": rate(5, 60), "martian": bool(random.random() < 0.5)}
    return face, affects, detail


def flows(
    network: DemoNetwork, detail: dict[str, Any], random: np.random.Generator, *,
    since_ns: int, start_ns: int, tick_ns: int,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return the flows of an attack that began at `since_ns` in one tick, one row each."""
    name = detail["class"]
    if name == "beacon":
        n = _contacts(detail, since_ns, start_ns, tick_ns)
    else:
        n = int(random.poisson(detail["flows_per_second"] * tick_ns / 1e9))
    made = _plain(detail, random, n)
    if name == "flood":
        _flood(network, made, detail, random, n)
    elif name == "vertical-scan":
        made["destination_low"][:] = network.prefix_low[detail["to"]] + np.uint64(7)
        made["destination_port"] = random.integers(1, 65535, n)
    elif name in ("horizontal-scan", "slow-scan"):
        to = random.integers(0, len(network.prefix_text), n)
        made["destination"] = to
        made["destination_low"] = network.prefix_low[to] + random.integers(1, 255, n).astype(
            np.uint64
        )
        if detail["protocol"] != 6:
            made["tcp_flags"][:] = 0
            made["octets"][:] = 60 + 20 * (detail["protocol"] == 17)
    elif name == "brute-force":
        target = random.integers(0, detail["targets"], n).astype(np.uint64) + np.uint64(20)
        made["destination_low"] = network.prefix_low[detail["to"]] + target
        made["packets"] = np.maximum(random.poisson(detail["packets"], n), 6).astype(np.uint64)
        made["octets"] = made["packets"] * random.integers(70, 160, n).astype(np.uint64)
        made["tcp_flags"][:] = 0x1B
    elif name == "spoofed-sources":
        made["source_low"] = _spoofed(detail, random, n)
        made["destination_port"] = random.integers(1, 65535, n)
        made["protocol"][:], made["tcp_flags"][:], made["octets"][:] = 17, 0, 512
    else:
        made["tcp_flags"][:] = 0x1B
        made["octets"] = (detail["octets"] * random.uniform(0.9, 1.1, n)).astype(np.uint64)
        if name == "dns-tunnel":
            made["protocol"][:], made["tcp_flags"][:], made["destination_port"][:] = 17, 0, 53
        elif name == "beacon":
            made["packets"][:] = max(detail["octets"] // 300, 4)
        else:
            made["packets"] = np.maximum(made["octets"] // np.uint64(1200), np.uint64(1))
    return made


def _plain(detail: dict[str, Any], random: np.random.Generator, n: int) -> dict[str, NDArray[Any]]:
    """Return flows of one host to one place outside: a SYN each."""
    port = detail.get("port", 0)
    ports = random.integers(32768, 60999, n)
    protocol = detail.get("protocol", 6)
    return {
        "source": np.full(n, detail["prefix"]),
        "destination": np.full(n, detail["to"]),
        "source_low": np.full(n, detail["host"], np.uint64),
        "destination_low": np.full(n, detail.get("outside", 0), np.uint64),
        "source_port": ports if protocol != 1 else np.zeros(n, np.int64),
        "destination_port": np.full(n, 2048 if protocol == 1 else port),
        "protocol": np.full(n, protocol),
        "tcp_flags": np.full(n, 0x02),
        "octets": np.full(n, 44, np.uint64),
        "packets": np.full(n, 1, np.uint64),
    }


def _flood(
    network: DemoNetwork,
    made: dict[str, NDArray[Any]],
    detail: dict[str, Any],
    random: np.random.Generator,
    n: int,
) -> None:
    protocol, source_port, flags, packet, packets = VECTORS[detail["vector"]]
    target = detail["prefix"]
    others = np.flatnonzero(network.prefix_router != network.prefix_router[target])
    made["source"], made["destination"] = random.choice(others, n), np.full(n, target)
    made["source_low"] = random.integers(0x0B000000, 0x60000000, n).astype(np.uint64)
    made["source_low"] |= np.uint64(V4_MAPPED)
    made["destination_low"] = np.full(n, detail["host"], np.uint64)
    made["protocol"][:], made["tcp_flags"][:] = protocol, flags
    ports = random.integers(1024, 65535, n)
    made["source_port"] = np.full(n, source_port) if source_port else ports
    made["destination_port"] = np.full(n, 443) if flags else random.integers(1024, 65535, n)
    if protocol == 1:
        made["source_port"][:], made["destination_port"][:] = 0, 2048
    made["packets"] = np.maximum(random.poisson(packets, n), 1).astype(np.uint64)
    made["octets"] = made["packets"] * np.uint64(packet)


def _spoofed(detail: dict[str, Any], random: np.random.Generator, n: int) -> NDArray[np.uint64]:
    if detail["martian"]:
        block = random.integers(0, len(MARTIANS), n)
        base = np.array([MARTIANS[i][0] for i in range(len(MARTIANS))], np.int64)[block]
        bits = np.array([MARTIANS[i][1] for i in range(len(MARTIANS))], np.int64)[block]
        low = base + (random.random(n) * (1 << bits)).astype(np.int64)
    else:
        low = random.integers(0x0B000000, 0x60000000, n)
    made: NDArray[np.uint64] = low.astype(np.uint64) | np.uint64(V4_MAPPED)
    return made


def _contacts(detail: dict[str, Any], since_ns: int, start_ns: int, tick_ns: int) -> int:
    """Return how many contacts of a beacon fall into a tick: each is late by its own jitter."""
    period = detail["period"]
    first = max(int((start_ns - since_ns) / 1e9 / period) - 1, 0)
    last = int((start_ns + tick_ns - since_ns) / 1e9 / period) + 1
    count = 0
    for k in range(first, last + 1):
        late = np.random.Generator(np.random.Philox(key=[detail["host"] & 0xFFFF_FFFF, k])).random()
        at = since_ns + round((k + (late - 0.5) * detail["jitter"]) * period * 1e9)
        count += start_ns <= at < start_ns + tick_ns
    return count
