"""Every setting with values that nobody means: it is valid, or refused in a sentence with its place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alerting.sinks import SINKS
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from detectors.registry import DETECTORS
from runtime.described import options_of
from runtime.registry import Registry
from telemetry.errors import ConfigError
from tocsin.cli.config import config as verb
from tocsin.config import Config

ROOT = Path(__file__).parents[2]
TABLES: dict[str, Registry[Any]] = {
    "collectors": COLLECTORS, "sources": SOURCES, "detection.also": DETECTORS, "alerting.sinks": SINKS,
}  # fmt: skip
HEARD = {"collectors.heard": {"kind": "syslog", "listen": "udp://127.0.0.1:5514"}}
# What an entry needs to be right; FOLDER stands for a folder with a file `f` in it.
NEEDS: dict[str, dict[str, Any]] = {
    "collectors": {"listen": "udp://127.0.0.1:2055"},
    "collectors.bmp": {"listen": "tcp://127.0.0.1:11019"},
    "sources": {"options.url": "http://h"},
    "sources.alertmanager": {"options.listen": "http://127.0.0.1:8480"},
    "sources.ves": {"options.listen": "http://127.0.0.1:8480"},
    "sources.ingest": {
        "options.listen": "http://127.0.0.1:8480",
        "options.mappings": {"m": f"{ROOT}/deploy/config/mappings/smod.toml"},
    },
    "sources.mapped": {
        "options.mapping": f"{ROOT}/deploy/config/mappings/smod.toml", "options.rest.url": "http://h",
    },
    "sources.pm-files": {"options.folder": "FOLDER"},
    "sources.snmp-poll": {"options.devices": [{"address": "192.0.2.1"}]},
    "alerting.sinks": {"url": "http://h"},
    "alerting.sinks.file": {"path": "FOLDER/alerts"},
    "alerting.sinks.zmq": {"url": "tcp://127.0.0.1:1"},
    "alerting.sinks.snmp": {"url": "udp://127.0.0.1:162"},
    "alerting.sinks.syslog": {"url": "udp://127.0.0.1:514"},
    "alerting.sinks.mail": {"url": "smtp://h", "options.sender": "a@b.c", "options.to": ["a@b.c"]},
    "alerting.sinks.pagerduty": {"url": "http://h", "token_file": "FOLDER/f"},
    "alerting.sinks.command": {"options.run": ["/bin/true"]},
    "alerting.sinks.diagnostics": {
        "options.commands": ["show version"], "options.login": "x", "options.key_file": "FOLDER/f",
    },
    "detection.also.threshold": {"options.view": "interface", "options.measure": "octets", "options.above": 3.0},
    "detection.also.river": {
        "options.view": "interface", "options.measure": "octets", "options.model": "river.anomaly.HalfSpaceTrees",
    },
}  # fmt: skip
# And of tables that have no kinds.
ENTRIES: dict[str, dict[str, Any]] = {
    "alerting.maintenance": {"start": "02:00", "minutes": 60, "days": ["mon"]},
    "alerting.routes": {"to": []},
    "alerting.runbooks": {"url": "https://wiki"},
    "detection.forecast.limits": {"view": "sample", "above": 3.0},
    "views.own": {"key": ["source_as"], "measures": ["octets"]},
}
ODD: list[Any] = [
    -1, 0, 2**62, 1 << 70, 0.5, True, "", "\0", "x", "FOLDER", "FOLDER/nowhere/f", "/proc/self/mem", "y" * 300,
    [], [""], ["\0"], ["FOLDER"], {}, {"a": "\0"},
]  # fmt: skip


def settings() -> Iterator[tuple[str, str]]:
    """Yield (table and kind or "", dotted key) of everything that can be set."""
    for one in options_of(Config):
        yield "", one.key
    for table, registry in TABLES.items():
        for kind in sorted(registry.ours):
            for one in options_of(registry.get(kind).options):
                yield f"{table}.{kind}", f"{table}.*.options.{one.key}"


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def text_of(part: str, key: str, value: Any) -> str:
    """Return a configuration that is right but for this one value, perhaps."""
    table = next((t for t in (*TABLES, *ENTRIES) if key.startswith(f"{t}.*.")), "")
    needs = dict(ENTRIES.get(table, {}))
    if table in TABLES:
        kind = part.removeprefix(f"{table}.") or {"sources": "alertmanager", "alerting.sinks": "stdout",
                                                  "detection.also": "seasonal"}.get(table, "flow")  # fmt: skip
        needs = {"kind": kind, **(NEEDS.get(f"{table}.{kind}") or NEEDS.get(table, {}))}
    lines = {f"{name}.{inner}": v for name, entry in HEARD.items() for inner, v in entry.items()}
    lines |= {f"{table}.one.{inner}": v for inner, v in needs.items()}
    key = key.replace("*", "one")
    lines = {
        name: v for name, v in lines.items()
        if not f"{name}.".startswith(f"{key}.") and not f"{key}.".startswith(f"{name}.")
    }  # fmt: skip
    lines[key] = value
    return "".join(f"{name} = {toml(v)}\n" for name, v in lines.items())


def checked(file: Path, text: str) -> str:
    """Return what `tocsin config check` refuses, "" where it is right."""
    file.write_text(text.replace("FOLDER", str(file.parent)), "utf-8")
    try:
        verb.commands["check"].callback(file)  # type: ignore[misc]  # click's types
    except ConfigError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "f").write_text("x", "utf-8")
    return folder / "t.toml"


@pytest.mark.parametrize("part", sorted({part for part, _ in settings()}))
def test_an_odd_value_is_valid_or_refused_with_its_place(file: Path, part: str) -> None:
    for number, (_, key) in enumerate(one for one in settings() if one[0] == part):
        for value in ODD if part else ODD[number % 2 :: 2]:  # half of them each: there are 300 keys
            text = text_of(part, key, value)
            said = checked(file, text)
            if not said:
                continue
            parts = key.replace("*", "one").split(".")
            table = ".".join(parts[: parts.index("one") + 1] if "one" in parts else parts[:-1])
            assert table in said, (key, value, said)
            assert re.match(rf"(\d+ mistakes:\s+)?{re.escape(str(file))}(:\d+)?: ", said), (
                key,
                value,
                said,
            )
