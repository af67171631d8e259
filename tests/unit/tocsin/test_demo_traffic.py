"""The traffic model: determinism, conservation along paths, and what each fault does to the records."""

import math
from pathlib import Path

import numpy as np
import pytest

from telemetry.batch import Batch
from tests.support import fit_demo_traffic as fit
from tocsin.demo import traffic
from tocsin.demo.faults import VECTORS, make_fault
from tocsin.demo.network import DemoNetwork, load_demo_network
from tocsin.demo.traffic import Fault, TrafficModel, day_shape

SECOND = 1_000_000_000
TICK = 5 * SECOND
HOUR = 3600 * SECOND
MONDAY = 1_790_553_600 * SECOND
NOON = MONDAY + 12 * HOUR


@pytest.fixture(scope="module")
def network() -> DemoNetwork:
    return load_demo_network()


def model(
    network: DemoNetwork, *faults: Fault, seed: int = 4, rate: float = 2400.0
) -> TrafficModel:
    return TrafficModel(network, seed=seed, faults=faults, records_per_second=rate)


def on_link(network: DemoNetwork, batch: Batch, name: str) -> int:
    """Return the records that leave through either end of a link."""
    link = next(link for link in network.file.link if link.name == name)
    hits = 0
    for router, index in ((link.a, link.a_index), (link.b, link.b_index)):
        own = batch["exporter_address_low"] == network.address_low[network.row[router]]
        hits += int((own & (batch["egress_interface"] == index)).sum())
    return hits


def test_a_tick_depends_on_seed_and_time_alone(network: DemoNetwork) -> None:
    fresh, used = model(network), model(network)
    for number in range(5):
        used.records(NOON + number * TICK, TICK)
    a, b = fresh.records(NOON, TICK), used.records(NOON, TICK)
    assert all(np.array_equal(a[name], b[name]) for name in a.schema.names())
    other = model(network, seed=5).records(NOON, TICK)
    assert not np.array_equal(a["octets"], other["octets"])


def test_rate_is_what_was_asked_for_on_an_average_day(network: DemoNetwork) -> None:
    own = model(network)
    ticks = [own.records(MONDAY + k * 900 * SECOND, TICK).rows for k in range(96)]
    assert sum(ticks) / (96 * 5) == pytest.approx(2400, rel=0.05)


def test_records_are_in_their_tick_and_in_order(network: DemoNetwork) -> None:
    batch = model(network).records(NOON, TICK)
    export = batch["export_ns"]
    assert export[0] >= NOON
    assert export[-1] < NOON + TICK
    assert (np.diff(export) >= 0).all()
    assert (batch["flow_start_ns"] <= batch["flow_end_ns"]).all()
    assert (batch["octets"] >= batch["packets"]).all()
    assert (batch["packets"] >= 1).all()


def test_every_router_of_a_path_exports_the_flow_once(network: DemoNetwork) -> None:
    """What enters at customers leaves at customers, and each link carries out = in."""
    batch = model(network).records(NOON, TICK)
    octets = batch["octets"].astype(np.int64)
    enters, leaves = batch["ingress_interface"] >= 100, batch["egress_interface"] >= 100
    assert octets[enters].sum() == octets[leaves].sum() > 0
    for link in network.file.link:
        a = batch["exporter_address_low"] == network.address_low[network.row[link.a]]
        b = batch["exporter_address_low"] == network.address_low[network.row[link.b]]
        out = octets[a & (batch["egress_interface"] == link.a_index)].sum()
        into = octets[b & (batch["ingress_interface"] == link.b_index)].sum()
        assert out == into


def test_slices_and_ticks_carry_the_same_volume(network: DemoNetwork) -> None:
    """The live demo asks by half seconds, history by ticks: means must agree."""
    own = model(network)
    whole = sum(int(own.records(NOON + k * TICK, TICK)["octets"].sum()) for k in range(30))
    half = SECOND // 2
    parts = sum(int(own.records(NOON + k * half, half)["octets"].sum()) for k in range(300))
    assert parts == pytest.approx(whole, rel=0.03)


def test_busy_links_are_smooth_enough_to_be_watched(network: DemoNetwork) -> None:
    own = model(network)
    link = next(link for link in network.file.link if link.name == network.links_used()[0])
    row = network.row[link.a]
    octets = []
    for k in range(60):
        batch = own.records(NOON + k * TICK, TICK)
        mine = batch["exporter_address_low"] == network.address_low[row]
        octets.append(batch["octets"][mine & (batch["egress_interface"] == link.a_index)].sum())
    assert np.std(octets) / np.mean(octets) < 0.2


