"""Templates by exporter, transport port, observation domain and id, compiled to gather plans.

A template says how a record lies in memory. It is compiled once, when it arrives, into rows of a
few arrays that the kernel walks; the kernel finds it by hash. Bounded per exporter: an exporter can
send anything, and its cost must not grow with its imagination.

Source: RFC 7011 sections 3.4 and 8, RFC 3954 section 5.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flow.columns import WIDE, bit, bits
from collectors.flow.elements import (
    DIRECT,
    RAW,
    SLOT,
    SLOT_CLASS,
    SLOT_ROW,
    SLOTS,
    VARIABLE,
    Convert,
    stated_target,
    superseded,
)
from runtime.checkpoint import read_array, write_array

TABLE_SIZE = 1 << 14  # slots of the hash table; a power of two
PLANS_SPARE_MAX = 1024  # plans that no template uses any more; beyond, they are thrown out
FILL_IF_ZERO = 0x80  # flag on a conversion: an earlier field of the record fills the same slot
OPTIONS = -2  # plan value: a set of this id holds options data

StreamKey = tuple[int, int, int, int]  # exporter high, exporter low, port | version << 16, domain


@dataclass(frozen=True, slots=True)
class Field:
    """One field specifier."""

    element: int
    width: int  # bytes, 65535 = variable
    enterprise: int = 0  # 0 = IANA


@dataclass(slots=True)
class Template:
    """One layout of one stream."""

    stream: StreamKey
    template_id: int
    fields: tuple[Field, ...]
    scopes: int  # number of leading scope fields; 0 = data template
    learned_ns: int  # arrival of the newest announcement
    plan: int = -1

    @property
    def fixed_bytes(self) -> int:
        """Length of a record in bytes, -1 where a field is of variable length."""
        widths = [f.width for f in self.fields]
        return -1 if VARIABLE in widths else sum(widths)

    @property
    def least_bytes(self) -> int:
        """The fewest bytes a record can have."""
        return sum(1 if f.width == VARIABLE else f.width for f in self.fields)


_ALWAYS = bits("export_ns", "arrival_ns", "exporter_address", "observation_domain_id")
# Raw slots that become columns.
_BECOMES = {
    "flow_start_ns": (*(n for n in RAW if n.startswith("start_")), "observation"),
    "flow_end_ns": (*(n for n in RAW if n.startswith("end_")), "observation", "duration_ms"),
    "destination_port": ("icmp_type_code", "icmp_type"),
}


def schema_present(slots: int) -> int:
    """Return the `fields_present` mask of records that fill these slots."""
    present = _ALWAYS
    for name in DIRECT:
        if slots >> SLOT[name] & 1:
            present |= bit(name)
    for column, names in _BECOMES.items():
        if any(slots >> SLOT[name] & 1 for name in names):
            present |= bit(column)
    return present


@dataclass(slots=True)
class Plans:
    """Compiled templates, as the kernels read them. Rows are never moved, only replaced."""

    # Of a plan's fields.
    first: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, "i4"))
    count: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, "i4"))
    # -1 = a field is of variable length.
    record_bytes: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, "i4"))
    present: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, "u8"))  # slots
    # Bits of fields_present.
    schema: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, "u8"))
    width: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, "i4"))
    # Width class of the slot.
    kind: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, "u1"))
    # Its row in that matrix.
    row: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, "i4"))
    convert: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, "u1"))
    high: int = 0  # slots that some plan writes: v4 alone leaves the high half of an address
    least: int = 64  # bytes of the smallest record of any plan
    _active_for: int = -1
    _active: tuple[NDArray[np.uint8], NDArray[np.uint8]] = field(
        default_factory=lambda: (np.zeros(0, np.uint8), np.zeros(0, np.uint8))
    )
    known: dict[bytes, int] = field(default_factory=dict)  # layout → row

    def add(self, template: Template) -> int:
        """Compile a template, or find the plan of one with the same layout; return its row."""
        widths, slots, converts = [], [], []
        present = written = 0
        void = superseded({spec.element for spec in template.fields if not spec.enterprise})
        for spec in template.fields:
            slot, how = (-1, Convert.SKIP)
            if spec.enterprise or spec.element not in void:
                slot, how = stated_target(spec.element, spec.width, spec.enterprise)
            flag = 0
            if slot >= 0:
                flag = FILL_IF_ZERO if present >> slot & 1 else 0
                pair = how in _PAIRS
                present |= (3 if pair else 1) << slot
                # The high half of an IPv4 address is left alone where it is a column (all zeros).
                alone = how is Convert.IPV4 and not flag and slot < len(DIRECT)
                written |= (2 if alone else 3 if pair else 1) << slot
            widths.append(spec.width)
            slots.append(slot)
            converts.append(how | flag)
        layout = np.array([widths, slots, converts], np.int32).tobytes()
        row = self.known.setdefault(layout, self.first.size)
        if row < self.first.size:
            return row
        self.high |= written
        self.first = np.append(self.first, np.int32(self.width.size))
        self.count = np.append(self.count, np.int32(len(widths)))
        self.record_bytes = np.append(self.record_bytes, np.int32(template.fixed_bytes))
        self.least = min(self.least, max(template.least_bytes, 1))
        self.present = np.append(self.present, np.uint64(present))
        self.schema = np.append(self.schema, np.uint64(schema_present(present)))
        self.width = np.append(self.width, np.array(widths, np.int32))
        self.kind = np.append(self.kind, np.array([_class(slot) for slot in slots], np.uint8))
        self.row = np.append(self.row, np.array([_row(slot) for slot in slots], np.int32))
        self.convert = np.append(self.convert, np.array(converts, np.uint8))
        return row

    def active(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return uint8[slots] and uint8[rows of `wide`]: 1 where some plan writes it."""
        if self._active_for != self.high:
            slots = np.array([self.high >> slot & 1 for slot in range(len(SLOTS))], np.uint8)
            wide = np.zeros(len(WIDE) + len(RAW), np.uint8)
            for slot in np.flatnonzero(slots).tolist():
                if SLOT_CLASS[slot] == 0:
                    wide[SLOT_ROW[slot]] = 1
            self._active, self._active_for = (slots, wide), self.high
        return self._active


