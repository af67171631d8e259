"""Views: named group-bys that turn records into frames. Pure values, shared by all rooms."""

from typing import Literal

import msgspec

from telemetry.schema import Schema, plain
from telemetry.schemas import FRAME

Function = Literal["count", "sum", "min", "max", "mean", "m2", "distinct", "entropy", "top"]
# What a view looks at of the records, "" being all of them (correlator.suspects_kernels).
Where = Literal["", "probe", "login", "query", "vector", "contact", "upload", "bogon", "lone"]


class Measure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of a frame.

    `of` names fields of the source schema (several are taken together, as in distinct pairs);
    `weighted` says that values are multiplied by the record's sampling rate. `scored` measures
    get a baseline and detectors; the others are evidence and history.
    """

    name: str
    function: Function
    of: tuple[str, ...] = ()
    weighted: bool = False
    scored: bool = False
    unit: str = ""


class View(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named group-by of one record schema, with its tick and its caps.

    `key` names the key's parts in order: "exporter", "interface", "direction", "protocol",
    "port_class", "source_prefix", "destination_prefix". A tick [s, s + tick_seconds) closes when
    the arrival frontier reaches its end plus `lateness_seconds` (design section 5).

    A view with `where` looks at such records only, each whole in the tick of its export. A `sparse`
    one has rows only for keys that spoke in the tick: of its series, silence is no news. A key gets a
    row in a tick with `flows_min` flows; what never has so many stays in `__other__`.
    """

    name: str
    source: str = "flow"
    key: tuple[str, ...]
    measures: tuple[Measure, ...]
    tick_seconds: float = 60.0
    lateness_seconds: float = 30.0
    keys_per_tick_max: int = 65_536
    series_max: int = 65_536  # dense rows kept over time; eviction by last tick seen
    talkers: int = 0  # size of the priority sample kept as evidence for each tick
    talkers_by: Literal["octets", "flows"] = "octets"  # what weighs in that sample
    where: Where = ""
    sparse: bool = False
    flows_min: int = 0
    # A series silent for so long gives its row back; 0 = views.idle_seconds.
    idle_seconds: float = 0.0

    @property
    def tick_ns(self) -> int:
        """Length of a tick in ns."""
        return round(self.tick_seconds * 1e9)

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the measures that detectors look at."""
        return tuple(measure.name for measure in self.measures if measure.scored)


def frame_schema(view: View) -> Schema:
    """Return the schema of this view's frames: FRAME's columns, then one per measure.

    Counts and sums are uint64 totals over the tick (estimates: multiplied by the sampling rate
    where `weighted`); mean, m2, distinct and entropy are float64. `top` has no column: it is read
    through `runtime.ports.Evidence`.
    """
    integer = {"count", "sum", "min", "max"}
    return FRAME.wider(
        *(
            plain(m.name, "u8" if m.function in integer else "f8", m.unit)
            for m in view.measures
            if m.function != "top"
        )
    )


# Columns that detectors add for each scored measure, in this order, all float32 but the p-value.
SCORE_COLUMNS = ("expected", "lower", "upper", "score", "p_value")


def scored_schema(view: View) -> Schema:
    """Return the schema of this view's frames after detection: `octets_expected`, and so on."""
    return frame_schema(view).wider(
        *(
            plain(f"{name}_{column}", "f8" if column == "p_value" else "f4")
            for name in view.scored
            for column in SCORE_COLUMNS
        )
    )