def test_link_cut_moves_traffic_and_loses_none(network: DemoNetwork) -> None:
    cut = Fault("link-cut", "ams1-fra2", NOON, NOON + HOUR)
    calm, struck = model(network).records(NOON, TICK), model(network, cut).records(NOON, TICK)
    assert on_link(network, calm, "ams1-fra2") > 100
    assert on_link(network, struck, "ams1-fra2") == 0
    enters = [int(b["octets"][b["ingress_interface"] >= 100].sum()) for b in (calm, struck)]
    assert enters[0] == enters[1]  # the same flows, other ways
    after = model(network, cut).records(NOON + HOUR, TICK)
    assert on_link(network, after, "ams1-fra2") > 100


def test_silent_exporter_takes_only_its_own_records(network: DemoNetwork) -> None:
    silent = Fault("exporter-down", "fra1", NOON, NOON + HOUR)
    calm, struck = model(network).records(NOON, TICK), model(network, silent).records(NOON, TICK)
    fra1 = network.address_low[network.row["fra1"]]
    assert (struck["exporter_address_low"] == fra1).sum() == 0
    assert struck.rows == calm.rows - int((calm["exporter_address_low"] == fra1).sum())


@pytest.mark.parametrize("vector", VECTORS)
def test_attack_is_one_vector_on_one_host_from_many_sources(
    network: DemoNetwork, vector: str
) -> None:
    prefix = network.prefix_text[7]
    attack = Fault(
        "volumetric-attack", prefix, NOON, NOON + HOUR, (),
        {"vector": vector, "flows_per_second": 100.0, "host": 9},
    )  # fmt: skip
    own = model(network, attack)
    during = own.records(NOON + TICK, TICK)
    target = np.uint64(network.prefix_low[7] + np.uint64(9))
    leaves = during["egress_interface"] >= 100
    hits = leaves & (during["destination_address_low"] == target)
    hits &= ~np.isin(during["source_port"], (443, 80)) | (during["packets"] > 20)
    assert 400 < hits.sum() < 620
    assert len(np.unique(during["source_address_low"][hits])) > 300
    one = during["protocol"][hits]
    assert np.median(one) == (6 if vector == "syn-flood" else 17)
    if vector == "syn-flood":
        assert (during["tcp_flags"][hits] == 2).mean() > 0.95
    if vector.endswith("amplification"):
        ports = {"dns": 53, "ntp": 123, "cldap": 389}
        assert (during["source_port"][hits] == ports[vector.split("-")[0]]).mean() > 0.95
    before = own.records(NOON - TICK, TICK)
    assert (
        before["destination_address_low"] == target
    ).sum() < hits.sum() / 20  # it starts at once


@pytest.mark.parametrize("vertical", [False, True])
def test_scan_is_one_source_small_packets_many_targets(
    network: DemoNetwork, vertical: bool
) -> None:
    scan = Fault(
        "port-scan", network.prefix_text[12], NOON, NOON + HOUR, (),
        {"flows_per_second": 80.0, "vertical": vertical, "host": 77},
    )  # fmt: skip
    batch = model(network, scan).records(NOON, TICK)
    enters = batch["ingress_interface"] >= 100
    small = enters & (batch["tcp_flags"] == 2) & (batch["packets"] == 1)
    assert 300 < small.sum() < 500
    assert len(np.unique(batch["source_address_low"][small])) == 1
    hosts = len(np.unique(batch["destination_address_low"][small]))
    ports = len(np.unique(batch["destination_port"][small]))
    assert (hosts, ports > 300) == (1, True) if vertical else (hosts > 300, ports) == (True, 1)


def egress_of(network: DemoNetwork, own: TrafficModel, prefix: int, at: int, ticks: int) -> float:
    low = network.prefix_low[prefix]
    octets = 0
    for k in range(ticks):
        batch = own.records(at + k * TICK, TICK)
        mine = (batch["source_address_low"] & ~np.uint64(0xFF)) == low
        octets += int(batch["octets"][mine & (batch["ingress_interface"] >= 100)].sum())
    return octets / ticks


def test_slow_leak_grows_evenly_to_one_host_and_ends(network: DemoNetwork) -> None:
    random = np.random.default_rng(3)
    leak = make_fault(network, "slow-leak", random, NOON, 7200.0)
    prefix = network.prefix_text.index(leak.entity)
    calm, own = model(network), model(network, leak)
    ratios = [
        egress_of(network, own, prefix, NOON + part * 1800 * SECOND, 60)
        / egress_of(network, calm, prefix, NOON + part * 1800 * SECOND, 60)
        for part in range(4)
    ]
    factor = leak.detail["factor_at_end"]
    for part, ratio in enumerate(ratios):
        done = part / 4 + 150 / 7200
        assert ratio == pytest.approx(1 + factor * done, rel=0.25)
    after = own.records(leak.end_ns, TICK)
    assert np.array_equal(after["octets"], calm.records(leak.end_ns, TICK)["octets"])


