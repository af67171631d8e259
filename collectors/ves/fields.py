"""Which fields a VES event must and may have, and the first thing that is wrong with one.

The tables in `data/ves5.txt` and `data/ves7.txt` hold names, types and words of the common event
format: `field!` is required, `@name` is an object of that name, `[x]` a list, `map` an object of
texts, words with `|` the only ones allowed (`_` stands for a space).

Source: ONAP VES Event Listener 5.4.1 and 7.2.1, common event format 28.4.1 and 30.2.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"
SHOWN = 60  # characters of a wrong value that are repeated
# A newer listener version of the same major one only adds fields that need not be there.
LISTENER = re.compile(r"7\.\d{1,2}(\.\d{1,3})?\Z")

ADDRESSES: Mapping[str, type] = {"ipv4": IPv4Address, "ipv6": IPv6Address}

# The block that an event of each domain must carry; an event of another domain is kept as it is.
BLOCKS = {
    "fault": "faultFields",
    "measurement": "measurementFields",
    "measurementsForVfScaling": "measurementsForVfScalingFields",
    "perf3gpp": "perf3gppFields",
    "stateChange": "stateChangeFields",
    "stndDefined": "stndDefinedFields",
    "syslog": "syslogFields",
    "thresholdCrossingAlert": "thresholdCrossingAlertFields",
}


@dataclass(frozen=True, slots=True)
class Fields:
    """One object of the format."""

    types: Mapping[str, str]
    required: tuple[str, ...]


@cache
def fields_of(major: int) -> Mapping[str, Fields]:
    """Return the objects of VES `major`.x by name."""
    made: dict[str, Fields] = {}
    for part in re.split(r"^(?=\S)", (FOLDER / f"ves{major}.txt").read_text("utf-8"), flags=re.M):
        name, *entries = part.split() or [""]
        pairs = [entry.split("=", 1) for entry in entries]
        if name:
            made[name] = Fields(
                {field.rstrip("!"): kind for field, kind in pairs},
                tuple(field[:-1] for field, _ in pairs if field.endswith("!")),
            )
    return made


def fault_of(event: object, major: int) -> str:
    """Return what is wrong with an event as one sentence, "" when nothing is."""
    wrong = _fault(event, "@event", "", major)
    if wrong:
        return wrong
    assert isinstance(event, dict)
    header = event["commonEventHeader"]
    domain = header["domain"]
    block = BLOCKS.get(domain)
    if block and block not in event:
        return f"{block}: missing in an event of domain {domain}"
    if domain == "stndDefined" and not header.get("stndDefinedNamespace"):
        return "commonEventHeader.stndDefinedNamespace: missing in an event of domain stndDefined"
    return ""


def _fault(value: Any, kind: str, place: str, major: int) -> str:
    if kind[0] == "@":
        return _object_fault(value, kind[1:], place, major)
    if kind[0] == "[":
        if not isinstance(value, list):
            return _told(place, value, "a list")
        for i, item in enumerate(value):
            if wrong := _fault(item, kind[1:-1], f"{place}[{i}]", major):
                return wrong
        return ""
    if kind == "map":
        if not isinstance(value, dict):
            return _told(place, value, "an object")
        for name, item in value.items():
            if not isinstance(item, str):
                return _told(f"{place}.{name}", item, "a text")
        return ""
    return _plain_fault(value, kind, place)


def _object_fault(value: Any, name: str, place: str, major: int) -> str:
    if not isinstance(value, dict):
        return _told(place, value, "an object")
    fields = fields_of(major)[name]
    below = f"{place}." if place else ""
    for field in fields.required:
        if field not in value:
            return f"{below}{field}: missing"
    for field, item in value.items():
        kind = fields.types.get(field)
        if kind is None:
            if major >= 7:  # the older format lets senders add fields
                return f"{below}{field}: not a field of {name}"
        elif wrong := _fault(item, kind, below + field, major):
            return wrong
    return ""


def _plain_fault(value: Any, kind: str, place: str) -> str:
    if kind == "any":
        return ""
    if kind == "text":
        return "" if isinstance(value, str) else _told(place, value, "a text")
    if kind in ADDRESSES:
        return "" if _is_address(value, kind) else _told(place, value, f"an {kind} address")
    if kind == "object":
        return "" if isinstance(value, dict) else _told(place, value, "an object")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "number":
        return "" if number else _told(place, value, "a number")
    if kind == "integer":
        whole = number and (isinstance(value, int) or value.is_integer())
        return "" if whole else _told(place, value, "a whole number")
    words = [word.replace("_", " ") for word in kind.split("|")]
    if isinstance(value, str) and (
        value in words or (place.endswith(".vesEventListenerVersion") and LISTENER.match(value))
    ):
        return ""
    return _told(place, value, f"one of {', '.join(words)}")


def _is_address(value: object, kind: str) -> bool:
    try:
        return isinstance(value, str) and bool(ADDRESSES[kind](value))
    except ValueError:
        return False


def _told(place: str, value: object, wanted: str) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
    return f"{place or 'event'}: {shown} is not {wanted}"
