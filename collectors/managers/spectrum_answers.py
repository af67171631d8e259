"""Answers of OneClick as alarms: XML, and JSON in the dialects of old and new servers. Pure.

Source: Broadcom DX NetOps Spectrum "Using Alarm Resources"; shapes and attribute ids as public
clients have captured them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collectors.foreign_text import clean, integer, json_of, xml_of, xml_tree

ALARM_ID, SEVERITY, CREATED, TITLE = "0x11f9c", "0x11f56", "0x11f4e", "0x12b4c"
MODEL_NAME, MODEL_HANDLE, ALARMED_HANDLE, MODEL_TYPE = "0x1006e", "0x11f53", "0x129fa", "0x10000"
ADDRESS, CAUSE, EVENT_TEXT, ACKNOWLEDGED = "0x12d7f", "0x11f50", "0x1296e", "0x11f4d"
STATUS, ASSIGNEE, TICKET, OCCURRENCES = "0x11f4f", "0x11f57", "0x12022", "0x11fc5"
PRIMARY, SYMPTOMS, CAUSES = "0x11f54", "0x12a06", "0x12a07"
LANDSCAPE, TOPOLOGY, COLLECTIONS = "0x11d42", "0x129e7", "0x12adb"


@dataclass(frozen=True, slots=True)
class Found:
    """One alarm as OneClick shows it: its id there, and its attributes by hexadecimal id."""

    alarm_id: str
    attributes: Mapping[str, str]

    def text(self, attribute: str) -> str:
        """Return an attribute, "" where it is empty or was not asked for."""
        return self.attributes.get(attribute, "")

    @property
    def base(self) -> tuple[str, str]:
        """Model and probable cause: what stays of an alarm when its id changes."""
        handle = self.text(ALARMED_HANDLE) or self.text(MODEL_HANDLE)
        return f"{integer(handle):#x}", f"{integer(self.text(CAUSE)):#x}"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: alarms, how many there are in all, and where the next page is."""

    alarms: list[Found]
    total: int
    following: str


def page_of(body: bytes) -> Page:
    """Return the alarms of an answer in either format and dialect, or raise ValueError."""
    tree = tree_of(body)
    found = tree.get("alarm-response-list")
    if not isinstance(found, dict):
        raise ValueError("it has no alarm-response-list")  # noqa: TRY004  # the value is a peer's
    link = found.get("link")
    links = link if isinstance(link, list) else [link]
    following = next((clean(entry.get("@href"), 2000) for entry in links
                      if isinstance(entry, dict) and entry.get("@rel") == "next"), "")  # fmt: skip
    if found.get("@error") == "EndOfResults":
        following = ""
    return Page(_alarms_in(found), integer(found.get("@total-alarms")), following)


def notified(body: bytes) -> list[Found]:
    """Return the alarms of a subscription's answer, wherever they stand in it, or raise ValueError."""
    return _alarms_in(tree_of(body))


def subscription_of(body: bytes) -> str:
    """Return the id of a new subscription, "" where the answer has none."""
    try:
        found = tree_of(body).get("subscription-response")
    except ValueError:
        return ""
    return clean(found.get("subscription-id"), 200) if isinstance(found, dict) else ""


def tree_of(body: bytes) -> dict[str, Any]:
    """Return an answer as one shape whatever its format: names without prefix, attributes as @name.

    XML has names in a namespace, old servers write JSON names as `ns1.name`; a list of one is the
    thing itself in JSON. Raises ValueError.
    """
    if body.lstrip()[:1] == b"<":
        root = xml_of(body)
        return {root.tag: xml_tree(root)}
    made = _bare(json_of(body))
    if not isinstance(made, dict):
        raise ValueError("it is no object")  # noqa: TRY004  # the value is a peer's
    return made


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {_name(key): _bare(item) for key, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _name(key: str) -> str:
    prefix, dot, rest = key.partition(".")
    return rest if dot and prefix.startswith("ns") and prefix[2:].isdigit() else key


def _alarms_in(value: Any) -> list[Found]:
    """Return every object called `alarm` below a value, in order."""
    made: list[Found] = []
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, list):
            waiting.extend(reversed(here))
        elif isinstance(here, dict):
            entries = here.get("alarm", [])
            for entry in entries if isinstance(entries, list) else [entries]:
                if isinstance(entry, dict) and (alarm := _found(entry)):
                    made.append(alarm)
            waiting.extend(item for key, item in reversed(here.items()) if key != "alarm")
    return made


def _found(entry: Mapping[str, Any]) -> Found | None:
    listed = entry.get("attribute", [])
    attributes = {
        clean(item.get("@id"), 40).lower(): clean(item.get("$", ""))
        for item in (listed if isinstance(listed, list) else [listed])
        if isinstance(item, dict)
    }
    alarm_id = clean(entry.get("@id"), 200) or attributes.get(ALARM_ID, "")
    return Found(alarm_id, attributes) if alarm_id else None
