"""Names and texts of SNMP objects: OID to name and index, number to enumeration, octets to text.

The table that ships holds facts of the common MIBs; more come from tables made by `tocsin mibs`.

Source: RFC 2578 section 7.7 (index), RFC 2579 section 3.1 (DISPLAY-HINT), RFC 4001 (InetAddress).
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from telemetry.errors import ConfigError
from telemetry.snmp.ber import VALUE_TEXT_MAX, Plain

SHIPPED = "mibs.tsv"
_NUMBERS = frozenset({"integer", "gauge32", "ticks", "counter32"})
_HINT_PART = re.compile(r"(\*?)(\d*)([dxoat])([^\d*]?)([^\d*]?)")


@dataclass(frozen=True, slots=True)
class Object:
    """One object, table row or notification of a MIB."""

    oid: str
    name: str
    module: str
    kind: str  # column, scalar, row, notification, node
    # Integer, octets, oid, address, counter32, gauge32, ticks, counter64, bits, opaque.
    base: str = ""
    hint: str = ""
    enums: Mapping[int, str] = field(default_factory=dict)
    index: tuple[str, ...] = ()  # of a row; "!" before an IMPLIED one


class Names:
    """The objects of one or more tables, by OID and by name."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.by_oid: dict[str, Object] = {}
        self._by_name: dict[str, Object] = {}
        for one in objects:
            self.by_oid[one.oid] = one
            self._by_name[one.name] = one
            self._by_name[f"{one.module}::{one.name}"] = one
        self._columns = {
            oid: (one, self.row_of(one)) for oid, one in self.by_oid.items() if one.kind == "column"
        }

    def oid(self, name: str) -> str:
        """Return the OID of `name`, `MODULE::name` or an OID; "" where it is not known."""
        if name[:1].isdigit():
            return name
        known = self._by_name.get(name)
        return known.oid if known else ""

    def place(self, oid: str) -> tuple[Object | None, str]:
        """Return (the object whose instance this OID is, its index), or (None, the OID)."""
        head, index = oid, ""
        for _ in range(oid.count(".")):
            known = self.by_oid.get(head)
            if known is not None and known.kind != "node":
                return known, index
            head, _, last = head.rpartition(".")
            index = f"{last}.{index}" if index else last
        return None, oid

    def placed(self, oid: str) -> tuple[Object | None, Object | None, str]:
        """Return (the object whose instance this OID is, its table row, its index).

        Columns of tables with an index of one number are looked up at once: they are most.
        """
        head, _, last = oid.rpartition(".")
        known = self._columns.get(head)
        if known is not None:
            return *known, last
        found, index = self.place(oid)
        return found, self.row_of(found) if found else None, index

    def row_of(self, column: Object) -> Object | None:
        """Return the table row that a column belongs to."""
        known = self.by_oid.get(column.oid.rpartition(".")[0])
        return known if known is not None and known.kind == "row" else None

    def label(self, oid: str) -> str:
        """Return `name.index`, such as `ifOperStatus.3`; the OID where no name is known."""
        known, index = self.place(oid)
        if known is None:
            return oid
        row = self.row_of(known)
        return label_of(known.name, index, self.split_index(row, index) if row and index else {})

    def split_index(self, row: Object, index: str) -> dict[str, str]:
        """Return the index of a row's instance by object, as text; {} where it does not fit.

        >>> names = shipped_names()
        >>> row = names.by_oid[names.oid("cbgpPeer2Entry")]
        >>> names.split_index(row, "1.4.192.0.2.7")
        {'cbgpPeer2Type': 'ipv4', 'cbgpPeer2RemoteAddr': '192.0.2.7'}
        """
        if len(row.index) == 1 and index.isdigit():
            known = self._by_name.get(row.index[0])
            if known is not None and known.base in _NUMBERS:
                return {row.index[0]: _number(known, int(index))}
        left = [int(part) for part in index.split(".")] if index else []
        found: dict[str, str] = {}
        for place, marked in enumerate(row.index):
            name = marked.lstrip("!")
            known = self._by_name.get(name)
            if known is None or not left:
                return {}
            last = place == len(row.index) - 1
            if known.base in _NUMBERS:
                found[name] = _number(known, left.pop(0))
                continue
            if known.base == "address":
                size = 4
            elif known.base not in ("octets", "oid"):
                return {}
            elif marked.startswith("!") or (last and known.hint == "1x:" and len(left) == 6):
                size = len(left)  # IMPLIED, or a MacAddress of fixed size
            else:
                size = left.pop(0)
            if size > len(left):
                return {}
            part, left = left[:size], left[size:]
            if known.base == "oid":
                found[name] = ".".join(map(str, part))
            elif max(part, default=0) > 255:
                return {}
            else:
                found[name] = self.text(known, bytes(part))
        return {} if left else found

    def text(self, known: Object | None, value: Plain) -> str:
        """Return a value for people: enumeration, DISPLAY-HINT, names of OIDs."""
        if value is None:
            return ""
        if isinstance(value, bytes):
            return _octets_text(known, value)[:VALUE_TEXT_MAX]
        if isinstance(value, int):
            if known is None:
                return str(value)
            if known.base == "ticks":
                return _ticks_text(value)
            return _number(known, value)
        if isinstance(value, float):
            return f"{value:g}"
        if known is not None and known.base == "oid":
            return self.label(value)
        return value


def label_of(name: str, index: str, parts: Mapping[str, str]) -> str:
    """Return an instance's name with its index, in parts where it could be taken apart."""
    if not index:
        return name
    return ".".join((name, *parts.values())) if parts else f"{name}.{index}"


