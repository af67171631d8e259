"""One notification for people: of which device and resource it is news, by rules; else a log line."""

import ipaddress
from collections import OrderedDict
from functools import lru_cache
from typing import Any

from collectors.snmp.mapping import Meaning, fill_title, load_mapping
from collectors.snmp.runs import News
from collectors.snmp.secure import Opened
from collectors.snmp.trap_options import TrapOptions
from telemetry.identity import stable_id
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import (
    VERSIONS,
    Notification,
    Pdu,
    notification_of,
    read_envelope,
    read_pdu,
)  # fmt: skip
from telemetry.x733 import CLEARED

REFUSED = News("", "", {}, ("", ""))  # a community that is not believed
_UNMAPPED_FACILITY, _UNMAPPED_SEVERITY = 3, 5  # daemon, notice


class TrapReader:
    """Turns notifications into news. Keeps the names under which resources are in alarm."""

    def __init__(self, options: TrapOptions) -> None:
        self._options = options
        self._mapping = load_mapping(options.mappings, options.mib_files)
        self.selectors = self._mapping.selectors()
        self._communities = frozenset(text.encode() for text in options.communities)
        self._labels: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self.changes = 0  # of names in use

    def read(self, data: bytes, sender: str, inner: tuple[bytes, Opened] | None) -> News:
        """Return what a notification says, or REFUSED; `inner` is the PDU of a v3 one."""
        detail: dict[str, Any] = {}
        if inner is not None:
            pdu = read_pdu(inner[0], 0, len(inner[0]))
            detail["version"], detail["user"] = "v3", inner[1].user.name
        else:
            envelope = read_envelope(data)
            if self._communities and envelope.community not in self._communities:
                return REFUSED
            pdu = read_pdu(data, envelope.start, envelope.stop)
            detail["version"] = VERSIONS[envelope.version]
        return self._news(pdu, sender, detail)

    def _news(self, pdu: Pdu, sender: str, detail: dict[str, Any]) -> News:
        notification = notification_of(pdu)
        stated = self._options.device == "stated" and _is_of(notification.address, sender)
        address = notification.address if stated else sender
        device = self._options.names.get(address, address)
        trap = self._mapping.name(notification.trap_oid)
        detail |= {"trap": trap, "trap_oid": notification.trap_oid, "sender": sender}
        if notification.uptime >= 0:
            detail["uptime_seconds"] = notification.uptime / 100
        if notification.enterprise:
            detail["enterprise"] = notification.enterprise
        if pdu.tag == Tag.INFORM:
            detail["inform"] = True
        said = self._mapping.read(notification, variables_max=self._options.variables_max)
        detail["variables"] = said.variables
        meaning = self._mapping.meaning(notification, said)
        if meaning is None and self._options.unmapped == "log":
            return self._unmapped(device, trap, notification, detail)
        if meaning is None:
            title = f"{trap} of {device}"
            meaning = Meaning(
                trap, "indeterminate", (), "", "", title, "other", "other", 0.0, said.fields
            )
        return self._alarm(device, trap, meaning, detail)

    def _unmapped(
        self, device: str, trap: str, notification: Notification, detail: dict[str, Any]
    ) -> News:
        row = {
            "host": device,
            "facility": _UNMAPPED_FACILITY,
            "severity": _UNMAPPED_SEVERITY,
            "app": "snmp-trap",
            "pattern_id": stable_id(f"snmp-trap|{notification.trap_oid}"),
            "message": _text(trap, detail),
            "event": "snmp-trap",
            "message_id": trap,
            "detail": detail,
        }
        identity = f"log|{device}|{notification.trap_oid}"
        return News(identity, "", row, (device, trap))

    def _alarm(self, device: str, trap: str, meaning: Meaning, detail: dict[str, Any]) -> News:
        resource = self._label(device, meaning)
        entity = f"{device}:{resource}" if resource else device
        row = {
            "kind": meaning.kind,
            "entity": entity,
            "title": fill_title(meaning.title, meaning.fields, resource=resource, device=device),
            "event_type": meaning.event_type,
            "probable_cause": meaning.cause,
            "text": _text(trap, detail),
            "foreign_id": detail["trap_oid"],
            "detail": detail,
        }
        return News(
            f"{meaning.kind}|{entity}",
            meaning.severity,
            row,
            (device, trap),
            meaning.clear_after_seconds,
        )

    def _label(self, device: str, meaning: Meaning) -> str:
        """Return what a resource is called, the same for the clear as it was for the raise.

        Of linkDown and linkUp one may carry ifName and the other not: while an alarm is up, its
        resource keeps the name it was raised under.
        """
        if not meaning.key:
            return meaning.label
        key = "|".join((device, meaning.kind, *meaning.key))
        known, is_open = self._labels.get(key, ("", False))
        label = known if known and (is_open or not meaning.label) else meaning.label
        label = label or meaning.fallback
        now = (label, meaning.severity != CLEARED)
        self.changes += now != (known, is_open)
        self._labels[key] = now
        self._labels.move_to_end(key)
        return label

    def trim(self) -> int:
        """Forget the names used longest ago that are beyond the bound; return how many."""
        beyond = max(len(self._labels) - self._options.resources_max, 0)
        for _ in range(beyond):
            self._labels.popitem(last=False)
        return beyond

    def labels(self) -> list[tuple[str, str, bool]]:
        """Return the names in use, as `put_labels` takes them."""
        return [(key, label, is_open) for key, (label, is_open) in self._labels.items()]

    def put_labels(self, rows: list[tuple[str, str, bool]]) -> None:
        """Take them back."""
        self._labels.update({key: (label, is_open) for key, label, is_open in rows})


def _text(trap: str, detail: dict[str, Any]) -> str:
    said = ", ".join(f"{name}={text}" for name, text in detail["variables"].items())
    return f"{trap}: {said}" if said else trap


@lru_cache(65_536)
def _is_of(stated: str, sender: str) -> bool:
    """Whether an agent address means a device to others than the sender itself.

    Agents that do not know better state 0.0.0.0 or a loopback address in v1 traps, which is every
    machine's: it counts only where the sender has one too, as on one machine with its forwarder.
    """
    if not stated:
        return False
    address = ipaddress.ip_address(stated)
    if address.is_unspecified or address.is_multicast:
        return False
    return not address.is_loopback or ipaddress.ip_address(sender).is_loopback
