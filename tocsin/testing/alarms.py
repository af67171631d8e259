"""A small network and a stage to play anomalies to: for tests of alerting, ours and others'."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alerting.config import AlertingSettings
from alerting.stage import AlertingStage
from alerting.words.alert import Alert
from alerting.words.alerts import alerts_of, notices_of
from correlator.tables.network_map import (
    FileNetworkMap,
    InterfaceEntry,
    LinkEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
)
from correlator.views import views_for
from runtime.ports import SeriesKey, Talker
from telemetry.batch import Batch, batch_from_rows
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import stable_id
from telemetry.schemas import ALARM, ANOMALY, FrameFlag
from telemetry.views import frame_schema
from tocsin.control import control_row
from tocsin.testing import make_context

TICK_NS = 5_000_000_000
START_NS = 1_700_000_000_000_000_000 // TICK_NS * TICK_NS
LINKS = ("ams1-fra2", "ams1-lon1", "fra2-lon1")
ROUTERS = ("ams1", "fra2", "lon1")


def small_network() -> FileNetworkMap:
    """Return three routers in a triangle; interface i of a router leads to the i-th other one.

    The first router and the first link have an owner.
    """
    links, faces = [], []
    free = dict.fromkeys(ROUTERS, 1)
    for name in LINKS:
        a, b = name.split("-")
        owner = "transmission" if name == LINKS[0] else ""
        links.append(LinkEntry(name=name, a=a, a_index=free[a], b=b, b_index=free[b], owner=owner))
        for router in (a, b):
            index = free[router]
            faces.append(
                InterfaceEntry(router=router, index=index, name=f"et-0/0/{index}", link=name)
            )
            free[router] += 1
    return FileNetworkMap(
        NetworkFile(
            router=[
                RouterEntry(name=n, address=f"127.1.0.{i + 1}", owner="" if i else "core team")
                for i, n in enumerate(ROUTERS)
            ],
            interface=faces,
            link=links,
            prefix=[PrefixEntry(prefix="198.51.100.0/24", router="ams1", customer="acme")],
        )
    )


@dataclass
class AlarmWorld:
    """Plays ticks of anomalies to a stage. It is the stage's directory and evidence as well."""

    settings: AlertingSettings = field(default_factory=AlertingSettings)
    network: FileNetworkMap = field(default_factory=small_network)
    now_ns: int = START_NS

    def __post_init__(self) -> None:
        self._keys: dict[int, SeriesKey] = {}
        self.samples: dict[int, tuple[Talker, ...]] = {}
        self.context = make_context("alerting")
        self.stage = self.make_stage()

    def make_stage(self) -> AlertingStage:
        """Return a fresh stage on the same world."""
        return AlertingStage(
            self.settings, self.context, network=self.network, directory=self, evidence=self
        )

    # ---- ports

    def key(self, series_id: int) -> SeriesKey | None:
        """Return the key of a series made by `series` (ports.SeriesDirectory)."""
        return self._keys.get(series_id)

    def talkers(
        self,
        series_id: int,
        tick_start_ns: int,  # noqa: ARG002  # the port's
        limit: int = 10,
    ) -> tuple[Talker, ...]:
        """Return the sample that a test put in `samples` (ports.Evidence)."""
        return self.samples.get(series_id, ())[:limit]

    # ---- making things up

    def series(self, view: str, **key: str) -> int:
        """Return the id of a series, known to the directory from now on."""
        entity = next(iter(key.values()))
        if "exporter" in key:
            router = entity = self.network.router_of(key["exporter"])
            if "interface" in key:
                face = self.network.interface(router, int(key["interface"]))
                entity = f"{router}:{face.name if face else key['interface']}"
        elif view == "service":
            entity = f"{key['protocol']}/{key['port_class']}"
        text = ",".join(f"{name}={value}" for name, value in key.items())
        made = SeriesKey(stable_id(f"{view}|{text}"), stable_id(entity), view, entity, key)
        self._keys[made.series_id] = made
        return made.series_id

    def interface(self, router: str, index: int, direction: str = "out") -> int:
        """Return the id of an interface's series."""
        exporter = self.network.address_of(router)
        return self.series(
            "interface", exporter=exporter, interface=str(index), direction=direction
        )

    def ends(self, link: str) -> list[int]:
        """Return the ids of the four series of a link: both ends, both directions."""
        found = self.network.link(link)
        assert found is not None
        return [self.interface(r, i, way) for r, i in found.ends for way in ("in", "out")]

    def anomaly(self, series_id: int, detector: str, **fields: Any) -> dict[str, Any]:
        """Return one anomaly row; what is not given is as in a strong, budgeted finding."""
        detail = fields.pop("detail", {})
        return {
            "tick_start_ns": self.now_ns,
            "tick_seconds": TICK_NS / 1e9,
            "view": self._keys[series_id].view,
            "series_id": series_id,
            "measure": "octets",
            "detector": detector,
            "disposition": "alert",
            "actual": 900.0,
            "expected": 100.0,
            "lower": 80.0,
            "upper": 120.0,
            "score": 4.0,
            "p_value": 1e-9,
            "since_ns": self.now_ns,
            "detail": json.dumps(detail),
        } | fields

    def silence(self, series_id: int, *, ticks: int = 2) -> dict[str, Any]:
        """Return the hard finding that a series fell silent."""
        detector = "exporter_silent" if self._keys[series_id].view == "exporter" else "silence"
        measure = "records" if detector == "exporter_silent" else "flows"
        return self.anomaly(
            series_id, detector, measure=measure, disposition="hard", actual=0.0, expected=40.0,
            detail={"ticks": ticks},
        )  # fmt: skip

    def frame(
        self, flows: dict[int, int], *, view: str = "interface", incomplete: bool = False
    ) -> Batch:
        """Return a frame of a view with these flow counts by series."""
        flags = FrameFlag.INCOMPLETE if incomplete else 0
        rows = [
            {
                "tick_start_ns": self.now_ns, "tick_seconds": TICK_NS / 1e9, "view": view,
                "series_id": series_id, "row": i + 1, "flags": flags, "flows": count,
                "octets": count * 1000, "packets": count * 2, "records": count,
            }
            for i, (series_id, count) in enumerate(flows.items())
        ]  # fmt: skip
        found = next(v for v in views_for(tick_seconds=5.0) if v.name == view)
        names = set(frame_schema(found).names())
        return batch_from_rows(
            frame_schema(found), [{k: v for k, v in row.items() if k in names} for row in rows]
        )

    def tick(
        self, rows: Iterable[dict[str, Any]] = (), *, frames: Sequence[Batch] = ()
    ) -> list[Alert]:
        """Play one tick and return the alerts that came of it."""
        return [a for batch in self.batches(rows, frames=frames) for a in _alerts(batch)]

    def batches(
        self, rows: Iterable[dict[str, Any]] = (), *, frames: Sequence[Batch] = ()
    ) -> list[Batch]:
        """Play one tick and return all batches that came of it."""
        for frame in frames:
            self.stage.process(frame)
        given = list(rows)
        if given:
            self.stage.process(batch_from_rows(ANOMALY, given))
        self.now_ns += TICK_NS
        return list(self.stage.advance(self.now_ns))

    def report(
        self,
        kind: str,
        entity: str,
        severity: str = "major",
        *,
        source: str = "traps",
        **fields: Any,
    ) -> dict[str, Any]:
        """Return one report of a foreign alarm; severity "cleared" ends it."""
        title = fields.pop("title", f"{kind} on {entity}")
        return alarm_row(
            source=source, kind=kind, entity=entity, severity=severity, changed_ns=self.now_ns,
            title=title, **fields,
        )  # fmt: skip

    def act(self, kind: str, **payload: Any) -> Batch:
        """Return one action of an operator."""
        return control_row(kind, self.now_ns, payload)

    def second(self, *given: dict[str, Any] | Batch, seconds: float = 1.0) -> list[Batch]:
        """Play an event tick: reports and actions, no frames; return what came of it."""
        rows = [one for one in given if isinstance(one, dict)]
        if rows:
            self.stage.process(batch_from_rows(ALARM, rows))
        for one in given:
            if isinstance(one, Batch):
                self.stage.process(one)
        self.now_ns += round(seconds * 1e9)
        return list(self.stage.event(self.now_ns))

    def told(self, *given: dict[str, Any] | Batch, seconds: float = 1.0) -> list[Alert]:
        """Play an event tick and return the alarm changes of it."""
        return [a for b in self.second(*given, seconds=seconds) for a in _alerts(b)]

    def notices(self, *given: dict[str, Any] | Batch, seconds: float = 1.0) -> list[Alert]:
        """Play an event tick and return what people are told: changes of incidents."""
        made = self.second(*given, seconds=seconds)
        return [a for b in made if b.schema.name == "incident" for a in notices_of(b)]


def _alerts(batch: Batch) -> list[Alert]:
    return alerts_of(batch) if batch.schema.name == "alarm" else []


ORDINARY = Talker(
    source="203.0.113.5",
    destination="198.51.100.7",
    protocol=6,
    source_port=443,
    destination_port=50123,
    exporter="127.1.0.1",
    ingress_interface=1,
    egress_interface=100,
    tcp_flags=0x1B,
    octets=100_000,
    packets=90,
)


def talker(**fields: Any) -> Talker:
    """Return a sampled record: an ordinary download unless told otherwise."""
    return replace(ORDINARY, **fields)


def flood(count: int = 40, **fields: Any) -> tuple[Talker, ...]:
    """Return the sample of a DNS amplification to 198.51.100.7 unless told otherwise."""
    return tuple(
        talker(
            **{"source": f"203.0.113.{i + 1}", "protocol": 17, "source_port": 53,
               "octets": 1_400_000, "packets": 1000, "tcp_flags": 0} | fields
        )
        for i in range(count)
    )  # fmt: skip
