"""Options data: the tables that exporters send about themselves, read record by record (they are rare).

Recognised tables: interface (element 10 or scope interface → name 82), vrf (234 → 236), application
(95 → 96), sampler (48 or 302 → 34, 50, 305 with 306, 49 aside), and systemInitTimeMilliseconds
(160). v9 scope types are 1 system, 2 interface, 3 line card, 4 cache, 5 template (RFC 3954 6.1).
"""

import struct
from typing import Any

from collectors.flow.elements import VARIABLE
from collectors.flow.reference import NAME_BYTES_MAX, ReferenceTables
from collectors.flow.sampling import SamplingRates, rate_of
from collectors.flow.templates import Template
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import OPTION

RECORDS_PER_SET_MAX = 20_000
BOOT_MS_MAX = 4_000_000_000_000  # ms since 1970; in the year 2096
V9_SCOPE_INTERFACE = 2

_NAMES = {"interface": (10, (82, 83)), "vrf": (234, (236,)), "application": (95, (96, 94))}


class OptionReader:
    """Reads options data sets into `option` rows and sampling rates."""

    def __init__(self, sampling: SamplingRates, reference: ReferenceTables) -> None:
        self._sampling = sampling
        self._reference = reference
        self.boot_ms = 0  # of the last set read, 0 = it said nothing

    def read(
        self, template: Template, data: bytes, arrival_ns: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return (records in the set, rows for the option schema)."""
        self.boot_ms = 0
        rows: list[dict[str, Any]] = []
        records = 0
        for values in read_records(template, data):
            records += 1
            rows += self._rows(template, values, arrival_ns)
        return records, rows

    def batch(self, rows: list[dict[str, Any]]) -> Batch:
        """Return the batch of rows that `read` gave."""
        return batch_from_rows(OPTION, rows, source="options", arrival_ns=rows[-1]["arrival_ns"])

    def _rows(
        self, template: Template, values: dict[tuple[int, int], bytes], arrival_ns: int
    ) -> list[dict[str, Any]]:
        high, low, _, domain = template.stream
        base = {
            "arrival_ns": arrival_ns,
            "exporter_address_high": high,
            "exporter_address_low": low,
            "observation_domain_id": domain,
        }
        found = []
        for table, (key_element, name_elements) in _NAMES.items():
            key = values.get((0, key_element))
            name = next((values[0, e] for e in name_elements if (0, e) in values), None)
            if key is not None and name is not None:
                text = name[:NAME_BYTES_MAX].rstrip(b"\0").decode("utf-8", "replace")
                number = _number(key)
                self._reference.learn(high, low, table, number, text, arrival_ns)
                found.append({**base, "table": table, "key": number, "name": text})
        boot = _number(values.get((0, 160), b""))
        if 0 < boot <= BOOT_MS_MAX:
            self.boot_ms = boot
        rate = rate_of(
            interval=_number(values.get((0, 34), b"")) or _number(values.get((0, 50), b"")),
            packet_interval=_number(values.get((0, 305), b"")),
            packet_space=_number(values.get((0, 306), b"")),
            size=_number(values.get((0, 309), b"")),
            population=_number(values.get((0, 310), b"")),
            probability=_float(values.get((0, 311), b"")),
        )
        if rate:
            sampler = values.get((0, 48)) or values.get((0, 302))
            number = _number(sampler) if sampler is not None else -1
            self._sampling.learn(high, low, domain, number, rate)
            found.append({**base, "table": "sampler", "key": max(number, 0), "value": rate})
        return found


def read_records(template: Template, data: bytes) -> list[dict[tuple[int, int], bytes]]:
    """Return each record of a set body as {(enterprise, element): bytes}; the first of a kind wins.

    The plain, slow way, for options data and for people (`decode --explain`); the kernel's oracle
    in tests. v9 scope fields are named by the element they stand for where there is one.
    """
    records: list[dict[tuple[int, int], bytes]] = []
    at = 0
    version9 = template.stream[2] >> 16 == 9
    while at + max(template.least_bytes, 1) <= len(data) and len(records) < RECORDS_PER_SET_MAX:
        values: dict[tuple[int, int], bytes] = {}
        begin = at
        for index, spec in enumerate(template.fields):
            width = spec.width
            if width == VARIABLE:
                if at + 1 > len(data):
                    return records
                width = data[at]
                at += 1
                if width == 255:
                    width = int.from_bytes(data[at : at + 2], "big")
                    at += 2
            if at + width > len(data):
                return records
            key = (spec.enterprise, spec.element)
            if version9 and index < template.scopes:
                key = (0, 10) if spec.element == V9_SCOPE_INTERFACE else (-1, spec.element)
            values.setdefault(key, data[at : at + width])
            at += width
        if at == begin:
            return records
        records.append(values)
    return records


def _float(data: bytes) -> float:
    """Return an IEEE float of 4 or 8 bytes (RFC 7011 section 6.2 lets a float64 be reduced)."""
    if len(data) not in (4, 8):
        return 0.0
    value: float = struct.unpack("!d" if len(data) == 8 else "!f", data)[0]
    return value


def _number(data: bytes) -> int:
    return int.from_bytes(data[:8], "big") if len(data) <= 8 else 0
