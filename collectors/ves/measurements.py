"""The numbers of VES measurement events as samples, whatever their place in the event.

Source: ONAP VES Event Listener 7.2.1, "measurementFields" and "perf3gppFields"; 5.4.1,
"measurementsForVfScalingFields".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors.foreign_text import clean
from telemetry.sample_series import SampleKind

# The list of a block: (what its metrics start with, the field that tells its members apart).
LISTS = {
    "codecUsageArray": ("codec", "codecIdentifier"),
    "cpuUsageArray": ("cpu", "cpuIdentifier"),
    "diskUsageArray": ("disk", "diskIdentifier"),
    "featureUsageArray": ("feature", "featureIdentifier"),
    "filesystemUsageArray": ("filesystem", "filesystemName"),
    "hugePagesArray": ("huge_pages", "hugePagesIdentifier"),
    "latencyDistribution": ("latency", ""),
    "loadArray": ("load", ""),
    "machineCheckExceptionArray": ("machine_check", "vmIdentifier"),
    "memoryUsageArray": ("memory", "vmIdentifier"),
    "nicPerformanceArray": ("nic", "nicIdentifier"),
    "vNicPerformanceArray": ("nic", "vNicIdentifier"),
    "vNicUsageArray": ("nic", "vNicIdentifier"),
    "processStatsArray": ("process", "processIdentifier"),
    "ipmiBaseboardTemperatureArray": ("ipmi", "baseboardTemperatureIdentifier"),
    "ipmiBaseboardVoltageRegulatorArray": ("ipmi", "baseboardVoltageRegulatorIdentifier"),
    "ipmiBatteryArray": ("ipmi", "batteryIdentifier"),
    "ipmiFanArray": ("ipmi", "fanIdentifier"),
    "ipmiGlobalAggregateTemperatureMarginArray": ("ipmi", "globalAggregateTemperatureMarginIdentifier"),
    "ipmiHsbpArray": ("ipmi", "hsbpIdentifier"),
    "ipmiNicArray": ("ipmi", "nicIdentifier"),
    "ipmiPowerSupplyArray": ("ipmi", "powerSupplyIdentifier"),
    "ipmiProcessorArray": ("ipmi", "processorIdentifier"),
    "processorDimmAggregateThermalMarginArray": ("ipmi", "processorDimmAggregateThermalMarginIdentifier"),
}  # fmt: skip
NO_METRIC = ("measurementInterval", "measurementFieldsVersion", "measurementsForVfScalingVersion",
             "measurementsForVfScalingFieldsVersion", "measurementsForVfSclaingFieldsVersion",
             "lowEndOfLatencyBucket", "highEndOfLatencyBucket")  # fmt: skip
# The unit by the first pattern that a metric's name shows. Memory is in kibibytes since 5.0.
UNITS = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        (r"percent|demand_pct|utilization|cpu_(idle|usage|wait)", "%"),
        (r"demand_mhz", "MHz"),
        (r"^memory_", "KiBy"),
        (r"octets|^huge_pages_bytes", "By"),
        (r"packets", "{packet}"),
        (r"temperature", "Cel"),
        (r"fan_speed", "{rpm}"),
        (r"voltage", "V"),
        (r"input_power", "W"),
        (r"mean_request_latency", "s"),
        (r"request_rate", "/s"),
        (r"disk_.*(latency|time)", "ms"),
        (r"filesystem_block_(configured|used)|filesystem_ephemeral_(configured|used)", "GiBy"),
    )
)


@dataclass(slots=True)
class Measured:
    """The numbers of one event: all of one entity and one time."""

    entity: str
    time_ns: int
    interval_seconds: float
    values: list[tuple[str, str, dict[str, str], float, SampleKind, str]] = field(
        default_factory=list
    )
    # entity below it ("" = itself), metric, dimensions, value, kind, unit
    keep_suspect: bool = False
    suspect: int = 0  # values that their sender does not trust: not among the values
    not_numeric: int = 0


def measured(
    header: Mapping[str, Any], block: Mapping[str, Any], time_ns: int, *, keep_suspect: bool = False
) -> Measured:
    """Return the numbers of a measurement event of 5.x or 7.x."""
    made = Measured(
        clean(header["sourceName"], 255),
        time_ns,
        float(block["measurementInterval"]),
        keep_suspect=keep_suspect,
    )
    _walk(block, "", {}, made)
    for group, name, text in _named_texts(block):
        number = numeric(text)
        if number is None:
            made.not_numeric += 1
        else:
            made.values.append(("", snake(name), {"group": group}, number, SampleKind.GAUGE, ""))
    for thing in block.get("additionalObjects", ()):
        _object(thing, {}, made)
    return made


def _walk(block: Mapping[str, Any], prefix: str, where: dict[str, str], made: Measured) -> None:
    """Add every number at any depth; a list is told apart by the field that `LISTS` names."""
    if block.get("valuesAreSuspect") == "true" and not made.keep_suspect:
        made.suspect += sum(numeric(value) is not None for value in block.values())
        return
    for name, value in block.items():
        if name in LISTS and isinstance(value, list):
            below, key = LISTS[name]
            for place, item in enumerate(value):
                label = item.get(key) if key else _bucket(item, place)
                _walk(item, below, {**where, below: clean(label, 255)}, made)
        elif name in NO_METRIC or name.startswith("additional"):
            continue
        elif name == "featureUsageArray" and isinstance(value, dict):
            for feature, use in value.items():
                _add(made, "feature_utilization", {**where, "feature": clean(feature)}, use)
        elif isinstance(value, dict):
            _walk(value, "ipmi" if name == "ipmi" else prefix, where, made)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            metric = snake(name)
            joined = metric if not prefix or metric.startswith(prefix) else f"{prefix}_{metric}"
            _add(made, joined, where, value)


def _bucket(item: Mapping[str, Any], place: int) -> str:
    low, high = (item.get(f"{end}EndOfLatencyBucket") for end in ("low", "high"))
    return str(place) if low is None and high is None else f"{low or 0}-{high or 'more'}"


def _add(made: Measured, metric: str, where: dict[str, str], value: object) -> None:
    number = numeric(value)
    if number is None:
        made.not_numeric += 1
        return
    if metric.endswith("_delta"):
        kind, metric = SampleKind.DELTA, metric.removesuffix("_delta")
    elif metric.endswith("_accumulated"):
        kind = SampleKind.COUNTER
    else:
        kind = SampleKind.GAUGE
    unit = next((unit for pattern, unit in UNITS if pattern.search(metric)), "1")
    made.values.append(("", metric, where, number, kind, unit))


def _named_texts(block: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (group, name, text) of additional measurements: 7.x maps, 5.x lists of pairs."""
    for group in block.get("additionalMeasurements", ()):
        label = clean(group.get("name"), 255)
        for name, text in group.get("hashMap", {}).items():
            yield label, clean(name, 255), text
        for pair in group.get("arrayOfFields", ()):
            if isinstance(pair, dict):
                yield label, clean(pair.get("name"), 255), pair.get("value", "")


