"""Rows of anomaly batches with their series resolved, and the words for what their samples hold."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from alerting.records.alarm import SAMPLED
from alerting.words.alert import read_json
from alerting.words.amounts import amount, span
from runtime.ports import SeriesDirectory, SeriesKey, Talker
from telemetry.batch import Batch

TEXTS = ("view", "measure", "detector", "disposition", "detail")
NUMBERS = (
    "tick_start_ns", "tick_seconds", "actual", "expected", "lower", "upper", "score", "p_value",
    "since_ns",
)  # fmt: skip
SETTLED_S = 604_800  # of a baseline: older is no news


class Row(msgspec.Struct, frozen=True):
    """One row of an anomaly batch, with its series resolved."""

    tick_start_ns: int
    tick_seconds: float
    view: str
    key: SeriesKey
    measure: str
    detector: str
    disposition: str
    actual: float
    expected: float
    lower: float
    upper: float
    score: float
    p_value: float
    since_ns: int
    detail: dict[str, Any]


def age_words(row: Row) -> list[str]:
    """Return the evidence how young the baseline behind a row is, none once it is a week old."""
    age_s = row.detail.get("baseline_s", SETTLED_S)
    return [f"its baseline is {span(age_s)} old"] if age_s < SETTLED_S else []


# Of the measures that views have, as alerts carry them.
UNITS = {
    "octets": "By/s", "packets": "{packet}/s", "flows": "{flow}/s", "records": "{record}/s",
    "distinct_source": "{source}", "distinct_destination": "{destination}",
}  # fmt: skip


def unit_of(row: Row) -> str:
    """Return the unit of a row's values, as alerts carry it."""
    return row.key.unit if row.view in SAMPLED else UNITS.get(row.measure, "1/s")


def measured(row: Row, entity: str = "") -> str:
    """Return what a row's values are of: `traffic of ams1:et-0/0/3 out`, `optical_rx_power of ams1 et-0`."""
    what = {"octets": "traffic"}.get(row.measure, row.measure.replace("_", " "))
    if row.view in SAMPLED:  # its one measure is called after the metric
        what = row.key.key.get("metric", what)
    direction = "" if entity else row.key.key.get("direction", "")
    return f"{what} of {entity or row.key.entity} {direction}".rstrip()


def silent_for(row: Row) -> str:
    """Return for how long a silent series has shown nothing, as people say it."""
    return span(float(row.detail.get("ticks", 0)) * row.tick_seconds)


def within(row: Row) -> str:
    """Return how long a row's tick is, as people say it: `5 s`, `a minute`, `60 min`."""
    return "a minute" if row.tick_seconds == 60.0 else span(row.tick_seconds)


def bits_text(rate: float) -> str:
    """Return a rate in bit/s as people say it.

    >>> bits_text(2.5e9), bits_text(800.0)
    ('2.5 Gbit/s', '800 bit/s')
    """
    return amount(rate / 8, "By/s")


def rows_of(anomalies: Batch, directory: SeriesDirectory) -> list[Row]:
    """Return the rows of an anomaly batch; a series that nobody knows any more is left out."""
    texts = zip(*(anomalies.texts(name) for name in TEXTS), strict=True)
    numbers = zip(*(anomalies[name].tolist() for name in NUMBERS), strict=True)
    made = []
    for series_id, words, values in zip(
        anomalies["series_id"].tolist(), texts, numbers, strict=True
    ):
        key = directory.key(series_id)
        if key is not None:
            start_ns, seconds, actual, expected, lower, upper, score, p_value, since_ns = values
            view, measure, detector, disposition, detail = words
            made.append(
                Row(
                    start_ns, seconds, view, key, measure, detector, disposition, actual, expected, lower,
                    upper, score, p_value, since_ns,
                    read_json(detail),
                )
            )  # fmt: skip
    return made


@lru_cache(16_384)  # 4 MB
def prefix_of(host: str) -> str:
    """Return the /24 or /48 of an address, as prefix views name it."""
    length = 48 if ":" in host else 24
    return str(ipaddress.ip_network(f"{host}/{length}", strict=False))


def talker_row(t: Talker) -> dict[str, Any]:
    """Return a sampled record as an explain block has it."""
    return {
        "source": t.source,
        "destination": t.destination,
        "protocol": t.protocol,
        "source_port": t.source_port,
        "destination_port": t.destination_port,
        "exporter": t.exporter,
        "ingress_interface": t.ingress_interface,
        "egress_interface": t.egress_interface,
        "octets": t.octets,
        "packets": t.packets,
    }


def shares(talkers: Sequence[Talker], of: Callable[[Talker], str], *, least: float = 0.0) -> str:
    """Return the names that most records of a sample have, each with its share, if at least `least`."""
    counts = Counter(of(t) for t in talkers)
    named = (name for name in counts if counts[name] >= least * len(talkers))
    ranked = sorted(named, key=lambda name: (-counts[name], name))
    return some([f"{name} ({counts[name] / len(talkers):.0%})" for name in ranked[:4]])


def some(names: Sequence[str]) -> str:
    """Return the first names, and whether there are more."""
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