def test_flash_crowd_is_made_of_ordinary_clients_and_ramps(network: DemoNetwork) -> None:
    prefix = network.prefix_text[0]
    crowd = Fault("flash-crowd", prefix, NOON, NOON + 1800 * SECOND, (), {"factor": 2.0})
    own, calm = model(network, crowd), model(network)
    extra = [
        own.records(NOON + after * SECOND, TICK).rows
        - calm.records(NOON + after * SECOND, TICK).rows
        for after in (0, 150, 900, 1795)
    ]
    assert extra[0] < extra[1] < extra[2]
    assert extra[3] < extra[2] / 4
    batch = own.records(NOON + 900 * SECOND, TICK)
    to = (batch["destination_address_low"] & ~np.uint64(0xFF)) == network.prefix_low[0]
    to &= batch["egress_interface"] >= 100
    own_size = batch["octets"][to].sum() / batch["packets"][to].sum()
    assert 500 < own_size < 1200
    carriers = {int(low) >> 8 for low in batch["source_address_low"][to]}
    assert len(carriers) > 60  # /24s of clients


def test_faults_add_and_leave_the_ordinary_traffic_alone(network: DemoNetwork) -> None:
    """The same seed with and without a fault: what the fault did not touch is identical."""
    attack = Fault(
        "volumetric-attack", network.prefix_text[7], NOON, NOON + HOUR, (),
        {"vector": "udp-flood", "flows_per_second": 100.0, "host": 9},
    )  # fmt: skip
    calm = model(network).records(NOON, TICK)
    struck = model(network, attack).records(NOON, TICK)

    def keys(batch: Batch) -> set[tuple[int, ...]]:
        names = ("source_address_low", "destination_address_low", "source_port", "octets")
        return set(zip(*(batch[name].tolist() for name in names), strict=True))

    assert keys(calm) <= keys(struck)


def test_wander_keeps_its_spread_at_every_moment(network: DemoNetwork) -> None:
    own = model(network)
    for within in (0, 75, 150, 299):
        times = [NOON + (300 * k + within) * SECOND for k in range(200)]
        logs = np.log([own.wander(at) for at in times])
        assert logs.std() == pytest.approx(traffic.WANDER_SIGMA, rel=0.05)
    step = np.abs(np.diff(np.log([own.wander(NOON + k * TICK) for k in range(720)]), axis=0))
    assert step.max() < 0.03  # no jumps: it is a wander, not a noise


def test_weekend_comes_and_goes_without_a_step() -> None:
    saturday = MONDAY + 5 * 24 * HOUR
    assert day_shape(saturday + 12 * HOUR) == pytest.approx(traffic.WEEKEND * day_shape(NOON))
    week = [day_shape(MONDAY + k * 300 * SECOND) for k in range(7 * 288)]
    jumps = np.abs(np.diff([*week, week[0]]))
    assert jumps.max() < 0.012


def test_constants_are_what_the_data_say(shared: Path) -> None:
    """The fit is made again from the matrices and compared with the numbers in the model."""
    geant = fit.day(shared, "geant")
    for number, amplitude, peak in traffic.DAY_HARMONICS:
        assert geant[f"amplitude_{number}"] == pytest.approx(amplitude, abs=0.01)
        assert geant[f"peak_{number}"] == pytest.approx(peak, abs=0.1)
    hours = [day_shape(NOON + k * HOUR) for k in range(24)]
    assert max(hours) / min(hours) == pytest.approx(geant["swing"], rel=0.05)
    assert fit.weekend(shared, "abilene") < traffic.WEEKEND < fit.weekend(shared, "germany50")
    pairs = [fit.gravity_residual(shared, name) for name in ("abilene", "geant")]
    assert pairs[0] - 0.02 < traffic.PAIR_SIGMA < pairs[1]
    wander = sorted(fit.wander(shared, name) for name in ("abilene", "geant"))
    assert wander[0] < traffic.WANDER_SIGMA < wander[1]


def test_services_resemble_the_subscriber_sample(shared: Path, network: DemoNetwork) -> None:
    real = fit.subscriber(shared)
    batch = model(network).records(NOON, TICK)
    tcp = batch["octets"][batch["protocol"] == 6].sum() / batch["octets"].sum()
    assert tcp == pytest.approx(real["tcp_share"], abs=0.06)
    packet = batch["octets"].sum() / batch["packets"].sum()
    assert packet == pytest.approx(real["octets_a_packet"], rel=0.15)
    sizes = np.log(batch["octets"][batch["destination_port"] == 443].astype(float))
    assert sizes.std() == pytest.approx(math.sqrt(traffic.SIZE_SIGMA), rel=0.1)