_PAIRS = (Convert.IPV4, Convert.IPV6, Convert.FRAME, Convert.PACKET)


def _class(slot: int) -> int:
    return SLOT_CLASS[slot] if slot >= 0 else 0


def _row(slot: int) -> int:
    return SLOT_ROW[slot] if slot >= 0 else 0


class TemplateStore:
    """All templates of one decoder, and the hash table through which the kernel finds them."""

    def __init__(self, *, per_exporter_max: int, total_max: int = TABLE_SIZE // 2) -> None:
        self._per_exporter_max = per_exporter_max
        self._total_max = min(total_max, TABLE_SIZE // 2)
        self._templates: dict[tuple[StreamKey, int], Template] = {}
        self._per_exporter: dict[tuple[int, int], int] = {}
        self.plans = Plans()
        self.table_key = np.zeros((TABLE_SIZE, 4), np.uint64)
        self.table_plan = np.full(TABLE_SIZE, -1, np.int32)

    def __len__(self) -> int:
        return len(self._templates)

    def get(self, stream: StreamKey, template_id: int) -> Template | None:
        """Return a template, or None."""
        return self._templates.get((stream, template_id))

    def all(self) -> list[Template]:
        """All templates, in the order in which they were first learned."""
        return list(self._templates.values())

    def put(self, template: Template) -> str:
        """Learn a template. Return `new`, `same`, `changed`, or `refused` (the bound is reached)."""
        key = (template.stream, template.template_id)
        known = self._templates.get(key)
        if (
            known is not None
            and known.fields == template.fields
            and known.scopes == template.scopes
        ):
            known.learned_ns = template.learned_ns
            return "same"
        exporter = template.stream[:2]
        if known is None:
            used = self._per_exporter.get(exporter, 0)
            if used >= self._per_exporter_max or len(self._templates) >= self._total_max:
                return "refused"
            self._per_exporter[exporter] = used + 1
        template.plan = OPTIONS if template.scopes else self.plans.add(template)
        self._templates[key] = template
        self._index(key, template.plan)
        return "new" if known is None else "changed"

    def withdraw(self, stream: StreamKey, template_id: int) -> int:
        """Forget one template, or all data (id 2) or options (id 3) templates of a stream."""
        if template_id in (2, 3):
            gone = [
                key
                for key, known in self._templates.items()
                if key[0] == stream and bool(known.scopes) == (template_id == 3)
            ]
        else:
            gone = [(stream, template_id)] if (stream, template_id) in self._templates else []
        self._remove(gone)
        return len(gone)

    def expire(self, before_ns: int) -> int:
        """Forget templates not announced since `before_ns`; return how many."""
        gone = [key for key, known in self._templates.items() if known.learned_ns < before_ns]
        self._remove(gone)
        return len(gone)

    def drop_unused_plans(self) -> None:
        """Throw out plans that no template uses, where there are many; rows change by it.

        An exporter whose layout changes for ever would grow them without bound. Call it between
        blocks only: decoded segments name their plan by row.
        """
        if self.plans.first.size <= len(self._templates) + PLANS_SPARE_MAX:
            return
        self.plans = Plans()
        for known in self._templates.values():
            if not known.scopes:
                known.plan = self.plans.add(known)
        self._reindex()

    def snapshot(self, out: Any) -> None:
        """Write all templates."""
        heads, fields = [], []
        for known in self._templates.values():
            heads.append(
                (
                    *known.stream,
                    known.template_id,
                    known.scopes,
                    len(known.fields),
                    known.learned_ns,
                )
            )
            fields += [(f.element, f.width, f.enterprise) for f in known.fields]
        write_array(out, "templates", np.array(heads, np.uint64).reshape(-1, 8))
        write_array(out, "template_fields", np.array(fields, np.uint32).reshape(-1, 3))

    def restore(self, state: Any) -> None:
        """Take them back, beside what is known."""
        heads, fields = read_array(state, "templates"), read_array(state, "template_fields")
        if heads is None or fields is None:
            return
        at = 0
        for high, low, port, domain, template_id, scopes, count, learned in heads.tolist():
            specs = tuple(Field(*map(int, f)) for f in fields[at : at + count].tolist())
            at += count
            self.put(Template((high, low, port, domain), template_id, specs, scopes, learned))

    def _remove(self, keys: list[tuple[StreamKey, int]]) -> None:
        for key in keys:
            del self._templates[key]
            self._per_exporter[key[0][:2]] -= 1
        if keys:  # linear probing has no cheap removal; this is rare
            self._reindex()

    def _reindex(self) -> None:
        self.table_plan[:] = -1
        for key, known in self._templates.items():
            self._index(key, known.plan)

    def _index(self, key: tuple[StreamKey, int], plan: int) -> None:
        (high, low, port_version, domain), template_id = key
        words = (high, low, port_version, domain << 16 | template_id)
        at = table_slot(*words)
        while self.table_plan[at] != -1 and tuple(self.table_key[at].tolist()) != words:
            at = (at + 1) & (TABLE_SIZE - 1)
        self.table_key[at] = words
        self.table_plan[at] = plan


def table_slot(high: int, low: int, port_version: int, domain_id: int) -> int:
    """Return where probing starts; the kernel's `_slot` computes the same."""
    mask = (1 << 64) - 1
    h = (low * 0x9E3779B97F4A7C15 + high) & mask
    h = (
        (h ^ (h >> 32)) + port_version * 0xC2B2AE3D27D4EB4F + domain_id * 0x165667B19E3779F9
    ) & mask
    h ^= h >> 29
    return (h * 0xBF58476D1CE4E5B9 & mask) >> 50
