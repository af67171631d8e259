"""Slow faults of the demo carrier through the whole chain: predicted before they hurt.

Six simulated hours, DEEP=1 only. Capacity, light, disk and leak over simulated days, stage by stage, are in
tests/unit/detectors/test_prediction.py. The carrier's leak is too noisy for a forecast of its prefix (a few
flows a second); it is told by its own rule (`slow-leak`).
"""

from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.config import ForecastSettings, LimitSettings, ProbationSettings
from tocsin.config import Config
from tocsin.demo.faults import slow
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import demo_config
from tocsin.demo.simulate import START_NS, run_days
from tocsin.demo.traffic import SAMPLING_RATE, TrafficModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECOND = 1_000_000_000
RECORDS_PER_SECOND = 1200.0


def usual_out(interface: tuple[str, int], at_ns: int) -> float:
    """Octets a second that leave by a customer's interface in peace."""
    network = load_demo_network()
    model = TrafficModel(network, seed=7, records_per_second=RECORDS_PER_SECOND)
    batch = model.records(at_ns, 600 * SECOND)
    router = network.address_low[network.row[interface[0]]]
    mine = (batch["exporter_address_low"] == router) & (batch["egress_interface"] == interface[1])
    return float(batch["octets"][mine].astype(np.float64).sum()) * SAMPLING_RATE / 600.0


def config(limit: LimitSettings) -> Config:
    made = demo_config()
    limits = {
        "optics": LimitSettings(view="sample", metric="optical_rx_power", below=-14.0),
        "contract": limit,
    }
    detection = msgspec.structs.replace(
        made.detection, probation=ProbationSettings(mode="off"),
        forecast=ForecastSettings(limits=limits, false_predictions_per_day=5.0),
    )  # fmt: skip
    return msgspec.structs.replace(made, detection=detection)


def test_a_full_interface_and_fading_light_are_predicted_before_they_hurt(deep: bool) -> None:
    if not deep:
        pytest.skip("six simulated hours: DEEP=1")
    network = load_demo_network()
    start_ns = START_NS + 3 * 3600 * SECOND
    faults = slow(network, start_ns=start_ns, seed=7)
    by_kind = {fault.kind: fault for fault in faults}
    full = by_kind["capacity-breach"]
    interface = tuple(full.detail["interface"])
    most = usual_out(interface, start_ns) * (1.0 + 0.7 * full.detail["factor_at_end"])
    limit = LimitSettings(view="interface", measure="octets", entity=full.entity, above=most)
    _, alerts = run_days(
        days=1, seed=7, records_per_second=RECORDS_PER_SECOND, hours=6.0, faults=faults,
        config=config(limit), learned_days=4,
    )  # fmt: skip
    told: dict[str, list[Any]] = {}
    for alert in alerts:
        if alert["kind"] == "predicted" and alert["state"] == "raised":
            told.setdefault(alert["explain"]["forecast"]["limit"], []).append(alert)
    words = [f"{a['changed_ns']} {a['title']}" for group in told.values() for a in group]
    hurts = (("optics", "optical-degradation", 0.8), ("contract", "capacity-breach", 0.7))
    for name, kind, share in hurts:
        fault = by_kind[kind]
        hurts_ns = fault.start_ns + round(share * (fault.end_ns - fault.start_ns))
        ours = [a for a in told.get(name, []) if _is_about(a, fault)]
        assert ours, f"{kind} was not predicted: {words}"
        lead = (hurts_ns - ours[0]["changed_ns"]) / 60e9
        assert fault.start_ns < ours[0]["changed_ns"], words
        assert lead >= 10.0, f"{kind} told {lead:.0f} minutes before it hurt: {words}"
    false = [
        a for group in told.values() for a in group if not any(_is_about(a, f) for f in faults)
    ]
    assert len(false) <= 1, [a["title"] for a in false]


def _is_about(alert: dict[str, Any], fault: Any) -> bool:
    names = (fault.entity, *fault.affects)
    return any(alert["entity"] == name or alert["entity"].startswith(f"{name} ") for name in names)
