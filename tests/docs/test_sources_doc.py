"""docs/sources.md: its examples are valid, and every option stands in it."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from collectors.mapped.mapping import AlarmMapping, LogMapping, MappingFile, SampleMapping
from collectors.sources import SOURCES, SourceSettings

DOC = Path(__file__).parents[2] / "docs/sources.md"
KINDS = ("ves", "netcool", "spectrum", "alertmanager", "tmf642", "mapped", "ingest", "pm-files")


def structs(kind: type) -> set[type]:
    """A settings struct and those of its fields."""
    made = {kind}
    for field in msgspec.structs.fields(kind):
        for part in (field.type, *get_args(field.type)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                made |= structs(part)
    return made


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", DOC.read_text("utf-8"), re.S))
def test_every_example_is_a_configuration(example: str) -> None:
    for table in tomllib.loads(example)["sources"].values():
        settings = msgspec.convert(table, SourceSettings)
        SOURCES.get(settings.kind).read(settings.options)


def test_every_option_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", DOC.read_text("utf-8"), re.M))
    tops: list[Any] = [SOURCES.get(kind).options for kind in KINDS]
    tops += [MappingFile, AlarmMapping, SampleMapping, LogMapping]
    known = {
        f.encode_name for top in tops for part in structs(top) for f in msgspec.structs.fields(part)
    }
    assert documented == known


def test_every_table_row_says_what_it_is_about() -> None:
    empty = re.findall(r"^\| `(\w+)` \|[^|]*\|\s*\|$", DOC.read_text("utf-8"), re.M)
    assert empty == []
