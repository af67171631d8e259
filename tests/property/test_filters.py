"""The rules that alerts propose: they hit the attacks of the demo carrier, and next to nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from correlator.keys import VECTOR_ICMP, VECTOR_SYN
from runtime.ports import Talker
from telemetry.identity import address_text
from tests.support.flow_filter import FlowFilter, read_filters
from tocsin.demo.attacks import CLASSES, VECTORS, draw, flows
from tocsin.demo.network import DemoNetwork, load_demo_network
from tocsin.demo.simulate import START_NS
from tocsin.demo.traffic import TrafficModel
from tocsin.testing.alarms import AlarmWorld

SEEDS = range(6)
MINUTE_NS = 60 * 10**9
SAMPLE_MAX = 128
HIT_LEAST = 0.9  # of the attack's flows
CARRIER_MOST = 0.001  # of the records of everybody else
# Of what the same host ordinarily sends (floods: gets):
DISCARDED_MOST = 0.03
LIMITED_MOST = 0.4  # floods of UDP at all ports, or of SYNs at the port of its service


@cache
def network() -> DemoNetwork:
    return load_demo_network()


def records(columns: dict[str, Any], low: str, to: str) -> list[Talker]:
    """Return flows as sampled records; `low` and `to` are the columns of addresses."""
    names = ("protocol", "source_port", "destination_port", "tcp_flags", "octets", "packets")
    rows = zip(columns[low].tolist(), columns[to].tolist(),
               *(columns[name].tolist() for name in names), strict=True)  # fmt: skip
    return [
        Talker(address_text(0, a), address_text(0, b), protocol, sport, dport, "127.1.0.1", 1, 2,
               flags, octets, packets)
        for a, b, protocol, sport, dport, flags, octets, packets in rows
    ]  # fmt: skip


@cache
def ordinary() -> list[Talker]:
    """Return what everybody else sends in a minute of the demo carrier."""
    batch = TrafficModel(network(), seed=5, records_per_second=100.0).records(START_NS, MINUTE_NS)
    return records(batch.columns, "source_address_low", "destination_address_low")


def attack(name: str, seed: int) -> tuple[dict[str, Any], list[Talker]]:
    """Return (particulars, flows) of an attack of a class; of slow ones what their view sees in a tick."""
    random = np.random.default_rng([seed, *name.encode()])
    detail = draw(network(), name, random)[2]
    if name == "spoofed-sources":
        detail["martian"] = True
    length = {"slow-scan": 60, "beacon": 300}.get(name, 1) * MINUTE_NS
    made = flows(network(), detail, random, since_ns=START_NS, start_ns=START_NS, tick_ns=length)
    return detail, records(made, "source_low", "destination_low")


def finding(name: str, detail: dict[str, Any], one: Talker) -> tuple[str, str, dict[str, str]]:
    """Return (view, detector, key of the series) by which an attack is found."""
    prefix = f"{one.destination.rpartition('.')[0]}.0/24"
    by_source = {"source_address": one.source}
    if name == "flood":
        protocol, port, flags, *_ = VECTORS[detail["vector"]]
        if protocol == 17 and not port:
            return "destination_prefix", "attack", {"destination_prefix": prefix}
        vector = str(port) if port else {VECTOR_SYN: "syn", VECTOR_ICMP: "icmp"}[
            VECTOR_SYN if flags else VECTOR_ICMP]  # fmt: skip
        return "vector", "flood", {"destination_prefix": prefix, "vector": vector}
    if name == "spoofed-sources":
        return "bogon", "bogon", {"exporter": "127.1.0.1", "ingress_interface": "1"}
    if name == "brute-force":
        return "login", "login_tries", by_source | {"destination_port": str(one.destination_port)}
    if name == "beacon":
        return "contact", "beacon", by_source | {"destination_peer": one.destination}
    view, detector = {
        "slow-scan": ("slow_probe", "slow_scan"), "dns-tunnel": ("query", "dns_tunnel"),
        "unusual-upload": ("upload", "upload"),
    }.get(name, ("probe", "host_scan"))  # fmt: skip
    return view, detector, by_source


def proposed(name: str, seed: int) -> tuple[list[FlowFilter], list[Talker], str]:
    """Return (rules that the alert proposes, flows of the attack, its advice)."""
    detail, made = attack(name, seed)
    view, detector, key = finding(name, detail, made[0])
    world = AlarmWorld()
    series = world.series(view, **key)
    order = np.random.default_rng(seed).permutation(len(made))[:SAMPLE_MAX]
    world.samples[series] = tuple(made[i] for i in order.tolist())
    told = []
    since = world.now_ns
    rate = {"octets_per_second": sum(t.octets for t in made) / 60, "distinct_sources": 500.0,
            "expected_distinct_sources": 10.0}  # fmt: skip
    for _ in range(3):
        told += world.tick([world.anomaly(series, detector, since_ns=since, detail=rate)])
    (alert,) = told
    assert alert.kind == CLASSES[name][0]
    return read_filters(alert.explain["do"]), made, alert.explain["do"]


def share(rules: Sequence[FlowFilter], flows: Sequence[Talker], **how: bool) -> float:
    return sum(any(rule.matches(one, **how) for rule in rules) for one in flows) / len(flows)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_rule_hits_its_attack_and_next_to_nothing_else(name: str, seed: int) -> None:
    rules, made, advice = proposed(name, seed)
    assert share(rules, made) >= HIT_LEAST, advice
    assert share(rules, ordinary(), flags=False) <= CARRIER_MOST, advice
    for rule in rules:
        to, source = rule.widths
        assert to == 32 or source == 32 or (name == "spoofed-sources" and source >= 4), rule.text
        assert advice.count("(also hits what else ") + advice.count(
            " at most; also limits what else "
        ) == len(rules)
    one = made[0]
    mine = [replace(t, destination=one.destination) for t in ordinary()] if name == "flood" else [
        replace(t, source=one.source) for t in ordinary()]  # fmt: skip
    most = LIMITED_MOST if all(rule.limit for rule in rules) else DISCARDED_MOST
    assert share(rules, mine, flags=False) <= most, advice