def _number(known: Object, value: int) -> str:
    if value in known.enums:
        return known.enums[value]
    if known.hint.startswith("d-") and known.hint[2:].isdigit():
        places = int(known.hint[2:])
        if 0 < places < 20:
            return f"{value / 10**places:.{places}f}"
    return str(value)


def _ticks_text(hundredths: int) -> str:
    seconds, rest = divmod(hundredths, 100)
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    return f"{days}d {hours:02}:{minutes:02}:{seconds:02}.{rest:02}"


def _octets_text(known: Object | None, value: bytes) -> str:
    hint = known.hint if known else ""
    if known is not None and known.base == "address" and len(value) == 4:
        return ".".join(map(str, value))
    if known is not None and known.base == "bits":
        bits = [n for n in range(len(value) * 8) if value[n // 8] & (0x80 >> n % 8)]
        return " ".join(known.enums.get(n, str(n)) for n in bits)
    if hint == "inet":
        return _inet_text(value)
    if hint == "date":
        return date_text(value)
    if hint and hint[-1] not in "at":
        return hint_text(hint, value)
    if hint:
        return _clean(value)
    return _guess(value)


def _inet_text(value: bytes) -> str:
    """RFC 4001: the type stands in another object; the length tells which one it must be."""
    if len(value) in (4, 16):
        return str(ipaddress.ip_address(value))
    if len(value) in (8, 20):
        zone = int.from_bytes(value[-4:], "big")
        return f"{ipaddress.ip_address(value[:-4])}%{zone}"
    return _clean(value)


def date_text(value: bytes) -> str:
    """Return a DateAndTime in RFC 3339; its hex where it is none.

    >>> date_text(bytes.fromhex("07e6 06 0f 0c 1e 2d 05 2b 02 00"))
    '2022-06-15T12:30:45.5+02:00'
    """
    if len(value) not in (8, 11) or value[2] > 12 or value[3] > 31 or value[4] > 23:
        return value.hex(":")
    year = int.from_bytes(value[:2], "big")
    month, day, hour, minute, second, tenth = value[2:8]
    made = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{tenth}"
    if len(value) == 11:
        sign = "-" if value[8:9] == b"-" else "+"
        made += f"{sign}{value[9]:02}:{value[10]:02}"
    return made


def hint_text(hint: str, value: bytes) -> str:
    """Return octets by a DISPLAY-HINT; the last part of the hint repeats.

    >>> hint_text("1x:", bytes.fromhex("001b21a0ff01"))
    '00:1b:21:a0:ff:01'
    >>> hint_text("1d.1d.1d.1d", bytes([192, 0, 2, 1]))
    '192.0.2.1'
    """
    parts = _HINT_PART.findall(hint)
    if not parts:
        return _guess(value)
    made: list[str] = []
    at = place = 0
    while at < len(value) and len(made) < VALUE_TEXT_MAX:
        star, width, form, separator, terminator = parts[min(place, len(parts) - 1)]
        place += 1
        repeat = 1
        if star:
            repeat, at = value[at], at + 1
        size = int(width or 1) or 1
        for turn in range(repeat):
            piece = value[at : at + size]
            at += size
            if not piece:
                break
            made.append(_hint_piece(form, piece))
            more = at < len(value)
            if star and terminator and turn == repeat - 1:
                made.append(terminator)
            elif separator and more:
                made.append(separator)
    return "".join(made)


def _hint_piece(form: str, piece: bytes) -> str:
    if form == "x":
        return piece.hex()
    if form in "at":
        return piece.decode("utf-8" if form == "t" else "ascii", "replace")
    number = int.from_bytes(piece, "big")
    return f"{number:o}" if form == "o" else str(number)


def _clean(value: bytes) -> str:
    """Text as sent: UTF-8, else Latin-1; control characters become spaces, padding goes."""
    try:
        text = value.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        text = value.rstrip(b"\0").decode("latin-1")
    return "".join(ch if ch.isprintable() else " " for ch in text).strip()


def _guess(value: bytes) -> str:
    """Octets of which nothing is known: text where every one is printable, else hex."""
    bare = value.rstrip(b"\0")
    if all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in bare):
        return _clean(bare)
    try:
        text = bare.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex(":")
    return text if len(bare) > 3 and text.isprintable() else value.hex(":")


# ---- tables


def read_table(lines: Iterable[str], origin: str) -> Iterable[Object]:
    """Yield the objects of a table; raises ConfigError with the line that is none."""
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.rstrip("\n").split("\t")
        cells += [""] * (8 - len(cells))
        oid, name, module, kind, base, hint, enums, index = cells[:8]
        try:
            numbers = {int(n): word for word, _, n in (e.rpartition("=") for e in enums.split())}
            if not name or not all(part.isdigit() for part in oid.split(".")):
                raise ValueError(oid)
        except ValueError as error:
            raise ConfigError(
                f"{origin}:{number}: not a line of a table of names ({error}); make it with "
                f"`tocsin mibs`. The node was not started."
            ) from error
        yield Object(oid, name, module, kind, base, hint, numbers, tuple(index.split()))


@lru_cache(1)
def _shipped() -> tuple[Object, ...]:
    text = (files("collectors.snmp") / "data" / SHIPPED).read_text("utf-8")
    return tuple(read_table(text.splitlines(), SHIPPED))


@lru_cache(1)
def shipped_names() -> Names:
    """Return the names that ship."""
    return Names(_shipped())


def load_names(paths: Iterable[str], extra: Iterable[Object] = ()) -> Names:
    """Return the names that ship with those of more tables; raises ConfigError."""
    more: list[Object] = list(extra)
    for path in paths:
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"mib_files: {path}: {error}. The node was not started.") from error
        more.extend(read_table(text.splitlines(), path))
    return Names((*_shipped(), *more)) if more else shipped_names()