def _object(thing: Mapping[str, Any], where: dict[str, str], made: Measured) -> None:
    """Add the numbers of a jsonObject: its instances are told apart by their keys."""
    name = snake(clean(thing.get("objectName"), 255))
    for instance in thing.get("objectInstances", ()):
        keys = {
            snake(clean(key.get("keyName"), 255)): clean(key.get("keyValue"), 255)
            for key in instance.get("objectKeys", ())
        }
        values = instance.get("objectInstance", {})
        for field_name, value in values.items() if isinstance(values, dict) else ():
            if (number := numeric(value)) is not None:
                metric = f"{name}_{snake(field_name)}"
                made.values.append(("", metric, {**where, **keys}, number, SampleKind.GAUGE, ""))
        if isinstance(below := instance.get("jsonObject"), dict):
            _object(below, {**where, **keys}, made)


def measured_3gpp(
    header: Mapping[str, Any], block: Mapping[str, Any], time_ns: int, *, keep_suspect: bool = False
) -> Measured:
    """Return the numbers of a perf3gpp event (TS 28.532 measurement report)."""
    entity = clean(block["measuredEntityDn"], 255) or clean(header["sourceName"], 255)
    made = Measured(entity, time_ns, float(block["granularityPeriod"]), keep_suspect=keep_suspect)
    for info in block["measInfoList"]:
        types = info["measTypes"]
        names = types.get("sMeasTypesList") or types.get("iMeasTypesList") or []
        for entry in info["measValuesList"]:
            results = entry["measResults"]
            if entry.get("suspectFlag") == "true" and not keep_suspect:
                made.suspect += len(results)
                continue
            for result in results:
                place = result.get("p", 0)
                number = numeric(
                    next((result[k] for k in ("iValue", "rValue", "sValue") if k in result), None)
                )
                if number is None or not (isinstance(place, int) and 1 <= place <= len(names)):
                    made.not_numeric += 1
                    continue
                made.values.append(
                    (
                        clean(entry["measObjInstId"], 255),
                        clean(names[place - 1], 255),
                        {},
                        number,
                        SampleKind.GAUGE,
                        "",
                    )
                )
    return made


def measured_stream(header: Mapping[str, Any], data: Mapping[str, Any], time_ns: int) -> Measured:
    """Return the numbers of an O-RAN measurement job that streams through stndDefined events."""
    interval = numeric(data.get("granularity-period")) or 0.0
    made = Measured(clean(header["sourceName"], 255), time_ns, interval)
    for entry in data["measurements"]:
        number = numeric(entry.get("value")) if isinstance(entry, dict) else None
        if number is None:
            made.not_numeric += 1
            continue
        reference = clean(entry.get("measurement-type-instance-reference"), 500)
        thing, _, metric = reference.rpartition("/")
        made.values.append(
            (
                thing.strip("/"),
                metric or reference,
                {},
                number,
                SampleKind.GAUGE,
                clean(entry.get("unit"), 20),
            )
        )
    return made


def numeric(value: object) -> float | None:
    """Return a finite number, also from text, None where there is none.

    >>> numeric("61.5"), numeric(3), numeric(True), numeric("n/a"), numeric("nan")
    (61.5, 3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        made = float(value)
    except (ValueError, OverflowError):
        return None
    return made if abs(made) < float("inf") else None


def snake(name: str) -> str:
    """Return a name of the format as our metrics are called.

    >>> snake("receivedTotalPacketsDelta"), snake("cpuDemandMhz"), snake("G729AudioPort")
    ('received_total_packets_delta', 'cpu_demand_mhz', 'g729_audio_port')
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^A-Za-z0-9]+", "_", parted).strip("_").lower()
