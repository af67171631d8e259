"""Rows of anomaly batches with their series resolved, and the words for what their samples hold."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from alerting.words.alert import read_json
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


def span(seconds: float) -> str:
    """Return a span as people say it.

    >>> span(240), span(9000), span(86400 * 3)
    ('4 min', '2 h', '3.0 days')
    """
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.1f} days"


def within(row: Row) -> str:
    """Return how long a row's tick is, as people say it: `5 s`, `a minute`, `60 min`."""
    if row.tick_seconds == 60.0:
        return "a minute"
    return f"{row.tick_seconds:.0f} s" if row.tick_seconds < 120 else span(row.tick_seconds)


def bits_text(rate: float) -> str:
    """Return a rate in bit/s as people say it.

    >>> bits_text(2.5e9), bits_text(800.0)
    ('2.5 Gbit/s', '800 bit/s')
    """
    for unit, size in (("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.0f} bit/s"


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
