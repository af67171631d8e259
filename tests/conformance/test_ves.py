"""VES events of ONAP and O-RAN: accepted and refused as the published schema says, and read whole."""

import copy
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest

from collectors.ves.events import Reading, read_event
from collectors.ves.fields import fault_of
from tests.support.source_world import START_NS

SCHEMAS = {
    5: "captures/ves_schema/onap-ves-collector/CommonEventFormat_28.4.1.json",
    7: "captures/ves_schema/onap-ves-collector/CommonEventFormat_30.2.1_ONAP.json",
}
# Our own words for what the schema allows (the first) or leaves open (the others).
LENIENT = "vesEventListenerVersion"


def is_address(kind: type) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            return bool(kind(text))
        except ValueError:
            return False

    return check


@pytest.fixture(scope="module")
def accepts(shared: Path) -> Callable[[Any, int], bool]:
    compiled = {
        major: fastjsonschema.compile(
            json.loads((shared / path).read_text()),
            formats={
                "ipv4": is_address(IPv4Address),
                "ipv6": is_address(IPv6Address),
                "uri": lambda text: True,  # a reference that we do not follow
            },
            use_default=False,
        )
        for major, path in SCHEMAS.items()
    }

    def check(event: Any, major: int) -> bool:
        try:
            compiled[major]({"event": event})
        except fastjsonschema.JsonSchemaException:
            return False
        return True

    return check


