"""Polling profiles: which objects are read, as which series. Data files; data/profiles/*.toml ship."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from collectors.snmp.mapping import ObjectTables
from collectors.snmp.names import Names, load_names
from runtime.settings import Settings
from telemetry.errors import ConfigError
from telemetry.sample_series import SampleKind

COUNTER_BITS = {"counter32": 32, "counter64": 64}
UNITS = {
    "celsius": "Cel", "voltsAC": "V", "voltsDC": "V", "amperes": "A", "watts": "W", "hertz": "Hz",
    "rpm": "{rev}/min", "percentRH": "%", "dBm": "dB[mW]", "cmm": "m3/min",
}  # fmt: skip


class ColumnRule(Settings, frozen=True, kw_only=True):
    """One object as one metric."""

    object: str
    metric: str  # {OBJECT} in it is the text of another column of the row
    instead: str = ""  # read where the device does not have `object`
    unit: str = ""  # UCUM
    kind: Literal["", "gauge", "counter"] = ""  # "" = as the object's type says
    factor: float = 1.0
    times: str = ""  # another column to multiply with
    scale: str = ""  # EntitySensorDataScale
    precision: str = ""  # decimal places
    positive: bool = False  # 0 and below mean that there is no reading
    absent: list[float] = []  # values that mean that there is no reading
    only: dict[str, str] = {}  # column: the text it must have


class TableRule(Settings, frozen=True, kw_only=True):
    """A table: rows are told apart by a name, so that a renumbered row keeps its series."""

    dimension: str
    column: list[ColumnRule]
    label: list[str] = []  # the first that a row has names it; else its index does
    discontinuity: str = ""  # a time that changes when a row's counters began anew
    names: str = ""  # table of option rows for index and name, such as "interface"


class ProfileFile(ObjectTables, frozen=True, kw_only=True):
    """`PROFILE.toml`"""

    title: str
    scalar: list[ColumnRule] = []
    table: list[TableRule] = []
    neighbors: bool = False  # read LLDP's tables


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile under its name."""

    name: str
    file: ProfileFile

    def objects(self) -> list[str]:
        """Return every object it names."""
        found = [name for rule in self.file.scalar for name in objects_of(rule)]
        for table in self.file.table:
            found += [*table.label, *([table.discontinuity] if table.discontinuity else [])]
            found += [name for rule in table.column for name in objects_of(rule)]
        return found


def objects_of(rule: ColumnRule) -> list[str]:
    """Return the objects that a rule reads, its own first."""
    beside = [rule.instead, rule.times, rule.scale, rule.precision, *rule.only]
    inside = [part.split("}")[0] for part in rule.metric.split("{")[1:]]
    return [rule.object, *(name for name in (*beside, *inside) if name)]


def kind_of(rule: ColumnRule, base: str) -> tuple[SampleKind, int]:
    """Return (kind, bits of the counter or 0) of a rule whose object has type `base`."""
    bits = COUNTER_BITS.get(base, 0)
    if rule.kind == "gauge" or (not rule.kind and not bits):
        return SampleKind.GAUGE, 0
    return SampleKind.COUNTER, bits or 32


@lru_cache(1)
def _shipped() -> Mapping[str, ProfileFile]:
    folder = files("collectors.snmp") / "data" / "profiles"
    found = sorted((one.name, one) for one in folder.iterdir() if one.name.endswith(".toml"))
    return {name[:-5]: _read(one.read_text("utf-8"), name) for name, one in found}


def _read(text: str, origin: str) -> ProfileFile:
    try:
        return msgspec.convert(tomllib.loads(text), ProfileFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{origin}: {error}. The source was not started.") from error


def load_profiles(
    paths: Sequence[str] = (), mib_files: Iterable[str] = ()
) -> tuple[dict[str, Profile], Names]:
    """Return (profiles by name, the names they use): those that ship, and files of the same form."""
    read = dict(_shipped())
    for path in paths:
        try:
            read[Path(path).stem] = _read(Path(path).read_text("utf-8"), path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"profile {path}: {error}. The source was not started.") from error
    names = load_names(mib_files, [one for file in read.values() for one in file.objects_named()])
    made = {name: Profile(name, file) for name, file in read.items()}
    for profile in made.values():
        for name in profile.objects():
            if not names.oid(name):
                raise ConfigError(
                    f"profile {profile.name}: no object {name!r} is known; write its OID, add it to "
                    f"[objects], or name a table of names in mib_files. The source was not started."
                )
    return made, names
