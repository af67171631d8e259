"""Light that the demo carrier's link ends receive, sampled each minute; it fades where a fault says so."""

from collections.abc import Sequence

import numpy as np

from telemetry.batch import Batch, batch_from_rows
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import SAMPLE
from tocsin.demo.network import DemoNetwork
from tocsin.demo.traffic import Fault

METRIC = "optical_rx_power"
STEP_NS = 60_000_000_000
USUAL_DBM, SPREAD_DB, NOISE_DB = -9.0, 2.0, 0.05


class Optics:
    """Received power of every link end; random numbers depend on (seed, time) alone."""

    def __init__(self, network: DemoNetwork, faults: Sequence[Fault], *, seed: int) -> None:
        self._faults = [fault for fault in faults if fault.kind == "optical-degradation"]
        self._names = SeriesNames()
        self._seed = seed
        self._ends = [
            (f"{router}:{index}", link.name)
            for link in network.file.link
            for router, index in ((link.a, link.a_index), (link.b, link.b_index))
        ]
        random = np.random.default_rng([seed, 79])
        self._usual = USUAL_DBM + SPREAD_DB * random.random(len(self._ends))

    @property
    def needed(self) -> bool:
        """Whether any light fades: without, nothing is sampled."""
        return bool(self._faults)

    def batches(self, at_ns: int) -> list[Batch]:
        """Return the samples of one minute, with the names of series that are new."""
        random = np.random.default_rng([self._seed, 80, at_ns // STEP_NS])
        power = self._usual + NOISE_DB * random.standard_normal(len(self._ends))
        for fault in self._faults:
            done = (at_ns - fault.start_ns) / max(fault.end_ns - fault.start_ns, 1)
            for i, (_, link) in enumerate(self._ends):
                if link == fault.entity and done > 0.0:
                    power[i] -= fault.detail["fall_db"] * min(done, 1.0)
        rows = [
            {
                "time_ns": at_ns, "arrival_ns": at_ns, "value": float(value),
                "kind": SampleKind.GAUGE, "series_id": self._names.id(link, METRIC, {"end": end}),
            }
            for (end, link), value in zip(self._ends, power, strict=True)
        ]  # fmt: skip
        new = self._names.new()
        return [*([new] if new else []), batch_from_rows(SAMPLE, rows)]
