"""MIB modules as text files become one table of names that `names.py` reads. Set-up time only.

The parsing is pysmi's (extra `mibs`); what is kept of a module are its facts: OIDs, names, types,
DISPLAY-HINTs, enumerations, indexes. Descriptions are left out.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from telemetry.errors import ConfigError

_BASE = {
    "INTEGER": "integer", "Integer32": "integer", "OCTET STRING": "octets", "BITS": "bits",
    "Bits": "bits", "OBJECT IDENTIFIER": "oid", "ObjectIdentifier": "oid", "IpAddress": "address",
    "NetworkAddress": "address", "Counter": "counter32", "Counter32": "counter32",
    "Gauge": "gauge32", "Gauge32": "gauge32", "Unsigned32": "gauge32", "TimeTicks": "ticks",
    "Counter64": "counter64", "Opaque": "opaque",
}  # fmt: skip
_OWN_HINT = {"InetAddress": "inet", "DateAndTime": "date", "TAddress": "1x:"}
_NODES = {"column": "column", "scalar": "scalar", "row": "row"}
SUFFIXES = ("", ".txt", ".my", ".mib", ".smi")


def compile_folders(folders: Iterable[Path]) -> tuple[list[str], dict[str, str]]:
    """Return (lines of the table, module: what is wrong with it) of all MIB modules in folders.

    Raises ConfigError where pysmi is not installed.
    """
    try:
        from pysmi.codegen import JsonCodeGen
        from pysmi.compiler import MibCompiler
        from pysmi.parser import SmiV1CompatParser
        from pysmi.reader import FileReader
        from pysmi.writer import CallbackWriter
    except ImportError as error:
        raise ConfigError(
            "reading MIB modules needs pysmi: pip install 'tocsin[mibs]'. Nothing was written."
        ) from error
    modules: dict[str, dict[str, Any]] = {}
    writer = CallbackWriter(lambda name, data, _: modules.__setitem__(name, json.loads(data)))
    compiler = MibCompiler(SmiV1CompatParser(), JsonCodeGen(), writer)
    wanted: list[str] = []
    for folder in folders:
        compiler.add_sources(FileReader(str(folder)))
        wanted += sorted(
            path.stem if path.suffix.lower() in SUFFIXES else path.name
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".")
        )
    results = compiler.compile(*wanted, rebuild=True, ignoreErrors=True)
    wrong = {
        str(name): str(getattr(state, "error", "") or state)
        for name, state in results.items()
        if state not in ("compiled", "untouched", "borrowed")
    }
    return table_lines(modules), wrong


def table_lines(modules: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table's lines, sorted by OID, of modules as pysmi's JSON has them.

    OID, name, module, class (column, scalar, row, notification, node), type, hint, enumeration
    (`up=1 down=2`), index (names; `!` before an IMPLIED one), with tabs between them.
    """
    types = {
        name: entry["type"]
        | {"displayhint": entry.get("displayhint", ""), "convention": name}
        for module in modules.values()
        for name, entry in module.items()
        if isinstance(entry, dict) and entry.get("class") in ("textualconvention", "type")
        and isinstance(entry.get("type"), dict)
    }  # fmt: skip
    rows: dict[tuple[int, ...], str] = {}
    for module, entries in modules.items():
        for name, entry in entries.items():
            if not isinstance(entry, dict) or "oid" not in entry:
                continue
            kind = _NODES.get(entry.get("nodetype", ""), "")
            if entry["class"] == "notificationtype":
                kind = "notification"
            elif entry["class"] in ("objectidentity", "moduleidentity"):
                kind = "node"
            if not kind:
                continue
            base, hint, enums = _syntax(entry.get("syntax", {}), types)
            base_row = entry
            if augments := entry.get("augmention"):
                base_row = modules.get(augments["module"], {}).get(augments["object"], {})
            index = " ".join(
                ("!" if int(one.get("implied", 0)) else "") + one["object"]
                for one in base_row.get("indices", ())
            )
            key = tuple(map(int, entry["oid"].split(".")))
            line = "\t".join((entry["oid"], name, module, kind, base, hint, enums, index))
            if key not in rows or kind != "node":
                rows[key] = line.rstrip("\t")
    return [rows[key] for key in sorted(rows)]


def _syntax(syntax: Mapping[str, Any], types: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return (base type, hint, enumeration), through textual conventions."""
    hint, enums = "", ""
    for _ in range(8):
        name = syntax.get("type", "")
        constraints = syntax.get("constraints", {})
        numbers = constraints.get("enumeration") or syntax.get("bits")
        if numbers and not enums:
            pairs = sorted(numbers.items(), key=lambda pair: pair[1])
            enums = " ".join(f"{word}={number}" for word, number in pairs)
        hint = hint or _OWN_HINT.get(name, "") or syntax.get("displayhint", "")
        if name in _BASE:
            return _BASE[name], hint, enums
        if name not in types:
            return "", hint, enums
        syntax = types[name]
    return "", hint, enums
