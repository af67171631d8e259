"""What the demo's devices measure of themselves: steady but for the faults."""

import numpy as np

from tocsin.demo.conditions import DISK_BYTES, STEP_NS, Conditions
from tocsin.demo.faults import make_fault
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import SAMPLING_RATE, Fault, TrafficModel

SECOND = 1_000_000_000
START = 1_790_553_600 * SECOND
NETWORK = load_demo_network()


def fault(kind: str, seed: int = 3) -> Fault:
    return make_fault(NETWORK, kind, np.random.default_rng(seed), START, 7200.0)


def test_light_fades_at_one_end_alone_and_is_back_when_mended() -> None:
    fading = fault("optical-degradation")
    conditions = Conditions(NETWORK, [fading], seed=1)
    before, last, after = (
        conditions.light(at) for at in (START - STEP_NS, fading.end_ns - SECOND, fading.end_ns)
    )
    fell = before - last
    assert np.count_nonzero(fell > 1.0) == 1
    assert fell.max() > 0.95 * fading.detail["fall_db"] - 0.5
    assert last.min() < -14.0, "beyond the demo's limit"
    assert np.abs(after - before).max() < 0.5


def test_a_disk_fills_beyond_the_limit_that_ships() -> None:
    filling = fault("disk-filling")
    conditions = Conditions(NETWORK, [filling], seed=1)
    row = NETWORK.names.index(filling.detail["router"])
    before, last = (conditions.used(at) for at in (START - STEP_NS, filling.end_ns - SECOND))
    assert before.max() < 0.7 * DISK_BYTES
    assert last[row] > 0.95 * DISK_BYTES
    assert np.count_nonzero(last > 0.7 * DISK_BYTES) == 1


def test_a_sample_has_the_name_that_polling_gives_it() -> None:
    names, samples = Conditions(NETWORK, [], seed=1).batches(START)
    ends = 2 * len(NETWORK.file.link)
    assert samples.rows == ends + 2 * len(NETWORK.names)
    assert {"ams1 et-0/0/1", "ams1 /var"} <= set(names.texts("entity"))
    assert len(Conditions(NETWORK, [], seed=1).batches(START + STEP_NS)) == 2


def test_a_customers_interface_fills_beyond_its_speed() -> None:
    full = fault("capacity-breach", seed=8)
    model = TrafficModel(NETWORK, seed=1, faults=(full,), records_per_second=2000.0)
    row = NETWORK.prefix_text.index(full.detail["prefix"])
    router, index = NETWORK.prefix_router[row], NETWORK.prefix_interface[row]
    face = next(
        one for one in NETWORK.file.interface
        if (one.router, one.index) == (NETWORK.names[router], index)
    )  # fmt: skip

    def used(at: int) -> float:
        batch = model.records(at, 60 * SECOND)
        mine = (batch["exporter_address_low"] == NETWORK.address_low[router]) & (
            batch["egress_interface"] == index
        )
        octets = float(batch["octets"][mine].astype(np.float64).sum())
        return octets * SAMPLING_RATE / 60.0 * 8 / face.speed

    assert used(START + 60 * SECOND) < 0.6
    assert used(full.end_ns - 60 * SECOND) > 0.9