def documents(shared: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every event that is JSON, with the name of its file."""
    made = []
    for folder in ("captures/ves", "specs/onap/samples"):
        for path in sorted((shared / folder).rglob("*")):
            if not path.is_file():
                continue
            try:
                body = json.loads(path.read_text())
            except ValueError:
                continue  # templates with marks in place of numbers
            made += [(path.name, event) for event in body.get("eventList", [])]
            made += [(path.name, body["event"])] if "event" in body else []
    return made


def major_of(event: dict[str, Any]) -> int:
    return 7 if "vesEventListenerVersion" in event["commonEventHeader"] else 5


def test_verdicts_are_those_of_the_published_schema(
    shared: Path, accepts: Callable[[Any, int], bool]
) -> None:
    found = documents(shared)
    assert len(found) >= 35
    verdicts = {}
    for name, event in found:
        major = major_of(event)
        fault = fault_of(event, major)
        verdicts[name] = fault
        if "missing in an event of domain" in fault:  # what the schema leaves open
            assert accepts(event, major), name
        else:
            assert accepts(event, major) == (fault == ""), (name, fault)
    assert verdicts["ves7_invalid_30_1_1_event.json"].startswith(
        "commonEventHeader.vesEventListenerVersion: '30.0.1' is not one of 7.0"
    )
    assert verdicts["ves_stdnDefined_missing_namespace_invalid.json"] == (
        "commonEventHeader.stndDefinedNamespace: missing in an event of domain stndDefined"
    )


def mutate(event: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Drop, add, or change something somewhere."""
    made = copy.deepcopy(event)
    spots: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            if key in (
                LENIENT,
                "data",
                "measTypes",
                "measResults",
                "measInfoId",
                "internalHeaderFields",
            ):
                continue
            spots.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(made)
    value, key = spots[int(random.integers(len(spots)))]
    match int(random.integers(3)):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value["strange"] = "x"
        case _:
            wrong = ({}, [], "x", 1, 1.5, None, True, [1], {"a": 1}, "Urgent", -7)
            value[key] = wrong[int(random.integers(len(wrong)))]
    return made


def test_verdicts_on_mutants_are_those_of_the_published_schema(
    shared: Path, accepts: Callable[[Any, int], bool], deep: bool
) -> None:
    random = np.random.default_rng(11)
    events = [event for _, event in documents(shared) if not fault_of(event, major_of(event))]
    refused = 0
    for i in range(100_000 if deep else 2_000):
        event = mutate(events[i % len(events)], random)
        major = major_of(events[i % len(events)])
        fault = fault_of(event, major)
        if "missing in an event of domain" not in fault:
            assert accepts(event, major) == (fault == ""), (fault, event)
        refused += fault != ""
        if not fault:
            read_event(event, Reading(), START_NS)
    assert refused > 100


def read(shared: Path, name: str, **how: bool) -> Reading:
    event = next(event for file, event in documents(shared) if file == name)
    out = Reading(**how)
    read_event(event, out, START_NS)
    return out


def test_every_accepted_event_is_read_as_what_it_is(shared: Path) -> None:
    kinds: dict[str, set[str]] = {}
    for _, event in documents(shared):
        if fault_of(event, major_of(event)):
            continue
        out = Reading()
        read_event(event, out, START_NS)
        said = {name for name in ("alarms", "logs", "measured", "heartbeats") if getattr(out, name)}
        assert len(said) == 1
        kinds.setdefault(event["commonEventHeader"]["domain"], set()).update(said)
    assert kinds["fault"] == {"alarms"}
    assert kinds["measurement"] == kinds["measurementsForVfScaling"] == {"measured"}
    assert kinds["stndDefined"] == {"alarms", "heartbeats", "logs"}
    assert kinds["notification"] == kinds["pnfRegistration"] == {"logs"}


def test_a_fault(shared: Path) -> None:
    (alarm,) = read(shared, "ves7_valid.json").alarms
    assert (alarm.entity, alarm.kind, alarm.severity) == (
        "scfx0001vm002cap001", "PilotNumberPoolExhaustion", "critical",
    )  # fmt: skip
    assert alarm.title == "Calls cannot complete - pilot numbers are unavailable"
    assert alarm.changed_ns == 1413378172000000_000
    assert alarm.detail["information"] == {"PilotNumberPoolSize": "1000"}


def test_a_3gpp_alarm(shared: Path) -> None:
    (alarm,) = read(shared, "ves_stdnDefined_3GPP-FaultSupervision.json").alarms
    assert (alarm.entity, alarm.qualifier) == ("scfx0001vm002cap001", "1")
    assert (alarm.event_type, alarm.probable_cause) == ("communicationsAlarm", "aIS")
    assert alarm.severity == "indeterminate"


def numbers_in(value: Any) -> int:
    if isinstance(value, dict):
        about_itself = ("measurementInterval", "measurementsForVfScalingVersion")
        return sum(numbers_in(v) for key, v in value.items() if key not in about_itself)
    if isinstance(value, list):
        return sum(numbers_in(item) for item in value)
    return isinstance(value, int | float)


@pytest.mark.parametrize("name", ["measurement7x.json", "measurement5x.json"])
def test_every_number_of_a_measurement(shared: Path, name: str) -> None:
    """Each number in the file but those of the header and the block itself is a value, once."""
    out = read(shared, name, keep_suspect=True)
    (block,) = out.measured
    values = {
        (metric, *dimensions.values()): (value, kind.name, unit)
        for _, metric, dimensions, value, kind, unit in block.values
    }
    event = next(event for file, event in documents(shared) if file == name)
    (fields,) = (fields for block, fields in event.items() if block != "commonEventHeader")
    assert len(values) == len(block.values) == numbers_in(fields)
    assert block.interval_seconds == 300.0
    assert values["cpu_percent_usage", "cpu2"] == (0.52, "GAUGE", "%")
    assert values["memory_used", "RAM"] == (353492.0, "GAUGE", "KiBy")
    nic = "ens2   DNS2_RSLOTPORT_VLAN_CLASSTYPE"
    assert values["nic_received_octets", nic] == (548159.0, "DELTA", "By")
    assert values["nic_received_octets_accumulated", nic] == (1215192543.0, "COUNTER", "By")


def test_numbers_that_their_sender_does_not_trust_are_left_out(shared: Path) -> None:
    (block,) = read(shared, "measurement7x.json").measured
    assert block.suspect == 20
    assert {metric.split("_")[0] for _, metric, *_ in block.values} == {"cpu", "memory"}
