"""What the demo carrier's devices measure of themselves: light received at link ends, and how full disks are.

As SNMP polling says it (profiles optical and host), new each minute: simulated days take it as samples, in the
live demo the agents answer with it (tocsin.demo.snmp_speaker); where a fault says so, light fades
and a disk fills. Random numbers depend on (seed, time) alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Batch, batch_from_rows
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import SAMPLE
from tocsin.demo.network import DemoNetwork
from tocsin.demo.traffic import Fault

LIGHT, USED, SIZE = "optical_rx_power", "storage_used", "storage_size"
DISK = "/var"
STEP_NS = 60_000_000_000
DAY_NS = 86_400_000_000_000
USUAL_DBM, SPREAD_DB, NOISE_DB = -9.0, 2.0, 0.05
DISK_BYTES = 64e9
USUAL_SHARE, SPREAD_SHARE = 0.35, 0.25  # of a disk that is full
LOGS_SHARE = 0.02  # written in a day, taken away at midnight
NOISE_SHARE = 0.0005


class Conditions:
    """Light of every link end and the disk of every router, at any time."""

    def __init__(self, network: DemoNetwork, faults: Sequence[Fault], *, seed: int) -> None:
        self._fading = [fault for fault in faults if fault.kind == "optical-degradation"]
        self._filling = [fault for fault in faults if fault.kind == "disk-filling"]
        self._names = SeriesNames()
        self._seed = seed
        self._ends = [(face.router, face.name) for face in network.file.interface if face.link]
        self._routers = network.names
        random = np.random.default_rng([seed, 79])
        self._usual_dbm = USUAL_DBM + SPREAD_DB * random.random(len(self._ends))
        self._usual_share = USUAL_SHARE + SPREAD_SHARE * random.random(len(self._routers))

    def batches(self, at_ns: int) -> list[Batch]:
        """Return the samples of one minute, with the names of series that are new."""
        said = [
            (router, LIGHT, {"interface": name}, value)
            for (router, name), value in zip(self._ends, self.light(at_ns).tolist(), strict=True)
        ]
        for router, value in zip(self._routers, self.used(at_ns).tolist(), strict=True):
            said.append((router, USED, {"storage": DISK}, value))
            said.append((router, SIZE, {"storage": DISK}, DISK_BYTES))
        rows = [
            {
                "time_ns": at_ns, "arrival_ns": at_ns, "value": float(value),
                "kind": SampleKind.GAUGE, "series_id": self._names.id(router, metric, dimensions),
            }
            for router, metric, dimensions, value in said
        ]  # fmt: skip
        new = self._names.new()
        return [*([new] if new else []), batch_from_rows(SAMPLE, rows)]

    def light(self, at_ns: int) -> NDArray[np.float64]:
        """Return what each link end receives, in dBm."""
        random = np.random.default_rng([self._seed, 80, at_ns // STEP_NS])
        power = self._usual_dbm + NOISE_DB * random.standard_normal(len(self._ends))
        for fault in self._fading:
            end = self._ends.index((fault.detail["router"], fault.detail["interface"]))
            power[end] -= fault.detail["fall_db"] * _done(fault, at_ns)
        return power

    def light_of(self, at_ns: int) -> dict[str, dict[str, float]]:
        """Return the same by router and interface."""
        made: dict[str, dict[str, float]] = {name: {} for name in self._routers}
        for (router, face), power in zip(self._ends, self.light(at_ns).tolist(), strict=True):
            made[router][face] = power
        return made

    def used(self, at_ns: int) -> NDArray[np.float64]:
        """Return how many bytes of each disk are used; what filled one is taken away when that ends."""
        random = np.random.default_rng([self._seed, 81, at_ns // STEP_NS])
        share = self._usual_share + LOGS_SHARE * (at_ns % DAY_NS) / DAY_NS
        share = share + NOISE_SHARE * random.standard_normal(len(self._routers))
        for fault in self._filling:
            row = self._routers.index(fault.detail["router"])
            share[row] += (fault.detail["share_at_end"] - share[row]) * _done(fault, at_ns)
        return DISK_BYTES * np.minimum(share, 1.0)


def _done(fault: Fault, at_ns: int) -> float:
    """Return how far a fault has come, 0..1; 0 again when it is over: it was mended."""
    if not fault.active(at_ns):
        return 0.0
    return (at_ns - fault.start_ns) / (fault.end_ns - fault.start_ns)
