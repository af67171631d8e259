"""Which faults happen: the script of the live demo, or drawn at random by seed; and their truth.

link-cut            a link carries nothing; its traffic takes the next shortest path. Any but the quietest
                    sixth, which carry less than two flows a second
exporter-down       a router forwards but exports nothing
volumetric-attack   many spoofed or reflecting sources, one vector, one host; starts at once. From 10 to
                    160 sampled flows a second, evenly on a logarithmic scale; the prefixes aimed at
                    receive between .2 and 13 in peace, in the middle 2
port-scan           one host sends single small SYNs, to one port of many hosts or to many of one; from 20
                    to 120 a second, on the same scale
slow-leak           one customer's prefix sends more and more to a single host: from nothing to one or
                    two times the prefix's own volume, evenly over its two hours
of attacks.CLASSES  an attack of that security class (tocsin.demo.attacks); of brute force the logs of the
                    attacker's router tell as well
subprefix-hijack    an AS from outside announces half of a customer's prefix; BMP tells, no traffic follows
capacity-breach     traffic to one customer grows evenly beyond the speed of its interface (slow)
optical-degradation the light that one end of a link receives fades; its traffic is not touched (slow)
disk-filling        the disk of a router fills to its end (slow)
flash-crowd         no fault: ordinary clients from everywhere want one prefix, over five minutes up to
                    one or two times its own volume
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tocsin.demo import attacks
from tocsin.demo.conditions import DISK
from tocsin.demo.network import DemoNetwork
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000
SECURITY = ("brute-force", "dns-tunnel", "unusual-upload", "spoofed-sources")
HIJACK = "subprefix-hijack"
KINDS = ("link-cut", "volumetric-attack", "port-scan", "exporter-down", "slow-leak", *SECURITY)
LOUD_FLOWS_PER_SECOND = 10.0  # of security faults at least: they are to show within a minute
OUTSIDERS = (65_000, 65_500)  # numbers of ASes that are no router's
VECTORS = (
    "dns-amplification",
    "ntp-amplification",
    "cldap-amplification",
    "udp-flood",
    "syn-flood",
)
SLOW_KINDS = ("capacity-breach", "optical-degradation", "disk-filling")
SLOW = ("slow-leak", *SLOW_KINDS)  # found before they end, best told before they hurt
NO_FAULT = ("flash-crowd",)


def make_fault(
    network: DemoNetwork, kind: str, random: np.random.Generator, start_ns: int, seconds: float
) -> Fault:
    """Return one fault of a kind with its particulars drawn at random."""
    end_ns = start_ns + round(seconds * SECOND)
    if kind in attacks.CLASSES:  # by its class: a kind of alarm may stand for several
        entity, affects, detail = attacks.draw(network, kind, random)
        if kind == "brute-force":
            affects = (*affects, network.names[network.prefix_router[detail["prefix"]]])
        return Fault(attacks.CLASSES[kind][0], entity, start_ns, end_ns, affects, detail)
    if kind == "link-cut":
        links = network.links_used()
        name = links[int(random.integers(len(links) * 5 // 6))]
        return Fault(kind, name, start_ns, end_ns, (*name.split("-"), *network.ends(name)))
    if kind == "exporter-down":
        router = network.names[int(random.integers(len(network.names)))]
        return Fault(kind, router, start_ns, end_ns)
    if kind == "optical-degradation":
        ends = [face for face in network.file.interface if face.link]
        face = ends[int(random.integers(len(ends)))]
        detail = {"router": face.router, "interface": face.name}
        detail["fall_db"] = float(random.uniform(8.0, 11.0))
        affects = (f"{face.router}:{face.name}", face.link)
        return Fault(kind, f"{face.router} {face.name}", start_ns, end_ns, affects, detail)
    if kind == "disk-filling":
        router = network.names[int(random.integers(len(network.names)))]
        detail = {"router": router, "share_at_end": float(random.uniform(0.97, 1.0))}
        return Fault(kind, f"{router} {DISK}", start_ns, end_ns, (router,), detail)
    candidates = np.arange(len(network.prefix_text))
    if kind == "slow-leak":  # the busier half: what leaks slowly is lost in a handful of flows
        candidates = np.argsort(-network.prefix_weight, kind="stable")[: len(candidates) // 2]
    row = int(candidates[int(random.integers(len(candidates)))])
    prefix = network.prefix_text[row]
    affects = (network.file.prefix[row].customer, network.customer_interface(prefix))
    if kind == "capacity-breach":
        detail = {"prefix": prefix, "share_at_end": float(random.uniform(1.05, 1.25))}
        return Fault(kind, affects[1], start_ns, end_ns, (affects[0], prefix), detail)
    detail = _detail(network, kind, random, row)
    return Fault(kind, prefix, start_ns, end_ns, affects, detail)


def _detail(
    network: DemoNetwork, kind: str, random: np.random.Generator, row: int
) -> dict[str, Any]:
    """Return the particulars of a fault at the prefix of this row."""
    if kind == "volumetric-attack":
        return {
            "vector": VECTORS[int(random.integers(len(VECTORS)))],
            "flows_per_second": float(np.exp(random.uniform(*np.log([10, 160])))),
            "host": int(random.integers(1, 250)),
        }
    if kind == "port-scan":
        return {
            "flows_per_second": float(np.exp(random.uniform(*np.log([20, 120])))),
            "vertical": bool(random.random() < 0.4),
            "host": int(random.integers(1, 250)),
        }
    if kind == HIJACK:
        base, length = network.prefix_text[row].split("/")
        return {"part": f"{base}/{int(length) + 1}", "origin": int(random.integers(*OUTSIDERS))}
    if kind == "slow-leak":
        others = np.flatnonzero(network.prefix_router != network.prefix_router[row])
        to = network.prefix_text[int(others[int(random.integers(len(others)))])]
        return {
            "factor_at_end": float(random.uniform(1.0, 2.0)),
            "to": to,
            "to_host": to.split("/")[0].rsplit(".", 1)[0] + f".{int(random.integers(1, 250))}",
        }
    return {"factor": float(random.uniform(1.0, 2.0))}


def scripted(network: DemoNetwork, *, start_ns: int, seed: int) -> tuple[Fault, ...]:
    """Return the faults of the live demo, counted from its start; they repeat every four minutes."""
    random = np.random.default_rng([seed, 77])
    script = (
        ("link-cut", 12, 18), ("volumetric-attack", 36, 15), ("flash-crowd", 50, 60),
        ("port-scan", 56, 14), ("exporter-down", 68, 20), ("brute-force", 22, 20),
        ("link-cut", 112, 20), (HIJACK, 126, 20), ("dns-tunnel", 140, 20),
        ("unusual-upload", 168, 20), ("spoofed-sources", 196, 20),
    )  # fmt: skip
    made = []
    for turn in range(60):
        for kind, after, seconds in script:
            at = start_ns + (turn * 240 + after) * SECOND
            made.append(_loud(make_fault(network, kind, random, at, seconds)))
    return tuple(sorted(made, key=lambda fault: fault.start_ns))


def _loud(fault: Fault) -> Fault:
    if "class" in fault.detail:
        rate = max(fault.detail["flows_per_second"], LOUD_FLOWS_PER_SECOND)
        fault.detail["flows_per_second"] = rate
    return fault


def drawn(
    network: DemoNetwork, *, start_ns: int, seed: int, days: int, per_day: int = 8,
    slow_per_day: int = 1,
) -> tuple[Fault, ...]:  # fmt: skip
    """Return faults at random times that do not overlap, and two flash crowds a day.

    Nine a day at most: `per_day` of KINDS and `slow_per_day` of SLOW_KINDS.
    """
    random, slow = np.random.default_rng([seed, 78]), np.random.default_rng([seed, 82])
    made: list[Fault] = []
    for day in range(days):
        first = start_ns + day * 86_400 * SECOND
        # Slots of 2 h 40 min with a fault each leave room for a leak of two hours.
        slots = random.permutation(9)
        for slot in slots[per_day : per_day + slow_per_day].tolist():
            kind = SLOW_KINDS[int(slow.integers(len(SLOW_KINDS)))]
            at = first + round((slot * 9600 + float(slow.uniform(60, 1500))) * SECOND)
            at -= at % (5 * SECOND)
            made.append(make_fault(network, kind, slow, at, float(slow.uniform(6000, 7200))))
        slots = slots[:per_day]
        leaks = 0
        for slot in sorted(slots.tolist()):
            kind = KINDS[int(random.integers(len(KINDS)))]
            if kind == "slow-leak":
                leaks += 1
                if leaks > 2:
                    kind = "port-scan"
            seconds = 7200.0 if kind == "slow-leak" else float(random.uniform(120, 900))
            at = first + round((slot * 9600 + float(random.uniform(60, 1500))) * SECOND)
            at = at // (5 * SECOND) * 5 * SECOND
            made.append(_loud(make_fault(network, kind, random, at, seconds)))
        for _ in range(2):
            at = first + round(float(random.uniform(0, 84_000)) * SECOND)
            made.append(make_fault(network, "flash-crowd", random, at, 1800.0))
    return tuple(made)


def played_line(fault: Fault) -> str:
    """Return what the demo says when a fault begins: `link ams1-fra2 cut`."""
    vector = str(fault.detail.get("vector", ""))
    if "class" in fault.detail:
        what = vector or str(fault.detail["class"]).replace("-", " ")
        return f"{what}: {fault.entity}"
    return {
        "link-cut": f"link {fault.entity} cut",
        "exporter-down": f"exporter {fault.entity} silent",
        "volumetric-attack": f"{vector} attack on {fault.entity}",
        "port-scan": f"port scan from {fault.entity}",
        HIJACK: f"AS{fault.detail.get('origin')} announces half of {fault.entity}",
        "slow-leak": f"slow leak from {fault.entity}",
        "capacity-breach": f"traffic to {fault.entity} grows beyond what it was built for",
        "optical-degradation": f"light that {fault.entity} receives fades",
        "disk-filling": f"disk {fault.entity} fills",
        "flash-crowd": f"flash crowd to {fault.entity} (no fault)",
    }[fault.kind]


def write_truth(faults: Sequence[Fault], path: Path, *, start_ns: int, end_ns: int) -> None:
    """Write truth.jsonl: the faults that began in [start, end), flash crowds left out."""
    lines = [
        json.dumps(
            {
                "kind": fault.kind,
                "entity": fault.entity,
                "start_ns": fault.start_ns,
                "end_ns": fault.end_ns,
                "affects": list(fault.affects),
            }
        )
        for fault in faults
        if fault.kind not in NO_FAULT and start_ns <= fault.start_ns < end_ns
    ]
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
