"""What flow exporters send, for people: templates, elements without a column, where rates come from.

One `option` row of table `exporter` for each, told when it changed: `tocsin doctor` shows it. No decoding
depends on it.
"""

import json
from typing import Any

from collectors.flow.elements import Convert, stated_target, superseded
from collectors.flow.templates import StreamKey, Template, TemplateStore

EXPORTERS_PER_CALL = 64  # so that the first tick of a large network does not wait for it
EXPORTERS_MAX = 65_536
SHOWN_MAX = 8
RATE_IN_RECORD = frozenset({34, 50, 305, 309, 311})  # RFC 5477, and Cisco's of before
PADDING = 210

Exporter = tuple[int, int]


class ExporterFacts:
    """Collects what changed, and tells it. Not kept over a restart: templates say it again."""

    def __init__(self, templates: TemplateStore) -> None:
        self._templates = templates
        self._changed: dict[Exporter, None] = {}
        self._rates: dict[Exporter, set[int]] = {}
        self._told: dict[Exporter, str] = {}

    def learned(self, stream: StreamKey) -> None:
        """Note that a template of a stream is new."""
        self._changed[stream[:2]] = None

    def sampled(self, stream: StreamKey, rate: int) -> None:
        """Note a rate that options data of a stream state."""
        if len(self._rates) >= EXPORTERS_MAX:
            self._rates.clear()
        known = self._rates.setdefault(stream[:2], set())
        if rate not in known and len(known) < SHOWN_MAX:
            known.add(rate)
            self._changed[stream[:2]] = None

    def rows(self, now_ns: int) -> list[dict[str, Any]]:
        """Return option rows of exporters of which there is news, in the order of their addresses."""
        if not self._changed:
            return []
        chosen = sorted(self._changed)[:EXPORTERS_PER_CALL]
        own: dict[Exporter, list[Template]] = {one: [] for one in chosen}
        for template in self._templates.all():
            if template.stream[:2] in own:
                own[template.stream[:2]].append(template)
        rows = []
        for exporter in chosen:
            del self._changed[exporter]
            text = self._text(exporter, own[exporter])
            if self._told.get(exporter) == text:
                continue
            if len(self._told) >= EXPORTERS_MAX:
                self._told.clear()
            self._told[exporter] = text
            row = {"arrival_ns": now_ns, "table": "exporter", "name": text}
            high, low = exporter
            rows.append({**row, "exporter_address_high": high, "exporter_address_low": low})
        return rows

    def _text(self, exporter: Exporter, templates: list[Template]) -> str:
        data = [template for template in templates if not template.scopes]
        unread = sorted({element for template in data for element in unread_elements(template)})
        stated = {f.element for template in data for f in template.fields if not f.enterprise}
        facts = {
            "templates": len(templates),
            "unread": len(unread),
            "unread_first": [f"{pen}:{element}" for pen, element in unread[:SHOWN_MAX]],
            "rates": sorted(self._rates.get(exporter, ())),
            "rate_in_records": bool(stated & RATE_IN_RECORD),
        }
        return json.dumps(facts)


def unread_elements(template: Template) -> list[tuple[int, int]]:
    """Return (enterprise, element) of the fields of a data template that become no column."""
    void = superseded({f.element for f in template.fields if not f.enterprise})
    found = []
    for one in template.fields:
        if not one.enterprise and (one.element in void or one.element == PADDING):
            continue
        if stated_target(one.element, one.width, one.enterprise)[1] is Convert.SKIP:
            found.append((one.enterprise, one.element))
    return found
